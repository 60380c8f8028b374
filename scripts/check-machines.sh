#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains over several machines that have a network each: network namespaces with one link to a switch, which is a
# bridge in a namespace of its own, so that nothing of it is seen outside. This is for what one host cannot show, where
# all talk over the loopback: which addresses are listened at, links that fail, one direction that fails, IPv6, names.
#
#   scripts/check-machines.sh [BUILD]      BUILD is build/ when left out
#
# Each case has a network, machines and a folder of its own. Those that wait until a machine is found dead run beside
# the others. Prints "ok: ..." for each case, or what was seen instead with "FAILED: ..." in front, and then fails.
# Needs root and iproute2; where namespaces cannot be made it says "skipped" and succeeds. A minute on two cores.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

program=$PWD/${1:-build}/nncoord
patience_s=60   # for what ends by itself
found_dead_s=20 # for what ends because a machine is silent; it is said to be dead after 10 s
brief=(--epochs 2)
long=(--epochs 100 --snapshot-interval 1 --save-every 1000)
endless=(--epochs 100000 --save-every 1000)
endpoint=10.77.0.1:29500

# ---- networks ----

# The namespace of one of the case's machines, or of its switch.
name_of() {
    echo "nncoord-$$-$network-$1"
}

within() {
    ip netns exec "$(name_of "$1")" "${@:2}"
}

make_machine() {
    local node=$1
    ip netns add "$(name_of "$node")" &&
        ip link add name eth0 netns "$(name_of "$node")" type veth peer name "port$node" netns "$(name_of switch)" &&
        within switch ip link set "port$node" master bridge0 up &&
        within "$node" ip link set lo up &&
        within "$node" ip address add "10.77.0.$((node + 1))/24" dev eth0 &&
        within "$node" ip address add "fd00::$((node + 1))/64" dev eth0 nodad &&
        within "$node" ip link set eth0 up
}

make_network() {
    local count=$1 node
    ip netns add "$(name_of switch)" && within switch ip link add name bridge0 type bridge &&
        within switch ip link set bridge0 up || return 1
    for ((node = 0; node < count; node++)); do
        make_machine "$node" || return 1
    done
}

# From now on what a machine sends to another is lost: it goes to a card that nobody has. (The queue that drops
# packets is a module that not every kernel has.)
lose_packets() {
    within "$1" ip neighbour replace "10.77.0.$(($2 + 1))" lladdr 02:00:00:00:00:99 nud permanent dev eth0
}

# ---- inputs ----

big_endian() {
    printf '%b' "$(printf '\\x%02x' $(($1 >> 24)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)))"
}

make_part() {
    local name=$1 count=$2
    {
        big_endian $((0x803)) && big_endian "$count" && big_endian 28 && big_endian 28
        head -c $((count * 28 * 28)) /dev/urandom
    } >"data/$name-images-idx3-ubyte"
    {
        big_endian $((0x801)) && big_endian "$count"
        seq "$count" | sed 's/.*\(.\)/\1/' | tr -d '\n' | tr 0-9 '\0-\11'
    } >"data/$name-labels-idx1-ubyte"
}

# Noise is as good as pictures: the weights have to be the same, not good.
make_inputs() {
    mkdir data
    make_part train 1000
    make_part t10k 100
    printf 'input(1, 28, 28)\nSequential(Flatten(), Linear(784, 64), ReLU(), Linear(64, 10))\n' >tiny.nn
    (umask 077 && od -An -vtx1 -N32 /dev/urandom | tr -d ' \n' >secret)
    printf '127.0.0.1 localhost\n10.77.0.1 first.test\nfd00::1 first.test\n' >hosts
    options=(train "$work/data" --model "$work/tiny.nn" --gpus 0 --workers 1 --threads 1 --global-batch 24
        --train-crop-size 28 --val-crop-size 28 --val-resize-size 28 --train-transform padded-crop
        --mean 0.5 --std 0.25 --lr 0.01 --json)
}

weights_in() {
    jq -r .weights_sha256 "$1"
}

# The weights that one machine with as many ranks comes to.
train_alone() {
    local ranks=$1 run=$work/alone
    rm -rf "$run"
    "$program" "${options[@]}" --nnodes 1 --cpu-ranks "$ranks" --output-dir "$run" "${@:2}" >"$run.json" 2>"$run.log" ||
        tail "$run.log" >&2
    weights_in "$run.json"
}

# ---- trainings ----

fail() {
    echo "FAILED: $network: $*"
    for file in err-*; do
        echo "-- ${file#err-} said at last:"
        tail -n 5 "$file"
    done
    exit 1
}

