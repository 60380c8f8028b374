/* SPDX-License-Identifier: Apache-2.0 */
/* The proof of a secret over a fresh connection: it succeeds between two that have it, and with
 * nobody else, whatever stands between the two and whatever it has seen before. */
#include "base/err.h"
#include "base/rng.h"
#include "ipc/handshake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The messages, client's first and last. */
#define HELLO_BYTES     184
#define ANSWER_BYTES    72
#define PROOF_BYTES     40
#define JOB_AT          24
#define BUILD_ID_AT     88
#define ANSWER_NONCE_AT 8
#define ANSWER_TAG_AT   40
#define PROOF_TAG_AT    8

#define NO_BIT SIZE_MAX

static const uint8_t secret[NNC_SECRET_BYTES] = "thirty-two bytes of great secret";
static const uint8_t wrong_secret[NNC_SECRET_BYTES] = "thirty-two bytes of great secreT";

static const struct nnc_greeting greeting = {.kind = NNC_GREETING_DATA,
                                             .node = 3,
                                             .nodes = 4,
                                             .generation = 9,
                                             .job = "mnist-17",
                                             .build_id = "0.1.0-abcdef"};

/* One end of a connection: the side under test and the bare socket that it talks to. */
struct side {
    struct nnc_handshake *handshake;
    int fd, far;
    int code; /* 0 while it goes on */
    struct nnc_greeting greeting;
    struct nnc_wire_keys keys;
    uint8_t said[256]; /* all that came from it */
    size_t said_bytes;
};

static void begin(struct side *side, const uint8_t *its_secret,
                  const struct nnc_greeting *its_claim) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    memset(side, 0, sizeof(*side));
    side->fd = ends[0];
    side->far = ends[1];
    cr_assert_eq(nnc_handshake_create(side->fd, its_secret, its_claim, &side->handshake), 0, "%s",
                 nnc_error_text());
}

static void end(struct side *side) {
    nnc_handshake_destroy(side->handshake);
    close(side->fd);
    close(side->far);
}

/* Let a side go on; whoever failed closes. */
static void work(struct side *side) {
    if (side->code == 0) {
        side->code = nnc_handshake_work(side->handshake, &side->greeting, &side->keys);
        if (side->code < 0) {
            shutdown(side->fd, SHUT_RDWR);
        }
    }
}

