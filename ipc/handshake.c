/* SPDX-License-Identifier: Apache-2.0 */
/* Three messages that prove a secret to both sides without sending it; see handshake.h.
 *
 *   all     0  4  magic      one for each message
 *           4  4  version
 *   hello   8  4  kind       of the greeting, whose texts end with a zero inside their arrays
 *          12  4  node
 *          16  4  nodes
 *          20  4  generation
 *          24 64  job
 *          88 64  build_id
 *         152 32  nonce_c
 *   answer  8 32  nonce_s
 *          40 32  tag "server"
 *   proof   8 32  tag "client"
 *
 * Tags and keys are HMAC-SHA256(secret, label | hello | nonce_s). The secret is 32 random bytes, so
 * that this is the expand step of RFC 5869 with one block; labels are all of one length, and one
 * for each use.
 *
 * Invariants:
 *   1. Neither side ever makes a tag that it accepts itself, and no two messages begin alike: who
 * gets its own words back, from itself or from a mirror, refuses them.
 *   2. Each side's own nonce is under what it checks: nothing of an earlier connection fits.
 *   3. A side reads as many bytes as its next message is long and no more: what comes behind
 * belongs to the wire.
 *   4. Claim and keys are handed out together, once the other side is proved.
 *
 * Does not judge the greeting, and does not limit the time: its caller has a deadline for each
 * connection and a limit of connections that are not proved yet. */
#include "ipc/handshake.h"

#include "base/err.h"
#include "base/hmac.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "messages are little endian");
_Static_assert(NNC_SECRET_BYTES == NNC_HMAC_KEY_BYTES, "the secret is a key");

#define VERSION     1
#define NONCE_BYTES 32
#define LABEL_BYTES 16

/* What every message begins with. */
struct head {
    uint32_t magic, version;
};

struct hello {
    struct head head;
    struct nnc_greeting greeting;
    uint8_t nonce[NONCE_BYTES];
};
_Static_assert(sizeof(struct hello) == 184, "hello layout");
_Static_assert(offsetof(struct hello, greeting.job) == 24, "hello layout");
_Static_assert(offsetof(struct hello, greeting.build_id) == 88, "hello layout");
_Static_assert(offsetof(struct hello, nonce) == 152, "hello layout");

struct answer {
    struct head head;
    uint8_t nonce[NONCE_BYTES];
    uint8_t tag[NNC_HMAC_TAG_BYTES];
};
_Static_assert(sizeof(struct answer) == 72, "answer layout");

struct proof {
    struct head head;
    uint8_t tag[NNC_HMAC_TAG_BYTES];
};
_Static_assert(sizeof(struct proof) == 40, "proof layout");

enum message {
    HELLO,
    ANSWER,
    PROOF,
    MESSAGES,
};

/* Never a prefix of one another: equally long, different. */
static const char server_label[LABEL_BYTES] = "nnc server tag";
static const char client_label[LABEL_BYTES] = "nnc client tag";
static const char to_server_label[LABEL_BYTES] = "nnc to server";
static const char to_client_label[LABEL_BYTES] = "nnc to client";

struct nnc_handshake {
    int fd;
    bool is_client;
    enum message at; /* on its way; MESSAGES: all done */
    size_t moved;    /* bytes of it */
    struct nnc_hmac *mac;
    struct hello hello;
    struct answer answer;
    struct proof proof;
};

/* Where a message lies, how long it is and what it begins with. */
static struct iovec message_bytes(struct nnc_handshake *handshake, enum message message) {
    switch (message) {
    case HELLO:
        return (struct iovec){&handshake->hello, sizeof(handshake->hello)};
    case ANSWER:
        return (struct iovec){&handshake->answer, sizeof(handshake->answer)};
    case PROOF:
        return (struct iovec){&handshake->proof, sizeof(handshake->proof)};
    case MESSAGES:
        break;
    }
    abort();
}

static struct head message_head(enum message message) {
    /* "NNCH", "NNCA" and "NNCP" as bytes. */
    static const char last[MESSAGES] = {[HELLO] = 'H', [ANSWER] = 'A', [PROOF] = 'P'};
    return (struct head){'N' | 'N' << 8 | 'C' << 16 | (uint32_t)last[message] << 24, VERSION};
}

/* The client sends the first message and the last. */
static bool is_sender(const struct nnc_handshake *handshake) {
    return handshake->is_client == (handshake->at != ANSWER);
}

