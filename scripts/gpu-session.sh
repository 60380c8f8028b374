#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# For anyone with a GPU machine: builds nncoord with its CUDA backend, checks and measures it, and leaves one
# folder that tells how it went. Under ten minutes, from a fresh clone on Debian or Ubuntu.
#
#   scripts/gpu-session.sh [--dry-run] [--program FILE] [FOLDER]
#
#   --dry-run        print the steps and their limits, do nothing
#   --program FILE   this nncoord instead of building one
#   FOLDER           where the report goes; docs/gpu/DATE-CARD if not given
#
# The report, eight files at most: summary.md (what passed, what failed, what was skipped and why),
# devices.json, and what the steps printed: build.txt, doctor.txt, selftest.txt, sanitizer.txt, bench.txt,
# training.txt.
#
# Each step runs under its own limit and all of them under TOTAL seconds. A step that fails does not end
# the session, except the build; whatever ends it, summary.md is written. Exit status: 0 everything that
# could run passed, 1 something failed, 2 nothing was begun: no GPU, or something to build with is missing.
set -uo pipefail

TOTAL=570
usage="usage: scripts/gpu-session.sh [--dry-run] [--program FILE] [FOLDER]"
dry_run=false program="" folder=""
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=true ;;
    --program)
        program=$(realpath -e "${2:?$usage}") || exit 2
        shift
        ;;
    -*)
        echo "$usage" >&2
        exit 2
        ;;
    *) folder=$(realpath -m "$1") ;;
    esac
    shift
done
cd "$(dirname "$0")/.." || exit 2

build="build-gpu"
begin=$SECONDS failed=0 gpus=0 child="" card="no card" ended="The session stopped before its end"
results=() scratch=SCRATCH

say() {
    echo "gpu-session.sh: $*" >&2
}

# What has to be there before anything begins: one line each that is missing.
missing() {
    local cuda=${CUDA_HOME:-/usr/local/cuda} header
    if ! command -v nvidia-smi >/dev/null; then
        echo "no NVIDIA driver (nvidia-smi is not there), so no GPU can be seen"
    elif [ "$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | grep -c '^[0-9]')" = 0 ]; then
        echo "nvidia-smi finds no GPU: $(nvidia-smi 2>&1 | head -n 1)"
    fi
    if [ -n "$program" ]; then
        return
    fi
    if ! [ -x "$cuda/bin/nvcc" ] && ! command -v nvcc >/dev/null; then
        echo "no CUDA toolkit: no nvcc in PATH or $cuda/bin (NVIDIA's package cuda-toolkit-13-0; CUDA_HOME names another place)"
    fi
    for header in cudnn_backend.h:libcudnn9-dev-cuda-13 nccl.h:libnccl-dev cublasLt.h:libcublas-dev-13-0; do
        if ! find /usr/include /usr/local/include "$cuda/include/" -maxdepth 2 -name "${header%%:*}" 2>/dev/null | grep -q .; then
            echo "no ${header%%:*} (NVIDIA's package ${header#*:})"
        fi
    done
    if ! command -v apt-get >/dev/null && ! command -v meson >/dev/null; then
        echo "no apt-get to install packages with, and no meson"
    fi
}

record() {
    results+=("| $1 | $2 | ${3//|/\\|} |")
    printf '%-34s %s%s\n' "$1" "$2" "${3:+: $3}" >&2
}