# The program of a machine, which has a host's name and a list of hosts of its own. No shell stays in between, for
# the process is the one to send signals to.
start_machine() {
    local node=$1
    # shellcheck disable=SC2016 # the variables are the inner shell's
    ip netns exec "$(name_of "$node")" unshare --uts sh -c \
        'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"' sh "machine$node" "$work/hosts" \
        "$program" "${options[@]}" --cpu-ranks 1 --nnodes "$machines" --node-rank "$node" \
        --rdzv-endpoint "$endpoint" --rdzv-secret "$work/secret" --rdzv-timeout 30 --output-dir run "${@:2}" \
        >"out-$node" 2>"err-$node" &
    pids[node]=$!
}

# A network with so many machines, and the program on all; machine 0 last, so that the others have to call again.
start_machines() {
    local node
    machines=$1
    make_network "$machines" || fail "the network cannot be made"
    for ((node = machines - 1; node >= 0; node--)); do
        start_machine "$node" "${@:2}"
    done
}

epochs_so_far() {
    if [ -f run/metrics.jsonl ]; then
        grep -c train.loss run/metrics.jsonl
    else
        echo 0
    fi
}

wait_for_epoch() {
    local until=$((SECONDS + patience_s))
    while [ "$(epochs_so_far)" = 0 ]; do
        if [ "$SECONDS" -ge "$until" ]; then
            fail "the training does not begin"
        fi
        sleep 0.05
    done
}

# All machines end within so many seconds, with this status.
expect_end() {
    local want=$1 until=$((SECONDS + $2)) node status
    for node in "${!pids[@]}"; do
        while kill -0 "${pids[node]}" 2>/dev/null; do
            if [ "$SECONDS" -gt "$until" ]; then
                fail "machine $node has not ended after $2 s"
            fi
            sleep 0.05
        done
        wait "${pids[node]}"
        status=$?
        if [ "$status" != "$want" ]; then
            fail "machine $node ended with $status, not $want"
        fi
    done
}

expect_weights() {
    local weights
    weights=$(weights_in out-0)
    if [ "$weights" != "$1" ] || [ "${#weights}" != 64 ]; then
        fail "the weights are $weights, not $1"
    fi
}

expect_words() {
    if ! grep -qE -- "$2" "err-$1"; then
        fail "machine $1 does not say: $2"
    fi
}

# ---- cases ----

case_three_by_ipv4() {
    start_machines 3 "${brief[@]}"
    expect_end 0 "$patience_s"
    expect_weights "$weights_of_three"
    echo "ok: three machines train the weights of one with three ranks"
}

case_two_by_ipv6() {
    endpoint='[fd00::1]:29500'
    start_machines 2 "${brief[@]}"
    expect_end 0 "$patience_s"
    expect_weights "$weights_of_two"
    echo "ok: two machines that meet at $endpoint train the weights of one with two ranks"
}

case_two_by_name() {
    endpoint=first.test
    start_machines 2 "${brief[@]}"
    expect_end 0 "$patience_s"
    expect_weights "$weights_of_two"
    echo "ok: two machines that meet at a name with two addresses and no port train the same weights"
}

# Where a machine listens, without a port that the system chose (net.ipv4.ip_local_port_range).
listens_at() {
    within "$1" ss -lntuH | awk '{ print $5 }' | sed -E 's/:[3-6][0-9]{4}$/:PORT/'
}

case_listeners() {
    local node seen expected=(10.77.0.1:29500 10.77.0.2:PORT '')
    start_machines 3 "${endless[@]}"
    wait_for_epoch
    for node in 0 1 2; do
        seen=$(listens_at "$node")
        if [ "$seen" != "${expected[node]}" ]; then
            fail "machine $node listens at \"$seen\", not \"${expected[node]}\""
        fi
    done
    kill -TERM "${pids[1]}"
    expect_end 75 "$patience_s"
    echo "ok: machines listen at their own address, the last at none; a signal to one ends all with 75"
}

case_wrong_endpoint() {
    make_network 1 || fail "the network cannot be made"
    endpoint=10.77.0.9 machines=2
    start_machine 0 "${brief[@]}"
    expect_end 2 "$patience_s"
    expect_words 0 '10\.77\.0\.9:?[0-9]* is not an address of this machine, which is node 0'
    echo "ok: an endpoint that is not of machine 0 is refused there with 2"
}

