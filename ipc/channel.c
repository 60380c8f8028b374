/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over a SOCK_SEQPACKET socketpair, one packet each.
 *
 *   packet: header 24 bytes (type, bytes, generation, number, sum, reserved), body 0..4096 bytes
 *
 * Received bytes are hostile: a loader that decodes untrusted images may have been taken over. A
 * packet is accepted when, in this order, its length fits its header, its sum is right, its type is
 * known, the reserved word is zero, its body holds the type's struct, texts in it end, its tail is
 * as long as the struct says, it belongs to this generation and its number is higher than the last
 * one's.
 *
 * Invariants:
 *   1. Nothing blocks except nnc_channel_send() with wait_ms > 0, and that not longer.
 *   2. A message is complete or absent: sockets of this kind keep packet borders.
 *   3. Descriptors sent along are never received.
 *
 * Does not reconnect or resend: one socketpair lives as long as its child. */
#include "ipc/channel.h"

#include "base/clock.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "messages are little endian");

#define NS_PER_MS 1000000ull

/* Field of a struct: where and how long. */
#define FIELD(type, field) offsetof(struct type, field), sizeof(((struct type *)NULL)->field)

/* What the body of one type must be. */
struct body_rule {
    uint16_t type;
    uint16_t bytes;                   /* of the fixed struct; bodies may be longer */
    uint16_t text_offset, text_bytes; /* array that must hold a zero; 0, 0 none */
    uint16_t count_offset,
        item_bytes; /* u32 that counts the items behind the struct; item 0: none */
};

static const struct body_rule rules[] = {
    {NNC_MSG_HELLO, sizeof(struct nnc_msg_hello), FIELD(nnc_msg_hello, build_id), 0, 0},
    {NNC_MSG_ATTACHED, 0, 0, 0, 0, 0},
    {NNC_MSG_READY, sizeof(struct nnc_msg_ready), FIELD(nnc_msg_ready, note), 0, 0},
    {NNC_MSG_BAD, sizeof(struct nnc_msg_bad), 0, 0, offsetof(struct nnc_msg_bad, reason_bytes), 1},
    {NNC_MSG_EVAL, sizeof(struct nnc_msg_eval), 0, 0, 0, 0},
    {NNC_MSG_SNAPSHOT, sizeof(struct nnc_msg_snapshot), 0, 0, 0, 0},
    {NNC_MSG_SAVED, sizeof(struct nnc_msg_saved), FIELD(nnc_msg_saved, weights_sha256),
     offsetof(struct nnc_msg_saved, path_bytes), 1},
    {NNC_MSG_LOGITS, sizeof(struct nnc_msg_logits), 0, 0, offsetof(struct nnc_msg_logits, count),
     sizeof(float)},
    {NNC_MSG_MEASURE, 0, 0, 0, 0, 0},
    {NNC_MSG_COMM, sizeof(struct nnc_msg_comm), 0, 0, 0, 0},
    {NNC_MSG_DONE, sizeof(struct nnc_msg_done), FIELD(nnc_msg_done, weights_sha256), 0, 0},
    {NNC_MSG_START, 0, 0, 0, 0, 0},
    {NNC_MSG_SNAP, 0, 0, 0, 0, 0},
    {NNC_MSG_STOP, 0, 0, 0, 0, 0},
};

struct nnc_channel {
    int fd;
    uint32_t generation;
    uint64_t next_sent;
    uint64_t next_received; /* lowest number the next message may have */
    uint64_t dropped;       /* messages of older generations */
};

static const struct body_rule *find_rule(uint16_t type) {
    for (size_t row = 0; row < sizeof(rules) / sizeof(rules[0]); row++) {
        if (rules[row].type == type) {
            return &rules[row];
        }
    }
    return NULL;
}