static int make_nonce(uint8_t nonce[NONCE_BYTES]) {
    if (getentropy(nonce, NONCE_BYTES) < 0) {
        return nnc_fail(-EIO, "handshake: the system has no random numbers: %s", strerror(errno));
    }
    return 0;
}

/* The parts that every tag and key is over. */
#define TRANSCRIPT_PARTS 3
static void list_transcript(struct nnc_handshake *handshake, const char label[LABEL_BYTES],
                            struct iovec ret_parts[TRANSCRIPT_PARTS]) {
    ret_parts[0] = (struct iovec){(void *)(uintptr_t)label, LABEL_BYTES};
    ret_parts[1] = (struct iovec){&handshake->hello, sizeof(handshake->hello)};
    ret_parts[2] = (struct iovec){handshake->answer.nonce, sizeof(handshake->answer.nonce)};
}

static int make_tag(struct nnc_handshake *handshake, const char label[LABEL_BYTES],
                    uint8_t ret_tag[NNC_HMAC_TAG_BYTES]) {
    struct iovec parts[TRANSCRIPT_PARTS];
    list_transcript(handshake, label, parts);
    return nnc_hmac_tag(handshake->mac, parts, TRANSCRIPT_PARTS, ret_tag);
}

static int check_tag(struct nnc_handshake *handshake, const char label[LABEL_BYTES],
                     const uint8_t tag[NNC_HMAC_TAG_BYTES]) {
    struct iovec parts[TRANSCRIPT_PARTS];
    list_transcript(handshake, label, parts);
    int code = nnc_hmac_check(handshake->mac, parts, TRANSCRIPT_PARTS, tag);
    if (code == 0) {
        return nnc_fail(-EACCES,
                        "handshake: the %s does not know this run's secret; all nodes "
                        "need the same",
                        handshake->is_client ? "server" : "client");
    }
    return code < 0 ? code : 0;
}

static bool is_ended(const char *text, size_t bytes) {
    return memchr(text, 0, bytes) != NULL;
}

/* Is it a greeting at all? */
static bool greeting_is_sound(const struct nnc_greeting *greeting) {
    return greeting->kind < NNC_GREETING_KINDS && is_ended(greeting->job, sizeof(greeting->job)) &&
           is_ended(greeting->build_id, sizeof(greeting->build_id));
}

/* The client's first message. Behind the ends of the texts nothing of the caller's goes out. */
static int fill_hello(struct hello *hello, const struct nnc_greeting *greeting) {
    assert(greeting_is_sound(greeting));
    hello->head = message_head(HELLO);
    hello->greeting = (struct nnc_greeting){.kind = greeting->kind,
                                            .node = greeting->node,
                                            .nodes = greeting->nodes,
                                            .generation = greeting->generation};
    memcpy(hello->greeting.job, greeting->job, strlen(greeting->job));
    memcpy(hello->greeting.build_id, greeting->build_id, strlen(greeting->build_id));
    return make_nonce(hello->nonce);
}

int nnc_handshake_create(int fd, const uint8_t *secret, const struct nnc_greeting *greeting,
                         struct nnc_handshake **ret_handshake) {
    struct nnc_handshake *handshake = calloc(1, sizeof(*handshake));
    if (handshake == NULL) {
        return nnc_fail(-ENOMEM, "handshake: no memory");
    }
    handshake->fd = fd;
    handshake->is_client = greeting != NULL;
    int code = nnc_hmac_create(secret, &handshake->mac);
    if (code >= 0 && greeting != NULL) {
        code = fill_hello(&handshake->hello, greeting);
    }
    if (code < 0) {
        nnc_handshake_destroy(handshake);
        return code;
    }
    *ret_handshake = handshake;
    return 0;
}

void nnc_handshake_destroy(struct nnc_handshake *handshake) {
    if (handshake == NULL) {
        return;
    }
    nnc_hmac_destroy(handshake->mac);
    explicit_bzero(handshake, sizeof(*handshake));
    free(handshake);
}

short nnc_handshake_events(const struct nnc_handshake *handshake) {
    return handshake->at < MESSAGES && is_sender(handshake) ? POLLOUT : POLLIN;
}

