/* SPDX-License-Identifier: Apache-2.0 */
/* Trainings over several machines, each a coordinator with its trainers and loaders on this one:
 * what they compute, what the others do when one is stopped, hangs, dies or differs. */
#include "tests/support/command.h"
#include "tests/support/datasets.h"
#include "tests/support/meeting.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MACHINES_MAX = 4,
    ARGUMENTS_MAX = 64,
};

static char *scratch;
static char model_path[300], data_path[300];
static struct meeting meeting;

static void set_up(void) {
    scratch = scratch_make();
    snprintf(model_path, sizeof(model_path), "%s/tiny.nn", scratch);
    snprintf(data_path, sizeof(data_path), "%s/data", scratch);
    FILE *file = fopen(model_path, "w");
    fputs("input(1, 28, 28)\nSequential(Flatten(), Linear(784, 64), ReLU(), Linear(64, 10))\n",
          file);
    fclose(file);
    dataset_make_idx(data_path, 1000, 100);
    meeting = meeting_make(scratch, "secret", '7');
}

static void tear_down(void) {
    for (int i = 0; i < 200 && count_our_processes(scratch) != 0; i++) {
        usleep(10000);
    }
    cr_expect_eq(count_our_processes(scratch), 0, "processes are left");
    scratch_remove(scratch);
}

/* Words of a command line; later ones of an option win. */
struct line {
    const char *word[ARGUMENTS_MAX];
    int count;
    char number[4][16];
};

static void add(struct line *line, const char *const *words) {
    for (; *words != NULL; words++) {
        cr_assert_lt(line->count, ARGUMENTS_MAX - 1);
        line->word[line->count++] = *words;
    }
    line->word[line->count] = NULL;
}

/* `nncoord train` on a machine of so many with so many ranks each; extra: NULL-ended, or NULL. */
static struct command start(unsigned node, unsigned nodes, unsigned ranks,
                            const char *const *extra) {
    static struct line line;
    line.count = 0;
    snprintf(line.number[0], 16, "%u", nodes);
    snprintf(line.number[1], 16, "%u", node);
    snprintf(line.number[2], 16, "%u", ranks);
    add(&line, (const char *const[]){"train",
                                     data_path,
                                     "--model",
                                     model_path,
                                     DATASET_IDX_OPTIONS,
                                     "--lr",
                                     "0.01",
                                     "--epochs",
                                     "2",
                                     "--global-batch",
                                     "24",
                                     "--workers",
                                     "1",
                                     "--threads",
                                     "1",
                                     "--cpu-ranks",
                                     line.number[2],
                                     "--step-timeout",
                                     "2",
                                     "--output-dir",
                                     "run",
                                     "--json",
                                     NULL});
    if (nodes > 1) {
        add(&line, (const char *const[]){"--nnodes", line.number[0], "--node-rank", line.number[1],
                                         "--rdzv-endpoint", meeting.endpoint, "--rdzv-secret",
                                         meeting.secret, "--rdzv-timeout", "30", NULL});
    }
    if (extra != NULL) {
        add(&line, extra);
    }
    return command_start(scratch, false, line.word);
}

struct machines {
    struct command command[MACHINES_MAX];
    unsigned count;
};

static struct machines start_all(unsigned nodes, unsigned ranks, const char *const *extra) {
    struct machines machines = {.count = nodes};
    for (unsigned i = 0; i < nodes; i++) { /* node 0 last: the others have to call again */
        unsigned node = nodes - 1 - i;
        machines.command[node] = start(node, nodes, ranks, extra);
    }
    return machines;
}

static void wait_all(struct machines *machines) {
    for (unsigned i = 0; i < machines->count; i++) {
        command_wait(&machines->command[i]);
    }
}

static void free_all(struct machines *machines) {
    for (unsigned i = 0; i < machines->count; i++) {
        command_free(&machines->command[i]);
    }
}

static void expect_status(const struct machines *machines, int status) {
    for (unsigned i = 0; i < machines->count; i++) {
        cr_assert_eq(machines->command[i].status, status, "machine %u ended with %d:\n%s", i,
                     machines->command[i].status, machines->command[i].err);
    }
}

static void expect_words(const struct command *command, const char *words) {
    cr_expect_not_null(strstr(command->err, words), "no \"%s\" in:\n%s", words, command->err);
}