# step NAME SECONDS FILE COMMAND...: run it, append what it prints to FILE, record how it went.
step() {
    local name=$1 limit=$2 file=$3 left=$((TOTAL - SECONDS + begin)) started=$SECONDS status said
    shift 3
    if [ "$dry_run" = true ]; then
        printf '%-34s at most %3d s  %-14s %s\n' "$name" "$limit" "$file" "$*"
        return
    fi
    if [ "$left" -lt 10 ]; then
        record "$name" skipped "no time left of $TOTAL s"
        return 1
    fi
    limit=$((limit < left ? limit : left))
    said=$scratch/said
    # In the background, so that a signal to this script is answered at once.
    timeout --kill-after=10 "$limit" "$@" >"$said" 2>&1 </dev/null &
    child=$!
    wait "$child"
    status=$?
    child=""
    {
        echo "== $name: $*"
        head -c 200000 "$said"
        echo "== status $status, $((SECONDS - started)) s"
        echo
    } >>"$folder/$file"
    # A program without the verb says so with status 2 (wrong usage).
    if [ "$status" = 2 ] && grep -qE 'unknown verb|bench knows|unknown option|unrecognized option' "$said"; then
        record "$name" "not available" "$(grep -m 1 -E 'unknown|knows|unrecognized' "$said")"
    elif [ "$status" = 0 ]; then
        record "$name" passed "$((SECONDS - started)) s"
        return 0
    elif [ "$status" = 124 ] && [[ $name == compute-sanitizer* ]] &&
        ! grep '^=========' "$said" | grep -qv COMPUTE-SANITIZER; then
        # These tools make a program up to a hundred times slower; what they find they say at once.
        record "$name" "cut short" "nothing found in $limit s"
    elif [ "$status" = 124 ] || [ "$status" = 137 ]; then
        failed=$((failed + 1))
        record "$name" FAILED "not done after $limit s"
    else
        failed=$((failed + 1))
        record "$name" FAILED "status $status: $(grep -v '^ *$' "$said" | tail -n 1 | cut -c1-200)"
    fi
    return 1
}

skip() {
    if [ "$dry_run" = false ]; then
        record "$1" skipped "$2"
    fi
}

# Bound to the session's end, however it comes.
write_summary() {
    {
        echo "# nncoord on $card"
        echo
        echo "$(date -u '+%Y-%m-%d %H:%M') UTC, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)," \
            "$((SECONDS - begin)) s. $ended."
        echo
        nvidia-smi --query-gpu=index,name,driver_version,memory.total,pci.bus_id --format=csv 2>/dev/null |
            sed 's/^/    /'
        echo "    kernel $(uname -r), $(nproc) CPUs, $(nvcc_version)"
        echo
        echo "| step | result | |"
        echo "| --- | --- | --- |"
        printf '%s\n' "${results[@]}"
    } >"$folder/summary.md"
    rm -rf "$scratch"
    say "$ended; report: $folder/summary.md"
}

nvcc_version() {
    { "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" --version || nvcc --version || echo "no nvcc"; } 2>/dev/null | tail -n 2 | head -n 1
}

build_program() {
    if [ ! -f "$build/build.ninja" ]; then
        meson setup "$build" --buildtype=debugoptimized -Dcuda=enabled -Dtests=false || return
    fi
    ninja -C "$build" --quiet
}

