/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between machines: round trips in pieces of any size, and everything that somebody between
 * the two could do to them. */
#include "base/err.h"
#include "base/rng.h"
#include "ipc/wire.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_BYTES      16
#define FRAME_BYTES(body) (HEADER_BYTES + (body) + NNC_WIRE_TAG_BYTES)

static const struct nnc_wire_keys left_keys = {.send = {1, 2, 3}, .receive = {4, 5, 6}};
static const struct nnc_wire_keys right_keys = {.send = {4, 5, 6}, .receive = {1, 2, 3}};

static void make_sockets(int ends[2]) {
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
}

/* A wire whose other end is a bare socket. */
static struct nnc_wire *make_wire(const struct nnc_wire_keys *keys, size_t queue_max,
                                  int *ret_far) {
    int ends[2];
    make_sockets(ends);
    struct nnc_wire *wire;
    cr_assert_eq(nnc_wire_create(ends[0], keys, queue_max, &wire), 0, "%s", nnc_error_text());
    cr_assert_eq(nnc_wire_fd(wire), ends[0]);
    *ret_far = ends[1];
    return wire;
}

static void make_pair(struct nnc_wire *ret_wires[2]) {
    int ends[2];
    make_sockets(ends);
    cr_assert_eq(nnc_wire_create(ends[0], &left_keys, 0, &ret_wires[0]), 0);
    cr_assert_eq(nnc_wire_create(ends[1], &right_keys, 0, &ret_wires[1]), 0);
}

static void put(int fd, const void *bytes, size_t count) {
    cr_assert_eq(send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL), (ssize_t)count);
}

/* The bytes of three frames as the left side sends them: bodies "one", "three" and "". */
struct record {
    uint8_t bytes[3 * FRAME_BYTES(5)];
    size_t at[4];
};

static struct record record_frames(void) {
    static const char *bodies[] = {"one", "three", ""};
    int far;
    struct nnc_wire *wire = make_wire(&left_keys, 0, &far);
    struct record record = {.at = {0}};
    for (uint32_t i = 0; i < 3; i++) {
        size_t bytes = strlen(bodies[i]);
        cr_assert_eq(nnc_wire_send(wire, 70 + i, bodies[i], bytes), 0);
        cr_assert_eq(recv(far, record.bytes + record.at[i], FRAME_BYTES(bytes), MSG_DONTWAIT),
                     (ssize_t)FRAME_BYTES(bytes));
        record.at[i + 1] = record.at[i] + FRAME_BYTES(bytes);
    }
    nnc_wire_destroy(wire);
    close(far);
    return record;
}

/* What the right side says to these bytes and the end of the stream: how many frames it takes, and
 * the code that it ends with. */
static unsigned offer(const uint8_t *bytes, size_t count, int *ret_code) {
    int far;
    struct nnc_wire *wire = make_wire(&right_keys, 0, &far);
    put(far, bytes, count);
    close(far);
    struct nnc_wire_frame frame;
    unsigned taken = 0;
    int code;
    while ((code = nnc_wire_receive(wire, &frame)) == 1) {
        taken++;
    }
    nnc_wire_destroy(wire);
    *ret_code = code;
    return taken;
}

