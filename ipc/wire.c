/* SPDX-License-Identifier: Apache-2.0 */
/* Frames over a stream socket, each with a number and a tag; see wire.h.
 *
 *   offset  size
 *        0     4  type
 *        4     4  bytes of the body, n <= NNC_WIRE_BODY_MAX
 *        8     8  number, from 0 in each direction
 *       16     n  body
 *   16 + n    32  HMAC-SHA256 of all before under the direction's key
 *
 * Invariants:
 *   1. Every buffer has its size from the start: nothing that arrives makes one grow. A length or
 * number that cannot be right ends the wire before its body is waited for.
 *   2. No byte of a body is handed out before the tag over the whole frame proved right.
 *   3. A frame is sent whole or not at all, whatever the socket takes at once, as long as the
 * connection lives.
 *   4. Nothing blocks and nothing raises SIGPIPE.
 *
 * The queue is a ring. Input is one flat buffer with room for one longest frame or many short ones;
 * frames are used where they arrived.
 *
 * Does not repeat, reconnect or hide anything. */
#include "ipc/wire.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little endian");

struct frame_header {
    uint32_t type, bytes;
    uint64_t number;
};
_Static_assert(sizeof(struct frame_header) == 16, "frame header layout");

#define HEADER_BYTES sizeof(struct frame_header)
#define FRAME_MAX    (HEADER_BYTES + NNC_WIRE_BODY_MAX + NNC_WIRE_TAG_BYTES)
#define BODY_ALIGN   16

struct nnc_wire {
    int fd;
    struct nnc_hmac *send_mac, *receive_mac;
    uint64_t next_sent, next_received;
    uint8_t *queue; /* ring of queue_bytes: `waiting` of them, from first_waiting */
    size_t queue_bytes, first_waiting, waiting;
    uint8_t *input; /* FRAME_MAX bytes: what came and was not handed out is at [begin, end) */
    size_t begin, end;
};

/* How the socket must be. */
static int set_up_socket(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        return nnc_fail_errno("wire: descriptor %d", fd);
    }
    int on = 1;
    /* Sockets within a machine have no such option, and need none. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return 0;
}

/* All that a wire has but its socket. */
static int set_up_memory(struct nnc_wire *wire, const struct nnc_wire_keys *keys,
                         size_t queue_max) {
    int code = nnc_hmac_create(keys->send, &wire->send_mac);
    if (code >= 0) {
        code = nnc_hmac_create(keys->receive, &wire->receive_mac);
    }
    if (code < 0) {
        return code;
    }
    wire->queue_bytes = queue_max > FRAME_MAX ? queue_max : FRAME_MAX;
    wire->queue = malloc(wire->queue_bytes);
    wire->input = malloc(FRAME_MAX);
    if (wire->queue == NULL || wire->input == NULL) {
        return nnc_fail(-ENOMEM, "wire: no memory for a queue of %zu bytes", wire->queue_bytes);
    }
    return 0;
}

int nnc_wire_create(int fd, const struct nnc_wire_keys *keys, size_t queue_max,
                    struct nnc_wire **ret_wire) {
    struct nnc_wire *wire = calloc(1, sizeof(*wire));
    if (wire == NULL) {
        return nnc_fail(-ENOMEM, "wire: no memory");
    }
    wire->fd = -1;
    int code = set_up_memory(wire, keys, queue_max);
    if (code >= 0) {
        code = set_up_socket(fd);
    }
    if (code < 0) {
        nnc_wire_destroy(wire);
        return code;
    }
    wire->fd = fd;
    *ret_wire = wire;
    return 0;
}

void nnc_wire_destroy(struct nnc_wire *wire) {
    if (wire == NULL) {
        return;
    }
    if (wire->fd >= 0) {
        close(wire->fd);
    }
    nnc_hmac_destroy(wire->send_mac);
    nnc_hmac_destroy(wire->receive_mac);
    free(wire->queue);
    free(wire->input);
    free(wire);
}

