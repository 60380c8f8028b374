/* SPDX-License-Identifier: Apache-2.0 */
/* Who is there, when a generation begins, and what is told to whom; see nodes.h and
 * nodes_private.h. */
#include "coordinator/nodes_private.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "coordinator/nodes_fit.h"
#include "ipc/setup.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define SECOND_NS   1000000000ull
#define TELL_NS     (15 * SECOND_NS)
#define CLOSE_MS    5000
#define QUEUE_BYTES (4u << 20)

static bool is_last(const struct nnc_nodes *nodes) {
    return nodes->node + 1 == nodes->count;
}

void nodes_emit(struct nnc_nodes *nodes, const struct nnc_nodes_event *event) {
    struct nnc_nodes_event whole = *event;
    whole.words = event->words == NULL ? "" : event->words;
    nodes->params.on_event(nodes->params.context, &whole);
}

/* ---- sending ---- */

void nodes_check_sent(struct nnc_nodes *nodes, uint32_t node, ssize_t code) {
    if (code < 0 && code != -EPIPE) {
        nodes_lose(nodes, node, nnc_error_text());
    }
}

void nodes_send_to(struct nnc_nodes *nodes, uint32_t node, enum nodes_frame type, const void *body,
                   size_t bytes) {
    struct nodes_peer *peer = &nodes->peer[node];
    if (peer->wire != NULL) {
        nodes_check_sent(nodes, node, nnc_wire_send(peer->wire, type, body, bytes));
    }
}

void nodes_send_word(struct nnc_nodes *nodes, uint32_t node, enum nodes_frame type,
                     const struct nodes_word *word, const char *words) {
    uint8_t body[sizeof(*word) + NNC_NODES_WORDS_MAX];
    size_t length = strnlen(words, NNC_NODES_WORDS_MAX - 1);
    memcpy(body, word, sizeof(*word));
    memcpy(body + sizeof(*word), words, length);
    nodes_send_to(nodes, node, type, body, sizeof(*word) + length);
}

void nodes_send_all(struct nnc_nodes *nodes, uint32_t but, enum nodes_frame type,
                    const struct nodes_word *word, const char *words) {
    for (uint32_t node = 0; node < nodes->count; node++) {
        if (node != but) {
            nodes_send_word(nodes, node, type, word, words);
        }
    }
}

/* "node 1 (db8): WORDS" to the others. */
static void tell(struct nnc_nodes *nodes, enum nodes_frame type, int32_t number,
                 const char *words) {
    char whole[NNC_NODES_WORDS_MAX];
    const struct nodes_word word = {.number = number, .node = nodes->node};
    snprintf(whole, sizeof(whole), "%s: %s", nodes->name, words);
    nodes_send_all(nodes, nodes->node, type, &word, whole);
}

void nodes_fail(struct nnc_nodes *nodes, int code, const char *words) {
    if (nodes->failed) {
        return;
    }
    nodes->failed = true;
    const struct nodes_word word = {.number = code, .node = nodes->node};
    if (nodes_is_first(nodes)) {
        nodes_send_all(nodes, nodes->node, FRAME_FAILED, &word, words);
    } else {
        tell(nodes, FRAME_FAILED, code, words); /* node 0 must not say of itself that it is gone */
    }
    nodes_emit(nodes,
               &(struct nnc_nodes_event){
                   .kind = NNC_NODES_FAILED, .node = word.node, .code = code, .words = words});
}

void nodes_name_peer(const struct nnc_nodes *nodes, uint32_t node, char *ret_name, size_t bytes) {
    const char *host = nodes->peer[node].host;
    snprintf(ret_name, bytes, host[0] != '\0' ? "node %" PRIu32 " (%s)" : "node %" PRIu32, node,
             host);
}

void nodes_lose(struct nnc_nodes *nodes, uint32_t node, const char *why) {
    struct nodes_peer *peer = &nodes->peer[node];
    if (peer->gone) {
        return;
    }
    peer->gone = true; /* its wire goes when nobody works on it */
    if (peer->done || nodes->ended) {
        return;
    }
    char name[128], words[NNC_NODES_WORDS_MAX];
    nodes_name_peer(nodes, node, name, sizeof(name));
    snprintf(words, sizeof(words), "%s is gone: %.600s", name, why);
    nodes_fail(nodes, -NNC_E_COMM, words);
}

