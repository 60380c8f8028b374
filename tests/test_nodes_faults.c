/* SPDX-License-Identifier: Apache-2.0 */
/* Several machines that do not fit together, do not come, or go away: all the others learn it, once
 * and in words that name the machine. */
#include "base/err.h"
#include "tests/support/descriptors.h"
#include "tests/support/nodes_case.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

static struct nodes_case run;

TestSuite(nodes_faults, .timeout = 60);

/* A machine's run has failed, with this code and words that have both parts. */
static void expect_failed(uint32_t node, int code, const char *part, const char *other) {
    const struct nodes_case_event *seen = nodes_case_wait(&run, node, NNC_NODES_FAILED, 1);
    cr_expect_eq(seen->event.code, code);
    cr_expect(strstr(seen->words, part) != NULL && strstr(seen->words, other) != NULL,
              "node %" PRIu32 " is told: %s", node, seen->words);
    cr_expect_eq(nodes_case_count(&run, node, NNC_NODES_FAILED), 1);
}

/* ---- machines that differ ---- */

static void other_rate(struct nodes_case_machine *machine) {
    machine->config.lr = 0.2;
}

static void other_data(struct nodes_case_machine *machine) {
    machine->params.share.data_hash[0]++;
}

static void other_validation(struct nodes_case_machine *machine) {
    machine->params.share.data_hash[1] = 0;
}

static void one_rank(struct nodes_case_machine *machine) {
    machine->params.share.ranks = 1;
}

static void other_model(struct nodes_case_machine *machine) {
    machine->params.share.model_hash++;
}

static void other_device(struct nodes_case_machine *machine) {
    machine->params.share.on_gpus = 1;
}

/* What this process logs, from now on. */
static FILE *catch_log(void) {
    FILE *file = tmpfile();
    cr_assert(file != NULL && dup2(fileno(file), STDERR_FILENO) == STDERR_FILENO);
    return file;
}

static void expect_logged(FILE *log, const char *part, const char *other) {
    char text[8192];
    fflush(stderr);
    ssize_t bytes = pread(fileno(log), text, sizeof(text) - 1, 0);
    cr_assert_geq(bytes, 0);
    text[bytes] = '\0';
    cr_expect(strstr(text, part) != NULL && strstr(text, other) != NULL, "node 0 logged: %s", text);
}

/* The one that came instead of node 2 leaves, and the right one takes its place. */
static void expect_place_free(void) {
    nodes_case_close(&run, 2);
    run.machine[2].count = 0;
    memcpy(run.machine[2].params.secret, run.machine[1].params.secret, NNC_SECRET_BYTES);
    run.machine[2].config = run.machine[1].config;
    run.machine[2].config.node_rank = 2;
    run.machine[2].params.share = run.machine[1].params.share;
    nodes_case_open(&run, 2);
    nnc_nodes_join(run.machine[2].nodes, 1, &nodes_case_start);
    for (uint32_t node = 0; node < 3; node++) {
        nodes_case_wait(&run, node, NNC_NODES_BEGIN, 1);
        cr_expect_eq(nodes_case_count(&run, node, NNC_NODES_FAILED), 0);
    }
    nodes_case_close_all(&run);
}