/* The weights that node 0 reports. */
static void read_weights(const struct machines *machines, char ret_hash[80]) {
    json_text(machines->command[0].out, "weights_sha256", ret_hash, 80);
}

/* The weights of one machine that did it all alone. */
static void train_alone(unsigned ranks, const char *const *extra, char ret_hash[80]) {
    const char *words[ARGUMENTS_MAX] = {"--output-dir", "alone"};
    for (int i = 0; extra != NULL && extra[i] != NULL; i++) {
        words[2 + i] = extra[i];
    }
    struct machines one = {.command = {start(0, 1, ranks, words)}, .count = 1};
    wait_all(&one);
    expect_status(&one, 0);
    read_weights(&one, ret_hash);
    free_all(&one);
}

/* Wait until the run has done some steps: its metrics have a line. */
static void wait_for_metrics(const char *run) {
    char path[320];
    struct stat info;
    snprintf(path, sizeof(path), "%s/%s/metrics.jsonl", scratch, run);
    for (int i = 0; i < 4000 && (stat(path, &info) < 0 || info.st_size == 0); i++) {
        usleep(5000);
    }
    cr_assert(stat(path, &info) == 0 && info.st_size > 0, "the run did not begin");
}

static pid_t trainer_of(const struct command *command, size_t number) {
    pid_t pids[16];
    for (int i = 0; i < 1000; i++) {
        if (find_descendants(command->pid, "nncoord-trainer", pids, 16) > number) {
            return pids[number];
        }
        usleep(5000);
    }
    cr_assert_fail("the trainer is not there");
    return -1;
}

/* Sockets of a process that are of TCP or UDP, by inode. */
static unsigned count_network_sockets(pid_t pid) {
    static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp",
                                         "/proc/net/udp6"};
    char path[64], target[64], line[512], inode[32];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char name[320];
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        ssize_t length = readlink(name, target, sizeof(target) - 1);
        target[length < 0 ? 0 : length] = '\0';
        if (sscanf(target, "socket:[%31[0-9]", inode) != 1) {
            continue;
        }
        char field[40];
        snprintf(field, sizeof(field), " %s ", inode);
        for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
            FILE *file = fopen(tables[i], "r");
            while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
                count += strstr(line, field) != NULL;
            }
            if (file != NULL) {
                fclose(file);
            }
        }
    }
    closedir(folder);
    return count;
}

/* Long enough to be disturbed. */
#define LONG "--epochs", "60", "--snapshot-interval", "1", "--save-every", "1000"

Test(nodes, two_and_four_machines_train_the_weights_of_one, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    char alone[80], together[80];
    train_alone(4, NULL, alone);
    for (unsigned nodes = 2; nodes <= 4; nodes += 2) {
        const char *const extra[] = {"--output-dir", nodes == 2 ? "two" : "four", NULL};
        struct machines machines = start_all(nodes, 4 / nodes, extra);
        wait_all(&machines);
        expect_status(&machines, 0);
        read_weights(&machines, together);
        cr_expect_str_eq(together, alone, "on %u machines", nodes);
        cr_expect_eq(json_number(machines.command[0].out, "steps"), 2 * 42);
        cr_expect_str_eq(machines.command[1].out, "", "node 0 alone reports");
        cr_expect_not_null(strstr(machines.command[0].err, "1000 images"),
                           "images of all machines:\n%s", machines.command[0].err);
        free_all(&machines);
    }
}

Test(nodes, a_killed_trainer_of_any_machine_restarts_all_and_the_weights_stay_the_same,
     .init = set_up, .fini = tear_down, .timeout = 120) {
    const char *const extra[] = {LONG, NULL};
    char alone[80], together[80];
    train_alone(4, extra, alone);
    struct machines machines = start_all(2, 2, extra);
    wait_for_metrics("run");
    kill(trainer_of(&machines.command[1], 1), SIGKILL);
    wait_all(&machines);
    expect_status(&machines, 0);
    expect_words(&machines.command[0], "node 1 (");
    expect_words(&machines.command[0], "killed by signal 9");
    expect_words(&machines.command[0], "the group starts again (1 of 3)");
    expect_words(&machines.command[1], "the group starts again (1 of 3)");
    read_weights(&machines, together);
    cr_expect_str_eq(together, alone);
    cr_expect_eq(json_number(machines.command[0].out, "restarts"), 1);
    free_all(&machines);
}