Test(wire, frames_arrive_whole_and_in_order_in_both_directions) {
    static uint8_t longest[NNC_WIRE_BODY_MAX];
    for (size_t i = 0; i < sizeof(longest); i++) {
        longest[i] = (uint8_t)(i * 7);
    }
    struct nnc_wire *ends[2];
    make_pair(ends);
    struct nnc_wire_frame frame;
    for (int from = 0; from < 2; from++) {
        struct nnc_wire *to = ends[1 - from];
        cr_assert_eq(nnc_wire_receive(to, &frame), 0);
        cr_assert_eq(nnc_wire_send(ends[from], 5, longest, sizeof(longest)), 0);
        cr_assert_eq(nnc_wire_send(ends[from], UINT32_MAX, NULL, 0), 0);
        cr_assert_eq(nnc_wire_send(ends[from], 0, "x", 1), 0);
        cr_assert_eq(nnc_wire_receive(to, &frame), 1, "%s", nnc_error_text());
        cr_assert(frame.type == 5 && frame.bytes == sizeof(longest));
        cr_assert_eq(memcmp(frame.body, longest, sizeof(longest)), 0);
        cr_assert_eq(nnc_wire_receive(to, &frame), 1);
        cr_assert(frame.type == UINT32_MAX && frame.bytes == 0);
        cr_assert_eq(nnc_wire_receive(to, &frame), 1);
        cr_assert(frame.type == 0 && frame.bytes == 1 && frame.body[0] == 'x');
        cr_assert_eq(nnc_wire_receive(to, &frame), 0);
    }
    nnc_wire_destroy(ends[0]);
    nnc_wire_destroy(ends[1]);
}

Test(wire, frames_arrive_whole_when_bytes_come_one_at_a_time) {
    struct record record = record_frames();
    int far;
    struct nnc_wire *wire = make_wire(&right_keys, 0, &far);
    unsigned taken = 0;
    for (size_t i = 0; i < record.at[3]; i++) {
        struct nnc_wire_frame frame = {.type = 999};
        put(far, record.bytes + i, 1);
        int code = nnc_wire_receive(wire, &frame);
        cr_assert_eq(code, i + 1 == record.at[taken + 1], "byte %zu", i);
        cr_assert_eq(frame.type, code == 1 ? 70 + taken : 999, "outputs stay untouched");
        taken += code == 1;
    }
    cr_assert_eq(taken, 3);
    nnc_wire_destroy(wire);
    close(far);
}

/* Frames of all small sizes in few reads: bodies can be used as numbers wherever they came. */
Test(wire, bodies_are_aligned) {
    struct nnc_wire *ends[2];
    make_pair(ends);
    uint8_t body[100];
    for (uint32_t bytes = 0; bytes < sizeof(body); bytes++) {
        memset(body, (int)bytes, sizeof(body));
        cr_assert_eq(nnc_wire_send(ends[0], bytes, body, bytes), 0);
    }
    for (uint32_t bytes = 0; bytes < sizeof(body); bytes++) {
        struct nnc_wire_frame frame;
        cr_assert_eq(nnc_wire_receive(ends[1], &frame), 1);
        cr_assert(frame.type == bytes && frame.bytes == bytes);
        cr_assert_eq((uintptr_t)frame.body % 16, 0);
        memset(body, (int)bytes, sizeof(body));
        cr_assert_eq(memcmp(frame.body, body, bytes), 0, "%" PRIu32 " bytes", bytes);
    }
    nnc_wire_destroy(ends[0]);
    nnc_wire_destroy(ends[1]);
}

/* The body of frame `number` of a stream that both sides of a test know. */
static size_t fill_body(struct nnc_rng *rng, uint8_t *body) {
    size_t bytes = nnc_rng_below(rng, nnc_rng_below(rng, 4) == 0 ? NNC_WIRE_BODY_MAX + 1 : 64);
    uint32_t seed = nnc_rng_u32(rng);
    for (size_t i = 0; i < bytes; i++) {
        body[i] = (uint8_t)(seed + i * 31);
    }
    return bytes;
}