/* It may be of another run: its place stays free for the one that fits. */
Test(nodes_faults, a_machine_that_differs_is_told_so_and_its_place_stays_free) {
    static const struct {
        void (*change)(struct nodes_case_machine *machine);
        const char *words;
    } rows[] = {
        {other_rate, "--lr is 0.2 there and 0.1 on node 0"},
        {other_data, "has another training set than node 0: all machines need the same files"},
        {other_validation, "has another validation set than node 0"},
        {one_rank, "has 1 trainer and node 0 has 2; all machines need as many"},
        {other_device, "trains on GPUs and node 0 on CPUs"},
        {other_model, "has another model than node 0 under the same name"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        FILE *log = catch_log();
        nodes_case_prepare(&run, 3);
        rows[row].change(&run.machine[2]);
        nodes_case_open_all(&run);
        nodes_case_join(&run, 1);
        expect_failed(2, -NNC_E_USAGE, nodes_case_name(2), rows[row].words);
        expect_logged(log, rows[row].words, "still waiting for a node 2");
        expect_place_free();
        fclose(log);
    }
}

/* Both machines print it, so it names them: "here" would be wrong on one. */
Test(nodes_faults, the_sentence_on_options_says_whose_it_is) {
    nodes_case_prepare(&run, 2);
    run.machine[1].config.lr = 0.2;
    nodes_case_open_all(&run);
    nodes_case_join(&run, 1);
    expect_failed(1, -NNC_E_USAGE, "node 0 says that", "there and 0.1 on node 0");
    nodes_case_close_all(&run);
}

Test(nodes_faults, a_machine_that_leaves_before_all_are_there_can_come_again) {
    FILE *log = catch_log();
    nodes_case_prepare(&run, 3);
    nodes_case_open(&run, 0);
    nodes_case_open(&run, 2);
    nodes_case_join(&run, 1);
    for (int i = 0; i < 20; i++) {
        nodes_case_work(&run);
    }
    nodes_case_close(&run, 2);
    for (int i = 0; i < 20; i++) {
        nodes_case_work(&run);
    }
    expect_logged(log, nodes_case_name(2), "has left: it closed the connection; still waiting");
    nodes_case_open(&run, 1);
    nnc_nodes_join(run.machine[1].nodes, 1, &nodes_case_start);
    expect_place_free();
    fclose(log);
}

/* ---- machines that do not belong to the run ---- */

static void other_id(struct nodes_case_machine *machine) {
    strcpy(machine->config.rdzv_id, "tuesday");
}

static void more_nodes(struct nodes_case_machine *machine) {
    machine->config.nnodes = 4;
}

static void same_rank(struct nodes_case_machine *machine) {
    machine->config.node_rank = 1;
}

Test(nodes_faults, who_is_none_of_the_run_is_told_so_and_harms_nobody) {
    static const struct {
        void (*change)(struct nodes_case_machine *machine);
        const char *words, *who;
    } rows[] = {
        {other_id, "it belongs to the run \"tuesday\" and node 0 to \"monday\" (--rdzv-id)",
         "node 2"},
        {more_nodes, "it has --nnodes 4 and node 0 --nnodes 3", "node 2"},
        {same_rank, "--node-rank 1 is already there, on ", "node 1"},
    };
    FILE *log = catch_log();
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        char told[64], logged[64];
        snprintf(told, sizeof(told), "node 0 refuses %s: ", rows[row].who);
        snprintf(logged, sizeof(logged), "%s was refused: ", rows[row].who);
        nodes_case_prepare(&run, 3);
        nodes_case_open(&run, 0);
        nodes_case_open(&run, 1);
        nnc_nodes_join(run.machine[1].nodes, 1, &nodes_case_start);
        for (int i = 0; i < 20; i++) { /* node 1 is there and has said its name */
            nodes_case_work(&run);
        }
        rows[row].change(&run.machine[2]);
        nodes_case_open(&run, 2);
        nodes_case_join(&run, 1);
        expect_failed(2, -NNC_E_USAGE, told, rows[row].words);
        expect_logged(log, logged, rows[row].words);
        expect_place_free();
    }
    fclose(log);
}

Test(nodes_faults, a_machine_with_another_secret_learns_it_and_harms_nobody) {
    nodes_case_prepare(&run, 3);
    run.machine[2].params.secret[0] ^= 1;
    nodes_case_open_all(&run);
    nodes_case_join(&run, 1);
    expect_failed(2, -NNC_E_COMM, run.machine[2].config.rdzv_endpoint,
                  "does not know this run's secret: give all machines the same --rdzv-secret");
    expect_place_free();
}

/* ---- node 0's place ---- */

static void expect_unopened(const char *endpoint, const char *words) {
    strcpy(run.machine[1].config.rdzv_endpoint, endpoint);
    run.machine[1].config.node_rank = 0;
    struct nnc_nodes *nodes = NULL;
    int before = count_descriptors();
    cr_expect_eq(nnc_nodes_open(&run.machine[1].params, &nodes), -NNC_E_USAGE, "%s", endpoint);
    cr_expect(strstr(nnc_error_text(), words) != NULL, "%s", nnc_error_text());
    cr_expect_null(nodes);
    cr_expect_eq(count_descriptors(), before);
}

Test(nodes_faults, an_endpoint_that_cannot_be_node_0s_is_refused_with_a_remedy) {
    char taken[NNC_ENDPOINT_MAX];
    nodes_case_prepare(&run, 2);
    nodes_case_open(&run, 0);
    snprintf(taken, sizeof(taken), "%s", run.machine[0].config.rdzv_endpoint);
    expect_unopened(taken, "is in use; choose another on all machines");
    expect_unopened("203.0.113.1:29500", "203.0.113.1:29500 is not an address of this machine");
    expect_unopened("0.0.0.0:29500", "give one of its own");
    expect_unopened("[::]:29500", "give one of its own");
    expect_unopened("a..b:29500", "--rdzv-endpoint: the host \"a..b\" cannot be looked up");
    nodes_case_close_all(&run);
}

