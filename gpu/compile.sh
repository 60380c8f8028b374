#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One file of kernels by nvcc: to an object for all devices, and to what scripts/check-ptxas.sh reads.
#
#   compile.sh OBJECT REPORT PTX DEPFILE SOURCE -- NVCC ARGUMENTS ...
#
# REPORT is what ptxas says of each kernel on each device; PTX the code before ptxas, for one device.
set -euo pipefail
object=$1 report=$2 ptx=$3 depfile=$4 source=$5
shift 6

devices=()
for device in 75 80 86 89 90 100 120; do
    devices+=(-gencode "arch=compute_$device,code=sm_$device")
done
devices+=(-gencode arch=compute_120,code=compute_120)

if ! "$@" "${devices[@]}" --resource-usage -MD -MF "$depfile" -MT "$object" -c "$source" \
    -o "$object" 2>"$report"; then
    cat "$report" >&2
    exit 1
fi
# Anything that is no report is a warning that was let through.
grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^$' "$report" >&2 || true
exec "$@" -gencode arch=compute_80,code=compute_80 -ptx "$source" -o "$ptx"