Test(nodes, the_budget_of_restarts_is_one_for_all_machines, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    const char *const extra[] = {LONG, "--max-restarts", "0", NULL};
    struct machines machines = start_all(2, 1, extra);
    wait_for_metrics("run");
    kill(trainer_of(&machines.command[1], 0), SIGKILL);
    wait_all(&machines);
    cr_expect_neq(machines.command[0].status, 0);
    cr_expect_eq(machines.command[0].status, machines.command[1].status);
    expect_words(&machines.command[0], "trainer 1 was killed by signal 9");
    free_all(&machines);
}

Test(nodes, a_trainer_that_hangs_on_another_machine_is_found_and_all_go_on, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    const char *const extra[] = {LONG, NULL};
    struct machines machines = start_all(3, 1, extra);
    wait_for_metrics("run");
    kill(trainer_of(&machines.command[2], 0), SIGSTOP);
    wait_all(&machines);
    expect_status(&machines, 0);
    expect_words(&machines.command[0], "trainer 2 on node 2 has not moved for");
    expect_words(&machines.command[2], "killing it");
    for (int node = 0; node < 3; node++) {
        expect_words(&machines.command[node], "the group starts again (1 of 3)");
    }
    free_all(&machines);
}

/* Kill one machine's coordinator; the others end with 5 and name it. */
static void lose_machine(unsigned lost, int signal_number, const char *why) {
    const char *const extra[] = {LONG, "--epochs", "100000", NULL};
    char words[64];
    struct machines machines = start_all(3, 1, extra);
    wait_for_metrics("run");
    kill(machines.command[lost].pid, signal_number);
    for (unsigned node = 0; node < 3; node++) {
        if (node != lost) {
            command_wait(&machines.command[node]);
            cr_expect_eq(machines.command[node].status, 5, "%s", machines.command[node].err);
            snprintf(words, sizeof(words), "node %u (", lost);
            expect_words(&machines.command[node], words);
            expect_words(&machines.command[node], why);
        }
    }
    kill(machines.command[lost].pid, SIGKILL);
    wait_all(&machines);
    free_all(&machines);
}

Test(nodes, a_machine_that_is_gone_ends_all_others_with_its_name, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    lose_machine(2, SIGKILL, "is gone: it closed the connection");
}

Test(nodes, a_machine_that_stands_still_ends_all_others_with_its_name, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    lose_machine(1, SIGSTOP, "is gone: it has said nothing for 10 s");
}

Test(nodes, without_node_0_the_others_end, .init = set_up, .fini = tear_down, .timeout = 60) {
    const char *const extra[] = {LONG, "--epochs", "100000", NULL};
    struct machines machines = start_all(2, 1, extra);
    wait_for_metrics("run");
    kill(machines.command[0].pid, SIGKILL);
    command_wait(&machines.command[1]);
    cr_expect_eq(machines.command[1].status, 5, "%s", machines.command[1].err);
    expect_words(&machines.command[1], "node 0 is gone");
    wait_all(&machines);
    free_all(&machines);
}

Test(nodes, a_signal_to_any_machine_stops_all_and_the_run_goes_on_from_its_checkpoint,
     .init = set_up, .fini = tear_down, .timeout = 120) {
    const char *const extra[] = {LONG, NULL};
    const char *const again[] = {LONG, "--resume", "run", NULL};
    char alone[80], together[80];
    train_alone(2, extra, alone);
    struct machines machines = start_all(2, 1, extra);
    wait_for_metrics("run");
    kill(machines.command[1].pid, SIGTERM);
    wait_all(&machines);
    expect_status(&machines, 75);
    expect_words(&machines.command[0], "is durable");
    free_all(&machines);
    machines = start_all(2, 1, again);
    wait_all(&machines);
    expect_status(&machines, 0);
    expect_words(&machines.command[0], "resuming from");
    read_weights(&machines, together);
    cr_expect_str_eq(together, alone);
    free_all(&machines);
    machines = start_all(2, 1, again);
    wait_all(&machines);
    expect_status(&machines, 0);
    expect_words(&machines.command[0], "nothing left to do after 60 epochs");
    free_all(&machines);
}

Test(nodes, a_signal_to_all_machines_at_once_is_one_signal, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    const char *const extra[] = {LONG, "--epochs", "100000", NULL};
    struct machines machines = start_all(3, 1, extra);
    wait_for_metrics("run");
    for (unsigned node = 0; node < 3; node++) {
        kill(machines.command[node].pid, SIGUSR1);
    }
    wait_all(&machines);
    expect_status(&machines, 75);
    expect_words(&machines.command[0], "is durable");
    free_all(&machines);
}