/* ---- joining ---- */

static int watch(struct nnc_nodes *nodes, const struct nnc_wire *wire) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
    int fd = nnc_wire_fd(wire);
    return epoll_ctl(nodes->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? nnc_fail_errno("epoll_ctl")
                                                                     : 0;
}

/* Take a proved connection as the one to a node; its descriptor is gone afterwards. */
static int adopt(struct nnc_nodes *nodes, const struct nnc_guest *guest, uint32_t node) {
    struct nodes_peer *peer = &nodes->peer[node];
    int code = nnc_wire_create(guest->fd, &guest->keys, QUEUE_BYTES, &peer->wire);
    if (code < 0) {
        close(guest->fd);
        return code;
    }
    peer->heard_ns = nnc_clock_ns();
    return watch(nodes, peer->wire);
}

static void send_join(struct nnc_nodes *nodes) {
    static const struct nnc_address nowhere;
    if (nodes_is_first(nodes) || nodes->peer[0].wire == NULL || nodes->joined == 0) {
        return;
    }
    uint8_t
        body[sizeof(struct nodes_join) + NNC_SHARED_TEXT_MAX + 1]; /* a zero goes behind the text */
    struct nodes_join join = {.generation = nodes->joined,
                              .share = nodes->params.share,
                              .listener =
                                  nodes->door == NULL ? nowhere : *nnc_door_address(nodes->door)};
    gethostname(join.host, sizeof(join.host) - 1);
    ssize_t length = nnc_config_print_shared(nodes->params.config, (char *)body + sizeof(join),
                                             sizeof(body) - sizeof(join));
    if (length < 0) {
        nodes_fail(nodes, (int)length, nnc_error_text());
        return;
    }
    memcpy(body, &join, sizeof(join));
    nodes_send_to(nodes, 0, FRAME_JOIN, body, sizeof(join) + (size_t)length);
}

/* Node 0: all have joined the same generation as this node. */
static bool all_joined(const struct nnc_nodes *nodes) {
    for (uint32_t node = 1; node < nodes->count; node++) {
        if (nodes->peer[node].joined != nodes->joined) {
            return false;
        }
    }
    return nodes->joined > nodes->begun;
}

static void begin_if_all_joined(struct nnc_nodes *nodes) {
    if (!nodes_is_first(nodes) || nodes->failed || !all_joined(nodes)) {
        return;
    }
    nodes->begun = nodes->joined;
    struct nnc_address before = *nnc_door_address(nodes->door);
    for (uint32_t node = 1; node < nodes->count; node++) {
        const struct nodes_begin begin = {
            .generation = nodes->begun, .start = nodes->start, .before = before};
        nodes_send_to(nodes, node, FRAME_BEGIN, &begin, sizeof(begin));
        before = nodes->peer[node].listener;
    }
}

/* Both links of the generation that node 0 began are there. */
static void tell_begin(struct nnc_nodes *nodes) {
    bool before = nodes_is_first(nodes) || nodes->link[0].fd >= 0;
    bool behind = is_last(nodes) || nodes->link[1].fd >= 0;
    if (nodes->begun == 0 || nodes->begun != nodes->joined || !before || !behind ||
        nodes->deadline_ns == 0) {
        return;
    }
    nodes->deadline_ns = 0;
    nodes_emit(nodes, &(struct nnc_nodes_event){
                          .kind = NNC_NODES_BEGIN, .number = nodes->begun, .start = nodes->start});
}

struct nnc_greeting nodes_own_greeting(const struct nnc_nodes *nodes, enum nnc_greeting_kind kind) {
    struct nnc_greeting greeting = {
        .kind = kind, .node = nodes->node, .nodes = nodes->count, .generation = nodes->joined};
    snprintf(greeting.job, sizeof(greeting.job), "%s", nodes->params.config->rdzv_id);
    snprintf(greeting.build_id, sizeof(greeting.build_id), "%s", nnc_build_id());
    return greeting;
}