int nnc_channel_create(int fd, uint32_t generation, struct nnc_channel **ret_channel) {
    int type = 0;
    socklen_t length = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0) {
        return nnc_fail_errno("channel: descriptor %d", fd);
    }
    if (type != SOCK_SEQPACKET) {
        return nnc_fail(-NNC_E_FORMAT, "channel: descriptor %d is no SEQPACKET socket", fd);
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        return nnc_fail_errno("channel: close-on-exec");
    }
    struct nnc_channel *channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return nnc_fail(-ENOMEM, "channel: no memory");
    }
    channel->fd = fd;
    channel->generation = generation;
    *ret_channel = channel;
    return 0;
}

void nnc_channel_destroy(struct nnc_channel *channel) {
    if (channel == NULL) {
        return;
    }
    close(channel->fd);
    free(channel);
}

int nnc_channel_fd(const struct nnc_channel *channel) {
    return channel->fd;
}

uint64_t nnc_channel_dropped(const struct nnc_channel *channel) {
    return channel->dropped;
}

/* Low half of the hash of header and body, the sum field itself taken as zero. */
static uint32_t packet_sum(const struct nnc_message *message) {
    struct nnc_message_header header = message->header;
    header.sum = 0;
    uint64_t seed = XXH3_64bits(&header, sizeof(header));
    return (uint32_t)XXH3_64bits_withSeed(message->body, message->header.bytes, seed);
}

/* One packet out, waiting for room until deadline_ns. */
static int send_packet(int fd, const struct nnc_message *message, int wait_ms) {
    size_t bytes = sizeof(message->header) + message->header.bytes;
    uint64_t deadline_ns = nnc_clock_ns() + (uint64_t)wait_ms * NS_PER_MS;
    for (;;) {
        ssize_t sent = send(fd, message, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            return 0;
        }
        if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) {
            return nnc_fail(-EPIPE, "channel: the other side is gone");
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN && errno != ENOBUFS) {
            return nnc_fail_errno("channel: send");
        }
        uint64_t now_ns = nnc_clock_ns();
        if (wait_ms == 0) {
            return nnc_fail(-EAGAIN, "channel: full");
        }
        if (now_ns >= deadline_ns) {
            return nnc_fail(-ETIMEDOUT, "channel: still full after %d ms", wait_ms);
        }
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        poll(&room, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
    }
}

int nnc_channel_send(struct nnc_channel *channel, enum nnc_message_type type, const void *body,
                     size_t bytes, int wait_ms) {
    return nnc_channel_send2(channel, type, body, bytes, NULL, 0, wait_ms);
}

int nnc_message_make(enum nnc_message_type type, uint32_t generation, uint64_t number,
                     const void *body, size_t bytes, const void *tail, size_t tail_bytes,
                     struct nnc_message *ret_message) {
    const struct body_rule *rule = find_rule((uint16_t)type);
    assert(rule != NULL);
    if (bytes > NNC_MESSAGE_MAX || tail_bytes > NNC_MESSAGE_MAX - bytes) {
        return nnc_fail(-EMSGSIZE, "channel: a body of %zu bytes; %d are possible",
                        bytes + tail_bytes, NNC_MESSAGE_MAX);
    }
    assert(bytes >= rule->bytes);
    ret_message->header = (struct nnc_message_header){.type = (uint16_t)type,
                                                      .bytes = (uint16_t)(bytes + tail_bytes),
                                                      .generation = generation,
                                                      .number = number};
    if (bytes > 0) {
        memcpy(ret_message->body, body, bytes);
    }
    if (tail_bytes > 0) {
        memcpy(ret_message->body + bytes, tail, tail_bytes);
    }
    ret_message->header.sum = packet_sum(ret_message);
    return 0;
}

int nnc_channel_send2(struct nnc_channel *channel, enum nnc_message_type type, const void *body,
                      size_t bytes, const void *tail, size_t tail_bytes, int wait_ms) {
    assert(wait_ms >= 0);
    struct nnc_message message;
    int code = nnc_message_make(type, channel->generation, channel->next_sent, body, bytes, tail,
                                tail_bytes, &message);
    code = code < 0 ? code : send_packet(channel->fd, &message, wait_ms);
    if (code == 0) {
        channel->next_sent++;
    }
    return code;
}

