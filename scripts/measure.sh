#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures what docs/measurements.md quotes. Each section is a function; no argument runs all that need no data
# beside Debian's packages.
#
#   scripts/measure.sh [demo|mlp|first-batch|memory|resnet20|overfit ...]
#   CIFAR10=DIR  class folders train/ and val/ of CIFAR-10 images    (resnet20, first-batch, memory)
#   IMAGES=DIR   class folders of at least 50 full-size photographs   (overfit)
set -euo pipefail
cd "$(dirname "$0")/.."
nncoord=$PWD/build/nncoord
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

field() {
    sed -n "s/^ *\"$1\": \(.*[^,]\),*$/\1/p"
}

demo() {
    local begin=$SECONDS
    "$nncoord" --gpus 0 --quiet --json --output-dir "$out/demo" >"$out/demo.json"
    echo "demo: test accuracy $(field acc1 <"$out/demo.json") in $((SECONDS - begin)) s"
}

mlp() {
    "$nncoord" --gpus 0 --model mlp --epochs 10 --quiet --json --output-dir "$out/mlp" >"$out/mlp.json"
    echo "mlp, 10 epochs: test accuracy $(field acc1 <"$out/mlp.json")"
}

resnet20() {
    local begin=$SECONDS
    "$nncoord" "$CIFAR10" --gpus 0 --config cifar10-resnet20 --quiet --json --output-dir "$out/resnet20" \
        >"$out/resnet20.json"
    echo "resnet20 on CIFAR-10, 10 epochs: validation accuracy $(field acc1 <"$out/resnet20.json")," \
        "best $(field best_acc1 <"$out/resnet20.json"), $((SECONDS - begin)) s"
}

# Time from the command to the first batch taken, index warm, and memory beside the ring.
first-batch() {
    local i
    for i in 1 2 3 4 5 6; do
        "$nncoord" "$CIFAR10" --gpus 0 --config cifar10-resnet20 --epochs 1 --limit-train-batches 2 \
            --limit-val-batches 1 --workers 2 --quiet --json --output-dir "$out/first-$i" >"$out/first.json"
        echo "first batch after $(field first_batch_s <"$out/first.json") s; coordinator and 2 loaders:" \
            "$(field loaders_and_coordinator_bytes <"$out/first.json") bytes resident beside the ring"
    done
}

# 50 photographs learnt by heart: training accuracy and loss of the last epoch.
overfit() {
    local model batch lr epochs dir n=0
    mkdir -p "$out/fifty/train"
    for dir in $(find "$IMAGES" -mindepth 1 -maxdepth 1 -type d | sort | head -n 50); do
        cp -r "$dir" "$out/fifty/train/"
        n=$((n + 1))
    done
    cp -r "$out/fifty/train" "$out/fifty/val"
    while read -r model batch lr epochs; do
        local begin=$SECONDS
        "$nncoord" "$out/fifty" --gpus 0 --model "$model" --batch-size "$batch" --lr "$lr" --epochs "$epochs" \
            --train-transform eval --hflip-prob 0 --lr-scheduler cosine --eval-every 0 --quiet --json \
            --output-dir "$out/over-$model" >"$out/over.json"
        echo "$model, $n photographs, $epochs epochs: accuracy $(field acc1 <"$out/over.json"), loss" \
            "$(field loss <"$out/over.json"), $((SECONDS - begin)) s"
    done <<'ROWS'
resnet50 10 0.02 20
alexnet 10 0.005 40
vgg16 10 0.005 20
ROWS
}

sections=("$@")
[ ${#sections[@]} -gt 0 ] || sections=(demo mlp)
for section in "${sections[@]}"; do
    "$section"
done