case_killed_trainer() {
    local pid victim=""
    start_machines 3 "${long[@]}"
    wait_for_epoch
    for pid in $(ip netns pids "$(name_of 1)"); do
        if [ "$(cat "/proc/$pid/comm")" = nncoord-trainer ]; then
            victim=$pid
        fi
    done
    kill -KILL "$victim" || fail "machine 1 has no trainer to kill"
    expect_end 0 "$patience_s"
    expect_words 0 'node 1 \(machine1\).*killed by signal 9'
    expect_words 2 'the group starts again \(1 of 3\)'
    expect_weights "$weights_of_long"
    echo "ok: a killed trainer of the middle machine restarts all, and the weights are right"
}

case_short_cut() {
    local before after
    start_machines 3 "${long[@]}"
    wait_for_epoch
    within 1 ip link set eth0 down
    sleep 1 # what was on its way has come, and it stands still
    before=$(epochs_so_far)
    sleep 2
    after=$(epochs_so_far)
    within 1 ip link set eth0 up
    if [ "$before" != "$after" ] || [ "$after" -ge 100 ]; then
        fail "the training went on without the link: from epoch $before to $after"
    fi
    expect_end 0 "$patience_s"
    expect_weights "$weights_of_long"
    echo "ok: a link that fails for 3 s in epoch $after of 100 delays the training and changes no weight"
}

# All end because one is silent. Each names one, the one that is cut off too.
expect_dead() {
    local begin=$SECONDS node
    expect_end 5 "$found_dead_s"
    for node in "${!pids[@]}"; do
        expect_words "$node" 'node [0-2] \(?.*is gone: it has said nothing for 10 s'
    done
    echo "ok: $* ends all three with 5 after $((SECONDS - begin)) s"
}

case_pulled_cable() {
    start_machines 3 "${endless[@]}"
    wait_for_epoch
    within switch ip link set port1 down
    expect_dead "a cable pulled from the middle machine"
}

case_mute_machine() {
    start_machines 3 "${endless[@]}"
    wait_for_epoch
    lose_packets 2 0
    lose_packets 2 1
    expect_dead "a machine that hears and is not heard"
}

case_deaf_machine() {
    start_machines 3 "${endless[@]}"
    wait_for_epoch
    lose_packets 1 0
    lose_packets 2 0
    expect_dead "machine 0 when it is heard and does not hear"
}

# ---- all of them ----

# One case in a folder and a process of its own. Its end is the status of the process.
run_case() (
    network=${1//_/-}
    mkdir "$work/$network"
    cd "$work/$network" || exit 1
    "case_$1"
)

clean_up() {
    local name pid
    trap - EXIT
    for pid in $(jobs -p); do
        kill -KILL "$pid" 2>/dev/null
    done
    ip netns list | grep -oE "^nncoord-$$-[^ ]+" | while read -r name; do
        for pid in $(ip netns pids "$name"); do
            kill -KILL "$pid" 2>/dev/null
        done
        ip netns delete "$name"
    done
    rm -rf "$work"
}

skip() {
    echo "skipped: $*"
    exit 0
}

# Whether there is a way to make what a case needs; says what is missing.
can_make_network() {
    network=probe
    if [ "$(id -u)" != 0 ]; then
        echo "only root can make network namespaces"
    elif ! command -v ip ss >/dev/null; then
        echo "there is no iproute2"
    else
        make_network 2 2>&1 | head -n 1
    fi
}

work=$(mktemp -d "${TMPDIR:-/tmp}/nncoord-machines.XXXXXX")
trap clean_up EXIT
trap 'exit 1' INT TERM
missing=$(can_make_network)
if [ -n "$missing" ]; then
    skip "no network namespaces here: $missing"
fi
cd "$work" || exit 1
make_inputs
weights_of_two=$(train_alone 2 "${brief[@]}")
weights_of_three=$(train_alone 3 "${brief[@]}")
weights_of_long=$(train_alone 3 "${long[@]}")

waiting=()
for name in pulled_cable mute_machine deaf_machine; do
    run_case "$name" >"$name.log" 2>&1 &
    waiting+=("$!:$name")
done
failed=0 count=0
for name in three_by_ipv4 two_by_ipv6 two_by_name listeners wrong_endpoint killed_trainer short_cut; do
    run_case "$name" || failed=$((failed + 1))
    count=$((count + 1))
done
for name in "${waiting[@]}"; do
    wait "${name%%:*}" || failed=$((failed + 1))
    count=$((count + 1))
    cat "${name#*:}.log"
done
echo "$count cases with a network for each machine, $failed failed, $SECONDS s"
[ "$failed" = 0 ]
