#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Executes containers/Dockerfile.cpu without Docker: each FROM is a root folder made by mmdebstrap
# (Debian with the package set of the slim image), each RUN a command in it, each COPY a copy. Then
# starts the image's program as the image's user: doctor, and a short training on Fashion-MNIST.
#
#   scripts/try-image.sh [--keep] [DOCKERFILE]
#
# Needs root, the Debian archive and 2 GB under $TMPDIR or /tmp. Takes some minutes on two cores, so it
# is no part of scripts/ci.sh. --keep leaves the root folders and says where they are.
#
# What it knows of the language: ARG with a value, FROM [AS], WORKDIR, COPY [--from], RUN, ENV, USER,
# ENTRYPOINT and CMD as JSON arrays. LABEL, HEALTHCHECK and STOPSIGNAL are passed over, anything else
# is an error. Not tried: layers, capabilities, .dockerignore (what git tracks or would add is copied).
set -euo pipefail
cd "$(dirname "$0")/.."

images=/usr/share/datasets/fashion-mnist
keep=false
if [ "${1:-}" = --keep ]; then
    keep=true
    shift
fi
dockerfile=${1:-containers/Dockerfile.cpu}
declare -A arguments=() stages=()
root="" user=0:0 directory=/ environment=() entrypoint=() steps=0

fail() {
    echo "try-image.sh: $*" >&2
    exit 1
}

# Run a command inside $root with mounts and processes of its own, as $user in $directory.
inside() {
    # shellcheck disable=SC2016 # the variables are the inner shell's
    root=$root user=$user images=$images directory=$directory \
        unshare --mount --pid --fork --kill-child bash -c '
            set -e
            mount -t proc proc "$root/proc"
            mount -t tmpfs -o mode=755 tmpfs "$root/dev"
            for name in null zero full random urandom; do
                touch "$root/dev/$name"
                mount --bind "/dev/$name" "$root/dev/$name"
            done
            ln -s /proc/self/fd "$root/dev/fd"
            # The archive is reached as this machine reaches it.
            touch "$root/etc/resolv.conf"
            mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
            if [ -d "$root/data" ]; then
                mount --bind -o ro "$images" "$root/data"
            fi
            exec chroot --userspec="$user" "$root" /usr/bin/env -i -C "$directory" "$@"' \
        inside PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "${environment[@]}" "$@"
}

# A root folder of the release that debian:RELEASE-slim names.
make_base() {
    local image=$1 release to=$work/base
    release=${image#debian:} release=${release%-slim}
    if [[ $image != debian:*-slim ]]; then
        fail "$image cannot be made here, only debian:RELEASE-slim"
    fi
    if [ ! -d "$to" ]; then
        mmdebstrap --quiet --variant=minbase --mode=root \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' "$release" "$to" \
            "deb http://deb.debian.org/debian $release main" \
            "deb http://deb.debian.org/debian $release-updates main" \
            "deb http://deb.debian.org/debian-security $release-security main"
    fi
}

do_from() {
    local image=$1 name
    for name in "${!arguments[@]}"; do
        image=${image//"\${$name}"/${arguments[$name]}}
    done
    make_base "$image"
    root=$work/stage-${#stages[@]}
    cp -a "$work/base" "$root"
    stages[${3:-last}]=$root
    user=0:0 directory=/ environment=()
}

do_copy() {
    local from=. target words
    if [[ $1 == --from=* ]]; then
        from=${stages[${1#--from=}]:?}
        shift
    fi
    words=("$@")
    target=${words[-1]}
    unset 'words[-1]'
    if [[ $target != /* ]]; then
        target=$directory/$target
    fi
    if [ "${words[*]}" = . ]; then
        mkdir -p "$root/$target"
        git ls-files -co --exclude-standard -z | tar -c --null --ignore-failed-read -T - |
            tar -x --no-same-owner -C "$root/$target"
    elif [ -d "$from/${words[0]}" ]; then
        mkdir -p "$root/$target"
        cp -a "$from/${words[0]}/." "$root/$target/"
    else
        mkdir -p "$(dirname "$root/$target")"
        cp "${words[@]/#/$from/}" "$root/$target"
    fi
}

# One instruction, its lines joined.
execute() {
    local word=${1%% *} rest=${1#* } words
    read -ra words <<<"$rest"
    steps=$((steps + 1))
    echo "+ $1"
    case $word in
    ARG) arguments[${rest%%=*}]=${rest#*=} ;;
    FROM) do_from "${words[@]}" ;;
    WORKDIR)
        directory=$rest
        mkdir -p "$root/$directory"
        ;;
    COPY) do_copy "${words[@]}" ;;
    RUN) inside /bin/sh -c "$rest" ;;
    ENV) environment+=("${words[@]}") ;;
    USER) user=$rest ;;
    ENTRYPOINT) mapfile -t entrypoint < <(jq -r '.[]' <<<"$rest") ;;
    CMD | LABEL | HEALTHCHECK | STOPSIGNAL) ;;
    *) fail "$dockerfile: $word is not known here" ;;
    esac
}

execute_all() {
    local line whole=""
    while IFS= read -r line <&3; do
        if [[ $line == "#"* || ($line == "" && $whole == "") ]]; then
            continue
        fi
        if [[ $line == *\\ ]]; then
            whole+="${line%\\} "
            continue
        fi
        execute "$whole$line"
        whole=""
    done 3<"$dockerfile"
}

# As docker run -v FOLDER:/data IMAGE ARGUMENTS does.
run_image() {
    echo "+ run: ${entrypoint[*]} $*"
    inside "${entrypoint[@]}" "$@"
}

if [ "$(id -u)" != 0 ]; then
    fail "needs root, to make a root folder and to change into it"
fi
bash scripts/packages.sh build data check image
work=$(mktemp -d "${TMPDIR:-/tmp}/nncoord-image.XXXXXX")
if [ "$keep" = false ]; then
    trap 'rm -rf "$work"' EXIT
fi
begin=$SECONDS
execute_all
echo "image made: $steps instructions, $((SECONDS - begin)) s, $(du -sh "$root" | cut -f1)," \
    "$(du -sh "$work/base" | cut -f1) of it Debian"
mkdir "$root/data"
run_image --version
run_image doctor
run_image /data --config fashion-mnist --gpus 0 --limit-train-batches 100 --epochs 1
run_image eval /data --resume "$(cd "$root$directory" && echo runs/*)" --json
if [ "$keep" = true ]; then
    echo "the root folders are in $work"
fi
echo "$dockerfile: made and run without Docker"