int nnc_wire_fd(const struct nnc_wire *wire) {
    return wire->fd;
}

short nnc_wire_events(const struct nnc_wire *wire) {
    return wire->waiting > 0 ? POLLIN | POLLOUT : POLLIN;
}

/* The parts to the socket: bytes it took, which may be 0, or negative. */
static ssize_t send_parts(int fd, struct iovec *parts, size_t count) {
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t sent;
    do {
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        return sent;
    }
    /* The kernel's own shortness of memory passes, too. */
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) {
        return 0;
    }
    if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) {
        return nnc_fail(-EPIPE, "wire: the other side is gone");
    }
    return nnc_fail_errno("wire: send");
}

/* Copy to the end of the ring, which has the room. */
static void queue_bytes(struct nnc_wire *wire, const uint8_t *bytes, size_t count) {
    assert(count <= wire->queue_bytes - wire->waiting);
    size_t at = (wire->first_waiting + wire->waiting) % wire->queue_bytes;
    size_t to_end = wire->queue_bytes - at;
    size_t first = count < to_end ? count : to_end;
    memcpy(wire->queue + at, bytes, first);
    memcpy(wire->queue, bytes + first, count - first);
    wire->waiting += count;
}

/* Queue what comes after the first `sent` bytes of the parts. */
static void queue_rest(struct nnc_wire *wire, const struct iovec *parts, size_t count,
                       size_t sent) {
    for (size_t i = 0; i < count; i++) {
        size_t gone = sent < parts[i].iov_len ? sent : parts[i].iov_len;
        sent -= gone;
        if (gone < parts[i].iov_len) {
            queue_bytes(wire, (const uint8_t *)parts[i].iov_base + gone, parts[i].iov_len - gone);
        }
    }
}

int nnc_wire_send(struct nnc_wire *wire, uint32_t type, const void *body, size_t bytes) {
    assert(bytes <= NNC_WIRE_BODY_MAX && (body != NULL || bytes == 0));
    ssize_t waiting = nnc_wire_flush(wire);
    if (waiting < 0) {
        return (int)waiting;
    }
    if (HEADER_BYTES + bytes + NNC_WIRE_TAG_BYTES > wire->queue_bytes - (size_t)waiting) {
        return nnc_fail(-ENOBUFS, "wire: %zd of %zu bytes of the queue wait to be sent", waiting,
                        wire->queue_bytes);
    }
    struct frame_header header = {type, (uint32_t)bytes, wire->next_sent};
    uint8_t tag[NNC_WIRE_TAG_BYTES];
    /* The casts: iovec serves reading and writing, here nothing is written to. */
    struct iovec parts[] = {
        {&header, sizeof(header)}, {(void *)(uintptr_t)body, bytes}, {tag, sizeof(tag)}};
    int code = nnc_hmac_tag(wire->send_mac, parts, 2, tag);
    if (code < 0) {
        return code;
    }
    ssize_t sent = waiting == 0 ? send_parts(wire->fd, parts, 3) : 0;
    if (sent < 0) {
        return (int)sent;
    }
    wire->next_sent++;
    queue_rest(wire, parts, 3, (size_t)sent);
    return 0;
}

ssize_t nnc_wire_flush(struct nnc_wire *wire) {
    while (wire->waiting > 0) {
        size_t to_end = wire->queue_bytes - wire->first_waiting;
        size_t first = wire->waiting < to_end ? wire->waiting : to_end;
        struct iovec parts[] = {{wire->queue + wire->first_waiting, first},
                                {wire->queue, wire->waiting - first}};
        ssize_t sent = send_parts(wire->fd, parts, 2);
        if (sent < 0) {
            return sent;
        }
        if (sent == 0) {
            break;
        }
        wire->first_waiting = (wire->first_waiting + (size_t)sent) % wire->queue_bytes;
        wire->waiting -= (size_t)sent;
    }
    return (ssize_t)wire->waiting;
}