/* With a trainer that stands still the first signal alone would not end the run. */
Test(nodes, a_second_signal_to_one_machine_stops_all_at_once, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    const char *const extra[] = {LONG, "--epochs", "100000", "--step-timeout", "600", NULL};
    struct machines machines = start_all(3, 1, extra);
    wait_for_metrics("run");
    kill(trainer_of(&machines.command[0], 0), SIGSTOP);
    kill(machines.command[1].pid, SIGTERM);
    kill(machines.command[1].pid, SIGUSR1);
    wait_all(&machines);
    expect_status(&machines, 1);
    for (int node = 0; node < 3; node++) {
        expect_words(&machines.command[node], "before a checkpoint of this moment was durable");
    }
    free_all(&machines);
}

Test(nodes, machines_that_differ_end_with_what_differs, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    const struct meeting other = meeting_make(scratch, "other", '8');
    const struct {
        const char *extra[4];
        unsigned ranks;
        int status;
        const char *words;
    } rows[] = {
        {{"--lr", "0.02", NULL}, 1, 2, "--lr is 0.02 there and 0.01 on node 0"},
        {{NULL}, 2, 2, "has 2 trainers and node 0 has 1"},
        {{"--limit-train-batches", "7", NULL}, 1, 2, "--limit-train-batches"},
        {{"--nnodes", "3", NULL}, 1, 2, "--nnodes 3"},
        {{"--rdzv-id", "another", NULL}, 1, 2, "--rdzv-id"},
        {{"--rdzv-secret", other.secret, "--rdzv-timeout", NULL}, 1, 5, "secret"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *extra[6] = {rows[i].extra[0], rows[i].extra[1], rows[i].extra[2],
                                rows[i].extra[2] == NULL ? NULL : "2", NULL};
        struct command first = start(0, 2, 1, (const char *const[]){"--rdzv-timeout", "4", NULL});
        struct command second = start(1, 2, rows[i].ranks, extra);
        command_wait(&second);
        command_wait(&first);
        cr_expect_eq(second.status, rows[i].status, "row %zu: %d\n%s", i, second.status,
                     second.err);
        cr_expect_neq(first.status, 0);
        cr_expect_not_null(strstr(second.err, rows[i].words), "row %zu: %s", i, second.err);
        command_free(&first);
        command_free(&second);
    }
}

Test(nodes, a_machine_that_does_not_come_is_named, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    const char *const extra[] = {"--rdzv-timeout", "1", NULL};
    struct command first = start(0, 3, 1, extra), second = start(1, 3, 1, extra);
    command_wait(&first);
    command_wait(&second);
    cr_expect_eq(first.status, 5, "%s", first.err);
    expect_words(&first, "missing: node 2");
    cr_expect_eq(second.status, 5, "%s", second.err);
    command_free(&first);
    command_free(&second);
    struct command alone = start(1, 2, 1, extra);
    command_wait(&alone);
    cr_expect_eq(alone.status, 5);
    expect_words(&alone, "cannot be reached: Connection refused");
    expect_words(&alone, "is nncoord started there");
    command_free(&alone);
}

Test(nodes, bench_comm_measures_between_machines, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct machines machines = {.count = 2};
    for (int node = 1; node >= 0; node--) {
        machines.command[node] = command_start(
            scratch, false, (const char *const[]){"bench",           "comm",
                                                  "--model",         model_path,
                                                  "--input",         "1x28x28",
                                                  "--batch-size",    "4",
                                                  "--bench-steps",   "2",
                                                  "--threads",       "1",
                                                  "--nnodes",        "2",
                                                  "--node-rank",     node == 0 ? "0" : "1",
                                                  "--rdzv-endpoint", meeting.endpoint,
                                                  "--rdzv-secret",   meeting.secret,
                                                  "--json",          NULL});
    }
    wait_all(&machines);
    expect_status(&machines, 0);
    cr_expect_eq(json_number(machines.command[0].out, "ranks"), 2);
    expect_words(&machines.command[0], "all gradients");
    expect_words(&machines.command[0], "overlap: ");
    cr_expect_not_null(strstr(machines.command[0].out, "\"overlap\": "), "%s",
                       machines.command[0].out);
    cr_expect_str_eq(machines.command[1].out, "");
    free_all(&machines);
}

Test(nodes, a_signal_while_waiting_ends_at_once_and_leaves_no_folder, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    struct command first = start(0, 2, 1, NULL);
    char path[320];
    struct stat info;
    snprintf(path, sizeof(path), "%s/run", scratch);
    for (int i = 0; i < 2000 && count_network_sockets(first.pid) == 0; i++) {
        usleep(5000);
    }
    kill(first.pid, SIGINT);
    command_wait(&first);
    cr_expect_eq(first.status, 128 + SIGINT, "%d", first.status);
    expect_words(&first, "stopped by Interrupt while not all machines were there");
    cr_expect_lt(stat(path, &info), 0, "a folder of a run that never began");
    command_free(&first);
}

/* Connect to the endpoint, say `bytes` of nonsense, and keep the connection. */
static int knock(size_t bytes) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port =
                                      htons((uint16_t)atoi(strchr(meeting.endpoint, ':') + 1))};
    char nonsense[512];
    memset(nonsense, 'x', sizeof(nonsense));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && bytes > 0 &&
        send(fd, nonsense, bytes, MSG_NOSIGNAL) < 0) {
        close(fd); /* it hung up before: just as well */
        return -1;
    }
    return fd;
}

