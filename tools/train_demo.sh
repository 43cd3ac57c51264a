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
of a quarter of the published width, converts and checks it, and evaluates it on the people held back. Stopped and run again
it goes on where it was.

Options:
  --short   24 people and the narrowest network: two minutes, which show that every step works and teach the network little
  --help    this text

FOLDER gets photographs/, crops/, sets/, run/ (with curves.png), faces.safetensors, evaluation.json and evaluation.html.
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
  local facenet=${FACENET:-$tools/../build/release/facenet} detector=${DETECTOR:-$tools/../weights/mtcnn.safetensors}
  [[ -x $facenet ]] || die "$facenet is not built; run cmake --preset release && cmake --build --preset release."
  facenet=$(realpath "$facenet")   # the folder changes
  local people=240 pictures=12 network=(--width 0.25 --dim 128 --epochs 30)
  ((!short)) || { people=24 pictures=8 network=(--width 0.0625 --dim 32 --people 8 --epochs 3); }
  set -E
  trap 'exit 2' ERR   # whatever the tool's own status
  mkdir -p "$folder"
  cd "$folder"
  "$tools/make_identities.py" --people "$people" --pictures "$pictures" photographs
  # Some faces are hidden so well that the detector does not find them: one in seventeen.
  "$facenet" align --min-face 60 --detector "$detector" photographs crops | sed -n 1p
  [[ -d sets/test ]] || { rm -rf sets.new; "$tools/face_data.py" split crops sets.new; mv sets.new sets; }
  "$tools/train.py" sets/train --validate sets/test -o run --resume --loss arcface --augment 0.6 --keep last "${network[@]}"
  "$tools/convert_weights.py" run/best.pt -o faces.safetensors --dataset rendered --licence "MIT; trained on rendered faces"
  "$facenet" selftest faces.safetensors | tail -n 1
  "$facenet" evaluate --weights faces.safetensors --pairs run/pairs.txt --images sets/test --aligned --html evaluation.html
  "$facenet" evaluate --weights faces.safetensors --pairs run/pairs.txt --images sets/test --aligned --json >evaluation.json
}

main "$@"
