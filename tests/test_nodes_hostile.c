/* SPDX-License-Identifier: Apache-2.0 */
/* A machine that knows the secret and sends nonsense: the others take no harm but that it is gone.
 * The longest frames fill a wire's buffer, so that a sanitizer's build finds who reads beyond. */
#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "ipc/setup.h"
#include "tests/support/descriptors.h"
#include "tests/support/nodes_case.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull
#define LIMIT_NS  (20 * SECOND_NS)

/* As coordinator/nodes.c numbers and builds them. */
enum frame {
    JOIN = 1,
    BEGIN,
    RESTART,
    FAILED,
    STOP,
    CHILD,
    BEAT,
    KILL,
    DONE,
    END
};

struct join {
    uint32_t generation, reserved;
    struct nnc_nodes_share share;
    struct nnc_address listener;
    char host[64];
};

struct begin {
    uint32_t generation, reserved;
    struct nnc_nodes_start start;
    struct nnc_address before;
};

struct word {
    int32_t number;
    uint32_t node;
};

static struct nodes_case run;
static uint8_t noise[NNC_WIRE_BODY_MAX];

/* The hostile machine's end. */
static struct {
    int epoll_fd;
    struct nnc_door *door;
    struct nnc_wire *wire;
} foe;

static void make_noise(void) {
    struct nnc_rng rng = nnc_rng_make(11, NNC_RNG_SYNTHETIC, 1, 0);
    for (size_t i = 0; i < sizeof(noise); i++) {
        noise[i] = (uint8_t)nnc_rng_below(&rng, 256);
    }
}

TestSuite(nodes_hostile, .init = make_noise, .timeout = 100);

static void take(const struct nnc_guest *guest) {
    cr_assert_eq(nnc_wire_create(guest->fd, &guest->keys, 1 << 20, &foe.wire), 0);
}

/* The foe is node 1 of two, and connected to node 0. */
static void begin_as_node_1(void) {
    struct nnc_endpoint endpoint;
    struct nnc_address address;
    struct nnc_call *call;
    struct nnc_guest guest;
    struct nnc_greeting greeting = {
        .kind = NNC_GREETING_CONTROL, .node = 1, .nodes = 2, .job = "monday"};
    snprintf(greeting.build_id, sizeof(greeting.build_id), "%s", nnc_build_id());
    nodes_case_prepare(&run, 2);
    nodes_case_open(&run, 0);
    nodes_case_join(&run, 1);
    foe.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    cr_assert_eq(nnc_endpoint_parse(run.machine[0].config.rdzv_endpoint, &endpoint), 0);
    cr_assert_eq(nnc_address_resolve(&endpoint, &address, 1), 1);
    cr_assert_eq(nnc_call_begin(&address, 1, "node 0", run.machine[0].params.secret, &greeting,
                                foe.epoll_fd, UINT64_MAX, &call),
                 0);
    for (uint64_t until_ns = nnc_clock_ns() + LIMIT_NS;
         nnc_call_work(call, nnc_clock_ns(), &guest) == 0;) {
        cr_assert_lt(nnc_clock_ns(), until_ns);
        nodes_case_work(&run);
    }
    take(&guest);
    nnc_call_end(call);
}

/* The foe is node 0 of three, and node 1 is connected to it and has joined generation 1. */
static void begin_as_node_0(void) {
    struct nnc_endpoint endpoint;
    struct nnc_address address;
    struct nnc_guest guest;
    struct nnc_wire_frame frame;
    nodes_case_prepare(&run, 3);
    foe.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    cr_assert_eq(nnc_endpoint_parse(run.machine[1].config.rdzv_endpoint, &endpoint), 0);
    cr_assert_eq(nnc_address_resolve(&endpoint, &address, 1), 1);
    cr_assert_eq(nnc_door_open(&address, run.machine[1].params.secret, foe.epoll_fd, &foe.door), 0);
    nodes_case_open(&run, 1);
    nodes_case_join(&run, 1);
    uint64_t until_ns = nnc_clock_ns() + LIMIT_NS;
    while (nnc_door_next(foe.door, nnc_clock_ns(), &guest) == 0) {
        cr_assert_lt(nnc_clock_ns(), until_ns);
        nodes_case_work(&run);
    }
    take(&guest);
    while (nnc_wire_receive(foe.wire, &frame) == 0) {
        cr_assert_lt(nnc_clock_ns(), until_ns);
        nodes_case_work(&run);
    }
    cr_assert_eq(frame.type, JOIN);
}

