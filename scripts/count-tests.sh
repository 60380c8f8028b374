#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Adds up the single cases in the JUnit reports that meson wrote into the given build folders. A test
# program that ended without a report (crash, time-out) is one failed case there.
set -euo pipefail

count() {
    { grep -oE "$1" "$2/meson-logs/testlog.junit.xml" || true; } | wc -l
}

cases=0 failed=0 skipped=0
for build in "$@"; do
    cases=$((cases + $(count '<testcase ' "$build")))
    failed=$((failed + $(count '<(failure|error)[ />]' "$build")))
    skipped=$((skipped + $(count '<skipped[ />]' "$build")))
done
passed=$((cases - failed - skipped))
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
