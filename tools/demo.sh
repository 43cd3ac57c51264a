#!/usr/bin/env bash
# From a fresh clone to a report on a group photograph: sets up, builds, gets weights, finds and embeds faces.
set -euo pipefail
unset CDPATH   # with it cd may go elsewhere

readonly program=demo   # steps.sh puts it in front of messages
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/steps.sh
source "$tools/steps.sh"
readonly WEIGHTS=weights/facenet.safetensors
readonly DOWNLOAD_LIMIT_S=180   # the checkpoint has 112 MB; without a network it gives up far sooner
readonly TIMING_S=2
readonly GROUP=../shared/photos/group.jpg   # where the project is developed
readonly REPORT=report.html
readonly LETTERS=({A..Z})   # the report's names of the first faces

usage() {
  cat <<'TEXT'
Usage: tools/demo.sh [IMAGE...]

Sets up what is missing (tools/bootstrap.sh), builds the `facenet` command, gets weights when there are none, finds the
faces in the pictures, embeds them, prints the distance of each to each, compares the first two faces, enrolls every second
face and identifies the others, and groups the faces by person. report.html shows the same: the pictures with boxes,
the face crops, the distances as a heat map, the verdict, who was identified, the groups, the time a face takes, and whether
the weights are trained.

Without pictures it takes a group photograph, else those in .deps/samples. Weights: weights/facenet.safetensors; when that
is not there, the public VGGFace2 checkpoint is downloaded and converted; where it cannot be, dlib's face ResNet is used,
which bootstrap.sh gets with npm; where that is not there either, an untrained checkpoint is made, whose distances mean
nothing. Delete the file to try again: a download goes on where it was stopped, or where its three minutes ended.

Options:
  --help   this text

Exit status: 0 done, 1 no picture has a face, 2 something failed.

Examples:
  tools/demo.sh
  tools/demo.sh friends.jpg
  tools/demo.sh portrait1.jpg portrait2.jpg
TEXT
}

# The best weights that can be had: FaceNet's, else dlib's, else untrained ones. Says which and why.
get_weights() {
  if [[ -f $WEIGHTS ]]; then
    echo "demo: weights: $WEIGHTS is there" >&2
    return 0
  fi
  local status=0
  echo "demo: download and convert VGGFace2 weights, 112 MB (Ctrl-C stops; what has come is kept)" >&2
  # Not in `attempt`, which hides the progress. No `timeout`: it keeps Ctrl-C from what it runs.
  tools/convert_weights.py --pretrained vggface2 --download-limit "$DOWNLOAD_LIMIT_S" -o "$WEIGHTS" </dev/null >&2 || status=$?
  ((status < 128)) || exit "$status"   # stopped by somebody, who does not want other weights instead
  if ((status == 0)); then
    echo "demo: weights: FaceNet, trained on VGGFace2" >&2
    return 0
  fi
  if [[ -d .deps/face-api ]] &&
    attempt "convert dlib's face ResNet" tools/convert_weights.py --face-api .deps/face-api -o "$WEIGHTS"; then
    echo "demo: weights: dlib's face ResNet (trained, 128-d), because FaceNet's cannot be downloaded here" >&2
    return 0
  fi
  echo "demo: trained weights cannot be had here, so UNTRAINED ones are made: their distances mean nothing." >&2
  step "make untrained weights" "run tools/bootstrap.sh and try again" tools/make_checkpoint.py -o "$WEIGHTS"
}

