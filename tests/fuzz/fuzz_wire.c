/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as what comes from another machine, without its secret and with it.
 *
 *   0  1  bits 0 and 1: what the rest is, see below
 *   1  1  bytes that arrive at once, 0: all
 *   2     the rest
 *
 *   0 a client's words to a server
 *   1 the same, but messages begin as they must
 *   2 a stream of frames
 *   3 frames with right numbers and tags: type 1, bytes 2, body, ...
 *
 * Always: who does not know the secret is never proved and no frame of his is handed out; frames of
 * one who does arrive as they were sent. */
#include "base/err.h"
#include "base/hmac.h"
#include "ipc/handshake.h"
#include "ipc/wire.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OPTIONS = 2,
    HELLO_BYTES = 184,
    FRAME_HEADER_BYTES = 16,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const uint8_t secret[NNC_SECRET_BYTES] = "nobody knows it";
static const struct nnc_wire_keys keys = {.send = "to there", .receive = "from there"};

/* What is sent, and how much at once. */
struct input {
    const uint8_t *bytes;
    size_t count, at_once;
};

/* The next bytes into the socket; false when all are in. */
static bool feed(struct input *input, int fd) {
    size_t count = input->count < input->at_once ? input->count : input->at_once;
    ssize_t sent = send(fd, input->bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    assert(sent >= 0 || errno == EAGAIN);
    input->bytes += sent > 0 ? sent : 0;
    input->count -= sent > 0 ? (size_t)sent : 0;
    return input->count > 0;
}

static void try_handshake(struct input *input) {
    int ends[2];
    int code = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
    assert(code == 0);
    struct nnc_handshake *server;
    code = nnc_handshake_create(ends[0], secret, NULL, &server);
    assert(code == 0);
    bool more = true;
    while (code == 0 && more) {
        more = input->count > 0 && feed(input, ends[1]);
        struct nnc_greeting greeting;
        struct nnc_wire_keys ret_keys;
        code = nnc_handshake_work(server, &greeting, &ret_keys);
    }
    assert(code == 0 || code == -EACCES || code == -NNC_E_FORMAT);
    nnc_handshake_destroy(server);
    close(ends[0]);
    close(ends[1]);
}

/* Heads of both messages where a server looks for them. */
static void try_handshake_heads(struct input *input) {
    uint8_t *words = calloc(1, input->count + 1);
    assert(words != NULL);
    memcpy(words, input->bytes, input->count);
    if (input->count >= 8) {
        memcpy(words, "NNCH\1\0\0\0", 8);
    }
    if (input->count >= HELLO_BYTES + 8) {
        memcpy(words + HELLO_BYTES, "NNCP\1\0\0\0", 8);
    }
    struct input heads = {words, input->count, input->at_once};
    try_handshake(&heads);
    free(words);
}

/* The frames that are handed out, from the first on, are those of `expected`, one behind the other,
 * and nothing comes after them. */
static void try_wire(struct input *input, const uint8_t *expected, unsigned frames) {
    int ends[2];
    int code = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
    assert(code == 0);
    struct nnc_wire *wire;
    code = nnc_wire_create(ends[0], &keys, 0, &wire);
    assert(code == 0);
    bool more = true;
    unsigned taken = 0;
    while (code == 0 && more) {
        more = input->count > 0 && feed(input, ends[1]);
        struct nnc_wire_frame frame;
        while ((code = nnc_wire_receive(wire, &frame)) == 1) {
            assert(taken < frames && (uintptr_t)frame.body % 16 == 0);
            taken++;
            assert(memcmp(expected, &frame.type, 4) == 0);
            assert(memcmp(expected + 4, &frame.bytes, 4) == 0);
            assert(memcmp(expected + FRAME_HEADER_BYTES, frame.body, frame.bytes) == 0);
            expected += FRAME_HEADER_BYTES + frame.bytes + NNC_WIRE_TAG_BYTES;
        }
    }
    assert(taken == frames && (code == 0 || code == -NNC_E_FORMAT));
    nnc_wire_destroy(wire);
    close(ends[1]);
}

/* One frame from the input's next bytes to `to`: its bytes, or 0 when there is none. */
static size_t seal(struct nnc_hmac *mac, struct input *input, uint64_t number, uint8_t *to) {
    if (input->count < 3) {
        return 0;
    }
    uint32_t head[2] = {input->bytes[0], (uint32_t)input->bytes[1] << 8 | input->bytes[2]};
    if (head[1] > input->count - 3) {
        return 0;
    }
    memcpy(to, head, 8);
    memcpy(to + 8, &number, 8);
    memcpy(to + FRAME_HEADER_BYTES, input->bytes + 3, head[1]);
    const struct iovec part = {to, FRAME_HEADER_BYTES + head[1]};
    int code = nnc_hmac_tag(mac, &part, 1, to + part.iov_len);
    assert(code == 0);
    input->bytes += 3 + head[1];
    input->count -= 3 + head[1];
    return part.iov_len + NNC_WIRE_TAG_BYTES;
}

/* Right frames, then what is left of the input as it is. */
static void try_sealed(struct input *input) {
    /* Each frame takes 3 bytes of the input and grows by 45 at most. */
    uint8_t *stream = malloc(16 * input->count + 64);
    struct nnc_hmac *mac;
    int code = nnc_hmac_create(keys.receive, &mac);
    assert(stream != NULL && code == 0);
    size_t count = 0, bytes;
    unsigned frames = 0;
    while ((bytes = seal(mac, input, frames, stream + count)) > 0) {
        count += bytes;
        frames++;
    }
    memcpy(stream + count, input->bytes, input->count);
    struct input sealed = {stream, count + input->count, input->at_once};
    try_wire(&sealed, stream, frames);
    nnc_hmac_destroy(mac);
    free(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < OPTIONS) {
        return 0;
    }
    struct input input = {data + OPTIONS, bytes - OPTIONS, data[1] > 0 ? data[1] : SIZE_MAX};
    switch (data[0] & 3) {
    case 0:
        try_handshake(&input);
        break;
    case 1:
        try_handshake_heads(&input);
        break;
    case 2:
        try_wire(&input, NULL, 0);
        break;
    default:
        try_sealed(&input);
    }
    return 0;
}