/* What is wrong with a body, or NULL. */
static const char *body_fault(const struct body_rule *rule, const struct nnc_message *message) {
    const uint8_t *body = message->body;
    if (message->header.bytes < rule->bytes) {
        return "body shorter than its type's struct";
    }
    if (rule->text_bytes > 0 && memchr(body + rule->text_offset, 0, rule->text_bytes) == NULL) {
        return "text without an end";
    }
    if (rule->item_bytes > 0) {
        uint32_t count;
        memcpy(&count, body + rule->count_offset, sizeof(count));
        if (count > (uint32_t)(message->header.bytes - rule->bytes) / rule->item_bytes) {
            return "more announced than sent";
        }
    }
    return NULL;
}

/* What is wrong with a packet of `length` bytes, or NULL. */
static const char *packet_fault(const struct nnc_message *message, size_t length) {
    const struct nnc_message_header *header = &message->header;
    if (length < sizeof(*header) || length - sizeof(*header) != header->bytes) {
        return "length differs from its header";
    }
    if (header->sum != packet_sum(message) || header->reserved != 0) {
        return "wrong sum";
    }
    const struct body_rule *rule = find_rule(header->type);
    return rule == NULL ? "unknown type" : body_fault(rule, message);
}

int nnc_message_check(const struct nnc_message *message, size_t length) {
    const char *fault =
        length > sizeof(*message) ? "longer than any message" : packet_fault(message, length);
    return fault == NULL
               ? 0
               : nnc_fail(-NNC_E_FORMAT, "channel: a packet of %zu bytes: %s", length, fault);
}

/* Is the packet for this generation and in order? 1 yes, 0 drop it, negative. */
static int admit(struct nnc_channel *channel, const struct nnc_message_header *header) {
    if (header->generation < channel->generation) {
        channel->dropped++;
        return 0;
    }
    if (header->generation > channel->generation || header->number < channel->next_received) {
        return nnc_fail(-NNC_E_FORMAT,
                        "channel: message %" PRIu64 " of generation %" PRIu32 " where %" PRIu64
                        " of %" PRIu32 " is due",
                        header->number, header->generation, channel->next_received,
                        channel->generation);
    }
    channel->next_received = header->number + 1;
    return 1;
}

/* One packet in: its length, or 0 when there is none, or negative. */
static ssize_t receive_packet(int fd, struct nnc_message *message) {
    ssize_t length;
    do {
        /* MSG_TRUNC: tell the true length of a packet that is too long. */
        length = recv(fd, message, sizeof(*message), MSG_DONTWAIT | MSG_TRUNC);
    } while (length < 0 && errno == EINTR);
    if (length > 0) {
        return length;
    }
    if (length < 0 && errno == EAGAIN) {
        return 0;
    }
    if (length == 0 || errno == ECONNRESET || errno == EPIPE) {
        return nnc_fail(-EPIPE, "channel: the other side is gone");
    }
    return nnc_fail_errno("channel: receive");
}

int nnc_channel_receive(struct nnc_channel *channel, struct nnc_message *ret_message) {
    for (;;) {
        struct nnc_message message;
        ssize_t length = receive_packet(channel->fd, &message);
        if (length <= 0) {
            return (int)length;
        }
        int code = nnc_message_check(&message, (size_t)length);
        code = code < 0 ? code : admit(channel, &message.header);
        if (code < 0) {
            return code;
        }
        if (code > 0) {
            uint16_t bytes = message.header.bytes;
            ret_message->header = message.header;
            memcpy(ret_message->body, message.body, bytes);
            /* Texts at the end of a body end. */
            memset(ret_message->body + bytes, 0, sizeof(ret_message->body) - bytes);
            return 1;
        }
    }
}