/* Small socket buffers, so that frames are cut at all places, and a queue that is often full. */
Test(wire, a_long_stream_passes_a_narrow_socket, .timeout = 60) {
    const unsigned frames = 600;
    int ends[2], narrow = 3000;
    make_sockets(ends);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &narrow, sizeof(narrow)), 0);
    }
    struct nnc_wire *sender, *receiver;
    cr_assert_eq(nnc_wire_create(ends[0], &left_keys, 100000, &sender), 0);
    cr_assert_eq(nnc_wire_create(ends[1], &right_keys, 0, &receiver), 0);
    struct nnc_rng sent_rng = nnc_rng_make(1, NNC_RNG_SYNTHETIC, 0, 0), received_rng = sent_rng;
    static uint8_t body[NNC_WIRE_BODY_MAX], expected[NNC_WIRE_BODY_MAX];
    unsigned sent = 0, received = 0, refused = 0;
    size_t bytes = fill_body(&sent_rng, body);
    while (received < frames) {
        int code = sent < frames ? nnc_wire_send(sender, sent, body, bytes) : -ENOBUFS;
        if (code == 0) {
            sent++;
            bytes = fill_body(&sent_rng, body);
            continue;
        }
        cr_assert_eq(code, -ENOBUFS);
        refused++;
        ssize_t waiting = nnc_wire_flush(sender);
        cr_assert_geq(waiting, 0);
        cr_assert_eq(nnc_wire_events(sender), waiting > 0 ? POLLIN | POLLOUT : POLLIN);
        struct nnc_wire_frame frame;
        while ((code = nnc_wire_receive(receiver, &frame)) == 1) {
            cr_assert_eq(frame.bytes, fill_body(&received_rng, expected));
            cr_assert(frame.type == received++);
            cr_assert_eq(memcmp(frame.body, expected, frame.bytes), 0);
        }
        cr_assert_eq(code, 0, "%s", nnc_error_text());
    }
    cr_assert_gt(refused, 100);
    nnc_wire_destroy(sender);
    nnc_wire_destroy(receiver);
}

/* What a reader beside the sender works on. */
struct reader {
    struct nnc_wire *wire;
    unsigned frames;
};

static void *read_beside(void *context) {
    const struct reader *reader = context;
    struct nnc_rng rng = nnc_rng_make(2, NNC_RNG_SYNTHETIC, 0, 0);
    static uint8_t expected[NNC_WIRE_BODY_MAX];
    for (unsigned received = 0; received < reader->frames;) {
        struct nnc_wire_frame frame;
        int code = nnc_wire_receive(reader->wire, &frame);
        if (code == 1) {
            cr_assert_eq(frame.type, received++);
            cr_assert_eq(frame.bytes, fill_body(&rng, expected));
            cr_assert_eq(memcmp(frame.body, expected, frame.bytes), 0);
            continue;
        }
        cr_assert_eq(code, 0, "frame %u: %s", received, nnc_error_text());
        struct pollfd poller = {nnc_wire_fd(reader->wire), nnc_wire_events(reader->wire), 0};
        poll(&poller, 1, -1);
    }
    return NULL;
}

/* Room that comes while the queue is not empty goes to the queue. */
Test(wire, frames_stay_in_order_when_the_socket_empties_meanwhile, .timeout = 60) {
    int ends[2], narrow = 3000;
    make_sockets(ends);
    cr_assert_eq(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &narrow, sizeof(narrow)), 0);
    struct nnc_wire *sender;
    struct reader reader = {.frames = 20000};
    cr_assert_eq(nnc_wire_create(ends[0], &left_keys, 0, &sender), 0);
    cr_assert_eq(nnc_wire_create(ends[1], &right_keys, 0, &reader.wire), 0);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, read_beside, &reader), 0);
    struct nnc_rng rng = nnc_rng_make(2, NNC_RNG_SYNTHETIC, 0, 0);
    static uint8_t body[NNC_WIRE_BODY_MAX];
    for (uint32_t sent = 0; sent < reader.frames; sent++) {
        size_t bytes = fill_body(&rng, body);
        int code;
        while ((code = nnc_wire_send(sender, sent, body, bytes)) == -ENOBUFS) {
            struct pollfd poller = {nnc_wire_fd(sender), POLLOUT, 0};
            poll(&poller, 1, -1);
        }
        cr_assert_eq(code, 0, "%s", nnc_error_text());
    }
    while (nnc_wire_flush(sender) > 0) {
        struct pollfd poller = {nnc_wire_fd(sender), POLLOUT, 0};
        poll(&poller, 1, -1);
    }
    pthread_join(thread, NULL);
    nnc_wire_destroy(sender);
    nnc_wire_destroy(reader.wire);
}