/* ---- machines that do not come ---- */

Test(nodes_faults, machines_that_do_not_come_in_time_are_named) {
    nodes_case_prepare(&run, 5);
    nodes_case_open(&run, 0);
    nodes_case_open(&run, 2);
    nodes_case_join(&run, 1);
    for (int i = 0; i < 20; i++) {
        nodes_case_work(&run);
    }
    cr_expect_eq(run.machine[0].count + run.machine[2].count, 0);
    nnc_nodes_tell_beat(run.machine[0].nodes, &(struct nnc_nodes_beat){.ranks = 2});
    nnc_nodes_tell_beat(run.machine[2].nodes, &(struct nnc_nodes_beat){.ranks = 2});
    run.ahead_ns = 60 * SECOND_NS;
    const char *words =
        "not all machines came within 60 s (--rdzv-timeout); missing: node 1, node 3, node 4";
    expect_failed(0, -NNC_E_COMM, words, words);
    expect_failed(2, -NNC_E_COMM, words, words);
    nodes_case_close_all(&run);
}

Test(nodes_faults, a_machine_that_does_not_join_the_next_generation_is_named) {
    nodes_case_begin(&run, 3);
    nnc_nodes_join(run.machine[0].nodes, 2, &nodes_case_start);
    nnc_nodes_join(run.machine[1].nodes, 2, &nodes_case_start);
    for (int i = 0; i < 20; i++) {
        nodes_case_work(&run);
    }
    for (int i = 0; i < 10; i++) { /* its coordinator lives */
        run.ahead_ns += 6 * SECOND_NS;
        for (uint32_t node = 0; node < 3; node++) {
            nnc_nodes_tell_beat(run.machine[node].nodes, &(struct nnc_nodes_beat){.ranks = 1});
        }
        nodes_case_work(&run);
    }
    for (uint32_t node = 0; node < 3; node++) {
        expect_failed(node, -NNC_E_COMM, "--rdzv-timeout", "missing: node 2");
    }
    nodes_case_close_all(&run);
}

/* Who comes in the last moment is there; what it still needs has a limit of its own. */
Test(nodes_faults, at_the_end_of_the_time_nobody_is_missing_when_all_are_there) {
    nodes_case_prepare(&run, 2);
    nodes_case_open_all(&run);
    nodes_case_join(&run, 1);
    run.machine[0].asleep = true;
    for (int i = 0; i < 20; i++) {
        nodes_case_work(&run);
        run.machine[0].asleep = i != 10; /* lets it in, without reading its JOIN */
    }
    nnc_nodes_tell_beat(run.machine[1].nodes, &(struct nnc_nodes_beat){.ranks = 2});
    run.ahead_ns = 60 * SECOND_NS;
    run.machine[0].asleep = false;
    run.machine[1].asleep = true;
    nodes_case_work(&run);
    nnc_nodes_tell_beat(run.machine[0].nodes, &(struct nnc_nodes_beat){.ranks = 2});
    nodes_case_work(&run);
    cr_expect_eq(nodes_case_count(&run, 0, NNC_NODES_FAILED), 0);
    nodes_case_close_all(&run);
}

Test(nodes_faults, node_0_that_does_not_answer_is_named_with_the_reason) {
    nodes_case_prepare(&run, 2);
    nodes_case_open(&run, 1);
    nodes_case_join(&run, 1);
    for (int i = 0; i < 3; i++) {
        nodes_case_work(&run);
    }
    run.ahead_ns = 61 * SECOND_NS;
    expect_failed(1, -NNC_E_COMM, "cannot be reached: Connection refused",
                  run.machine[1].config.rdzv_endpoint);
    nodes_case_close_all(&run);
}

/* ---- machines that go away ---- */

Test(nodes_faults, a_machine_that_closes_its_connection_ends_all_other_runs) {
    nodes_case_begin(&run, 3);
    nodes_case_close(&run, 2);
    for (uint32_t node = 0; node < 2; node++) {
        expect_failed(node, -NNC_E_COMM, nodes_case_name(2), "is gone: it closed the connection");
        cr_expect_eq(nodes_case_wait(&run, node, NNC_NODES_FAILED, 1)->event.node, 0);
    }
    nnc_nodes_tell_stop(run.machine[0].nodes, SIGTERM);
    nodes_case_wait(&run, 1, NNC_NODES_STOP, 1);
    cr_expect_eq(nodes_case_count(&run, 1, NNC_NODES_FAILED), 1);
    nodes_case_close_all(&run);
}

