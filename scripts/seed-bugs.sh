#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Seeds the bugs of tests/gpu/bugs.txt, one at a time, in a copy of the tree, and sees which test of the
# CUDA backend catches each:
#   1 the tree is copied and built once, without any bug
#   2 for each bug: edited in, what depends on it built, the tests that have it in them run from the
#     cheapest up until one fails, taken out again
# A bug whose text is not in its file once and once only is an error: the list follows the code. So is one
# that does not build, and one that no test catches. The table of all comes at the end.
#
#   seed-bugs.sh [--list] [--only NAME]... [--write] [--work FOLDER]
#
#   --list    names the bugs
#   --only    this bug alone
#   --write   writes the table to docs/gpu-bugs.md, where every bug has its row
#   --work    keeps copy, build and rows there, for the next time
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

bugs=$PWD/tests/gpu/bugs.txt
page=$PWD/docs/gpu-bugs.md
work='' write=no
only=()

names() {
    awk '$1 == "bug" { print $2 }' "$bugs"
}

# What the list says of a bug: field NAME KEY.
field() {
    awk -v name="$1" -v key="$2" '
        $1 == "bug" { mine = $2 == name }
        mine && $1 == key { sub(/^[a-z]+ +/, ""); print; exit }' "$bugs"
}

# The file with a bug in it: edited NAME FILE. Fails when the old text is not there exactly once.
edited() {
    awk -v name="$1" '
        NR == FNR && /^bug / { mine = $2 == name }
        NR == FNR && mine && /^-/ { from = from substr($0, 2) "\n" }
        NR == FNR && mine && /^\+/ { to = to substr($0, 2) "\n" }
        NR != FNR { text = text $0 "\n" }
        END {
            place = index("\n" text, "\n" from)
            rest = substr(text, place + length(from))
            if (from == "" || place == 0 || index("\n" rest, "\n" from) > 0) { exit 1 }
            printf "%s%s%s", substr(text, 1, place - 1), to, rest
        }' "$bugs" "$2"
}

# Every test in which a bug in FILE may show, the cheapest first.
tests_for() {
    case $1 in
    gpu/kernels*) echo kernels ptxas cuda_feed cuda_comm cuda_state cuda_cases cuda_runs cuda_faults ;;
    gpu/dnn* | gpu/plan_cache*)
        echo dnn plan_cache cuda_feed cuda_state cuda_cases dnn_matrix cuda_runs cuda_faults
        ;;
    *) echo cuda_feed cuda_comm cuda_state cuda_cases cuda_runs cuda_faults ;;
    esac
}

# What ninja has to make for a test.
targets_of() {
    case $1 in
    kernels) echo tests/test_kernels ;;
    ptxas) echo gpu/kernels_{loss,norm,pointwise,pool,update}.o ;;
    cuda_runs) echo tests/gpu/test_cuda_runs tests/gpu/plugin/nncoord_cuda.so nncoord{,-data,-loader,-trainer} ;;
    *) echo "tests/gpu/test_$1" ;;
    esac
}

build() {
    local targets
    read -ra targets <<<"$*"
    nice ninja -C "$work/build" -j 2 "${targets[@]}" >"$work/build.log" 2>&1
}

# Run a test; `log` has what it said.
passes() {
    log=$work/build/meson-logs/testlog.txt
    nice meson test -C "$work/build" --no-rebuild "$1" >/dev/null 2>&1
}

# The case that failed first, as SUITE/CASE.
case_of() {
    sed -nE 's#^not ok - ([A-Za-z0-9_]+)::([A-Za-z0-9_]+).*#\1/\2#p' "$log" | head -n 1
}

# The words of a case that failed: of its assertion; where those say nothing, the case is run again for
# what a stand-in said when it stopped it; where nobody said anything, those of the signal that ended it,
# without the line, which moves. words_of TEST SUITE/CASE.
words_of() {
    local words program
    program=$work/build/$(targets_of "$1" | cut -d ' ' -f 1)
    words=$(sed -nE 's/^ +Assertion failed: |^check-ptxas: //p' "$log" | head -n 1)
    if [ -n "$2" ] && [[ ! $words || $words == The\ expression* ]]; then
        words=$(LD_LIBRARY_PATH=$work/build/tests/gpu/fakecuda "$program" --filter "$2" 2>&1 |
            grep -aE '^(fakecuda|cuhost|rank [0-9]+): ' | head -n 1)
        words=${words:-$(sed -nE 's/^ +Assertion failed: //p' "$log" | head -n 1)}
        words=${words:-$(sed -nE "s#^not ok - ${2/\//::} (unexpected signal after [^:]*).*#\1#p" "$log")}
    fi
    # One cell of a table, without addresses and folders, which differ from run to run.
    sed -E 's/0x[0-9a-f]{6,}/ADDRESS/g; s#[A-Za-z0-9_./-]*/([A-Za-z0-9_.-]+)#\1#g; s/[|]/\\|/g; s/[<>]/\\&/g' \
        <<<"${words:0:150}"
}

