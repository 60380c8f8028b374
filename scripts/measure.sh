#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures what docs/measurements.md quotes. Each section is a function; no argument runs all that need no data
# beside Debian's packages.
#
#   scripts/measure.sh [demo|mlp|first-batch|resnet20|overfit|photographs|loaders|cold|gpu-ladder|strikes|machines ...]
#   CIFAR10=DIR  class folders train/ and val/ of CIFAR-10 images    (resnet20, first-batch)
#   IMAGES=DIR   class folders of at least 50 full-size photographs   (overfit, photographs, loaders, cold)
set -euo pipefail
cd "$(dirname "$0")/.."
nncoord=$PWD/build/nncoord
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# The section needs data of the user's.
need() {
    if [ -z "${!1-}" ]; then
        echo "set $1=DIR, see the head of scripts/measure.sh" >&2
        exit 2
    fi
}

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
    need CIFAR10
    local begin=$SECONDS
    "$nncoord" "$CIFAR10" --gpus 0 --config cifar10-resnet20 --quiet --json --output-dir "$out/resnet20" \
        >"$out/resnet20.json"
    echo "resnet20 on CIFAR-10, 10 epochs: validation accuracy $(field acc1 <"$out/resnet20.json")," \
        "best $(field best_acc1 <"$out/resnet20.json"), $((SECONDS - begin)) s"
}

# Time from the command to the first batch taken, index warm, and memory beside the ring.
first-batch() {
    need CIFAR10
    local i
    for i in 1 2 3 4 5 6; do
        "$nncoord" "$CIFAR10" --gpus 0 --config cifar10-resnet20 --epochs 1 --limit-train-batches 2 \
            --limit-val-batches 1 --workers 2 --quiet --json --output-dir "$out/first-$i" >"$out/first.json"
        echo "first batch after $(field first_batch_s <"$out/first.json") s; coordinator and 2 loaders:" \
            "$(field loaders_and_coordinator_bytes <"$out/first.json") bytes beside the ring"
    done
}

# 50 photographs learnt by heart: accuracy and loss of the network in evaluation mode after the last epoch. The
# networks without batch norm need many steps until they begin to learn, and no dropout to learn by heart.
overfit() {
    need IMAGES
    local model lr epochs dir arguments n=0
    mkdir -p "$out/fifty/train"
    for dir in $(find "$IMAGES" -mindepth 1 -maxdepth 1 -type d | sort | head -n 50); do
        cp -r "$dir" "$out/fifty/train/"
        n=$((n + 1))
    done
    cp -r "$out/fifty/train" "$out/fifty/val"
    while read -r model lr epochs warmup arguments; do
        local begin=$SECONDS
        "$nncoord" "$out/fifty" --gpus 0 --model "$model" --model-args "$arguments" --batch-size 25 --lr "$lr" \
            --epochs "$epochs" --lr-scheduler cosine --lr-warmup-epochs "$warmup" --lr-warmup-method linear \
            --lr-warmup-decay 0.1 --train-transform eval --hflip-prob 0 --eval-every 0 --quiet --json \
            --output-dir "$out/over-$model" >"$out/over.json"
        echo "$model, $n photographs, $epochs epochs: accuracy $(field acc1 <"$out/over.json"), loss" \
            "$(field loss <"$out/over.json"), $((SECONDS - begin)) s"
    done <<'ROWS'
resnet50 0.01 30 3 num_classes=50
alexnet 0.05 80 5 num_classes=50,dropout=0.0
vgg16 0.01 30 3 num_classes=50,dropout=0.0
ROWS
}

