#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a trained network: installs what is missing, builds into build/, trains the
# default model on Fashion-MNIST on the CPU. Further arguments go to nncoord (scripts/demo.sh --epochs 1).
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/packages.sh build data
if [ ! -f build/build.ninja ]; then
    meson setup build >build.log 2>&1 || {
        tail -n 30 build.log
        exit 1
    }
fi
echo "building into build/ (a minute on two cores, up to two with CUDA) ..." >&2
ninja -C build --quiet
echo "+ build/nncoord --gpus 0 $*"
exec build/nncoord --gpus 0 "$@"