/* ---- connections that come in and go out ---- */

/* Tell a machine that has the secret why it may not come, and hang up. */
static void refuse(const struct nnc_guest *guest, const char *words) {
    struct nnc_wire *wire;
    uint8_t body[sizeof(struct nodes_word) + NNC_NODES_WORDS_MAX];
    const struct nodes_word word = {.number = -NNC_E_USAGE};
    int length = snprintf((char *)body + sizeof(word), NNC_NODES_WORDS_MAX,
                          "node 0 refuses node %" PRIu32 ": %s", guest->greeting.node, words);
    assert(length < NNC_NODES_WORDS_MAX);
    nnc_log(NNC_LOG_WARN, "node %" PRIu32 " was refused: %s", guest->greeting.node, words);
    if (nnc_wire_create(guest->fd, &guest->keys, sizeof(body) + 1024, &wire) < 0) {
        close(guest->fd);
        return;
    }
    memcpy(body, &word, sizeof(word));
    nnc_wire_send(wire, FRAME_FAILED, body, sizeof(word) + (size_t)length);
    nnc_wire_destroy(wire);
}

/* Whether a machine that knows the secret may come. */
static bool may_come(const struct nnc_nodes *nodes, const struct nnc_greeting *greeting,
                     char *ret_words, size_t bytes) {
    if (!nnc_nodes_greeting_fits(nodes->params.config, greeting, ret_words, bytes)) {
        return false;
    }
    const struct nodes_peer *peer = &nodes->peer[greeting->node];
    if (peer->wire == NULL && !peer->gone) {
        return true;
    }
    snprintf(ret_words, bytes, "--node-rank %" PRIu32 " is already there%s%s", greeting->node,
             peer->host[0] != '\0' ? ", on " : "", peer->host);
    return false;
}

static void welcome(struct nnc_nodes *nodes, const struct nnc_guest *guest) {
    char words[512];
    bool is_data = guest->greeting.kind == NNC_GREETING_DATA;
    bool is_next = is_data && guest->greeting.node == nodes->node + 1 &&
                   guest->greeting.generation == nodes->joined && nodes->link[1].fd < 0;
    if (is_next) {
        nodes->link[1] = (struct nnc_nodes_link){.fd = guest->fd, .keys = guest->keys};
    } else if (is_data || !nodes_is_first(nodes)) {
        close(guest->fd); /* of a generation that has passed */
    } else if (!may_come(nodes, &guest->greeting, words, sizeof(words))) {
        refuse(guest, words);
    } else if (adopt(nodes, guest, guest->greeting.node) < 0) {
        nodes_fail(nodes, -NNC_E_COMM, nnc_error_text());
    }
}

/* The control connection stands: the node behind may call from now on. */
static void on_connected(struct nnc_nodes *nodes, const struct nnc_guest *guest) {
    struct nnc_address here;
    int code = adopt(nodes, guest, 0);
    if (code == 0 && !is_last(nodes) && nodes->door == NULL) {
        code = nnc_address_here(guest->fd, &here);
        code = code < 0 ? code
                        : nnc_door_open(&here, nodes->params.secret, nodes->epoll_fd, &nodes->door);
    }
    if (code < 0) {
        nodes_fail(nodes, -NNC_E_COMM, nnc_error_text());
        return;
    }
    send_join(nodes);
}

/* Waiting is told of every 15 s. */
static bool is_time_for_a_word(struct nnc_nodes *nodes, uint64_t now_ns) {
    if (now_ns < nodes->told_ns + TELL_NS) {
        return false;
    }
    nodes->told_ns = now_ns;
    return true;
}

