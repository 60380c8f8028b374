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

# What this nvcc knows of the devices that we mean: CUDA 13 has no sm_70, CUDA 12.4 no sm_100. Code for
# the newest is kept in PTX too, for what comes after it.
known=$("$1" --list-gpu-code)
devices=() newest=
for device in 70 75 80 86 89 90 100 120; do
    if grep -qx "sm_$device" <<<"$known"; then
        devices+=(-gencode "arch=compute_$device,code=sm_$device")
        newest=$device
    fi
done
devices+=(-gencode "arch=compute_$newest,code=compute_$newest")

if ! "$@" "${devices[@]}" --resource-usage -MD -MF "$depfile" -MT "$object" -c "$source" \
    -o "$object" 2>"$report"; then
    cat "$report" >&2
    exit 1
fi
# Anything that is no report is a warning that was let through.
grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^$' "$report" >&2 || true
exec "$@" -gencode arch=compute_80,code=compute_80 -ptx "$source" -o "$ptx"
