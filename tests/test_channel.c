/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages: round trips, refusals, and packets that are not messages. */
#include "base/err.h"
#include "base/rng.h"
#include "ipc/channel.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

static void make_sockets(int ends[2]) {
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void make_pair(struct nnc_channel *ret_channels[2]) {
    int ends[2];
    make_sockets(ends);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(nnc_channel_create(ends[i], 3, &ret_channels[i]), 0, "%s", nnc_error_text());
    }
}

/* Send raw bytes whose sum is made right when `seal` is set. */
static void send_raw(int fd, struct nnc_message *message, size_t length, int seal) {
    if (seal) {
        message->header.sum = 0;
        uint64_t seed = XXH3_64bits(&message->header, sizeof(message->header));
        message->header.sum =
            (uint32_t)XXH3_64bits_withSeed(message->body, message->header.bytes, seed);
    }
    cr_assert_eq(send(fd, message, length, MSG_DONTWAIT), (ssize_t)length);
}

Test(channel, messages_arrive_whole_and_in_order) {
    struct nnc_channel *ends[2];
    make_pair(ends);
    struct nnc_message message;
    cr_assert_eq(nnc_channel_receive(ends[1], &message), 0);
    struct nnc_msg_bad bad = {.phase = 1, .reason_bytes = 5, .sample = 77};
    cr_assert_eq(nnc_channel_send(ends[0], NNC_MSG_ATTACHED, NULL, 0, 0), 0);
    cr_assert_eq(nnc_channel_send2(ends[0], NNC_MSG_BAD, &bad, sizeof(bad), "empty", 5, 0), 0);
    cr_assert_eq(nnc_channel_receive(ends[1], &message), 1);
    cr_assert(message.header.type == NNC_MSG_ATTACHED && message.header.bytes == 0);
    cr_assert_eq(nnc_channel_receive(ends[1], &message), 1);
    cr_assert(message.header.type == NNC_MSG_BAD && message.header.number == 1);
    cr_assert_eq(memcmp(message.body, &bad, sizeof(bad)), 0);
    cr_assert_str_eq((const char *)message.body + sizeof(bad), "empty");
    cr_assert_eq(nnc_channel_receive(ends[1], &message), 0);
    nnc_channel_destroy(ends[0]);
    nnc_channel_destroy(ends[1]);
}

Test(channel, the_longest_body_passes_and_a_longer_one_is_refused) {
    struct nnc_channel *ends[2];
    make_pair(ends);
    struct nnc_msg_bad bad = {.reason_bytes = NNC_MESSAGE_MAX - sizeof(bad)};
    char text[NNC_MESSAGE_MAX];
    memset(text, 'x', sizeof(text));
    cr_assert_eq(
        nnc_channel_send2(ends[0], NNC_MSG_BAD, &bad, sizeof(bad), text, bad.reason_bytes, 0), 0);
    cr_assert_eq(
        nnc_channel_send2(ends[0], NNC_MSG_BAD, &bad, sizeof(bad), text, bad.reason_bytes + 1, 0),
        -EMSGSIZE);
    cr_assert_eq(nnc_channel_send2(ends[0], NNC_MSG_BAD, &bad, sizeof(bad), text, SIZE_MAX, 0),
                 -EMSGSIZE);
    struct nnc_message message;
    cr_assert_eq(nnc_channel_receive(ends[1], &message), 1);
    cr_assert_eq(message.body[NNC_MESSAGE_MAX - 1], 'x');
    nnc_channel_destroy(ends[0]);
    nnc_channel_destroy(ends[1]);
}

Test(channel, a_full_channel_neither_blocks_nor_loses, .timeout = 20) {
    struct nnc_channel *ends[2];
    make_pair(ends);
    unsigned sent = 0;
    struct nnc_msg_eval eval = {0};
    while (nnc_channel_send(ends[0], NNC_MSG_EVAL, &eval, sizeof(eval), 0) == 0) {
        eval.step = ++sent;
    }
    cr_assert_gt(sent, 10);
    cr_assert_eq(nnc_channel_send(ends[0], NNC_MSG_EVAL, &eval, sizeof(eval), 0), -EAGAIN);
    cr_assert_eq(nnc_channel_send(ends[0], NNC_MSG_EVAL, &eval, sizeof(eval), 10), -ETIMEDOUT);
    for (unsigned i = 0; i < sent; i++) {
        struct nnc_message message;
        cr_assert_eq(nnc_channel_receive(ends[1], &message), 1);
        memcpy(&eval, message.body, sizeof(eval));
        cr_assert_eq(eval.step, i);
        cr_assert_eq(message.header.number, i);
    }
    cr_assert_eq(nnc_channel_send(ends[0], NNC_MSG_EVAL, &eval, sizeof(eval), 10), 0);
    nnc_channel_destroy(ends[0]);
    nnc_channel_destroy(ends[1]);
}

