#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the virtual environment of the comparisons, outside the repository (default: ~/.cache/nncoord/peers).
#   bench/peers/setup.sh [DIR]
set -euo pipefail
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/nncoord/peers}
python3 -m venv "$dir"
"$dir/bin/pip" install -q -r "$(dirname "$0")/requirements.txt"
echo "$dir/bin/python"
