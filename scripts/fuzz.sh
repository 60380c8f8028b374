#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fuzzes parsers, two at a time, from the kept corpus: scripts/fuzz.sh [SECONDS_PER_TARGET] [TARGET...]
# Without targets all are run. Builds build-fuzz with clang, AddressSanitizer and UBSan. New inputs stay
# in build-fuzz/corpus/TARGET and come back in the next run; nothing is written into the source tree. A
# finding fails the script, and its last lines say where the input lies that reproduces it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

seconds=${1:-60}
[ $# -gt 0 ] && shift
all=(classes idx index jpeg model png restart safetensors tar transcode wire)
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]}")
if ! [[ $seconds =~ ^[0-9]+$ ]]; then
    echo "usage: scripts/fuzz.sh [SECONDS_PER_TARGET] [TARGET...]; targets: ${all[*]}"
    exit 2
fi

build() {
    if [ ! -f build-fuzz/build.ninja ]; then
        CC=clang meson setup build-fuzz -Dwerror=true -Dfuzz=true -Db_sanitize=address,undefined \
            -Db_lundef=false >build-fuzz.log 2>&1 || {
            tail -n 30 build-fuzz.log
            return 1
        }
    fi
    ninja -C build-fuzz --quiet "${targets[@]/#/tests/fuzz/fuzz_}"
}

# One target; its output goes to a file, which is shown when it finds something.
fuzz() {
    local target=$1 folder=build-fuzz/corpus/$1 begin=$SECONDS
    mkdir -p "$folder" build-fuzz/findings
    if build-fuzz/tests/fuzz/fuzz_"$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1500 \
        -print_final_stats=1 -artifact_prefix=build-fuzz/findings/"$target"- \
        "$folder" tests/fuzz/corpus/"$target" >"build-fuzz/$target.log" 2>&1; then
        echo "$target: ok, $(sed -n 's/stat::number_of_executed_units: *//p' "build-fuzz/$target.log") inputs," \
            "$((SECONDS - begin)) s"
        return 0
    fi
    tail -n 40 "build-fuzz/$target.log"
    echo "$target: FAILED; reproduce: build-fuzz/tests/fuzz/fuzz_$target $(sed -n \
        's/.*Test unit written to //p' "build-fuzz/$target.log" | tail -n 1)"
    return 1
}

build || exit 1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
failed=0 running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge 2 ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    fuzz "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit "$failed"