/* Say something to a side; false when it does not listen any more. */
static bool tell(struct side *side, const void *bytes, size_t count) {
    ssize_t sent = send(side->far, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    cr_assert(sent == (ssize_t)count || (sent < 0 && errno == EPIPE));
    work(side);
    return sent >= 0;
}

/* What a side says next, one byte: 1, 0 nothing now, -1 it closed. */
static int hear(struct side *side) {
    work(side);
    ssize_t came = recv(side->far, side->said + side->said_bytes, 1, MSG_DONTWAIT);
    if (came > 0) {
        side->said_bytes++;
        return 1;
    }
    return came == 0 ? -1 : 0;
}

/* Carry what `from` says to `to`, one byte at a time, with the bit number flip turned. */
static bool carry(struct side *from, struct side *to, size_t flip) {
    bool moved = false;
    int heard;
    while ((heard = hear(from)) > 0) {
        size_t place = from->said_bytes - 1;
        uint8_t byte = from->said[place];
        byte ^= (uint8_t)(flip / 8 == place ? 1 << flip % 8 : 0);
        moved |= tell(to, &byte, 1);
    }
    if (heard < 0) {
        shutdown(to->far, SHUT_WR);
        work(to);
    }
    return moved;
}

/* Carry everything between the two until nothing moves. */
static void connect_sides(struct side *client, struct side *server, size_t client_flip,
                          size_t server_flip) {
    bool moved = true;
    while (moved) {
        moved = carry(client, server, client_flip);
        moved |= carry(server, client, server_flip);
    }
    carry(client, server, client_flip);
}

/* A whole handshake between two that know the secret. */
static void connect_friends(struct side *client, struct side *server) {
    begin(client, secret, &greeting);
    begin(server, secret, NULL);
    connect_sides(client, server, NO_BIT, NO_BIT);
    cr_assert(client->code == 1 && server->code == 1, "%d %d %s", client->code, server->code,
              nnc_error_text());
}

Test(handshake, both_sides_are_proved_byte_by_byte_and_their_keys_fit) {
    struct side client, server;
    connect_friends(&client, &server);
    cr_assert_eq(client.said_bytes, HELLO_BYTES + PROOF_BYTES);
    cr_assert_eq(server.said_bytes, ANSWER_BYTES);
    cr_assert_eq(memcmp(&server.greeting, &greeting, sizeof(greeting)), 0);
    cr_assert_eq(memcmp(&client.greeting, &greeting, sizeof(greeting)), 0);
    cr_assert_eq(memcmp(client.keys.send, server.keys.receive, NNC_WIRE_KEY_BYTES), 0);
    cr_assert_eq(memcmp(client.keys.receive, server.keys.send, NNC_WIRE_KEY_BYTES), 0);
    cr_assert_neq(memcmp(client.keys.send, client.keys.receive, NNC_WIRE_KEY_BYTES), 0);
    end(&client);
    end(&server);
}

/* On one socket, as in a run, and the first frame comes in the same packet as the proof. */
Test(handshake, the_first_frame_comes_right_behind) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct nnc_handshake *client, *server;
    struct nnc_greeting came;
    struct nnc_wire_keys client_keys, server_keys;
    cr_assert_eq(nnc_handshake_create(ends[0], secret, &greeting, &client), 0);
    cr_assert_eq(nnc_handshake_create(ends[1], secret, NULL, &server), 0);
    cr_assert_eq(nnc_handshake_events(client), POLLOUT);
    cr_assert_eq(nnc_handshake_events(server), POLLIN);
    cr_assert_eq(nnc_handshake_work(client, &came, &client_keys), 0);
    cr_assert_eq(nnc_handshake_events(client), POLLIN);
    cr_assert_eq(nnc_handshake_work(server, &came, &server_keys), 0);
    cr_assert_eq(nnc_handshake_work(client, &came, &client_keys), 1);
    struct nnc_wire *left, *right;
    cr_assert_eq(nnc_wire_create(ends[0], &client_keys, 0, &left), 0);
    cr_assert_eq(nnc_wire_send(left, 7, "first", 5), 0);
    cr_assert_eq(nnc_handshake_work(server, &came, &server_keys), 1);
    cr_assert_eq(nnc_wire_create(ends[1], &server_keys, 0, &right), 0);
    struct nnc_wire_frame frame;
    cr_assert_eq(nnc_wire_receive(right, &frame), 1);
    cr_assert(frame.type == 7 && memcmp(frame.body, "first", 5) == 0);
    cr_assert_eq(nnc_wire_send(right, 8, "answer", 6), 0);
    cr_assert_eq(nnc_wire_receive(left, &frame), 1);
    cr_assert(frame.type == 8 && memcmp(frame.body, "answer", 6) == 0);
    nnc_handshake_destroy(client);
    nnc_handshake_destroy(server);
    nnc_wire_destroy(left);
    nnc_wire_destroy(right);
}

Test(handshake, keys_and_nonces_differ_from_connection_to_connection) {
    struct side client, server;
    connect_friends(&client, &server);
    for (unsigned round = 0; round < 50; round++) {
        struct side other_client, other_server;
        connect_friends(&other_client, &other_server);
        cr_assert_neq(memcmp(client.keys.send, other_client.keys.send, NNC_WIRE_KEY_BYTES), 0);
        cr_assert_neq(memcmp(client.keys.receive, other_client.keys.receive, NNC_WIRE_KEY_BYTES),
                      0);
        cr_assert_neq(memcmp(client.keys.send, other_client.keys.receive, NNC_WIRE_KEY_BYTES), 0);
        cr_assert_neq(memcmp(client.said, other_client.said, HELLO_BYTES), 0);
        cr_assert_neq(memcmp(server.said, other_server.said, ANSWER_TAG_AT), 0);
        end(&other_client);
        end(&other_server);
    }
    end(&client);
    end(&server);
}

Test(handshake, another_secret_on_either_side_is_refused) {
    for (int row = 0; row < 2; row++) {
        struct side client, server;
        begin(&client, row == 0 ? wrong_secret : secret, &greeting);
        begin(&server, row == 0 ? secret : wrong_secret, NULL);
        connect_sides(&client, &server, NO_BIT, NO_BIT);
        cr_assert_eq(client.code, -EACCES);
        cr_assert_eq(server.code, -EPIPE, "the client gave up first: %d", server.code);
        cr_assert_eq(client.said_bytes, HELLO_BYTES, "it proves nothing to a stranger");
        end(&client);
        end(&server);
    }
}

/* One who has no secret goes on all the same, with a tag of his own. */
Test(handshake, a_client_without_the_secret_is_refused_by_the_server) {
    struct side client, server;
    begin(&client, wrong_secret, &greeting);
    begin(&server, secret, NULL);
    while (hear(&client) > 0) {
    }
    tell(&server, client.said, HELLO_BYTES);
    uint8_t proof[PROOF_BYTES] = {'N', 'N', 'C', 'P', 1, 0, 0, 0, 5};
    tell(&server, proof, sizeof(proof));
    cr_assert_eq(server.code, -EACCES);
    end(&client);
    end(&server);
}