# What the command makes of the faces: verify, identify and cluster, each with its JSON in $work. Status 1 is an answer too.
recognise() {
  local crops=() others=() i options=(--json --aligned --weights "$WEIGHTS")
  mapfile -d '' crops < <(.venv/bin/python - "$work/faces.jsonl" <<'PYTHON'
import json, sys

for line in open(sys.argv[1], encoding="utf-8"):
    for face in json.loads(line).get("faces", []):  # a picture that failed has none
        print(face["crop"], end="\0")
PYTHON
  )
  ((${#crops[@]} > 1)) || return 0
  echo "demo: facenet verify, enroll, identify and cluster, ${#crops[@]} faces" >&2
  answered verify "$facenet" verify "${options[@]}" -- "${crops[0]}" "${crops[1]}"
  for i in "${!crops[@]}"; do
    if ((i % 2 == 0 && i < ${#LETTERS[@]})); then
      answered enroll "$facenet" enroll "${options[@]}" -- "$work/gallery" "face ${LETTERS[i]}" "${crops[i]}"
    else
      others+=("${crops[i]}")
    fi
  done
  answered identify "$facenet" identify "${options[@]}" -- "$work/gallery" "${others[@]}"
  answered cluster "$facenet" cluster "${options[@]}" --cache none -- "$work/crops"
}

# answered NAME COMMAND... : its lines in $work/NAME.jsonl; ends the script with status 2 or more. What it warns of, embed has said.
answered() {
  local name=$1 status=0
  shift
  "$@" >"$work/$name.jsonl" 2>"$work/$name.log" || status=$?
  ((status < 2)) && return 0
  cat "$work/$name.log" >&2
  die "$name failed; the message above says why."
}

default_pictures() {
  if [[ -f $GROUP ]]; then pictures=("$GROUP"); else pictures=(.deps/samples/*.png .deps/samples/*.jpg); fi
  local picture
  for picture in "${!pictures[@]}"; do [[ -f ${pictures[picture]} ]] || unset "pictures[$picture]"; done
  ((${#pictures[@]})) || die "there are no pictures in .deps/samples; give some: tools/demo.sh IMAGE..."
}

main() {
  local pictures=() began=$EPOCHREALTIME status=0 detect_began threshold
  while (($#)); do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --) shift; break ;;
      -*) die "unknown option '$1'; see tools/demo.sh --help." ;;
      *) pictures+=("$(realpath -m -- "$1")") ;;
    esac
    shift
  done
  while (($#)); do pictures+=("$(realpath -m -- "$1")"); shift; done
  cd "$tools/.."

  tools/bootstrap.sh || exit 2
  step "build the command (build/release)" "the messages above name the cause" build release facenet_command
  get_weights
  ((${#pictures[@]})) || default_pictures

  work=$(mktemp -d build/demo.XXXXXX)
  trap 'rm -rf "$work"' EXIT   # work is not local: the trap runs after main
  local facenet=build/release/facenet
  echo "demo: facenet detect --json --crops DIR, ${#pictures[@]} picture(s)" >&2
  detect_began=$EPOCHREALTIME
  "$facenet" detect --json --weights "$WEIGHTS" --crops "$work/crops" -- "${pictures[@]}" >"$work/faces.jsonl" || status=$?
  local detect_s
  detect_s=$(seconds_since "$detect_began")
  if ((status == 1)); then echo "demo: no face was found; give other pictures: tools/demo.sh IMAGE..." >&2; exit 1; fi
  compgen -G "$work/crops/*.png" >/dev/null || die "no face could be cut out; the messages above say why."
  echo "demo: facenet embed --json --aligned DIR/*.png" >&2
  "$facenet" embed --json --aligned --weights "$WEIGHTS" --out "$work/embeddings.jsonl" -- "$work"/crops/*.png ||
    die "the faces could not be embedded; the messages above say why."
  recognise
  echo "demo: facenet bench --seconds $TIMING_S" >&2
  "$facenet" bench --json --weights "$WEIGHTS" --seconds "$TIMING_S" >"$work/bench.json" ||
    die "the timing failed; the message above says why."
  echo
  threshold=$("$facenet" info --json "$WEIGHTS" 2>/dev/null | sed -n 's/.*"threshold":\([0-9.]*\).*/\1/p')
  tools/make_report.py --threshold "$threshold" --faces "$work/faces.jsonl" --embeddings "$work/embeddings.jsonl" --bench "$work/bench.json" \
    --recognition "$work" --detect-seconds "$detect_s" -o "$REPORT" || exit 2
  printf '\nreport: %s\n' "$PWD/$REPORT"
  printf '\ndemo: done in %.1f s\n' "$(seconds_since "$began")" >&2
  ((status == 0)) || die "some pictures could not be used; the messages above say why."
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"   # tests source it