/* Is what came so far the beginning of the message that is due? */
static int check_head(struct nnc_handshake *handshake) {
    struct head due = message_head(handshake->at), came;
    if (handshake->moved < sizeof(came)) {
        return 0;
    }
    memcpy(&came, message_bytes(handshake, handshake->at).iov_base, sizeof(came));
    if (came.magic != due.magic) {
        return nnc_fail(-NNC_E_FORMAT, "handshake: the other side is no part of a run, it speaks "
                                       "something else");
    }
    if (came.version != due.version) {
        return nnc_fail(-NNC_E_FORMAT,
                        "handshake: the other side speaks version %u, this one %u; all nodes need "
                        "the same build",
                        came.version, due.version);
    }
    return 0;
}

/* Move bytes of the message at hand: 1 some, 0 not now, negative. */
static int move_bytes(struct nnc_handshake *handshake) {
    struct iovec message = message_bytes(handshake, handshake->at);
    uint8_t *bytes = (uint8_t *)message.iov_base + handshake->moved;
    size_t left = message.iov_len - handshake->moved;
    bool sends = is_sender(handshake);
    ssize_t moved;
    do {
        moved = sends ? send(handshake->fd, bytes, left, MSG_NOSIGNAL | MSG_DONTWAIT)
                      : recv(handshake->fd, bytes, left, MSG_DONTWAIT);
    } while (moved < 0 && errno == EINTR);
    if (moved > 0) {
        handshake->moved += (size_t)moved;
        return 1;
    }
    if (moved < 0 && errno == EAGAIN) {
        return 0;
    }
    if (moved == 0 || errno == EPIPE || errno == ECONNRESET) {
        return nnc_fail(-EPIPE,
                        "handshake: the other side closed before it was proved; does it have the "
                        "same secret and the same build?");
    }
    return nnc_fail_errno("handshake");
}

/* Make the message at hand, whose turn to be sent has come. */
static int make_message(struct nnc_handshake *handshake) {
    if (handshake->at == ANSWER) {
        handshake->answer.head = message_head(ANSWER);
        int code = make_nonce(handshake->answer.nonce);
        return code < 0 ? code : make_tag(handshake, server_label, handshake->answer.tag);
    }
    if (handshake->at == PROOF) {
        handshake->proof.head = message_head(PROOF);
        return make_tag(handshake, client_label, handshake->proof.tag);
    }
    return 0;
}

/* Judge the message at hand, which came complete. */
static int check_message(struct nnc_handshake *handshake) {
    if (handshake->at == ANSWER) {
        return check_tag(handshake, server_label, handshake->answer.tag);
    }
    if (handshake->at == PROOF) {
        return check_tag(handshake, client_label, handshake->proof.tag);
    }
    if (!greeting_is_sound(&handshake->hello.greeting)) {
        return nnc_fail(-NNC_E_FORMAT, "handshake: the other side's greeting makes no sense");
    }
    return 0;
}

/* The message at hand is complete: go on to the next. */
static int end_message(struct nnc_handshake *handshake) {
    int code = is_sender(handshake) ? 0 : check_message(handshake);
    if (code < 0) {
        return code;
    }
    handshake->at++;
    handshake->moved = 0;
    return handshake->at < MESSAGES && is_sender(handshake) ? make_message(handshake) : 0;
}

static int finish(struct nnc_handshake *handshake, struct nnc_greeting *ret_greeting,
                  struct nnc_wire_keys *ret_keys) {
    struct nnc_wire_keys keys;
    uint8_t *to_server = handshake->is_client ? keys.send : keys.receive;
    uint8_t *to_client = handshake->is_client ? keys.receive : keys.send;
    int code = make_tag(handshake, to_server_label, to_server);
    if (code >= 0) {
        code = make_tag(handshake, to_client_label, to_client);
    }
    if (code >= 0) {
        *ret_greeting = handshake->hello.greeting;
        *ret_keys = keys;
    }
    explicit_bzero(&keys, sizeof(keys));
    return code < 0 ? code : 1;
}

int nnc_handshake_work(struct nnc_handshake *handshake, struct nnc_greeting *ret_greeting,
                       struct nnc_wire_keys *ret_keys) {
    while (handshake->at < MESSAGES) {
        int code = move_bytes(handshake);
        if (code <= 0) {
            return code;
        }
        code = is_sender(handshake) ? 0 : check_head(handshake);
        if (code >= 0 && handshake->moved == message_bytes(handshake, handshake->at).iov_len) {
            code = end_message(handshake);
        }
        if (code < 0) {
            return code;
        }
    }
    return finish(handshake, ret_greeting, ret_keys);
}
