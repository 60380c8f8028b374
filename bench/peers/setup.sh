#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the virtual environments of the comparisons, outside the repository, and says what it installs.
#
#   bench/peers/setup.sh [train] [main] [dali] [ffcv] [--dir DIR]     default: all, ~/.cache/nncoord/peers
#
#   main   PyTorch, torchvision, PIL: train_speed.py, check_numbers.py (train is another word for it), compare_input.py
#   dali   DALI, SPDL: compare_input.py
#   ffcv   FFCV, which is compiled here: compare_input.py
#
# Some GB each: PyTorch's packages bring CUDA along. Debian's packages that SPDL and FFCV need are installed as root or
# through sudo. An environment that is there already is brought up to date, not made anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/nncoord/peers
wanted=()

usage() {
    sed -n '3,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

debian() {
    local name missing=()
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing Debian packages: ${missing[*]}" >&2
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        >/dev/null
}

# The environment NAME with the packages of requirements-NAME.txt.
environment() {
    local name=$1
    debian python3-venv
    [ -x "$dir/$name/bin/python" ] || python3 -m venv "$dir/$name"
    echo "installing into $dir/$name: $(grep -v '^#' "$here/requirements-$name.txt" | tr '\n' ' ')" >&2
    "$dir/$name/bin/pip" install -q -r "$here/requirements-$name.txt"
}

main() {
    environment main
}

# SPDL loads FFmpeg's libraries when it is imported.
dali() {
    debian libavdevice59 libavfilter8
    environment dali
}

# FFCV has no wheels, asks pkg-config for its libraries, and its setup.py imports what it does not declare: it needs
# setuptools as it was before version 80, and the environment's own packages instead of a build environment.
ffcv() {
    debian g++ python3-dev pkg-config libopencv-dev libturbojpeg0-dev libgl1 libglib2.0-0
    environment ffcv
    "$dir/ffcv/bin/pip" install -q --no-build-isolation ffcv==1.0.2
}

while [ $# -gt 0 ]; do
    case $1 in
    train | main) wanted+=(main) ;;
    dali | ffcv) wanted+=("$1") ;;
    --dir)
        [ $# -ge 2 ] || usage
        dir=$2
        shift
        ;;
    *) usage ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(main dali ffcv)
for name in "${wanted[@]}"; do
    "$name"
    echo "$dir/$name/bin/python"
done
