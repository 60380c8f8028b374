/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinators' protocol of a run on several machines: they begin together, tell each other
 * what happens, find out who does not fit and who is gone, and end together. */
#include "base/err.h"
#include "tests/support/descriptors.h"
#include "tests/support/nodes_case.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

static struct nodes_case run;

TestSuite(nodes, .timeout = 60);

/* ---- how a generation begins ---- */

/* A frame from one end to the other; the wires have the nodes' descriptors only as copies, as
 * trainers have. */
static void expect_frame(struct nnc_wire *from, struct nnc_wire *to) {
    struct nnc_wire_frame frame;
    struct pollfd poll_fd = {.fd = nnc_wire_fd(to), .events = POLLIN};
    cr_assert_eq(nnc_wire_send(from, 9, "sum", 3), 0, "%s", nnc_error_text());
    cr_assert_eq(poll(&poll_fd, 1, 20000), 1);
    cr_assert_eq(nnc_wire_receive(to, &frame), 1, "%s", nnc_error_text());
    cr_assert(frame.type == 9 && frame.bytes == 3 && memcmp(frame.body, "sum", 3) == 0);
}

static struct nnc_wire *wire_of(const struct nnc_nodes_link *link) {
    struct nnc_wire *wire;
    cr_assert_geq(link->fd, 0);
    cr_assert_eq(nnc_wire_create(dup(link->fd), &link->keys, 0, &wire), 0);
    return wire;
}

/* Each machine's link behind is the next one's link before, and the chain has two ends. */
static void expect_chain(void) {
    cr_expect_lt(nnc_nodes_links(run.machine[0].nodes)[0].fd, 0);
    cr_expect_lt(nnc_nodes_links(run.machine[run.count - 1].nodes)[1].fd, 0);
    for (uint32_t node = 0; node + 1 < run.count; node++) {
        struct nnc_wire *behind = wire_of(&nnc_nodes_links(run.machine[node].nodes)[1]);
        struct nnc_wire *before = wire_of(&nnc_nodes_links(run.machine[node + 1].nodes)[0]);
        expect_frame(behind, before);
        expect_frame(before, behind);
        nnc_wire_destroy(behind);
        nnc_wire_destroy(before);
    }
}

/* All have seen this generation begin once, and with node 0's start. */
static void expect_begun(uint32_t generation) {
    for (uint32_t node = 0; node < run.count; node++) {
        const struct nodes_case_event *seen =
            nodes_case_wait(&run, node, NNC_NODES_BEGIN, generation);
        cr_expect_eq(seen->event.number, generation);
        cr_expect_eq(memcmp(&seen->event.start, &nodes_case_start, sizeof(nodes_case_start)), 0);
    }
    for (uint32_t node = 0; node < run.count; node++) {
        cr_expect_eq(nodes_case_count(&run, node, NNC_NODES_BEGIN), generation);
        cr_expect_eq(nodes_case_count(&run, node, NNC_NODES_FAILED), 0);
    }
}

Test(nodes, all_begin_with_the_start_that_node_0_chose_and_a_link_to_each_neighbour) {
    static const uint32_t counts[] = {2, 3, 5};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        nodes_case_begin(&run, counts[i]);
        expect_begun(1);
        expect_chain();
        nodes_case_close_all(&run);
    }
}

Test(nodes, machines_may_come_in_any_order) {
    nodes_case_prepare(&run, 3);
    nodes_case_open(&run, 2);
    nodes_case_join(&run, 1);
    nodes_case_work(&run);
    nodes_case_open(&run, 0);
    nnc_nodes_join(run.machine[0].nodes, 1, &nodes_case_start);
    for (int i = 0; i < 20; i++) { /* nothing begins while one is missing */
        nodes_case_work(&run);
    }
    cr_assert_eq(nodes_case_count(&run, 0, NNC_NODES_BEGIN), 0);
    nodes_case_open(&run, 1);
    nnc_nodes_join(run.machine[1].nodes, 1, &nodes_case_start);
    expect_begun(1);
    expect_chain();
    nodes_case_close_all(&run);
}