# What the driver knows about each GPU, as JSON.
devices() {
    local names=name,index,compute_cap,memory.total,driver_version,vbios_version,pcie.link.gen.max
    names+=,pcie.link.width.max,power.limit,clocks.max.sm,clocks.max.mem,ecc.mode.current,mig.mode.current
    if [ "$dry_run" = true ]; then
        step "device properties" 20 devices.json nvidia-smi "--query-gpu=$names"
    elif timeout 20 nvidia-smi "--query-gpu=$names" --format=csv,noheader,nounits >"$scratch/devices" &&
        awk -F ', *' -v names="$names" '
            BEGIN { count = split(names, name, ","); print "[" }
            { printf("%s  {", NR > 1 ? ",\n" : "")
              for (i = 1; i <= count; i++) {
                  gsub(/["\\]/, "", $i)
                  quote = $i ~ /^-?[0-9]+(\.[0-9]+)?$/ ? "" : "\""
                  printf("%s\"%s\": %s%s%s", i > 1 ? ", " : "", name[i], quote, $i, quote) }
              printf "}" }
            END { print "\n]" }' "$scratch/devices" >"$folder/devices.json"; then
        record "device properties" passed ""
    else
        failed=$((failed + 1))
        record "device properties" FAILED "$(tail -n 1 "$scratch/devices" | cut -c1-200)"
    fi
}

# timeout starts programs only.
export -f build_program
export build

sanitize() {
    local tool
    if [ "$dry_run" = false ] && ! command -v compute-sanitizer >/dev/null; then
        skip "compute-sanitizer" "not installed (NVIDIA's package cuda-sanitizer-13-0)"
        return
    fi
    for tool in memcheck racecheck initcheck synccheck; do
        step "compute-sanitizer $tool" 45 sanitizer.txt compute-sanitizer --tool "$tool" --error-exitcode 86 \
            --target-processes all "$program" selftest --gpus 1
    done
}

training() {
    if [ -d /usr/share/datasets/fashion-mnist ] || [ "$dry_run" = true ]; then
        step "training: cnn, Fashion-MNIST" 60 training.txt "$program" --config fashion-mnist --gpus all \
            --epochs 2 --output-dir "$scratch/fashion"
    else
        skip "training: cnn, Fashion-MNIST" "its package dataset-fashion-mnist is not installed"
    fi
    if step "photographs for ResNet-50" 60 training.txt "$program" bench synth "$scratch/photographs" --count 1000; then
        step "training: ResNet-50" 60 training.txt "$program" "$scratch/photographs" --model resnet50 --gpus all \
            --batch-size 64 --epochs 4 --output-dir "$scratch/resnet50"
        step "training: ResNet-50, recorded steps" 45 training.txt "$program" "$scratch/photographs" \
            --model resnet50 --gpus all --batch-size 64 --epochs 4 --cuda-graphs --output-dir "$scratch/recorded"
    fi
}

steps() {
    if [ -z "$program" ]; then
        program=$PWD/$build/nncoord
        step "packages" 120 build.txt bash scripts/packages.sh build data ||
            say "going on with the packages that are there"
        if ! step "build" 200 build.txt bash -c build_program; then
            ended="The build failed (build.txt), nothing else could run"
            return
        fi
    fi
    devices
    step "doctor" 20 doctor.txt "$program" doctor
    step "selftest" 120 selftest.txt "$program" selftest --gpus all --step-timeout 60
    sanitize
    step "bench gpu" 90 bench.txt "$program" bench gpu --gpus 1 --model resnet50 --compare
    if [ "$gpus" -ge 2 ] || [ "$dry_run" = true ]; then
        step "bench comm" 60 bench.txt "$program" bench comm --gpus all --model resnet50
    else
        skip "bench comm" "needs two GPUs, here is one"
    fi
    training
    ended="All steps were reached, $failed failed"
}

# Called by the traps.
# shellcheck disable=SC2317
interrupted() {
    if [ -n "$child" ]; then
        kill "$child"
        wait "$child"
    fi
    record "(interrupted)" FAILED "by a signal"
    ended="Interrupted by a signal"
    exit 1
}

if [ "$dry_run" = true ]; then
    echo "at most $TOTAL s; report in ${folder:-docs/gpu/DATE-CARD}"
    steps
    exit 0
fi
lacks=$(missing)
if [ -n "$lacks" ]; then
    while IFS= read -r line; do
        say "$line"
    done <<<"$lacks"
    say "nothing was begun: this machine lacks what is listed above"
    exit 2
fi

gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader | wc -l)
card=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
folder=${folder:-$PWD/docs/gpu/$(date -u +%Y-%m-%d)-$(tr -cs 'A-Za-z0-9\n' - <<<"$card")}
if [ -e "$folder/summary.md" ]; then
    say "$folder has a report already: give another folder"
    exit 2
fi
scratch=$(mktemp -d "${TMPDIR:-/tmp}/nncoord-gpu.XXXXXX") && mkdir -p "$folder" || exit 2
trap write_summary EXIT
trap interrupted INT TERM
steps
[ "$failed" = 0 ]
