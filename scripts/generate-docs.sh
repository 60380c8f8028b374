#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Write docs/options.md and docs/nncoord.1 from the option table. Argument: the build directory
# (default: build).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build}
generator=$build/nncoord
if [ ! -x "$generator" ]; then
    echo "generate-docs.sh: $generator is not there: build it with ninja -C $build" >&2
    exit 2
fi
for page in markdown:options.md man:nncoord.1; do
    "$generator" config "${page%%:*}" >"$root/docs/${page#*:}.new"
    mv "$root/docs/${page#*:}.new" "$root/docs/${page#*:}"
    echo "docs/${page#*:}"
done