Test(nodes, they_speak_over_ipv6_too) {
    nodes_case_prepare(&run, 3);
    for (uint32_t node = 0; node < 3; node++) {
        char endpoint[32];
        snprintf(endpoint, sizeof(endpoint), "[::1]%s",
                 strchr(run.machine[node].config.rdzv_endpoint, ':'));
        strcpy(run.machine[node].config.rdzv_endpoint, endpoint);
    }
    if (nnc_nodes_open(&run.machine[0].params, &run.machine[0].nodes) < 0) {
        cr_skip_test("this machine has no IPv6");
    }
    nodes_case_open(&run, 1);
    nodes_case_open(&run, 2);
    nodes_case_join(&run, 1);
    expect_begun(1);
    expect_chain();
    nodes_case_close_all(&run);
}

Test(nodes, after_a_restart_the_next_generation_begins_with_new_links) {
    nodes_case_begin(&run, 3);
    for (uint32_t generation = 2; generation <= 4; generation++) {
        uint32_t teller = generation % 3, before[3];
        for (uint32_t node = 0; node < 3; node++) {
            before[node] = nodes_case_count(&run, node, NNC_NODES_RESTART);
        }
        nnc_nodes_tell_restart(run.machine[teller].nodes, generation - 1, "a trainer died");
        for (uint32_t node = 0; node < 3; node++) {
            if (node != teller) {
                nodes_case_wait(&run, node, NNC_NODES_RESTART, before[node] + 1);
            }
            nnc_nodes_forget_links(run.machine[node].nodes);
        }
        nodes_case_join(&run, generation);
        expect_begun(generation);
        expect_chain();
    }
    nodes_case_close_all(&run);
}

/* One machine goes on to generation 2 when generation 1 has come about so far, the other later. */
static void leave_early(uint32_t first, int steps) {
    nodes_case_prepare(&run, 2);
    nodes_case_open_all(&run);
    nodes_case_join(&run, 1);
    for (int i = 0; i < steps; i++) {
        nodes_case_work(&run);
    }
    nnc_nodes_join(run.machine[first].nodes, 2, &nodes_case_start);
    for (int i = 0; i < 4; i++) {
        nodes_case_work(&run);
    }
    nnc_nodes_join(run.machine[1 - first].nodes, 2, &nodes_case_start);
    for (uint32_t node = 0; node < 2; node++) {
        const struct nodes_case_event *seen = nodes_case_wait(&run, node, NNC_NODES_BEGIN, 1);
        if (seen->event.number == 1) {
            seen = nodes_case_wait(&run, node, NNC_NODES_BEGIN, 2);
        }
        cr_expect_eq(seen->event.number, 2);
    }
    expect_chain();
    for (uint32_t node = 0; node < 2; node++) {
        cr_expect_eq(nodes_case_count(&run, node, NNC_NODES_FAILED), 0);
    }
    nodes_case_close_all(&run);
}

Test(nodes, what_is_left_of_a_generation_does_not_disturb_the_next) {
    int before = count_descriptors();
    for (int steps = 0; steps < 12; steps++) {
        leave_early(0, steps);
        leave_early(1, steps);
        cr_assert_eq(count_descriptors(), before, "after %d steps", steps);
    }
}

/* ---- what they tell each other ---- */

/* All but the teller see exactly one event of the kind, of this node and with these words. Sent
 * after it, something else proves that no second one is on its way. */
static void expect_told(uint32_t teller, enum nnc_nodes_event_kind kind, uint32_t number, int code,
                        const char *words) {
    char want[NNC_NODES_WORDS_MAX];
    snprintf(want, sizeof(want), "%s: %s", nodes_case_name(teller), words);
    nnc_nodes_tell_stop(run.machine[teller].nodes, SIGUSR2);
    for (uint32_t node = 0; node < run.count; node++) {
        if (node == teller) {
            continue;
        }
        uint32_t last = kind == NNC_NODES_STOP ? 2 : 1;
        nodes_case_wait(&run, node, NNC_NODES_STOP, last);
        const struct nodes_case_event *seen = nodes_case_wait(&run, node, kind, 1);
        cr_expect_eq(seen->event.node, teller);
        cr_expect_eq(seen->event.number, number);
        cr_expect_eq(seen->event.code, code);
        cr_expect(kind == NNC_NODES_STOP || strcmp(seen->words, want) == 0, "%s", seen->words);
        cr_expect_eq(nodes_case_count(&run, node, kind), kind == NNC_NODES_STOP ? 2 : 1);
        cr_expect_eq(run.machine[node].count, 3);
    }
    cr_expect_eq(nodes_case_count(&run, teller, kind), 0, "its own words come back");
    nodes_case_close_all(&run);
}