Test(handshake, every_bit_flipped_on_the_way_is_found) {
    const size_t client_bits = 8 * (HELLO_BYTES + PROOF_BYTES), server_bits = 8 * ANSWER_BYTES;
    for (size_t bit = 0; bit < client_bits + server_bits; bit++) {
        bool by_client = bit < client_bits;
        struct side client, server;
        begin(&client, secret, &greeting);
        begin(&server, secret, NULL);
        connect_sides(&client, &server, by_client ? bit : NO_BIT,
                      by_client ? NO_BIT : bit - client_bits);
        cr_assert_lt(server.code, 0, "bit %zu", bit);
        /* Only of its own last words the client cannot know how they arrived. */
        bool in_proof = by_client && bit >= 8 * HELLO_BYTES;
        cr_assert(in_proof ? client.code == 1 : client.code < 0, "bit %zu: %d", bit, client.code);
        end(&client);
        end(&server);
    }
}

Test(handshake, an_earlier_connection_played_again_is_refused) {
    struct side client, server, again;
    connect_friends(&client, &server);
    begin(&again, secret, NULL);
    tell(&again, client.said, HELLO_BYTES);
    cr_assert_eq(again.code, 0);
    tell(&again, client.said + HELLO_BYTES, PROOF_BYTES);
    cr_assert_eq(again.code, -EACCES);
    end(&again);

    begin(&again, secret, &greeting);
    tell(&again, server.said, ANSWER_BYTES);
    cr_assert_eq(again.code, -EACCES);
    end(&again);
    end(&client);
    end(&server);
}

Test(handshake, a_client_that_meets_itself_refuses) {
    struct side client;
    begin(&client, secret, &greeting);
    for (size_t i = 0; hear(&client) > 0; i++) {
        tell(&client, client.said + i, 1);
    }
    cr_assert_eq(client.code, -NNC_E_FORMAT);
    end(&client);
}

/* A mirror that knows how messages begin: nonce and tags come back in the right places. */
Test(handshake, own_words_in_another_message_are_refused) {
    struct side client, server;
    begin(&server, secret, NULL);
    begin(&client, secret, &greeting);
    while (hear(&client) > 0) {
    }
    tell(&server, client.said, HELLO_BYTES);
    while (hear(&server) > 0) {
    }
    cr_assert_eq(server.said_bytes, ANSWER_BYTES);
    uint8_t proof[PROOF_BYTES] = {'N', 'N', 'C', 'P', 1};
    memcpy(proof + PROOF_TAG_AT, server.said + ANSWER_TAG_AT, NNC_WIRE_TAG_BYTES);
    tell(&server, proof, sizeof(proof));
    cr_assert_eq(server.code, -EACCES, "its own tag is no client's");

    uint8_t answer[ANSWER_BYTES] = {'N', 'N', 'C', 'A', 1};
    memcpy(answer + ANSWER_NONCE_AT, client.said + HELLO_BYTES - 32, 32);
    memcpy(answer + ANSWER_TAG_AT, client.said + HELLO_BYTES - 32, 32);
    tell(&client, answer, sizeof(answer));
    cr_assert_eq(client.code, -EACCES);
    end(&client);
    end(&server);
}

Test(handshake, two_clients_or_two_servers_come_to_nothing) {
    struct side sides[2];
    for (int i = 0; i < 2; i++) {
        begin(&sides[i], secret, &greeting);
    }
    connect_sides(&sides[0], &sides[1], NO_BIT, NO_BIT);
    cr_assert(sides[0].code == -NNC_E_FORMAT || sides[1].code == -NNC_E_FORMAT);
    cr_assert(sides[0].code < 0 && sides[1].code < 0);
    for (int i = 0; i < 2; i++) {
        end(&sides[i]);
        begin(&sides[i], secret, NULL);
    }
    connect_sides(&sides[0], &sides[1], NO_BIT, NO_BIT);
    cr_assert(sides[0].code == 0 && sides[1].code == 0, "each waits; a deadline is the caller's");
    end(&sides[0]);
    end(&sides[1]);
}

/* Others that knock at the port: refused at their first words, not when 184 bytes have come. */
Test(handshake, what_is_no_handshake_is_refused_at_once) {
    static const char *words[] = {"GET / HTTP/1.1\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
                                  "\x16\x03\x01\x02\x01\x01\x01\xfc", "NNCA\1\0\0\0"};
    for (size_t row = 0; row < sizeof(words) / sizeof(words[0]); row++) {
        struct side server;
        begin(&server, secret, NULL);
        tell(&server, words[row], 8);
        cr_assert_eq(server.code, -NNC_E_FORMAT, "row %zu", row);
        cr_assert_leq(hear(&server), 0, "it says nothing");
        end(&server);
    }
}

