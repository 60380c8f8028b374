#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Holds what nvcc made of the kernels to gpu/budget.txt, without a GPU:
#   1 on every device no register is spilled
#   2 registers and shared memory of each kernel stay within its row; every kernel has a row, every row
#     a kernel
#   3 where the row says so there are loads and stores of 16 bytes (in the code before ptxas)
#
#   check-ptxas.sh FOLDER        holds *.ptxas and *.ptx of gpu/compile.sh
set -uo pipefail
budget=$(dirname "$0")/../gpu/budget.txt
folder=$1

# kernel device registers shared spilled, a line a kernel, type and device.
usage() {
    cat "$folder"/*.ptxas | c++filt | awk '
        /Compiling entry function/ {
            match($0, /namespace\)::[a-z0-9_]+/)
            kernel = substr($0, RSTART + 12, RLENGTH - 12)
            match($0, /sm_[0-9]+/)
            device = substr($0, RSTART, RLENGTH)
        }
        /bytes stack frame/ { spilled = $1 + $5 + $9 }
        /Used [0-9]+ registers/ {
            match($0, /Used [0-9]+/)
            registers = substr($0, RSTART + 5, RLENGTH - 5)
            shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) + 0 : 0
            print kernel, device, registers, shared, spilled
        }'
}

# kernel loads stores of 16 bytes, a line a kernel and type.
accesses() {
    cat "$folder"/*.ptx | c++filt | awk '
        /\.entry/ {
            match($0, /namespace\)::[a-z0-9_]+/)
            kernel = substr($0, RSTART + 12, RLENGTH - 12)
            loads = stores = 0
        }
        /ld\.global(\.nc)?\.v4/ { loads++ }
        /st\.global\.v4/ { stores++ }
        /^}/ && kernel { print kernel, loads, stores; kernel = "" }'
}

awk -v budget="$budget" '
    function breach(text) { print "check-ptxas: " text; breaches++ }
    function max(a, b) { return a > b ? a : b }
    BEGIN {
        while ((getline line < budget) > 0) {
            if (split(line, row, " ") == 4 && line !~ /^#/) {
                registers[row[1]] = row[2]; shared[row[1]] = row[3]; wide[row[1]] = row[4]
            }
        }
    }
    NF == 5 {
        used[$1] = max(used[$1], $3); used_shared[$1] = max(used_shared[$1], $4); devices[$2] = 1
        if (!($1 in registers)) { breach($1 " has no row in gpu/budget.txt"); registers[$1] = 255 }
        if ($5 > 0) { breach($1 " spills on " $2 ": stack and spills of " $5 " bytes") }
        if ($3 > registers[$1]) { breach($1 " needs " $3 " registers on " $2) }
        if ($4 > shared[$1]) { breach($1 " needs " $4 " bytes of shared memory on " $2) }
    }
    NF == 3 {
        if (wide[$1] ~ /l/ && $2 == 0) { breach($1 " has no load of 16 bytes") }
        if (wide[$1] ~ /s/ && $3 == 0) { breach($1 " has no store of 16 bytes") }
        seen[$1] = 1
    }
    END {
        printf "%-20s %17s %19s  %s\n", "kernel", "registers", "shared bytes", "16-byte accesses"
        for (kernel in registers) {
            if (!(kernel in used) || !(kernel in seen)) { breach(kernel " is a row without a kernel") }
            printf "%-20s %6d of %6d %9d of %6d  %s\n", kernel, used[kernel], registers[kernel],
                used_shared[kernel], shared[kernel], wide[kernel] | "sort"
        }
        close("sort")
        for (device in devices) { count++ }
        printf "%d devices, %d breaches\n", count, breaches
        exit breaches > 0 || count == 0
    }' <(usage) <(accesses)