/* So that another implementation could talk to this one. */
Test(wire, a_frames_bytes_are_as_described) {
    struct record record = record_frames();
    static const uint8_t second[] = {71, 0, 0, 0, 5, 0,   0,   0,   1,   0,  0,
                                     0,  0, 0, 0, 0, 't', 'h', 'r', 'e', 'e'};
    const uint8_t *frame = record.bytes + record.at[1];
    cr_assert_eq(memcmp(frame, second, sizeof(second)), 0);
    struct nnc_hmac *mac;
    const struct iovec part = {record.bytes + record.at[1], sizeof(second)};
    cr_assert_eq(nnc_hmac_create(left_keys.send, &mac), 0);
    cr_assert_eq(nnc_hmac_check(mac, &part, 1, frame + sizeof(second)), 1);
    nnc_hmac_destroy(mac);
}

Test(wire, every_flipped_bit_is_refused) {
    struct record record = record_frames();
    int code;
    cr_assert_eq(offer(record.bytes, record.at[3], &code), 3);
    cr_assert_eq(code, -EPIPE);
    for (size_t bit = 0; bit < 8 * record.at[3]; bit++) {
        record.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        unsigned whole = bit / 8 < record.at[1] ? 0 : bit / 8 < record.at[2] ? 1 : 2;
        cr_assert_eq(offer(record.bytes, record.at[3], &code), whole, "bit %zu", bit);
        /* A body that got longer is missed at the end of the stream. */
        size_t place = bit / 8 - record.at[whole];
        cr_assert(code == -NNC_E_FORMAT || (code == -EPIPE && place >= 4 && place < 8),
                  "bit %zu: %d", bit, code);
        record.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

Test(wire, frames_out_of_their_order_are_refused) {
    static const struct {
        const char *what;
        unsigned order[3], count, taken;
    } rows[] = {
        {"repeated", {0, 0}, 2, 1},    {"swapped", {1, 0}, 2, 0}, {"first one missing", {1}, 1, 0},
        {"one missing", {0, 2}, 2, 1}, {"late", {0, 1, 0}, 3, 2},
    };
    struct record record = record_frames();
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        uint8_t bytes[sizeof(record.bytes)];
        size_t count = 0;
        for (unsigned i = 0; i < rows[row].count; i++) {
            unsigned frame = rows[row].order[i];
            size_t length = record.at[frame + 1] - record.at[frame];
            memcpy(bytes + count, record.bytes + record.at[frame], length);
            count += length;
        }
        int code;
        cr_assert_eq(offer(bytes, count, &code), rows[row].taken, "%s", rows[row].what);
        cr_assert_eq(code, -NNC_E_FORMAT, "%s", rows[row].what);
    }
}

Test(wire, a_frame_sent_back_is_refused) {
    int far;
    struct nnc_wire *wire = make_wire(&left_keys, 0, &far);
    struct record record = record_frames();
    struct nnc_wire_frame frame;
    put(far, record.bytes, record.at[1]);
    cr_assert_eq(nnc_wire_receive(wire, &frame), -NNC_E_FORMAT);
    cr_assert_eq(nnc_wire_receive(wire, &frame), -NNC_E_FORMAT, "and never passed over");
    nnc_wire_destroy(wire);
    close(far);
}

Test(wire, frames_under_another_connections_keys_are_refused) {
    const struct nnc_wire_keys other = {.send = {1, 2, 4}, .receive = {4, 5, 7}};
    int far;
    struct nnc_wire *wire = make_wire(&other, 0, &far);
    cr_assert_eq(nnc_wire_send(wire, 1, "x", 1), 0);
    uint8_t bytes[FRAME_BYTES(1)];
    cr_assert_eq(recv(far, bytes, sizeof(bytes), MSG_DONTWAIT), (ssize_t)sizeof(bytes));
    int code;
    cr_assert_eq(offer(bytes, sizeof(bytes), &code), 0);
    cr_assert_eq(code, -NNC_E_FORMAT);
    nnc_wire_destroy(wire);
    close(far);
}

/* The header alone is enough, and no byte of the body ever comes. */
Test(wire, a_body_too_long_is_refused_before_it_is_waited_for) {
    static const uint32_t lengths[] = {NNC_WIRE_BODY_MAX + 1, 1u << 31, UINT32_MAX - 47,
                                       UINT32_MAX};
    for (size_t row = 0; row < sizeof(lengths) / sizeof(lengths[0]); row++) {
        int far;
        struct nnc_wire *wire = make_wire(&right_keys, 0, &far);
        const uint32_t header[4] = {70, lengths[row], 0, 0};
        struct nnc_wire_frame frame;
        put(far, header, sizeof(header));
        cr_assert_eq(nnc_wire_receive(wire, &frame), -NNC_E_FORMAT, "row %zu", row);
        nnc_wire_destroy(wire);
        close(far);
    }
}

Test(wire, a_stream_that_ends_anywhere_gives_whole_frames_only) {
    struct record record = record_frames();
    for (size_t count = 0; count <= record.at[3]; count++) {
        int code;
        unsigned whole = 0;
        while (whole < 3 && record.at[whole + 1] <= count) {
            whole++;
        }
        cr_assert_eq(offer(record.bytes, count, &code), whole, "%zu bytes", count);
        cr_assert_eq(code, -EPIPE);
        bool in_frame = count != record.at[whole];
        cr_assert_eq(strstr(nnc_error_text(), "in the middle of a frame") != NULL, in_frame,
                     "%zu bytes: %s", count, nnc_error_text());
    }
}

Test(wire, a_full_queue_refuses_and_loses_nothing, .timeout = 20) {
    const size_t queue_max = 200000;
    static uint8_t body[10000];
    int ends[2];
    make_sockets(ends);
    struct nnc_wire *sender, *receiver;
    cr_assert_eq(nnc_wire_create(ends[0], &left_keys, queue_max, &sender), 0);
    cr_assert_eq(nnc_wire_create(ends[1], &right_keys, 0, &receiver), 0);
    uint32_t sent = 0, received = 0;
    while (nnc_wire_send(sender, sent, body, sizeof(body)) == 0) {
        sent++;
        cr_assert_leq(nnc_wire_flush(sender), (ssize_t)queue_max);
    }
    cr_assert_gt(nnc_wire_flush(sender), (ssize_t)(queue_max - FRAME_BYTES(sizeof(body))));
    cr_assert_eq(nnc_wire_send(sender, sent, body, sizeof(body)), -ENOBUFS);
    cr_assert_eq(nnc_wire_events(sender), POLLIN | POLLOUT);
    struct nnc_wire_frame frame;
    while (nnc_wire_flush(sender) > 0 || received < sent) {
        while (nnc_wire_receive(receiver, &frame) == 1) {
            cr_assert_eq(frame.type, received++);
        }
    }
    cr_assert_eq(received, sent);
    cr_assert_eq(nnc_wire_events(sender), POLLIN);
    cr_assert_eq(nnc_wire_send(sender, sent, body, sizeof(body)), 0);
    cr_assert_eq(nnc_wire_receive(receiver, &frame), 1, "the refused one took no number");
    nnc_wire_destroy(sender);
    nnc_wire_destroy(receiver);
}

/* Any SIGPIPE would end this process. */
Test(wire, a_gone_partner_is_told_after_its_last_words) {
    struct nnc_wire *ends[2];
    make_pair(ends);
    struct nnc_wire_frame frame;
    cr_assert_eq(nnc_wire_send(ends[0], 1, "bye", 3), 0);
    nnc_wire_destroy(ends[0]);
    cr_assert_eq(nnc_wire_send(ends[1], 1, NULL, 0), -EPIPE);
    cr_assert_eq(nnc_wire_receive(ends[1], &frame), 1);
    cr_assert_eq(nnc_wire_receive(ends[1], &frame), -EPIPE);
    cr_assert_eq(nnc_wire_receive(ends[1], &frame), -EPIPE);
    nnc_wire_destroy(ends[1]);
}

Test(wire, what_is_no_socket_stays_the_callers) {
    struct nnc_wire *wire = NULL;
    cr_assert_eq(nnc_wire_create(-1, &left_keys, 0, &wire), -EBADF);
    cr_assert_null(wire);
    nnc_wire_destroy(NULL);
}

Test(wire, small_frames_are_not_held_back_on_tcp) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, length), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, length), 0);
    int far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct nnc_wire *ends[2];
    cr_assert_eq(nnc_wire_create(fd, &left_keys, 0, &ends[0]), 0);
    cr_assert_eq(nnc_wire_create(far, &right_keys, 0, &ends[1]), 0);
    for (int i = 0; i < 2; i++) {
        int on = 0;
        length = sizeof(on);
        cr_assert_eq(getsockopt(nnc_wire_fd(ends[i]), IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
        cr_assert_neq(on, 0);
    }
    cr_assert_eq(nnc_wire_send(ends[0], 3, "abc", 3), 0);
    struct pollfd poller = {.fd = far, .events = nnc_wire_events(ends[1])};
    cr_assert_eq(poll(&poller, 1, 20000), 1);
    struct nnc_wire_frame frame;
    cr_assert_eq(nnc_wire_receive(ends[1], &frame), 1);
    nnc_wire_destroy(ends[0]);
    nnc_wire_destroy(ends[1]);
    close(listener);
}

/* Frames whose header is right in most of them, so that the tag alone refuses. Each meets a wire of
 * its own, on one socket for all: a wire that refused has read all there was. */
Test(wire, a_million_hostile_frames_are_refused, .timeout = 300) {
    const uint64_t seed = 20261126;
    const unsigned rounds = 1000000;
    struct nnc_rng rng = nnc_rng_make(seed, NNC_RNG_SYNTHETIC, 0, 0);
    struct record record = record_frames();
    const size_t bytes = record.at[1];
    unsigned tagged = 0, right = 0;
    int ends[2];
    make_sockets(ends);
    for (unsigned round = 0; round < rounds; round++) {
        uint8_t sent[FRAME_BYTES(5)];
        memcpy(sent, record.bytes, bytes);
        size_t from = nnc_rng_below(&rng, 4) == 0 ? 0 : HEADER_BYTES;
        for (uint32_t change = nnc_rng_below(&rng, 8) + 1; change > 0; change--) {
            size_t place = from + nnc_rng_below(&rng, (uint32_t)(bytes - from));
            sent[place] = (uint8_t)(sent[place] ^ (nnc_rng_below(&rng, 255) + 1));
        }
        struct nnc_wire *wire;
        cr_assert_eq(nnc_wire_create(dup(ends[0]), &right_keys, 0, &wire), 0);
        put(ends[1], sent, bytes);
        struct nnc_wire_frame frame;
        int code = nnc_wire_receive(wire, &frame);
        nnc_wire_destroy(wire);
        bool same = memcmp(sent, record.bytes, bytes) == 0;
        right += same;
        tagged += code < 0 && strstr(nnc_error_text(), "wrong tag") != NULL;
        cr_assert(same ? code == 1 : code == -NNC_E_FORMAT || code == 0,
                  "seed %" PRIu64 " round %u: %d", seed, round, code);
    }
    cr_assert(tagged > rounds / 2 && right < rounds / 100, "%u by tag, %u right", tagged, right);
    close(ends[0]);
    close(ends[1]);
}
