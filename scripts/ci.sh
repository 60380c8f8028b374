#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that has to hold before a change lands, in order of how fast it fails:
#   0 scripts/check-containers.sh: shell scripts, Dockerfiles and their like
#   1 clang -Werror, all targets
#   2 gcc without optional parts, unit and kernel tests
#   3 AddressSanitizer + UBSan, unit and kernel tests
#   4 ThreadSanitizer on the ring and the all-reduce
#   5 scripts/check-machines.sh: several machines with a network each, where namespaces can be made
#   6 scripts/fuzz.sh: every parser for a bounded time, longer where most bytes are hostile
#   7 scripts/test.sh: gcc -Werror, all tests; its last line is the count
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

step() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name"
    if ! "$@"; then
        echo "== $name: FAILED after $((SECONDS - begin)) s"
        exit 1
    fi
    echo "== $name: ok, $((SECONDS - begin)) s"
}

configure() {
    local build=$1
    shift
    if [ ! -f "$build/build.ninja" ]; then
        meson setup "$build" -Dwerror=true "$@" >"$build.log" 2>&1 || {
            tail -n 30 "$build.log"
            return 1
        }
    fi
}

clang_build() {
    CC=clang CXX=clang++ configure build-clang && ninja -C build-clang --quiet
}

bare_build() {
    configure build-bare -Donednn=disabled -Dcuda=disabled && ninja -C build-bare --quiet &&
        meson test -C build-bare --no-rebuild --print-errorlogs --suite unit --suite kernel
}

address_sanitizer() {
    configure build-asan -Db_sanitize=address,undefined -Db_lundef=false &&
        ninja -C build-asan --quiet &&
        ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
            meson test -C build-asan --no-rebuild --print-errorlogs --timeout-multiplier 6 \
            --suite unit --suite kernel
}

thread_sanitizer() {
    configure build-tsan -Db_sanitize=thread -Db_lundef=false &&
        ninja -C build-tsan --quiet tests/test_ring_threads tests/test_comm_threads &&
        TSAN_OPTIONS=halt_on_error=1 \
            meson test -C build-tsan --no-rebuild --print-errorlogs --timeout-multiplier 6 \
            ring_threads comm_threads
}

fuzz() {
    bash scripts/fuzz.sh 60 jpeg png tar idx restart &&
        bash scripts/fuzz.sh 15 classes index model safetensors transcode wire
}

step "packages" bash scripts/packages.sh build data check
step "shell scripts and containers" bash scripts/check-containers.sh
step "clang build" clang_build
step "build without optional parts" bare_build
step "address and undefined-behaviour sanitizer" address_sanitizer
step "thread sanitizer" thread_sanitizer
step "machines with a network each" bash scripts/check-machines.sh build-clang
step "fuzzing" fuzz
exec bash scripts/test.sh
