#!/usr/bin/env bash
# From an empty folder to a trained network that the command has evaluated, on people who do not exist.
set -euo pipefail

readonly program=train_demo
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/steps.sh
source "$tools/steps.sh"

usage() {
  cat <<'TEXT'
Usage: tools/train_demo.sh FOLDER [--short]

Renders photographs of 240 people, cuts the faces out (facenet align), holds a fifth of the people back, trains a network
of a quarter of the published width (ArcFace, then the triplet loss), converts and checks it, and evaluates it on the people
held back. Stopped and run again it goes on where it was. Some 25 minutes on two cores, of which training takes 10.

Options:
  --short   24 people and the narrowest network: two minutes, which show that every step works and teach the network little
  --help    this text

FOLDER gets photographs/, crops/, sets/, arcface/ and triplet/ (the two runs, with curves.png), faces.safetensors,
evaluation.json and evaluation.html.
Exit status: 0 done, 2 something failed.
TEXT
}

main() {
  local folder='' short=0
  while (($#)); do
    case $1 in
      --short) short=1 ;;
      -h | --help) usage; exit 0 ;;
      -*) die "unknown option '$1'; see tools/train_demo.sh --help." ;;
      *) folder=$1 ;;
    esac
    shift
  done
  [[ -n $folder ]] || die "name the folder to work in; see tools/train_demo.sh --help."
  local facenet=${FACENET:-$tools/../build/release/facenet}
  [[ -x $facenet ]] || die "$facenet is not built; run cmake --preset release && cmake --build --preset release."
  local people=240 pictures=12 network=(--width 0.25 --dim 128) first=(--epochs 16 --augment 0.6)
  local second=(--epochs 8 --rate 5e-4 --mining batch_all --augment 0.6)
  if ((short)); then
    people=24 pictures=8 network=(--width 0.0625 --dim 32 --people 8)
    first=(--epochs 3) second=(--epochs 1 --rate 5e-4)
  fi
  mkdir -p "$folder"
  cd "$folder"
  "$tools/make_identities.py" --people "$people" --pictures "$pictures" photographs
  # 1 and 2 are answers: some faces are hidden so well that the detector does not find them.
  "$facenet" align --min-face 60 --detector "$tools/../weights/mtcnn.safetensors" photographs crops | head -n 1
  [[ -d sets/test ]] || { rm -rf sets.new; "$tools/face_data.py" split crops sets.new; mv sets.new sets; }
  "$tools/train.py" sets/train --validate sets/test -o arcface --resume --loss arcface "${network[@]}" "${first[@]}"
  "$tools/train.py" sets/train --validate sets/test -o triplet --resume --loss triplet "${network[@]}" "${second[@]}" \
    --from arcface/best.pt
  "$tools/convert_weights.py" triplet/best.pt -o faces.safetensors --dataset rendered --licence "MIT; trained on rendered faces"
  "$facenet" selftest faces.safetensors | tail -n 1
  "$facenet" evaluate --weights faces.safetensors --pairs triplet/pairs.txt --images sets/test --aligned --json \
    --html evaluation.html >evaluation.json
  "$facenet" evaluate --weights faces.safetensors --pairs triplet/pairs.txt --images sets/test --aligned | grep -E 'pairs|accuracy|auc|eer' || true
}

main "$@"