Test(nodes, a_restart_is_told_to_all_others_once) {
    for (uint32_t teller = 0; teller < 3; teller++) {
        nodes_case_begin(&run, 3);
        nnc_nodes_tell_restart(run.machine[teller].nodes, 1, "trainer 1 died of signal 9");
        expect_told(teller, NNC_NODES_RESTART, 1, 0, "trainer 1 died of signal 9");
    }
}

Test(nodes, a_failure_is_told_to_all_others_once) {
    for (uint32_t teller = 0; teller < 3; teller++) {
        nodes_case_begin(&run, 3);
        for (int i = 0; i < 3; i++) {
            nnc_nodes_tell_failure(run.machine[teller].nodes, -NNC_E_NUMERIC, "the loss is NaN");
        }
        expect_told(teller, NNC_NODES_FAILED, 0, -NNC_E_NUMERIC, "the loss is NaN");
    }
}

Test(nodes, a_signal_to_stop_is_told_to_all_others_once) {
    for (uint32_t teller = 0; teller < 3; teller++) {
        nodes_case_begin(&run, 3);
        nnc_nodes_tell_stop(run.machine[teller].nodes, SIGTERM);
        expect_told(teller, NNC_NODES_STOP, SIGTERM, 0, "");
    }
}

Test(nodes, words_that_are_too_long_are_cut) {
    char words[3 * NNC_NODES_WORDS_MAX];
    memset(words, 'x', sizeof(words));
    words[sizeof(words) - 1] = '\0';
    nodes_case_begin(&run, 2);
    nnc_nodes_tell_restart(run.machine[1].nodes, 1, words);
    cr_expect_eq(strlen(nodes_case_wait(&run, 0, NNC_NODES_RESTART, 1)->words),
                 NNC_NODES_WORDS_MAX - 1);
    nnc_nodes_tell_kill(run.machine[0].nodes, 1, 3, words);
    cr_expect_eq(strlen(nodes_case_wait(&run, 1, NNC_NODES_KILL, 1)->words),
                 NNC_NODES_WORDS_MAX - 1);
    nodes_case_close_all(&run);
}

/* A message as it comes out of a child's channel. */
static void make_message(struct nnc_message *ret_message) {
    struct nnc_msg_bad bad = {.phase = 1, .reason_bytes = 5, .sample = 77};
    struct nnc_channel *channels[2];
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(nnc_channel_create(ends[i], 1, &channels[i]), 0);
    }
    cr_assert_eq(nnc_channel_send2(channels[0], NNC_MSG_BAD, &bad, sizeof(bad), "empty", 5, 0), 0);
    cr_assert_eq(nnc_channel_receive(channels[1], ret_message), 1);
    nnc_channel_destroy(channels[0]);
    nnc_channel_destroy(channels[1]);
}

Test(nodes, messages_of_children_and_beats_reach_node_0_alone) {
    struct nnc_message message;
    struct nnc_nodes_beat beat = {.generation = 1, .ranks = 2, .progress = {.samples = 5}};
    beat.rank[1] = (struct nnc_stall_rank){.running = true, .beat_ns = 99, .step = 12};
    make_message(&message);
    nodes_case_begin(&run, 3);
    for (uint32_t node = 0; node < 3; node++) {
        nnc_nodes_tell_child(run.machine[node].nodes, &message);
        nnc_nodes_tell_beat(run.machine[node].nodes, &beat);
    }
    nnc_nodes_tell_stop(run.machine[0].nodes, SIGTERM); /* behind all else to the others */
    nodes_case_wait(&run, 1, NNC_NODES_STOP, 1);
    nodes_case_wait(&run, 2, NNC_NODES_STOP, 1);
    nodes_case_wait(&run, 0, NNC_NODES_BEAT, 2);
    bool came[2][3] = {{false}};
    for (uint32_t i = 1; i < run.machine[0].count; i++) {
        const struct nodes_case_event *seen = &run.machine[0].seen[i];
        bool is_child = seen->event.kind == NNC_NODES_CHILD;
        cr_expect(is_child ? memcmp(&seen->message, &message, sizeof(message)) == 0
                           : memcmp(&seen->beat, &beat, sizeof(beat)) == 0);
        cr_assert_lt(seen->event.node, 3);
        came[is_child][seen->event.node] = true;
    }
    cr_expect(came[0][1] && came[0][2] && came[1][1] && came[1][2]);
    cr_expect(run.machine[0].count == 5 && run.machine[1].count == 2 && run.machine[2].count == 2);
    nodes_case_close_all(&run);
}