/* What can be told of a frame by its header alone, before the tag proves it. */
static int check_header(const struct nnc_wire *wire, const struct frame_header *header) {
    if (header->bytes > NNC_WIRE_BODY_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "wire: a frame of %" PRIu32 " bytes; %d are possible",
                        header->bytes, NNC_WIRE_BODY_MAX);
    }
    if (header->number != wire->next_received) {
        return nnc_fail(-NNC_E_FORMAT, "wire: frame %" PRIu64 " where %" PRIu64 " is due",
                        header->number, wire->next_received);
    }
    return 0;
}

/* Move a frame that begins at an odd place down into bytes that were handed out before, so that its
 * body can be used as numbers where it is. Returns where the frame is then. */
static uint8_t *align_frame(struct nnc_wire *wire, size_t bytes) {
    size_t too_far = wire->begin % BODY_ALIGN;
    uint8_t *frame = wire->input + wire->begin - too_far;
    if (too_far > 0) {
        memmove(frame, frame + too_far, bytes);
    }
    return frame;
}

/* A frame out of what came: 1; 0 when it is not complete; negative. One that is refused stays where
 * it is, and is refused again. */
static int take_frame(struct nnc_wire *wire, struct nnc_wire_frame *ret_frame) {
    size_t have = wire->end - wire->begin;
    if (have < HEADER_BYTES) {
        return 0;
    }
    struct frame_header header;
    uint8_t *frame = wire->input + wire->begin;
    memcpy(&header, frame, sizeof(header));
    int code = check_header(wire, &header);
    if (code < 0) {
        return code;
    }
    size_t tagged = HEADER_BYTES + header.bytes;
    if (have < tagged + NNC_WIRE_TAG_BYTES) {
        return 0;
    }
    const struct iovec part = {frame, tagged};
    code = nnc_hmac_check(wire->receive_mac, &part, 1, frame + tagged);
    if (code <= 0) {
        return code < 0 ? code
                        : nnc_fail(-NNC_E_FORMAT, "wire: frame %" PRIu64 " has a wrong tag",
                                   header.number);
    }
    frame = align_frame(wire, tagged);
    wire->begin += tagged + NNC_WIRE_TAG_BYTES;
    wire->next_received++;
    *ret_frame = (struct nnc_wire_frame){header.type, header.bytes, frame + HEADER_BYTES};
    return 1;
}

/* Bytes from the socket behind those that are there: 1 some came, 0 none now, negative. */
static int read_more(struct nnc_wire *wire) {
    if (wire->begin > 0) {
        /* To the front, where the longest frame has room; less than one frame is left. */
        memmove(wire->input, wire->input + wire->begin, wire->end - wire->begin);
        wire->end -= wire->begin;
        wire->begin = 0;
    }
    assert(wire->end < FRAME_MAX);
    ssize_t came;
    do {
        came = recv(wire->fd, wire->input + wire->end, FRAME_MAX - wire->end, MSG_DONTWAIT);
    } while (came < 0 && errno == EINTR);
    if (came > 0) {
        wire->end += (size_t)came;
        return 1;
    }
    if (came < 0 && errno == EAGAIN) {
        return 0;
    }
    if (came == 0 || errno == ECONNRESET || errno == EPIPE || errno == ETIMEDOUT) {
        return nnc_fail(-EPIPE, "wire: the other side is gone%s",
                        wire->end > 0 ? ", in the middle of a frame" : "");
    }
    return nnc_fail_errno("wire: receive");
}

int nnc_wire_receive(struct nnc_wire *wire, struct nnc_wire_frame *ret_frame) {
    int code = take_frame(wire, ret_frame);
    while (code == 0 && (code = read_more(wire)) > 0) {
        code = take_frame(wire, ret_frame);
    }
    return code;
}