Test(nodes, strangers_at_the_port_change_nothing, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    const char *const extra[] = {LONG, NULL};
    char alone[80], together[80];
    int fds[300];
    train_alone(2, extra, alone);
    struct machines machines = start_all(2, 1, extra);
    for (int i = 0; i < 300; i++) {
        fds[i] = knock((size_t)i % 3 * 200);
        usleep(5000);
    }
    wait_all(&machines);
    for (int i = 0; i < 300; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    expect_status(&machines, 0);
    read_weights(&machines, together);
    cr_expect_str_eq(together, alone);
    cr_expect_null(strstr(machines.command[0].err, "warning"), "%s", machines.command[0].err);
    free_all(&machines);
}

Test(nodes, one_machine_opens_no_socket_and_of_two_one_coordinator_listens, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    const char *const extra[] = {LONG, "--epochs", "100000", NULL};
    pid_t pids[16];
    struct machines one = {.command = {start(0, 1, 2, extra)}, .count = 1};
    wait_for_metrics("run");
    size_t children = find_descendants(one.command[0].pid, "nncoord", pids, 16);
    cr_expect_geq(children, 3);
    cr_expect_eq(count_network_sockets(one.command[0].pid), 0);
    for (size_t i = 0; i < children; i++) {
        cr_expect_eq(count_network_sockets(pids[i]), 0, "child %zu", i);
    }
    kill(one.command[0].pid, SIGKILL);
    wait_all(&one);
    free_all(&one);
    struct machines two = start_all(
        2, 1, (const char *const[]){LONG, "--epochs", "100000", "--output-dir", "other", NULL});
    wait_for_metrics("other");
    pid_t trainer = trainer_of(&two.command[1], 0);
    cr_expect_eq(count_network_sockets(two.command[0].pid), 2, "the door, and node 1");
    cr_expect_eq(count_network_sockets(two.command[1].pid), 1);
    cr_expect_eq(count_network_sockets(trainer), 1, "its link");
    kill(two.command[0].pid, SIGKILL);
    wait_all(&two);
    free_all(&two);
}

Test(nodes, what_torchrun_sets_is_enough_to_train_together, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    static const char *const names[] = {"RANK", "LOCAL_RANK"};
    char alone[80], together[80];
    struct machines machines = {.count = 2};
    train_alone(2, NULL, alone);
    setenv("WORLD_SIZE", "2", 1);
    setenv("LOCAL_WORLD_SIZE", "2", 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", strchr(meeting.endpoint, ':') + 1, 1);
    const char *const extra[] = {"--rdzv-secret", meeting.secret, NULL};
    for (int node = 0; node < 2; node++) {
        setenv(names[0], node == 0 ? "0" : "1", 1);
        setenv(names[1], node == 0 ? "0" : "1", 1);
        machines.command[node] = start(0, 1, 1, extra);
    }
    wait_all(&machines);
    expect_status(&machines, 0);
    read_weights(&machines, together);
    cr_expect_str_eq(together, alone);
    free_all(&machines);
}
