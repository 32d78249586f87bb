#!/usr/bin/env bash
# The LFW figures of ONNX models with and without flip: benchmarks/lfw_onnx.sh lfw.bin MODEL.onnx ...
# One evaluation JSON a model and flip in benchmarks/results/lfw_onnx/.
set -euo pipefail
lfw=$(realpath "$1")
shift
out=$(realpath "$(dirname "$0")")/results/lfw_onnx
mkdir -p "$out"
for model in "$@"; do
  name=$(basename "$model")
  for flip in sum none; do
    (cd "$(dirname "$model")" && facedistill evaluate "$name" --on "$lfw" --flip "$flip" --json "$out/.long")
    python -m json.tool --compact "$out/.long" "$out/${name%.onnx}-flip-$flip.json"
    rm "$out/.long"
  done
done