# A copy of class folders as WebDataset shards of 100 samples: NNNNNN.jpg beside NNNNNN.cls, in the folders' order.
make_shards() {
    local from=$1 to=$2 class label=0 image n=0 shard
    while read -r class; do
        while read -r image; do
            shard=$(printf '%s/stage/%06d' "$to" $((n / 100)))
            mkdir -p "$shard"
            ln "$image" "$shard/$(printf %06d $n).jpg" 2>/dev/null || cp "$image" "$shard/$(printf %06d $n).jpg"
            echo "$label" >"$shard/$(printf %06d $n).cls"
            n=$((n + 1))
        done < <(find "$class" -type f | LC_ALL=C sort)
        label=$((label + 1))
    done < <(find "$from" -mindepth 1 -maxdepth 1 -type d | LC_ALL=C sort)
    for shard in "$to"/stage/*; do
        tar -C "$shard" --sort=name -cf "$to/photos-$(basename "$shard").tar" .
    done
    rm -rf "$to/stage"
}

# One epoch and an evaluation of the large networks, from class folders and from shards of the same images: the
# weights are the same.
photographs() {
    need IMAGES
    local model source run begin
    mkdir -p "$out/shards"
    make_shards "$IMAGES" "$out/shards"
    for model in alexnet vgg16 resnet50; do
        for source in "$IMAGES" "$out/shards"; do
            run=$out/photographs-$model-$(basename "$source")
            begin=$SECONDS
            "$nncoord" "$source" --gpus 0 --model "$model" --batch-size 25 --lr 0.01 --epochs 1 --quiet --json \
                --output-dir "$run" >"$out/train.json" 2>/dev/null
            "$nncoord" eval "$source" --resume "$run" --quiet --json >"$out/eval.json" 2>/dev/null
            echo "$model from $(basename "$source"): training loss $(field train_loss <"$out/train.json")," \
                "evaluated $(field images <"$out/eval.json") images, loss $(field loss <"$out/eval.json")," \
                "weights $(field weights_sha256 <"$out/train.json" | cut -c2-13), $((SECONDS - begin)) s"
        done
    done
}

# images/s of the loaders with two settings, alternating, and the ratio of the medians.
alternate() {
    local title=$1 one=$2 two=$3 rates
    for _ in 1 2 3 4 5; do
        # shellcheck disable=SC2086 # options are words
        for setting in "$one" "$two"; do
            "$nncoord" bench input "$IMAGES" --batch-size 50 $setting --json 2>/dev/null |
                field images_per_s >>"$out/rates$([ "$setting" = "$one" ] && echo 1 || echo 2)"
        done
    done
    rates=$(for n in 1 2; do sort -n "$out/rates$n" | sed -n 3p; done)
    echo "$title: $(echo "$rates" | tr '\n' ' ')images/s, ratio" \
        "$(echo "$rates" | awk 'NR == 1 { a = $1 } NR == 2 { printf "%.3f", $1 / a }')"
    rm "$out"/rates?
}

# One loader against two.
loaders() {
    need IMAGES
    alternate "1 and 2 loaders" "--workers 1" "--workers 2"
}

# Files in the page cache against files that were dropped from it.
cold() {
    need IMAGES
    alternate "warm and cold cache, 2 loaders" "--workers 2 --bench-epochs 1" "--workers 2 --cache cold"
}

# The proofs of the CUDA backend that need no GPU, with their times.
gpu-ladder() {
    meson test -C build --no-rebuild ptxas kernels dnn dnn_matrix fakecuda fakecuda_blas fakecuda_dnn \
        fakecuda_nccl fakecuda_link cuda_cases cuda_state cuda_feed cuda_comm cuda_faults cuda_runs |
        grep -E '^ *[0-9]+/'
}

# Two ranks on stand-ins for GPUs, of which one is killed or stopped 200 times.
strikes() {
    local begin=$SECONDS
    NNC_TEST_STRIKES=200 build/tests/gpu/test_cuda_runs --filter '*/a_killed*' --timeout 3000
    echo "200 strikes: $((SECONDS - begin)) s"
}

# All-reduces between two machines, both of them this one, and between two ranks of one.
machines() {
    local common=(bench comm --model resnet50 --batch-size 2 --input 3x64x64 --threads 1) node
    (umask 077 && openssl rand -hex 32 >"$out/secret")
    for node in 1 0; do
        "$nncoord" "${common[@]}" --nnodes 2 --node-rank "$node" --rdzv-endpoint 127.0.0.1:29517 \
            --rdzv-secret "$out/secret" 2>"$out/node-$node" &
    done
    wait
    "$nncoord" "${common[@]}" --cpu-ranks 2 2>"$out/ranks"
    echo "two machines:"
    grep -E 'bytes|GB/s' "$out/node-0"
    echo "two ranks of one machine:"
    grep -E 'bytes|GB/s' "$out/ranks"
}

sections=("$@")
[ ${#sections[@]} -gt 0 ] || sections=(demo mlp)
for section in "${sections[@]}"; do
    "$section"
done
