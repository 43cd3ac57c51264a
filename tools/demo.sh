#!/usr/bin/env bash
# From a fresh clone to a table of distances between faces: sets up, builds, gets weights, embeds pictures.
set -euo pipefail

readonly program=demo   # steps.sh puts it in front of messages
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/steps.sh
source "$tools/steps.sh"
readonly WEIGHTS=weights/facenet.safetensors
readonly DOWNLOAD_LIMIT_S=180   # the checkpoint has 107 MB; without a network it gives up far sooner
readonly TIMING_S=2

usage() {
  cat <<'TEXT'
Usage: tools/demo.sh [IMAGE...]

Sets up what is missing (tools/bootstrap.sh), builds the `facenet` command, gets weights when there are none, embeds the
pictures and prints the distance of each to each, the time a face takes and whether the weights are trained.

Without pictures it takes those in .deps/samples. Weights: weights/facenet.safetensors; when that is not there, the
public VGGFace2 checkpoint is downloaded and converted, and where it cannot be, an untrained one is made, whose
distances mean nothing. Delete the file to try again.

Options:
  --help   this text

Exit status: 0 all pictures were embedded, 2 something failed.

Examples:
  tools/demo.sh
  tools/demo.sh portrait1.jpg portrait2.jpg
TEXT
}

# Trained weights where they can be had, else untrained ones.
get_weights() {
  if [[ -f $WEIGHTS ]]; then
    echo "demo: weights: $WEIGHTS is there" >&2
    return 0
  fi
  if attempt "download and convert VGGFace2 weights" \
    timeout "$DOWNLOAD_LIMIT_S" tools/convert_weights.py --pretrained vggface2 -o "$WEIGHTS"; then
    return 0
  fi
  tail -n 1 "$log" >&2
  echo "demo: trained weights cannot be had here, so UNTRAINED ones are made: their distances mean nothing." >&2
  step "make untrained weights" "run tools/bootstrap.sh and try again" tools/make_checkpoint.py -o "$WEIGHTS"
}

# table EMBEDDINGS BENCH : each picture against each.
table() {
  .venv/bin/python - "$1" "$2" <<'PYTHON'
import json, math, pathlib, sys

faces = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
bench = json.loads(pathlib.Path(sys.argv[2]).read_text())
names = [pathlib.PurePath(face["image"]).name for face in faces]
width = max(map(len, names))
letters = [chr(ord("A") + i) if len(faces) <= 26 else str(i + 1) for i in range(len(faces))]
print("Euclidean distances between the embeddings:\n")
print(" " * (width + 4) + "".join(f"{letter:>7}" for letter in letters))
for letter, name, face in zip(letters, names, faces):
    row = (math.dist(face["embedding"], other["embedding"]) for other in faces)
    print(f"{letter:>3} {name:{width}}" + "".join(f"{distance:7.3f}" for distance in row))
print(f"\ntime per face: {bench['median_ms']:.1f} ms (median of {bench['runs']}, minimum {bench['min_ms']:.1f} ms), "
      f"{bench['threads']} thread(s), {bench['isa']}")
if faces[0]["trained"]:
    print("weights: trained; two pictures of one person are usually less than 1.1 apart")
else:
    print("weights: UNTRAINED (random numbers), so these distances mean nothing about who is in the pictures")
PYTHON
}

main() {
  local pictures=() began=$EPOCHREALTIME status=0
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
  if ((${#pictures[@]} == 0)); then
    pictures=(.deps/samples/*.png .deps/samples/*.jpg)
    for picture in "${!pictures[@]}"; do [[ -f ${pictures[picture]} ]] || unset "pictures[$picture]"; done
    ((${#pictures[@]})) || die "there are no pictures in .deps/samples; give some: tools/demo.sh IMAGE..."
  fi

  work=$(mktemp -d build/demo.XXXXXX)
  trap 'rm -rf "$work"' EXIT   # work is not local: the trap runs after main
  echo "demo: facenet embed --json ${#pictures[@]} pictures" >&2
  build/release/facenet embed --json --weights "$WEIGHTS" --out "$work/faces.jsonl" -- "${pictures[@]}" || status=$?
  [[ -s $work/faces.jsonl ]] || die "no picture could be embedded; the messages above say why."
  echo "demo: facenet bench --seconds $TIMING_S" >&2
  build/release/facenet bench --json --weights "$WEIGHTS" --seconds "$TIMING_S" >"$work/bench.json" ||
    die "the timing failed; the message above says why."
  echo
  table "$work/faces.jsonl" "$work/bench.json"
  printf '\ndemo: done in %.1f s\n' "$(seconds_since "$began")" >&2
  ((status == 0)) || die "some pictures could not be embedded; the messages above say why."
}

main "$@"