/* A client's first message with some bytes changed. */
static const struct {
    const char *what;
    size_t at, bytes;
    uint8_t fill;
    int expected;
} hellos[] = {
    {"none", 0, 0, 0, 0},
    {"a longer job", JOB_AT, 63, 'x', 0},
    {"a job without an end", JOB_AT, 64, 'x', -NNC_E_FORMAT},
    {"a build id without an end", BUILD_ID_AT, 64, 'x', -NNC_E_FORMAT},
    {"a kind that does not exist", 8, 1, NNC_GREETING_KINDS, -NNC_E_FORMAT},
    {"a kind out of all bounds", 8, 4, 255, -NNC_E_FORMAT},
    {"another version", 4, 1, 2, -NNC_E_FORMAT},
    {"no version", 4, 4, 0, -NNC_E_FORMAT},
};

Test(handshake, claims_that_make_no_sense_are_refused) {
    for (size_t row = 0; row < sizeof(hellos) / sizeof(hellos[0]); row++) {
        struct side client, server;
        begin(&client, secret, &greeting);
        begin(&server, secret, NULL);
        while (hear(&client) > 0) {
        }
        memset(client.said + hellos[row].at, hellos[row].fill, hellos[row].bytes);
        tell(&server, client.said, HELLO_BYTES);
        cr_assert_eq(server.code, hellos[row].expected, "%s: %d", hellos[row].what, server.code);
        end(&client);
        end(&server);
    }
}

Test(handshake, nothing_behind_the_texts_of_a_claim_goes_out) {
    struct nnc_greeting dirty = greeting;
    memset(dirty.job + 5, 0, 1);
    memset(dirty.job + 6, 'S', sizeof(dirty.job) - 6);
    struct side client;
    begin(&client, secret, &dirty);
    while (hear(&client) > 0) {
    }
    cr_assert_null(memchr(client.said + JOB_AT, 'S', sizeof(dirty.job)));
    end(&client);
}

Test(handshake, a_side_that_ends_anywhere_is_told) {
    struct side client, server;
    connect_friends(&client, &server);
    for (size_t bytes = 0; bytes < HELLO_BYTES + PROOF_BYTES; bytes++) {
        struct side other;
        begin(&other, secret, NULL);
        if (bytes > 0) {
            tell(&other, client.said, bytes < HELLO_BYTES ? bytes : HELLO_BYTES);
        }
        if (bytes > HELLO_BYTES) {
            tell(&other, client.said + HELLO_BYTES, bytes - HELLO_BYTES);
        }
        cr_assert_eq(other.code, 0);
        close(other.far);
        work(&other);
        cr_assert_eq(other.code, -EPIPE, "%zu bytes", bytes);
        nnc_handshake_destroy(other.handshake);
        close(other.fd);
    }
    end(&client);
    end(&server);
}

/* Any SIGPIPE would end this process. */
Test(handshake, an_answer_to_one_who_is_gone_does_no_harm) {
    struct side client, server;
    begin(&client, secret, &greeting);
    while (hear(&client) > 0) {
    }
    begin(&server, secret, NULL);
    cr_assert_eq(send(server.far, client.said, HELLO_BYTES, 0), HELLO_BYTES);
    shutdown(server.far, SHUT_RDWR);
    work(&server);
    cr_assert_eq(server.code, -EPIPE);
    end(&client);
    end(&server);
}

/* Half of them begin as a handshake does, and half of those go on to the proof. */
Test(handshake, a_hundred_thousand_hostile_clients_are_refused, .timeout = 100) {
    const uint64_t seed = 20261126;
    const unsigned rounds = 100000;
    struct nnc_rng rng = nnc_rng_make(seed, NNC_RNG_SYNTHETIC, 0, 0);
    struct side friend, server;
    connect_friends(&friend, &server);
    unsigned refused_late = 0;
    for (unsigned round = 0; round < rounds; round++) {
        uint8_t words[HELLO_BYTES + PROOF_BYTES];
        memcpy(words, friend.said, sizeof(words));
        size_t from = round % 2 == 0 ? 0 : round % 4 == 1 ? 8 : HELLO_BYTES + 8;
        for (size_t i = from; i < sizeof(words); i += 1 + nnc_rng_below(&rng, 20)) {
            words[i] = (uint8_t)nnc_rng_u32(&rng);
        }
        struct side other;
        begin(&other, secret, NULL);
        tell(&other, words, sizeof(words));
        cr_assert(other.code == -NNC_E_FORMAT || other.code == -EACCES,
                  "seed %" PRIu64 " round %u: %d", seed, round, other.code);
        refused_late += other.code == -EACCES;
        end(&other);
    }
    cr_assert_gt(refused_late, rounds / 4);
    end(&friend);
    end(&server);
}