Test(channel, a_gone_partner_is_told_after_its_last_words) {
    struct nnc_channel *ends[2];
    make_pair(ends);
    cr_assert_eq(nnc_channel_send(ends[0], NNC_MSG_ATTACHED, NULL, 0, 0), 0);
    nnc_channel_destroy(ends[0]);
    struct nnc_message message;
    cr_assert_eq(nnc_channel_receive(ends[1], &message), 1);
    cr_assert_eq(nnc_channel_receive(ends[1], &message), -EPIPE);
    cr_assert_eq(nnc_channel_send(ends[1], NNC_MSG_START, NULL, 0, 1000), -EPIPE);
    nnc_channel_destroy(ends[1]);
}

Test(channel, only_seqpacket_sockets_become_channels) {
    int ends[2];
    struct nnc_channel *channel;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    cr_assert_eq(nnc_channel_create(ends[0], 0, &channel), -NNC_E_FORMAT);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(nnc_channel_create(ends[0], 0, &channel), -ENOTSOCK);
}

/* Rows of packets with a right sum and one mistake each. */
static const struct {
    const char *mistake;
    uint16_t type, bytes;
    int16_t length_change;
    uint32_t generation, reserved;
    uint8_t fill;
    int expected;
} packets[] = {
    {"none", NNC_MSG_BAD, sizeof(struct nnc_msg_bad), 0, 3, 0, 0, 1},
    {"type 0", 0, 0, 0, 3, 0, 0, -NNC_E_FORMAT},
    {"type 200", 200, 0, 0, 3, 0, 0, -NNC_E_FORMAT},
    {"type 65535", 65535, 4096, 0, 3, 0, 0, -NNC_E_FORMAT},
    {"short struct", NNC_MSG_BAD, sizeof(struct nnc_msg_bad) - 1, 0, 3, 0, 0, -NNC_E_FORMAT},
    {"no struct", NNC_MSG_HELLO, 0, 0, 3, 0, 0, -NNC_E_FORMAT},
    {"packet longer than header says", NNC_MSG_ATTACHED, 0, 1, 3, 0, 0, -NNC_E_FORMAT},
    {"packet shorter than header says", NNC_MSG_ATTACHED, 9, -1, 3, 0, 0, -NNC_E_FORMAT},
    {"half a header", NNC_MSG_ATTACHED, 0, -12, 3, 0, 0, -NNC_E_FORMAT},
    {"reserved word", NNC_MSG_ATTACHED, 0, 0, 3, 1, 0, -NNC_E_FORMAT},
    {"newer generation", NNC_MSG_ATTACHED, 0, 0, 4, 0, 0, -NNC_E_FORMAT},
    {"older generation", NNC_MSG_ATTACHED, 0, 0, 2, 0, 0, 0},
    {"text without end", NNC_MSG_HELLO, sizeof(struct nnc_msg_hello), 0, 3, 0, 'x', -NNC_E_FORMAT},
    {"text without end", NNC_MSG_DONE, sizeof(struct nnc_msg_done), 0, 3, 0, 'x', -NNC_E_FORMAT},
    {"tail counts too much", NNC_MSG_BAD, 64, 0, 3, 0, 1, -NNC_E_FORMAT},
    {"floats count too much", NNC_MSG_LOGITS, 4096, 0, 3, 0, 4, -NNC_E_FORMAT},
};