/* Go on with one call; returns 1 with the connection when it stands. */
static int work_call(struct nnc_nodes *nodes, struct nnc_call **call, uint64_t now_ns,
                     struct nnc_guest *ret_guest) {
    if (*call == NULL) {
        return 0;
    }
    int done = nnc_call_work(*call, now_ns, ret_guest);
    if (done != 0) {
        nnc_call_end(*call);
        *call = NULL;
    }
    if (done < 0) {
        nodes_fail(nodes, done, nnc_error_text());
    } else if (done == 0 && is_time_for_a_word(nodes, now_ns)) {
        char words[NNC_ENDPOINT_MAX + 300];
        nnc_call_describe(*call, words, sizeof(words));
        nnc_log(NNC_LOG_INFO, "%s", words);
    }
    return done == 1;
}

/* "node 1, node 3": who has not joined this generation. */
static void list_missing(const struct nnc_nodes *nodes, char *ret_words, size_t bytes) {
    size_t used = 0;
    for (uint32_t node = 1; node < nodes->count && used < bytes; node++) {
        if (nodes->peer[node].joined != nodes->joined) {
            used += (size_t)snprintf(ret_words + used, bytes - used, "%snode %" PRIu32,
                                     used == 0 ? "" : ", ", node);
        }
    }
}

/* Who has not come, when the time for it is over; a word now and then before. */
static void find_missing(struct nnc_nodes *nodes, uint64_t now_ns) {
    char list[400], words[512];
    if (!nodes_is_first(nodes) || nodes->begun == nodes->joined || nodes->failed) {
        return; /* the links of what has begun have a limit of their own */
    }
    list_missing(nodes, list, sizeof(list));
    if (now_ns >= nodes->deadline_ns) {
        snprintf(words, sizeof(words),
                 "not all machines came within %" PRIu32 " s (--rdzv-timeout); missing: %s",
                 nodes->params.config->rdzv_timeout, list);
        nodes_fail(nodes, -NNC_E_COMM, words);
    } else if (is_time_for_a_word(nodes, now_ns)) {
        nnc_log(NNC_LOG_INFO, "still waiting for %s", list);
    }
}

void nnc_nodes_work(struct nnc_nodes *nodes, uint64_t now_ns) {
    struct epoll_event events[32];
    struct nnc_guest guest;
    while (epoll_wait(nodes->epoll_fd, events, 32, 0) == 32) {
        /* only says that there is something to do; all is looked at below */
    }
    if (work_call(nodes, &nodes->control, now_ns, &guest)) {
        on_connected(nodes, &guest);
    }
    while (nodes->door != NULL && nnc_door_next(nodes->door, now_ns, &guest) == 1) {
        welcome(nodes, &guest);
    }
    for (uint32_t node = 0; node < nodes->count; node++) {
        nodes_read_peer(nodes, node, now_ns);
    }
    if (work_call(nodes, &nodes->data, now_ns, &guest)) {
        nodes->link[0] = (struct nnc_nodes_link){.fd = guest.fd, .keys = guest.keys};
    }
    begin_if_all_joined(nodes);
    find_missing(nodes, now_ns);
    tell_begin(nodes);
    OPENSSL_cleanse(&guest, sizeof(guest));
}

/* ---- what a machine does ---- */

void nnc_nodes_join(struct nnc_nodes *nodes, uint32_t generation,
                    const struct nnc_nodes_start *start) {
    nnc_nodes_forget_links(nodes);
    nnc_call_end(nodes->data); /* of the generation before, should it still be calling */
    nodes->data = NULL;
    nodes->joined = generation;
    nodes->start = *start;
    nodes->told_ns = nnc_clock_ns();
    nodes->deadline_ns = nodes->told_ns + nodes->params.config->rdzv_timeout * SECOND_NS;
    send_join(nodes);
}

const struct nnc_nodes_link *nnc_nodes_links(const struct nnc_nodes *nodes) {
    return nodes->link;
}

void nnc_nodes_forget_links(struct nnc_nodes *nodes) {
    for (int side = 0; side < 2; side++) {
        if (nodes->link[side].fd >= 0) {
            close(nodes->link[side].fd);
        }
        OPENSSL_cleanse(&nodes->link[side], sizeof(nodes->link[side]));
        nodes->link[side].fd = -1;
    }
}