# Keep a row of the table: bug, file, what it is, the test expected, the test, its case, its words.
row() {
    local IFS=$'\t'
    forget "$1"
    echo "$*" >>"$work/rows"
}

forget() {
    awk -F '\t' -v name="$1" '$1 != name' "$work/rows" >"$work/rows.new"
    mv "$work/rows.new" "$work/rows"
}

# The rows in the list's order.
rows() {
    local name
    names | while IFS= read -r name; do
        awk -F '\t' -v name="$name" '$1 == name' "$work/rows"
    done
}

try_bug() {
    local name=$1 file what rung test failed caught=
    file=$(field "$name" file) what=$(field "$name" is) rung=$(field "$name" rung)
    if [ ! -f "$work/tree/$file" ] || ! edited "$name" "$work/tree/$file" >"$work/edited"; then
        echo "seed-bugs: $name: its text is not in '$file' once and once only" >&2
        return 1
    fi
    echo "$file" >>"$work/seeded"
    cp "$work/tree/$file" "$work/whole"
    cp "$work/edited" "$work/tree/$file"
    for test in $(tests_for "$file"); do
        if [ "$test" = ptxas ] && [ "$rung" != ptxas ]; then
            continue # nvcc takes a minute; what it builds is only measured
        fi
        if ! build "$(targets_of "$test")"; then
            echo "seed-bugs: $name: does not build:" >&2
            grep -E 'error|warning' "$work/build.log" | head -n 5 >&2
            break
        fi
        if ! passes "$test"; then
            caught=$test
            failed=$(case_of)
            row "$name" "$file" "$what" "$rung" "$test" "${failed#*/}" "$(words_of "$test" "$failed")"
            break
        fi
    done
    cp "$work/whole" "$work/tree/$file"
    [ -n "$caught" ]
}

print_table() {
    rows | awk -F '\t' '{ printf "%-32s %-24s %-11s %s\n", $1, $2, $5, $6 }'
}

print_page() {
    echo '<!-- Written by scripts/seed-bugs.sh; edit tests/gpu/bugs.txt instead. -->'
    echo '# Bugs that the tests of the CUDA backend catch'
    echo
    echo 'Each was seeded alone into a copy of the tree. The test is the first that failed, from the cheapest up; none'
    echo 'needs a GPU.'
    echo
    echo '| bug | file | what it is | test | case | its words |'
    echo '| --- | --- | --- | --- | --- | --- |'
    rows | awk -F '\t' '{ printf "| %s | %s | %s | %s | %s | %s |\n", $1, $2, $3, $5, $6, $7 }'
}

while [ $# -gt 0 ]; do
    case $1 in
    --list)
        names
        exit 0
        ;;
    --only)
        only+=("${2:?--only NAME}")
        shift
        ;;
    --work)
        work=${2:?--work FOLDER}
        shift
        ;;
    --write) write=yes ;;
    *)
        sed -n '/^#   seed-bugs/,/^#   --work/s/^# \{0,3\}//p' "$0" >&2
        exit 2
        ;;
    esac
    shift
done
if [ -z "$work" ]; then
    work=$(mktemp -d) || exit 2
    trap 'rm -rf "$work"' EXIT
fi
if [ "${#only[@]}" -eq 0 ]; then
    mapfile -t only < <(names)
    rm -f "$work/rows"
fi

mkdir -p "$work/tree"
git ls-files -z -co --exclude-standard | tar -c --null -T - | tar -x -C "$work/tree" || exit 2
touch "$work/rows"
# What an earlier run built of a bug is newer than the file that is there again.
touch "$work/seeded"
while IFS= read -r file; do
    touch "$work/tree/$file"
done <"$work/seeded"
if [ ! -f "$work/build/build.ninja" ]; then
    meson setup "$work/build" "$work/tree" >"$work/setup.log" 2>&1 || {
        tail -n 20 "$work/setup.log" >&2
        exit 2
    }
fi
every=
for test in $(tests_for gpu/kernels) $(tests_for gpu/dnn); do
    every="$every $(targets_of "$test")"
done
build "$every" || {
    echo "seed-bugs: the tree does not build" >&2
    tail -n 20 "$work/build.log" >&2
    exit 2
}
rm -f "$work/seeded"

missed=()
for name in "${only[@]}"; do
    begin=$SECONDS
    forget "$name"
    if try_bug "$name"; then
        echo "$name: caught by $(tail -n 1 "$work/rows" | cut -f 5), $((SECONDS - begin)) s"
    else
        echo "$name: NOT CAUGHT, $((SECONDS - begin)) s"
        missed+=("$name")
    fi
done
print_table
echo "${#only[@]} bugs, $((${#only[@]} - ${#missed[@]})) caught, $SECONDS s${missed[*]:+; not caught: ${missed[*]}}"
if [ "${#missed[@]}" -gt 0 ]; then
    exit 1
fi
if [ "$write" = yes ]; then
    if [ "$(rows | wc -l)" != "$(names | wc -l)" ]; then
        echo "seed-bugs: $(rows | wc -l) of $(names | wc -l) bugs have a row: the page is not written" >&2
        exit 2
    fi
    print_page >"$page"
fi
