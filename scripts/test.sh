#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds into build/ and runs all tests. The last line counts the single test
# cases as the runners reported them: "N passed, N failed, N skipped".
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

bash scripts/packages.sh build data check || exit 1
if [ ! -f build/build.ninja ]; then
    meson setup build -Dwerror=true >build.log 2>&1 || {
        tail -n 30 build.log
        exit 1
    }
fi
ninja -C build --quiet || exit 1
meson test -C build --print-errorlogs --no-rebuild
status=$?
if [ "$status" != 0 ]; then
    echo "what the failed cases said:"
    grep -A 8 '^not ok' build/meson-logs/testlog.txt | head -n 80
fi
bash scripts/count-tests.sh build || status=1
exit "$status"