void nnc_nodes_tell_restart(struct nnc_nodes *nodes, uint32_t generation, const char *words) {
    tell(nodes, FRAME_RESTART, (int32_t)generation, words);
}

void nnc_nodes_tell_failure(struct nnc_nodes *nodes, int code, const char *words) {
    if (!nodes->failed) {
        nodes->failed = true;
        tell(nodes, FRAME_FAILED, code, words);
    }
}

void nnc_nodes_tell_stop(struct nnc_nodes *nodes, int signal_number) {
    tell(nodes, FRAME_STOP, signal_number, "");
}

void nnc_nodes_tell_child(struct nnc_nodes *nodes, const struct nnc_message *message) {
    if (!nodes_is_first(nodes)) {
        nodes_send_to(nodes, 0, FRAME_CHILD, message,
                      sizeof(message->header) + message->header.bytes);
    }
}

void nnc_nodes_tell_beat(struct nnc_nodes *nodes, const struct nnc_nodes_beat *beat) {
    for (uint32_t node = 0; node < nodes->count; node++) {
        nodes_send_to(nodes, node, FRAME_BEAT, beat, nodes_is_first(nodes) ? 0 : sizeof(*beat));
    }
}

void nnc_nodes_tell_kill(struct nnc_nodes *nodes, uint32_t node, uint32_t rank, const char *words) {
    const struct nodes_word word = {.number = (int32_t)rank, .node = nodes->node};
    nodes_send_word(nodes, node, FRAME_KILL, &word, words);
}

void nnc_nodes_tell_done(struct nnc_nodes *nodes) {
    const struct nodes_word word = {.node = nodes->node};
    if (!nodes_is_first(nodes)) {
        nodes_send_word(nodes, 0, FRAME_DONE, &word, "");
    }
}

bool nnc_nodes_are_done(const struct nnc_nodes *nodes) {
    if (!nodes_is_first(nodes)) {
        return nodes->ended || nodes->peer[0].gone;
    }
    for (uint32_t node = 1; node < nodes->count; node++) {
        if (!nodes->peer[node].done && !nodes->peer[node].gone) {
            return false;
        }
    }
    return true;
}

/* ---- begin and end ---- */

/* Debian lets a host's own name mean 127.0.1.1 on it, where nobody else can come. */
static void warn_of_loopback(const struct nnc_nodes *nodes, const struct nnc_endpoint *endpoint) {
    char text[NNC_ENDPOINT_MAX];
    nnc_address_text(nnc_door_address(nodes->door), text, sizeof(text));
    bool is_meant = strncmp(text, endpoint->host, strlen(endpoint->host)) == 0 ||
                    strcmp(endpoint->host, "localhost") == 0;
    if (!is_meant && strncmp(text, "127.", 4) == 0) {
        nnc_log(NNC_LOG_WARN,
                "--rdzv-endpoint %s is %s here, where other machines cannot come; give this one's "
                "address in their network",
                endpoint->host, text);
    }
}

static int open_door(struct nnc_nodes *nodes, const struct nnc_endpoint *endpoint,
                     const struct nnc_address *addresses, int count) {
    int code = 0;
    for (int i = 0; i < count; i++) {
        code = nnc_door_open(&addresses[i], nodes->params.secret, nodes->epoll_fd, &nodes->door);
        if (code == 0) {
            warn_of_loopback(nodes, endpoint);
            return 0;
        }
    }
    if (code == -EADDRNOTAVAIL) {
        return nnc_fail(-NNC_E_USAGE,
                        "--rdzv-endpoint %s is not an address of this machine, which is node 0; "
                        "give one of its own, or start it there",
                        nodes->params.config->rdzv_endpoint);
    }
    if (code == -EADDRINUSE) {
        return nnc_fail(-NNC_E_USAGE,
                        "the port of --rdzv-endpoint %s is in use; choose another on all machines",
                        nodes->params.config->rdzv_endpoint);
    }
    return nnc_fail_in(code, "--rdzv-endpoint");
}