Test(channel, packets_that_are_no_messages_are_refused) {
    for (size_t row = 0; row < sizeof(packets) / sizeof(packets[0]); row++) {
        int ends[2];
        make_sockets(ends);
        struct nnc_channel *channel;
        cr_assert_eq(nnc_channel_create(ends[1], 3, &channel), 0);
        struct nnc_message packet = {.header = {.type = packets[row].type,
                                                .bytes = packets[row].bytes,
                                                .generation = packets[row].generation,
                                                .reserved = packets[row].reserved}};
        memset(packet.body, packets[row].fill, sizeof(packet.body));
        size_t length = sizeof(packet.header) + packets[row].bytes;
        send_raw(ends[0], &packet, length + (size_t)packets[row].length_change, 1);
        struct nnc_message message = {.header.type = 999};
        int code = nnc_channel_receive(channel, &message);
        cr_assert_eq(code, packets[row].expected, "%s (row %zu): %d %s", packets[row].mistake, row,
                     code, nnc_error_text());
        cr_assert(code == 1 || message.header.type == 999, "outputs stay untouched");
        cr_assert_eq(nnc_channel_dropped(channel), packets[row].generation == 2);
        nnc_channel_destroy(channel);
        close(ends[0]);
    }
}

Test(channel, numbers_that_come_again_are_refused) {
    int ends[2];
    make_sockets(ends);
    struct nnc_channel *channel;
    cr_assert_eq(nnc_channel_create(ends[1], 3, &channel), 0);
    struct nnc_message packet = {.header = {.type = NNC_MSG_ATTACHED, .generation = 3},
                                 .body = {0}};
    struct nnc_message message;
    send_raw(ends[0], &packet, sizeof(packet.header), 1);
    cr_assert_eq(nnc_channel_receive(channel, &message), 1);
    send_raw(ends[0], &packet, sizeof(packet.header), 1);
    cr_assert_eq(nnc_channel_receive(channel, &message), -NNC_E_FORMAT);
    nnc_channel_destroy(channel);
    close(ends[0]);
}

Test(channel, a_packet_longer_than_any_message_is_refused) {
    int ends[2];
    make_sockets(ends);
    struct nnc_channel *channel;
    cr_assert_eq(nnc_channel_create(ends[1], 3, &channel), 0);
    static char huge[20000];
    cr_assert_eq(send(ends[0], huge, sizeof(huge), 0), (ssize_t)sizeof(huge));
    struct nnc_message message;
    cr_assert_eq(nnc_channel_receive(channel, &message), -NNC_E_FORMAT);
    nnc_channel_destroy(channel);
    close(ends[0]);
}

/* Random bytes, half of them with a plausible header and a right sum. */
Test(channel, random_packets_never_do_harm) {
    const uint64_t seed = 20261123;
    struct nnc_rng rng = nnc_rng_make(seed, NNC_RNG_SYNTHETIC, 0, 0);
    int ends[2];
    make_sockets(ends);
    struct nnc_channel *channel;
    cr_assert_eq(nnc_channel_create(ends[1], 3, &channel), 0);
    unsigned accepted = 0, refused = 0;
    for (unsigned round = 0; round < 20000; round++) {
        struct nnc_message packet;
        uint32_t length = nnc_rng_below(&rng, 200) + 1;
        uint8_t *bytes = (uint8_t *)&packet;
        for (uint32_t i = 0; i < length; i++) {
            bytes[i] = (uint8_t)nnc_rng_u32(&rng);
        }
        int plausible = round % 2 && length >= sizeof(packet.header);
        if (plausible) {
            packet.header.type = (uint16_t)nnc_rng_below(&rng, 12);
            packet.header.bytes = (uint16_t)(length - sizeof(packet.header));
            packet.header.generation = 3;
            packet.header.number = round;
            packet.header.reserved = 0;
        }
        send_raw(ends[0], &packet, length, plausible);
        struct nnc_message message;
        int code = nnc_channel_receive(channel, &message);
        cr_assert(code == 1 || code == 0 || code == -NNC_E_FORMAT, "seed %" PRIu64 " round %u: %d",
                  seed, round, code);
        accepted += code == 1;
        refused += code < 0;
        cr_assert(code != 1 || plausible, "seed %" PRIu64 " round %u", seed, round);
    }
    cr_assert(accepted > 500 && refused > 10000, "accepted %u, refused %u", accepted, refused);
    nnc_channel_destroy(channel);
    close(ends[0]);
}