static void end(void) {
    nodes_case_close_all(&run);
    nnc_wire_destroy(foe.wire);
    nnc_door_close(foe.door);
    close(foe.epoll_fd);
    foe.wire = NULL;
    foe.door = NULL;
}

static void say(uint32_t type, const void *body, size_t bytes) {
    cr_assert_eq(nnc_wire_send(foe.wire, type, body, bytes), 0, "%s", nnc_error_text());
}

/* A JOIN that is right but for where the foe listens and what its host is called. */
static void say_join(uint32_t address_bytes) {
    uint8_t body[sizeof(struct join) + NNC_SHARED_TEXT_MAX];
    struct join join = {.generation = 1, .share = run.machine[0].params.share};
    memcpy(&join.listener, noise, sizeof(join.listener));
    join.listener.bytes = address_bytes;
    memset(join.host, 'h', sizeof(join.host)); /* without an end */
    ssize_t bytes = nnc_config_print_shared(&run.machine[1].config, (char *)body + sizeof(join),
                                            sizeof(body) - sizeof(join));
    memcpy(body, &join, sizeof(join));
    say(JOIN, body, sizeof(join) + (size_t)bytes);
}

/* A machine is told that the foe is gone, for this reason. */
static void expect_gone(uint32_t node, const char *why) {
    const struct nodes_case_event *seen = nodes_case_wait(&run, node, NNC_NODES_FAILED, 1);
    cr_expect_eq(seen->event.code, -NNC_E_COMM);
    cr_expect(strstr(seen->words, why) != NULL, "%s", seen->words);
    end();
}

/* Work until a frame that came after all else is there: the foe's STOP. */
static void settle(uint32_t node) {
    const struct word word = {.number = 15, .node = 1};
    say(STOP, &word, sizeof(word));
    nodes_case_wait(&run, node, NNC_NODES_STOP, 1);
}

Test(nodes_hostile, a_node_0_that_hangs_up_without_a_word_is_called_again) {
    struct nnc_guest guest;
    begin_as_node_0();
    nnc_wire_destroy(foe.wire);
    foe.wire = NULL;
    for (uint64_t until_ns = nnc_clock_ns() + LIMIT_NS;
         nnc_door_next(foe.door, nnc_clock_ns(), &guest) == 0;) {
        cr_assert_lt(nnc_clock_ns(), until_ns);
        nodes_case_work(&run);
    }
    take(&guest);
    cr_expect_eq(nodes_case_count(&run, 1, NNC_NODES_FAILED), 0);
    say(BEAT, noise, 0); /* a word */
    for (int i = 0; i < 20; i++) {
        nodes_case_work(&run);
    }
    nnc_wire_destroy(foe.wire);
    foe.wire = NULL;
    expect_gone(1, "node 0 is gone: it closed the connection");
}

/* ---- to node 0 ---- */

Test(nodes_hostile, types_that_are_none_or_not_for_node_0_end_the_connection) {
    static const uint32_t types[] = {0, BEGIN, KILL, END, END + 1, 255, UINT32_MAX};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        begin_as_node_1();
        say(types[i], noise, 4096);
        expect_gone(0, "node 1 is gone: it speaks another protocol");
    }
}

Test(nodes_hostile, bodies_that_are_too_short_end_the_connection) {
    static const struct {
        uint32_t type;
        size_t bytes; /* the least that is not too short */
    } rows[] = {{JOIN, sizeof(struct join)},
                {RESTART, sizeof(struct word)},
                {FAILED, sizeof(struct word)},
                {STOP, sizeof(struct word)},
                {CHILD, sizeof(struct nnc_message_header)},
                {DONE, sizeof(struct word)}};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        const size_t sizes[] = {0, 1, rows[row].bytes - 1};
        for (size_t i = 0; i < 3; i++) {
            begin_as_node_1();
            say(rows[row].type, noise, sizes[i]);
            expect_gone(0, "it speaks another protocol");
        }
    }
}

/* What the foe is told when it is turned away: words fit to be printed. */
static void expect_turned_away(void) {
    struct nnc_wire_frame frame;
    int got;
    for (uint64_t until_ns = nnc_clock_ns() + LIMIT_NS;;) {
        nodes_case_work(&run);
        got = nnc_wire_receive(foe.wire, &frame);
        if (got != 0 && (got < 0 || frame.type == FAILED)) {
            break;
        }
        cr_assert_lt(nnc_clock_ns(), until_ns);
    }
    cr_assert_eq(got, 1, "it was not told");
    for (size_t i = sizeof(struct word); i < frame.bytes; i++) {
        cr_assert(frame.body[i] >= ' ' && frame.body[i] != 0x7f, "byte %zu", i);
    }
    cr_expect_eq(nodes_case_count(&run, 0, NNC_NODES_FAILED), 0);
    cr_expect_eq(nodes_case_count(&run, 0, NNC_NODES_BEGIN), 0);
    end();
}

