#!/usr/bin/env bash
# The main job on the smallest model there is: convert a checkpoint, describe a picture, compare with the recorded output
# of the PyTorch reference.  demo.sh BIN  with BIN the folder of the installed vila-engine command.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${1:?expected the folder of the vila-engine command}
variant=${VARIANT:-a_3b}
golden=tests/golden/$variant
model=build/demo/$variant
picture=tests/golden/images/square.png

for path in "$golden/checkpoint" "$picture"; do
  if [ ! -e "$path" ]; then
    echo "demo: the recorded checkpoint is not complete: expected $path, got nothing" >&2
    exit 1
  fi
done

rm -rf "$model"
mkdir -p build/demo
echo "== converting $golden/checkpoint"
"$bin/vila-engine" convert "$golden/checkpoint" "$model"

echo "== describing $picture"
echo "(The weights of this checkpoint are random, so the text is meaningless. What counts: it equals the reference's.)"
"$bin/vila-engine" describe "$model" "$picture"

echo "== comparing with what PyTorch computed for the same weights"
"$bin/vila-engine" parity "$model" "$golden"