static int begin_call(struct nnc_nodes *nodes, const struct nnc_address *addresses, int count) {
    char what[NNC_ENDPOINT_MAX + 16];
    snprintf(what, sizeof(what), "node 0 at %s", nodes->params.config->rdzv_endpoint);
    const struct nnc_greeting greeting = nodes_own_greeting(nodes, NNC_GREETING_CONTROL);
    return nnc_call_begin(addresses, count, what, nodes->params.secret, &greeting, nodes->epoll_fd,
                          nnc_clock_ns() + nodes->params.config->rdzv_timeout * SECOND_NS,
                          &nodes->control);
}

int nodes_reach(struct nnc_nodes *nodes) {
    struct nnc_endpoint endpoint;
    struct nnc_address addresses[8];
    int count = nnc_endpoint_parse(nodes->params.config->rdzv_endpoint, &endpoint);
    count = count < 0 ? count
                      : nnc_address_resolve(&endpoint, addresses,
                                            (int)(sizeof(addresses) / sizeof(addresses[0])));
    return count < 0               ? nnc_fail_in(count, "--rdzv-endpoint")
           : nodes_is_first(nodes) ? open_door(nodes, &endpoint, addresses, count)
                                   : begin_call(nodes, addresses, count);
}

int nnc_nodes_open(const struct nnc_nodes_params *params, struct nnc_nodes **ret_nodes) {
    const struct nnc_config *config = params->config;
    assert(config->nnodes >= 2 && config->nnodes <= NNC_MAX_NODES);
    assert(config->node_rank < config->nnodes);
    struct nnc_nodes *nodes = calloc(1, sizeof(*nodes));
    if (nodes == NULL) {
        return nnc_fail(-ENOMEM, "rendezvous: out of memory");
    }
    char host[64] = "";
    gethostname(host, sizeof(host) - 1);
    nodes->params = *params;
    nodes->node = config->node_rank;
    nodes->count = config->nnodes;
    nodes->link[0].fd = nodes->link[1].fd = -1;
    snprintf(nodes->name, sizeof(nodes->name), "node %" PRIu32 " (%s)", nodes->node, host);
    nodes->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int code = nodes->epoll_fd < 0 ? nnc_fail_errno("epoll") : nodes_reach(nodes);
    if (code < 0) {
        nnc_nodes_close(nodes, 0, "");
        return code;
    }
    *ret_nodes = nodes;
    return 0;
}

int nnc_nodes_fd(const struct nnc_nodes *nodes) {
    return nodes->epoll_fd;
}

/* Wait until all that was said is sent, but not for long. */
static void flush_peer(struct nodes_peer *peer, uint64_t until_ns) {
    while (peer->wire != NULL && !peer->gone && nnc_wire_flush(peer->wire) > 0) {
        uint64_t now_ns = nnc_clock_ns();
        if (now_ns >= until_ns) {
            return;
        }
        struct pollfd poll_fd = {.fd = nnc_wire_fd(peer->wire), .events = POLLOUT};
        poll(&poll_fd, 1, (int)((until_ns - now_ns) / 1000000) + 1);
    }
}

void nnc_nodes_close(struct nnc_nodes *nodes, int code, const char *words) {
    if (nodes == NULL) {
        return;
    }
    nodes->ended = true; /* that others close now is no failure */
    if (nodes_is_first(nodes)) {
        tell(nodes, FRAME_END, code, words);
    }
    uint64_t until_ns = nnc_clock_ns() + CLOSE_MS * 1000000ull;
    for (uint32_t node = 0; node < nodes->count; node++) {
        flush_peer(&nodes->peer[node], until_ns);
        nnc_wire_destroy(nodes->peer[node].wire);
    }
    nnc_nodes_forget_links(nodes);
    nnc_call_end(nodes->control);
    nnc_call_end(nodes->data);
    nnc_door_close(nodes->door);
    if (nodes->epoll_fd >= 0) {
        close(nodes->epoll_fd);
    }
    OPENSSL_cleanse(nodes->params.secret, sizeof(nodes->params.secret));
    free(nodes);
}