Test(nodes_faults, a_machine_that_had_done_its_part_may_close) {
    nodes_case_begin(&run, 3);
    nnc_nodes_tell_done(run.machine[2].nodes);
    nodes_case_close(&run, 2);
    for (int i = 0; i < 20; i++) {
        nodes_case_work(&run);
    }
    cr_expect_not(nnc_nodes_are_done(run.machine[0].nodes));
    nnc_nodes_tell_done(run.machine[1].nodes);
    while (!nnc_nodes_are_done(run.machine[0].nodes)) {
        nodes_case_work(&run);
    }
    cr_expect_eq(nodes_case_count(&run, 0, NNC_NODES_FAILED), 0);
    cr_expect_eq(nodes_case_count(&run, 1, NNC_NODES_FAILED), 0);
    nodes_case_close_all(&run);
}

/* Node 0 has failed and gone before this machine listens again: it hears the reason all the same,
 * although what it says itself meets a closed connection. */
Test(nodes_faults, last_words_are_heard_before_the_connection_counts_as_lost) {
    nodes_case_begin(&run, 2);
    run.machine[1].asleep = true;
    nnc_nodes_tell_beat(run.machine[1].nodes, &(struct nnc_nodes_beat){.ranks = 2}); /* unread */
    nnc_nodes_tell_failure(run.machine[0].nodes, -NNC_E_NUMERIC, "the loss is NaN");
    nodes_case_close(&run, 0);
    for (int i = 0; i < 3; i++) {
        nnc_nodes_tell_beat(run.machine[1].nodes, &(struct nnc_nodes_beat){.ranks = 2});
    }
    run.machine[1].asleep = false;
    expect_failed(1, -NNC_E_NUMERIC, nodes_case_name(0), "the loss is NaN");
    cr_expect_eq(nodes_case_count(&run, 1, NNC_NODES_END), 1);
    nodes_case_close_all(&run);
}

Test(nodes_faults, a_machine_that_says_nothing_for_ten_seconds_ends_all_other_runs) {
    nodes_case_begin(&run, 3);
    run.machine[2].asleep = true; /* from now on, with its connection open */
    run.ahead_ns += 6 * SECOND_NS;
    nnc_nodes_tell_beat(run.machine[1].nodes, &(struct nnc_nodes_beat){.ranks = 2});
    nodes_case_wait(&run, 0, NNC_NODES_BEAT, 1);
    nnc_nodes_tell_kill(run.machine[0].nodes, 1, 2, "");
    nodes_case_wait(&run, 1, NNC_NODES_KILL, 1);
    cr_expect_eq(nodes_case_count(&run, 0, NNC_NODES_FAILED), 0);
    run.ahead_ns += 5 * SECOND_NS;
    expect_failed(0, -NNC_E_COMM, nodes_case_name(2), "is gone: it has said nothing for 10 s");
    expect_failed(1, -NNC_E_COMM, nodes_case_name(2), "is gone: it has said nothing for 10 s");
    run.machine[1].asleep = true;
    run.machine[2].asleep = false; /* it wakes up and is told, too */
    expect_failed(2, -NNC_E_COMM, nodes_case_name(2), "is gone");
    nodes_case_close_all(&run);
}

Test(nodes_faults, node_0_that_says_nothing_for_ten_seconds_is_gone_for_the_others) {
    nodes_case_begin(&run, 3);
    run.machine[0].asleep = true;
    run.ahead_ns += 11 * SECOND_NS;
    expect_failed(1, -NNC_E_COMM, "node 0", "is gone: it has said nothing for 10 s");
    expect_failed(2, -NNC_E_COMM, "node 0", "is gone: it has said nothing for 10 s");
    run.machine[0].asleep = false; /* it learns who finds so */
    const struct nodes_case_event *seen = nodes_case_wait(&run, 0, NNC_NODES_FAILED, 1);
    const char *name = nodes_case_name(seen->event.node);
    cr_expect(strncmp(seen->words, name, strlen(name)) == 0 &&
                  strncmp(seen->words + strlen(name), ": node 0", 8) == 0,
              "node 0 is told: %s", seen->words);
    nodes_case_close_all(&run);
}
