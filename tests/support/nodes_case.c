/* SPDX-License-Identifier: Apache-2.0 */
/* See nodes_case.h. */
#include "tests/support/nodes_case.h"

#include "base/clock.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIMIT_NS 20000000000ull /* of real time, for what must happen at once */

const struct nnc_nodes_start nodes_case_start = {.start = 2, .epoch = 3, .step = 1ull << 40};

static void on_event(void *context, const struct nnc_nodes_event *event) {
    struct nodes_case_machine *machine = context;
    cr_assert_lt(machine->count, NODES_CASE_SEEN, "too many events; the last: %s", event->words);
    struct nodes_case_event *seen = &machine->seen[machine->count++];
    seen->event = *event;
    snprintf(seen->words, sizeof(seen->words), "%s", event->words);
    seen->event.words = seen->words;
    if (event->message != NULL) {
        seen->message = *event->message;
    }
    if (event->beat != NULL) {
        seen->beat = *event->beat;
    }
}

/* A port where nobody listens just now. */
static uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, bytes) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &bytes) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

void nodes_case_prepare(struct nodes_case *run, uint32_t count) {
    char endpoint[32];
    memset(run, 0, sizeof(*run));
    run->count = count;
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", free_port());
    for (uint32_t node = 0; node < count; node++) {
        struct nodes_case_machine *machine = &run->machine[node];
        nnc_config_defaults(&machine->config);
        machine->config.nnodes = count;
        machine->config.node_rank = node;
        machine->config.rdzv_timeout = 60;
        strcpy(machine->config.rdzv_endpoint, endpoint);
        strcpy(machine->config.rdzv_id, "monday");
        machine->params = (struct nnc_nodes_params){
            .config = &machine->config,
            .secret = "the machines of this run know it",
            .share = {.ranks = 2, .model_hash = 1000, .data_hash = {11, 22}},
            .on_event = on_event,
            .context = machine};
    }
}

void nodes_case_open(struct nodes_case *run, uint32_t node) {
    struct nodes_case_machine *machine = &run->machine[node];
    cr_assert_eq(nnc_nodes_open(&machine->params, &machine->nodes), 0, "%s", nnc_error_text());
}

void nodes_case_open_all(struct nodes_case *run) {
    for (uint32_t node = 0; node < run->count; node++) {
        nodes_case_open(run, node);
    }
}

void nodes_case_join(struct nodes_case *run, uint32_t generation) {
    static const struct nnc_nodes_start own = {.start = 1, .epoch = 77, .step = 77};
    for (uint32_t node = 0; node < run->count; node++) {
        if (run->machine[node].nodes != NULL) {
            nnc_nodes_join(run->machine[node].nodes, generation,
                           node == 0 ? &nodes_case_start : &own);
        }
    }
}

void nodes_case_begin(struct nodes_case *run, uint32_t count) {
    nodes_case_prepare(run, count);
    nodes_case_open_all(run);
    nodes_case_join(run, 1);
    for (uint32_t node = 0; node < count; node++) {
        nodes_case_wait(run, node, NNC_NODES_BEGIN, 1);
    }
}

void nodes_case_work(struct nodes_case *run) {
    struct pollfd poll_fds[NODES_CASE_MAX];
    nfds_t polled = 0;
    for (uint32_t node = 0; node < run->count; node++) {
        if (run->machine[node].nodes != NULL && !run->machine[node].asleep) {
            poll_fds[polled++] =
                (struct pollfd){.fd = nnc_nodes_fd(run->machine[node].nodes), .events = POLLIN};
        }
    }
    poll(poll_fds, polled, 20);
    for (uint32_t node = 0; node < run->count; node++) {
        if (run->machine[node].nodes != NULL && !run->machine[node].asleep) {
            nnc_nodes_work(run->machine[node].nodes, nnc_clock_ns() + run->ahead_ns);
        }
    }
}

uint32_t nodes_case_count(const struct nodes_case *run, uint32_t node,
                          enum nnc_nodes_event_kind kind) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < run->machine[node].count; i++) {
        count += run->machine[node].seen[i].event.kind == kind;
    }
    return count;
}

/* What all have seen, for who finds out why something did not happen. */
static void show(const struct nodes_case *run) {
    for (uint32_t node = 0; node < run->count; node++) {
        for (uint32_t i = 0; i < run->machine[node].count; i++) {
            const struct nnc_nodes_event *event = &run->machine[node].seen[i].event;
            cr_log_error(
                "node %" PRIu32 " saw kind %d of node %" PRIu32 ": %d, %" PRIu32 ", \"%s\"", node,
                (int)event->kind, event->node, event->code, event->number, event->words);
        }
    }
}

const struct nodes_case_event *nodes_case_wait(struct nodes_case *run, uint32_t node,
                                               enum nnc_nodes_event_kind kind, uint32_t nth) {
    uint64_t until_ns = nnc_clock_ns() + LIMIT_NS;
    while (nodes_case_count(run, node, kind) < nth) {
        if (nnc_clock_ns() > until_ns) {
            show(run);
            cr_assert_fail("node %" PRIu32 " sees no event %" PRIu32 " of kind %d", node, nth,
                           (int)kind);
        }
        nodes_case_work(run);
    }
    const struct nodes_case_event *seen = run->machine[node].seen;
    for (;; seen++) {
        nth -= seen->event.kind == kind;
        if (nth == 0) {
            return seen;
        }
    }
}

void nodes_case_close(struct nodes_case *run, uint32_t node) {
    nnc_nodes_close(run->machine[node].nodes, 0, "");
    run->machine[node].nodes = NULL;
}

void nodes_case_close_all(struct nodes_case *run) {
    for (uint32_t node = 0; node < run->count; node++) {
        nodes_case_close(run, node);
    }
}

const char *nodes_case_name(uint32_t node) {
    static char names[NODES_CASE_MAX][96];
    char host[64] = "";
    gethostname(host, sizeof(host) - 1);
    snprintf(names[node], sizeof(names[node]), "node %" PRIu32 " (%s)", node, host);
    return names[node];
}
