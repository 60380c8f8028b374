#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints Docker's default seccomp profile with the three calls of io_uring allowed:
#
#   scripts/seccomp-profile.sh DEFAULT.json >containers/seccomp.json
#
# DEFAULT.json is profiles/seccomp/default.json of the Docker Engine's sources. The profile in containers/ is
# made from that of Docker 26.1.5, which Debian 13 has in golang-github-docker-docker-dev (Docker took
# these calls out of its profile in 25.0). The engine of the machine is newer? Give its own file.
set -euo pipefail
jq --tab '
    if [.syscalls[].names[]] | any(startswith("io_uring_")) then
        error("this profile has rules for io_uring already")
    else . end
    | .syscalls |= [{
        names: ["io_uring_enter", "io_uring_register", "io_uring_setup"],
        action: "SCMP_ACT_ALLOW",
        comment: "the loaders of nncoord read by io_uring"
    }] + .' "${1:?scripts/seccomp-profile.sh DEFAULT.json}"