Test(nodes_hostile, a_join_of_noise_or_with_a_huge_text_is_a_difference) {
    static const size_t sizes[] = {sizeof(struct join), sizeof(struct join) + 1, 4096,
                                   NNC_WIRE_BODY_MAX};
    const uint32_t no_bytes = 0;
    memcpy(noise + offsetof(struct join, listener.bytes), &no_bytes, sizeof(no_bytes));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        begin_as_node_1();
        say(JOIN, noise, sizes[i]);
        expect_turned_away();
    }
}

Test(nodes_hostile, an_address_of_noise_does_no_harm) {
    begin_as_node_1();
    say_join(sizeof(((struct nnc_address *)NULL)->storage) + 1);
    expect_gone(0, "node 1 is gone: its address is damaged");
    begin_as_node_1();
    say_join(sizeof(((struct nnc_address *)NULL)->storage));
    settle(0);
    cr_expect_eq(nodes_case_count(&run, 0, NNC_NODES_FAILED), 0);
    nnc_wire_destroy(foe.wire);
    foe.wire = NULL;
    expect_gone(0, "hhhhhhhhhhhhhhhhhhhhhhhhhhhh) is gone: it closed the connection");
}

Test(nodes_hostile, a_childs_message_of_noise_ends_the_connection) {
    struct nnc_message message;
    static const size_t sizes[] = {sizeof(struct nnc_message_header), 100, sizeof(message)};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        begin_as_node_1();
        say(CHILD, noise, sizes[i]);
        expect_gone(0, "a message of its trainers is damaged");
    }
    begin_as_node_1();
    say(CHILD, noise, sizeof(message) + 1);
    expect_gone(0, "a message of its trainers is too long");
    begin_as_node_1();
    memset(&message, 0, sizeof(message));
    message.header.type = NNC_MSG_BAD;
    message.header.bytes = UINT16_MAX;
    say(CHILD, &message, sizeof(message));
    expect_gone(0, "a message of its trainers is damaged");
}

Test(nodes_hostile, a_heartbeat_of_noise_ends_the_connection) {
    struct nnc_nodes_beat beat = {.ranks = 2};
    static const size_t sizes[] = {0, 1, sizeof(beat) - 1, sizeof(beat) + 1, NNC_WIRE_BODY_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        begin_as_node_1();
        say(BEAT, noise, sizes[i]);
        expect_gone(0, "its heartbeat is damaged");
    }
    begin_as_node_1(); /* flags that are neither true nor false */
    memset(&beat.rank[1], 0xff, sizeof(beat.rank[1]));
    say(BEAT, &beat, sizeof(beat));
    expect_gone(0, "its heartbeat is damaged");
    begin_as_node_1();
    beat = (struct nnc_nodes_beat){.generation = UINT32_MAX, .ranks = UINT32_MAX};
    say(BEAT, &beat, sizeof(beat));
    settle(0);
    cr_expect_eq(nodes_case_count(&run, 0, NNC_NODES_BEAT), 0);
    end();
}

Test(nodes_hostile, words_of_noise_are_cut_and_counted_as_the_foes_own) {
    struct word word = {.number = INT32_MAX, .node = UINT32_MAX};
    static uint8_t body[NNC_WIRE_BODY_MAX];
    memset(body, 'w', sizeof(body));
    memcpy(body, &word, sizeof(word));
    begin_as_node_1();
    say(RESTART, body, sizeof(body));
    say(RESTART, body, sizeof(word));
    say(FAILED, body, sizeof(body)); /* a positive code is no success */
    settle(0);
    for (uint32_t i = 0; i < run.machine[0].count; i++) {
        cr_expect_eq(run.machine[0].seen[i].event.node, 1);
    }
    cr_expect_eq(strlen(run.machine[0].seen[0].words), NNC_NODES_WORDS_MAX - 1);
    cr_expect_str_eq(run.machine[0].seen[1].words, "");
    cr_expect_eq(run.machine[0].seen[2].event.code, -NNC_E_COMM);
    end();
}

/* ---- to the others ---- */

