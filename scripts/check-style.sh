#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The limits of CONTRIBUTING.md that a machine can check. Prints each breach as file:line: text and fails
# when there is one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

mapfile -t sources < <(find base ipc coordinator loader data workers cpu gpu bench -name '*.[ch]' -o -name '*.cu' |
    sort)
mapfile -t tests < <(find tests -name '*.[ch]' -o -name '*.cc' | sort)
breaches=0

report() {
    if [ -n "$1" ]; then
        echo "$1"
        breaches=$((breaches + $(wc -l <<<"$1")))
    fi
}

# Function <= 70 lines, file <= 800, header <= 250, line <= 100 columns.
lengths() {
    awk '
        FNR == 1 { open = 0 }
        length($0) > 100 { printf "%s:%d: line of %d columns\n", FILENAME, FNR, length($0) }
        /^[A-Za-z_].*\)? *\{$/ && !/^(struct|enum|union|static const|typedef)/ && !/= \{$/ { open = FNR }
        /^[A-Za-z_].*[^;,]$/ && /\(/ && !open { open = FNR }
        /(;|= \{)$/ && open == FNR { open = 0 }
        /^\}/ { if (open && FNR - open + 1 > 70) {
                    printf "%s:%d: function of %d lines\n", FILENAME, open, FNR - open + 1 }
                open = 0 }
        { last[FILENAME] = FNR }
        END { for (file in last) {
                  limit = file ~ /\.h$/ ? 250 : 800
                  if (last[file] > limit) {
                      printf "%s:%d: file of more than %d lines\n", file, last[file], limit } } }
    ' "$@"
}

# Who may include whom: a folder and the folders its files may name.
layers() {
    local rule folder allowed file line target
    for rule in "base:base" "ipc:base ipc" "coordinator:base ipc coordinator" \
        "loader:base ipc loader" "data:base ipc loader coordinator data" "workers:base ipc workers" "cpu:base workers cpu" \
        "gpu:base workers gpu"; do
        folder=${rule%%:*} allowed=" ${rule#*:} "
        while IFS=: read -r file line target; do
            target=${target#*\"} target=${target%%/*}
            if [[ $allowed != *" $target "* ]]; then
                echo "$file:$line: $folder may not include $target/"
            fi
        done < <(grep -nE '^#include "' -r "$folder" --include='*.[ch]' --include='*.cu' |
            grep -vE '^gpu/(launch.h:.*"tests/gpu/cuhost_device.h"|plugin.c:.*"ipc/setup.h")')
    done
    # The data program sees the index of a data set, not the supervision of a run.
    grep -nE '^#include "coordinator/' -r data --include='*.[ch]' |
        grep -v 'coordinator/dataset' |
        sed 's/:#include/: data may include only dataset* of coordinator: #include/'
    # The backends see the program and the table they fill, not the trainer.
    grep -nE '^#include "workers/' -r cpu gpu --include='*.[ch]' --include='*.cu' |
        grep -vE 'workers/(backend|program|graph|dropout)\.h' |
        sed 's/:#include/: backends may include only backend, program, graph and dropout: #include/'
}

# Words that belong to few files.
words() {
    grep -nE '\bgetenv\(' "${sources[@]}" | grep -v '^base/config' | sed 's/$/  (getenv only in base\/config*.c)/'
    grep -nE '(^|[^_a-z.>])exit\(' "${sources[@]}" | grep -vE '(^|/)[a-z_]*main\.c|ipc/child' | grep -v '^[^:]*:[0-9]*: *\*' |
        sed 's/$/  (exit only in main files)/'
    grep -nE '\b(strcpy|sprintf|gets|strcat)\(' "${sources[@]}" | sed 's/$/  (unbounded)/'
    grep -nE '\b(TODO|FIXME|XXX)\b' "${sources[@]}" "${tests[@]}"
    grep -nE '^[[:space:]]*//' "${sources[@]}" | sed 's/$/  (comments are \/* *\/)/'
}

spdx() {
    local file
    for file in "${sources[@]}" "${tests[@]}"; do
        if ! head -n 1 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
            echo "$file:1: first line is no SPDX line"
        fi
    done
}

# A prototype in a header must follow a comment or another prototype of the same comment.
prototypes() {
    local headers
    mapfile -t headers < <(printf '%s\n' "${sources[@]}" | grep '\.h$')
    awk '
        FNR == 1 { documented = 0 }
        /\*\/ *$/ { documented = 1; next }
        /^ \*/ || /^\/\*/ { next }
        /^$/ { documented = 0; next }
        /^(static inline |extern )?[a-z].*\(.*/ && !/^(struct|enum|union)[^(]*\{/ && !/^ / && !/^#/ {
            if (!documented) { printf "%s:%d: prototype without comment\n", FILENAME, FNR } }
    ' "${headers[@]}"
}

# A path in backquotes in a document is a file, seen from the root or from the document's folder.
paths() {
    local file line path
    while IFS=: read -r file line path; do
        path=${path//\`/}
        if [ ! -e "$path" ] && [ ! -e "${file%/*}/$path" ]; then
            echo "$file:$line: there is no $path"
        fi
    done < <(find ./*.md base ipc coordinator loader data workers cpu gpu bench tests models containers docs scripts \
        -name '*.md' | sort | xargs grep -noE "\`[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+\.(c|cc|cu|h|sh|nn|py|sbatch)\`")
}

formatting() {
    if command -v clang-format >/dev/null; then
        clang-format --dry-run "${sources[@]}" "${tests[@]}" 2>&1 | grep -E 'warning:' | cut -d: -f1,2 |
            sort -u | sed 's/$/: not formatted (clang-format -i)/' | awk -F: '!seen[$1]++'
    fi
}

report "$(lengths "${sources[@]}")"
report "$(layers)"
report "$(words)"
report "$(spdx)"
report "$(prototypes)"
report "$(paths)"
report "$(formatting)"
echo "$breaches breaches of style in ${#sources[@]} source files"
[ "$breaches" = 0 ]
