#!/usr/bin/env bash
# The bundled model on its pictures; then the main job on the smallest checkpoint there is: convert it, describe a picture,
# compare with the recorded output of the PyTorch reference.  demo.sh BIN  with BIN the folder of the installed command.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${1:?expected the folder of the vila-engine command}
golden=tests/golden/vila3b
model=build/demo/vila3b
picture=tests/golden/images/square.png

run() {
  printf '\n$ vila-engine'
  for word in "$@"; do
    case $word in
      *[!A-Za-z0-9_./-]*) printf " '%s'" "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '\n'
  "$bin/vila-engine" "$@"
}

run demo

echo
echo "A checkpoint in the published layout of VILA1.5-3b, but tiny, and with random weights: its text means nothing."
echo "What counts is the last step: every number and every token is what PyTorch computed for the same weights."
mkdir -p build/demo
run convert "$golden/checkpoint" -o "$model" --weights f32 --force
run inspect "$model"
run describe "$model" --query '<image>\nWhat is in the picture?' --image "$picture" --max-new-tokens 32 --stats
run parity "$golden"