Test(nodes, a_rank_is_killed_on_the_machine_that_has_it) {
    nodes_case_begin(&run, 3);
    nnc_nodes_tell_kill(run.machine[0].nodes, 2, 5, "has not moved for 30 s");
    const struct nodes_case_event *seen = nodes_case_wait(&run, 2, NNC_NODES_KILL, 1);
    cr_expect(seen->event.number == 5 && seen->event.node == 0);
    cr_expect_str_eq(seen->words, "has not moved for 30 s");
    nnc_nodes_tell_stop(run.machine[0].nodes, SIGTERM);
    nodes_case_wait(&run, 1, NNC_NODES_STOP, 1);
    cr_expect_eq(nodes_case_count(&run, 1, NNC_NODES_KILL), 0);
    nodes_case_close_all(&run);
}

/* ---- how it ends ---- */

Test(nodes, all_wait_for_each_other_and_hear_how_it_ended) {
    static const int codes[] = {0, -NNC_E_STOPPED};
    for (int i = 0; i < 2; i++) {
        nodes_case_begin(&run, 3);
        nnc_nodes_tell_done(run.machine[1].nodes);
        nnc_nodes_tell_done(run.machine[0].nodes);
        nnc_nodes_tell_stop(run.machine[1].nodes, SIGTERM); /* behind it */
        nodes_case_wait(&run, 0, NNC_NODES_STOP, 1);
        cr_expect_not(nnc_nodes_are_done(run.machine[0].nodes));
        nnc_nodes_tell_done(run.machine[2].nodes);
        nnc_nodes_tell_stop(run.machine[2].nodes, SIGTERM);
        nodes_case_wait(&run, 0, NNC_NODES_STOP, 2);
        cr_expect(nnc_nodes_are_done(run.machine[0].nodes));
        cr_expect_not(nnc_nodes_are_done(run.machine[1].nodes));
        nnc_nodes_close(run.machine[0].nodes, codes[i], "all is saved");
        run.machine[0].nodes = NULL;
        for (uint32_t node = 1; node < 3; node++) {
            const struct nodes_case_event *seen = nodes_case_wait(&run, node, NNC_NODES_END, 1);
            cr_expect_eq(seen->event.code, codes[i]);
            cr_expect(strstr(seen->words, "all is saved") != NULL);
            nodes_case_work(&run);
            cr_expect(nnc_nodes_are_done(run.machine[node].nodes));
            cr_expect_eq(nodes_case_count(&run, node, NNC_NODES_FAILED), 0);
        }
        nodes_case_close_all(&run);
    }
}

Test(nodes, who_was_done_and_joins_again_is_not_done) {
    nodes_case_begin(&run, 2);
    nnc_nodes_tell_done(run.machine[1].nodes);
    nnc_nodes_tell_restart(run.machine[1].nodes, 1, "a trainer died");
    nodes_case_wait(&run, 0, NNC_NODES_RESTART, 1);
    cr_expect(nnc_nodes_are_done(run.machine[0].nodes));
    nodes_case_join(&run, 2);
    expect_begun(2);
    cr_expect_not(nnc_nodes_are_done(run.machine[0].nodes));
    nodes_case_close_all(&run);
}

/* ---- what is left behind ---- */

Test(nodes, no_descriptor_is_left_behind) {
    int before = count_descriptors();
    nodes_case_begin(&run, 3);
    nodes_case_join(&run, 2);
    expect_begun(2);
    nodes_case_close_all(&run);
    cr_expect_eq(count_descriptors(), before);
    nodes_case_prepare(&run, 3); /* and of those that are stopped on their way to each other */
    nodes_case_open_all(&run);
    nodes_case_join(&run, 1);
    for (int steps = 0; steps < 12; steps++) {
        nodes_case_close_all(&run);
        cr_expect_eq(count_descriptors(), before, "after %d steps", steps);
        nodes_case_prepare(&run, 3);
        nodes_case_open_all(&run);
        nodes_case_join(&run, 1);
        for (int i = 0; i < steps; i++) {
            nodes_case_work(&run);
        }
    }
    nodes_case_close_all(&run);
    nnc_nodes_close(NULL, 0, "");
    cr_expect_eq(count_descriptors(), before);
}