Test(nodes_hostile, types_that_are_not_from_node_0_end_the_connection) {
    static const uint32_t types[] = {0, JOIN, CHILD, DONE, END + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        begin_as_node_0();
        say(types[i], noise, 4096);
        expect_gone(1, "node 0 is gone: it speaks another protocol");
    }
    static const uint32_t shorts[] = {BEGIN, RESTART, FAILED, STOP, KILL, END};
    for (size_t i = 0; i < sizeof(shorts) / sizeof(shorts[0]); i++) {
        begin_as_node_0();
        say(shorts[i], noise, sizeof(struct word) - 1);
        expect_gone(1, "it speaks another protocol");
    }
}

Test(nodes_hostile, a_beginning_that_makes_no_sense_ends_the_connection) {
    static const uint32_t generations[] = {2, UINT32_MAX};
    for (size_t i = 0; i < sizeof(generations) / sizeof(generations[0]); i++) {
        begin_as_node_0();
        const struct begin begin = {.generation = generations[i],
                                    .before = *nnc_door_address(foe.door)};
        say(BEGIN, &begin, sizeof(begin));
        expect_gone(1, "it begins a generation that this machine has not joined");
    }
    begin_as_node_0();
    const struct begin huge = {.generation = 1, .before = {.bytes = UINT32_MAX}};
    say(BEGIN, &huge, sizeof(huge));
    expect_gone(1, "it begins a generation that this machine has not joined");
    begin_as_node_0();
    const struct begin twice = {.generation = 1, .before = *nnc_door_address(foe.door)};
    say(BEGIN, &twice, sizeof(twice));
    say(BEGIN, &twice, sizeof(twice));
    expect_gone(1, "it begins a generation that this machine has not joined");
}

Test(nodes_hostile, words_of_a_machine_that_there_is_not_end_the_connection) {
    static const uint32_t types[] = {RESTART, FAILED, STOP, KILL, END};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        begin_as_node_0();
        const struct word word = {.number = 15, .node = 3};
        say(types[i], &word, sizeof(word));
        expect_gone(1, "it speaks of a machine that is none of this run");
    }
}

Test(nodes_hostile, a_beginning_with_an_address_of_noise_is_called_until_the_time_is_over) {
    begin_as_node_0();
    struct begin begin = {.generation = 1};
    memset(&begin.before.storage, 0xa5, sizeof(begin.before.storage));
    begin.before.bytes = sizeof(begin.before.storage);
    say(BEGIN, &begin, sizeof(begin));
    settle(1);
    nodes_case_work(&run);
    run.ahead_ns = 9 * SECOND_NS;
    for (int i = 0; i < 4; i++) { /* node 0 lives */
        say(BEAT, NULL, 0);
        run.ahead_ns += 9 * SECOND_NS;
        nodes_case_work(&run);
    }
    expect_gone(1, "the trainer of node 0 cannot be reached: ");
}

Test(nodes_hostile, words_of_noise_from_node_0_are_cut) {
    static const uint32_t types[] = {RESTART, FAILED, KILL, END};
    static uint8_t body[NNC_WIRE_BODY_MAX];
    memset(body, 'w', sizeof(body));
    memset(body, 0, sizeof(struct word)); /* of a machine that there is */
    begin_as_node_0();
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        say(types[i], body, sizeof(body));
        say(types[i], body, sizeof(struct word));
    }
    settle(1);
    for (uint32_t i = 0; i + 1 < run.machine[1].count; i++) {
        cr_expect_eq(strlen(run.machine[1].seen[i].words),
                     i % 2 == 0 ? NNC_NODES_WORDS_MAX - 1 : 0);
    }
    end();
}

/* ---- to both ---- */

/* Lengths and bodies by chance; whatever comes of it, it is an end or nothing. */
Test(nodes_hostile, frames_by_chance_do_no_harm) {
    struct nnc_rng rng = nnc_rng_make(17, NNC_RNG_SYNTHETIC, 1, 0);
    int before = count_descriptors();
    for (int round = 0; round < 150; round++) {
        uint32_t node = nnc_rng_below(&rng, 2);
        if (node == 0) {
            begin_as_node_1();
        } else {
            begin_as_node_0();
        }
        for (int i = 0; i < 3; i++) {
            uint32_t type = nnc_rng_below(&rng, END + 2);
            uint32_t bytes = nnc_rng_below(&rng, i == 0 ? 512 : NNC_WIRE_BODY_MAX);
            uint32_t from = nnc_rng_below(&rng, sizeof(noise) - bytes);
            if (nnc_wire_send(foe.wire, type, noise + from, bytes) < 0) {
                break;
            }
            nodes_case_work(&run);
        }
        end();
        cr_assert_eq(count_descriptors(), before, "round %d", round);
    }
}
