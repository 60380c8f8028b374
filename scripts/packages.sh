#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that are missing, and says which.
#
#   scripts/packages.sh build     what the build needs
#   scripts/packages.sh data      Fashion-MNIST
#   scripts/packages.sh check     clang, its runtime and clang-format, linters, for scripts/ci.sh
#   scripts/packages.sh run       the libraries that the built programs load, for images
#   scripts/packages.sh image     what scripts/try-image.sh makes a root folder with
#
# A row holds names that mean the same thing in different releases; the first that exists is taken.
# shellcheck disable=SC2034 # main() takes the lists by their names
set -euo pipefail

packages_build="gcc
g++
libc6-dev
meson
ninja-build
pkg-config|pkgconf
liburing-dev
libjpeg62-turbo-dev|libjpeg-turbo8-dev|libjpeg-dev
libspng-dev
zlib1g-dev
libdnnl-dev
libjansson-dev
libcyaml-dev
libyaml-dev
libxxhash-dev
libssl-dev
libcriterion-dev
libarchive-dev"
packages_data="dataset-fashion-mnist"
packages_check="clang
clang-format
libclang-rt-14-dev|libclang-rt-dev
libomp-dev
git
iproute2
jq
libseccomp-dev
shellcheck"
packages_run="liburing2
libjpeg62-turbo|libjpeg-turbo8
libspng0|libspng0t64
zlib1g
libdnnl2|libdnnl3|libdnnl3.6
libgomp1
libjansson4
libcyaml1
libyaml-0-2
libxxhash0
libssl3|libssl3t64"
packages_image="mmdebstrap"

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "packages.sh: need root or sudo to run: $*" >&2
        return 1
    fi
}

installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

# Print each row that has no installed alternative.
missing_of() {
    local row name alternatives
    for row in $1; do
        IFS='|' read -ra alternatives <<<"$row"
        for name in "${alternatives[@]}"; do
            if installed "$name"; then
                continue 2
            fi
        done
        echo "$row"
    done
}

# The first alternative of a row that this release has.
choose() {
    local name alternatives
    IFS='|' read -ra alternatives <<<"$1"
    for name in "${alternatives[@]}"; do
        if apt-cache show "$name" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "packages.sh: this release has none of: $1" >&2
    return 1
}

main() {
    local rows="" kind row missing chosen=() variable
    for kind in "$@"; do
        variable="packages_$kind"
        rows="$rows ${!variable}"
    done
    missing=$(missing_of "$rows")
    if [ -z "$missing" ]; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        echo "packages.sh: no apt-get here; please install what corresponds to:" "${missing//$'\n'/ }" >&2
        return 1
    fi
    as_root apt-get update -qq
    for row in $missing; do
        chosen+=("$(choose "$row")")
    done
    echo "installing Debian packages: ${chosen[*]}" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${chosen[@]}" >/dev/null
}

main "$@"
