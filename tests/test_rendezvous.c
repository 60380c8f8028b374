/* SPDX-License-Identifier: Apache-2.0 */
/* Doors and calls over real sockets of this machine: who is let in, who is not and what he learns,
 * and what is left behind. The clock is the test's: nothing here waits for time to pass. */
#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "coordinator/rendezvous.h"
#include "tests/support/descriptors.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull
#define LIMIT_NS  (20 * SECOND_NS) /* of real time, for what must happen at once */
#define STRANGERS 200

static const uint8_t secret[NNC_SECRET_BYTES] = "the machines of this run know it";
static const uint8_t other_secret[NNC_SECRET_BYTES] = "those of another run know this!";
static const struct nnc_greeting greeting = {.kind = NNC_GREETING_DATA,
                                             .node = 3,
                                             .nodes = 5,
                                             .generation = 7,
                                             .job = "monday",
                                             .build_id = "1.2.3"};

static uint64_t now_ns = 1000 * SECOND_NS;
static int epoll_fd;

static void make_epoll(void) {
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    cr_assert_geq(epoll_fd, 0);
}

TestSuite(rendezvous, .init = make_epoll, .timeout = 60);

/* An address of numbers. */
static struct nnc_address address_of(const char *host, uint16_t port) {
    struct nnc_address address = {.bytes = sizeof(struct sockaddr_in)};
    struct sockaddr_in *four = (struct sockaddr_in *)(void *)&address.storage;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)&address.storage;
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
    } else {
        cr_assert_eq(inet_pton(AF_INET6, host, &six->sin6_addr), 1);
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
        address.bytes = sizeof(*six);
    }
    return address;
}

static struct nnc_door *open_door(const char *host, uint16_t port) {
    struct nnc_address address = address_of(host, port);
    struct nnc_door *door;
    cr_assert_eq(nnc_door_open(&address, secret, epoll_fd, &door), 0, "%s", nnc_error_text());
    return door;
}

/* Call the addresses, for a minute. */
static struct nnc_call *call_to(const struct nnc_address *addresses, int count,
                                const uint8_t *with) {
    struct nnc_call *call;
    cr_assert_eq(nnc_call_begin(addresses, count, "node 0 at db7:29500", with, &greeting, epoll_fd,
                                now_ns + 60 * SECOND_NS, &call),
                 0);
    return call;
}

/* A connection of somebody who knows nothing. */
static int stranger_at(const struct nnc_address *address) {
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int result = connect(fd, (const struct sockaddr *)&address->storage, address->bytes);
    cr_assert(fd >= 0 && (result == 0 || errno == EINPROGRESS));
    return fd;
}

static uint16_t port_of(const struct nnc_address *address) {
    return ntohs(((const struct sockaddr_in *)(const void *)&address->storage)->sin_port);
}

/* A port where nobody listens. */
static uint16_t free_port(void) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    uint16_t port = port_of(nnc_door_address(door));
    nnc_door_close(door);
    return port;
}

/* Wait until something happened on the sockets. */
static void wait_a_little(void) {
    struct pollfd poll_fd = {.fd = epoll_fd, .events = POLLIN};
    struct epoll_event events[64];
    poll(&poll_fd, 1, 10);
    epoll_wait(epoll_fd, events, 64, 0);
}

/* Whether the other side has closed, after saying *ret_bytes bytes. */
static bool is_closed(int fd, size_t *ret_bytes) {
    char bytes[256];
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
        *ret_bytes += (size_t)got;
    }
    return got == 0 || errno == ECONNRESET;
}

/* Work the door until the stranger is shown out; nobody may come in. */
static void expect_shown_out(struct nnc_door *door, int fd, size_t *ret_bytes) {
    struct nnc_guest guest;
    uint64_t until_ns = nnc_clock_ns() + LIMIT_NS;
    while (!is_closed(fd, ret_bytes)) {
        cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
        cr_assert_lt(nnc_clock_ns(), until_ns, "he still stands there");
        wait_a_little();
    }
}

/* Both sides until both have their end. */
static void meet(struct nnc_door *door, struct nnc_call *call, struct nnc_guest *ret_at_door,
                 struct nnc_guest *ret_at_caller) {
    int in = 0, through = 0;
    for (uint64_t until_ns = nnc_clock_ns() + LIMIT_NS; in == 0 || through == 0;) {
        through = through != 0 ? through : nnc_call_work(call, now_ns, ret_at_caller);
        in = in != 0 ? in : nnc_door_next(door, now_ns, ret_at_door);
        cr_assert_geq(through, 0, "%s", nnc_error_text());
        cr_assert_lt(nnc_clock_ns(), until_ns, "they do not find each other");
        wait_a_little();
        now_ns += SECOND_NS / 100;
    }
}

/* Say something on one end and hear it on the other. */
static void expect_frame(struct nnc_wire *from, struct nnc_wire *to, uint32_t type) {
    struct nnc_wire_frame frame;
    struct pollfd poll_fd = {.fd = nnc_wire_fd(to), .events = POLLIN};
    cr_assert_eq(nnc_wire_send(from, type, "word", 4), 0);
    cr_assert_eq(poll(&poll_fd, 1, 20000), 1);
    cr_assert_eq(nnc_wire_receive(to, &frame), 1, "%s", nnc_error_text());
    cr_assert(frame.type == type && frame.bytes == 4 && memcmp(frame.body, "word", 4) == 0);
}

/* The two ends are of one connection, with keys that fit; closes them. */
static void expect_joined(struct nnc_guest *one, struct nnc_guest *other) {
    struct nnc_wire *wires[2];
    cr_assert_eq(nnc_wire_create(one->fd, &one->keys, 0, &wires[0]), 0);
    cr_assert_eq(nnc_wire_create(other->fd, &other->keys, 0, &wires[1]), 0);
    expect_frame(wires[0], wires[1], 5);
    expect_frame(wires[1], wires[0], 6);
    nnc_wire_destroy(wires[0]);
    nnc_wire_destroy(wires[1]);
}

/* A caller with the secret comes in. */
static void expect_let_in(struct nnc_door *door) {
    struct nnc_guest at_door, at_caller;
    struct nnc_call *call = call_to(nnc_door_address(door), 1, secret);
    meet(door, call, &at_door, &at_caller);
    nnc_call_end(call);
    cr_expect_eq(memcmp(&at_door.greeting, &greeting, sizeof(greeting)), 0);
    expect_joined(&at_door, &at_caller);
}

/* ---- who is let in ---- */

Test(rendezvous, a_caller_with_the_secret_is_let_in_with_its_greeting) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    cr_assert_neq(port_of(nnc_door_address(door)), 0);
    for (int i = 0; i < 3; i++) {
        expect_let_in(door);
    }
    nnc_door_close(door);
}

Test(rendezvous, doors_and_calls_know_ipv6) {
    struct nnc_address address = address_of("::1", 0);
    struct nnc_door *door;
    if (nnc_door_open(&address, secret, epoll_fd, &door) < 0) {
        cr_skip_test("this machine has no IPv6");
    }
    expect_let_in(door);
    nnc_door_close(door);
}

Test(rendezvous, both_ends_come_out_of_the_epoll_instance_before_they_are_handed_out) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_call *call = call_to(nnc_door_address(door), 1, secret);
    struct nnc_guest ends[2];
    struct epoll_event event = {.events = EPOLLIN};
    meet(door, call, &ends[0], &ends[1]);
    for (int i = 0; i < 2; i++) {
        cr_expect(epoll_ctl(epoll_fd, EPOLL_CTL_MOD, ends[i].fd, &event) < 0 && errno == ENOENT);
        close(ends[i].fd);
    }
    nnc_call_end(call);
    nnc_door_close(door);
}

Test(rendezvous, a_caller_that_comes_before_the_door_opens_is_let_in_later) {
    uint16_t port = free_port();
    struct nnc_address address = address_of("127.0.0.1", port);
    struct nnc_call *call = call_to(&address, 1, secret);
    struct nnc_guest at_door, at_caller;
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(nnc_call_work(call, now_ns, &at_caller), 0);
        now_ns += SECOND_NS;
    }
    struct nnc_door *door = open_door("127.0.0.1", port);
    meet(door, call, &at_door, &at_caller);
    expect_joined(&at_door, &at_caller);
    nnc_call_end(call);
    nnc_door_close(door);
}

Test(rendezvous, a_caller_goes_on_to_the_next_address_when_one_refuses) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    const struct nnc_address addresses[] = {address_of("127.0.0.1", free_port()),
                                            address_of("127.0.0.1", free_port()),
                                            *nnc_door_address(door)};
    struct nnc_call *call = call_to(addresses, 3, secret);
    struct nnc_guest at_door, at_caller;
    meet(door, call, &at_door, &at_caller);
    expect_joined(&at_door, &at_caller);
    nnc_call_end(call);
    nnc_door_close(door);
}

/* ---- who is not ---- */

Test(rendezvous, a_caller_with_another_secret_learns_so_and_the_door_lets_nobody_in) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_call *call = call_to(nnc_door_address(door), 1, other_secret);
    struct nnc_guest guest;
    int code = 0;
    for (uint64_t until_ns = nnc_clock_ns() + LIMIT_NS; code == 0;) {
        cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
        code = nnc_call_work(call, now_ns, &guest);
        cr_assert_lt(nnc_clock_ns(), until_ns);
        wait_a_little();
    }
    cr_assert_eq(code, -NNC_E_COMM);
    cr_expect_str_eq(nnc_error_text(), "node 0 at db7:29500 does not know this run's secret: give "
                                       "all machines the same --rdzv-secret");
    nnc_call_end(call);
    cr_expect_eq(nnc_door_next(door, now_ns, &guest), 0);
    expect_let_in(door);
    nnc_door_close(door);
}

Test(rendezvous, who_goes_on_without_the_secret_is_shown_out_without_a_word) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    int fd = stranger_at(nnc_door_address(door));
    struct nnc_handshake *handshake;
    struct nnc_guest guest;
    uint8_t proof[40] = {'N', 'N', 'C', 'P', 1};
    size_t bytes = 0;
    int code = 0;
    cr_assert_eq(nnc_handshake_create(fd, other_secret, &greeting, &handshake), 0);
    while ((code = nnc_handshake_work(handshake, &guest.greeting, &guest.keys)) == 0) {
        cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
        wait_a_little();
    }
    cr_assert_eq(code, -EACCES);
    cr_assert_eq(send(fd, proof, sizeof(proof), MSG_NOSIGNAL), (ssize_t)sizeof(proof));
    expect_shown_out(door, fd, &bytes);
    cr_expect_eq(bytes, 0);
    close(fd);
    nnc_handshake_destroy(handshake);
    nnc_door_close(door);
}

Test(rendezvous, a_stranger_that_says_nothing_is_shown_out_after_five_seconds) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_guest guest;
    size_t bytes = 0;
    int before = count_descriptors(), fd = stranger_at(nnc_door_address(door));
    while (count_descriptors() < before + 2) {
        cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
    }
    now_ns += 5 * SECOND_NS;
    cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
    cr_expect_not(is_closed(fd, &bytes));
    cr_assert_eq(send(fd, "NNCH", 4, MSG_NOSIGNAL), 4); /* a beginning gives no more time */
    now_ns += 1;
    cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
    cr_expect_eq(count_descriptors(), before + 1);
    expect_shown_out(door, fd, &bytes);
    cr_expect_eq(bytes, 0);
    close(fd);
    nnc_door_close(door);
}

Test(rendezvous, garbage_is_shown_out_at_once_and_without_a_word) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_rng rng = nnc_rng_make(3, NNC_RNG_SYNTHETIC, 1, 0);
    uint8_t garbage[1024];
    for (int round = 0; round < 100; round++) {
        size_t length = 8 + nnc_rng_below(&rng, sizeof(garbage) - 8), bytes = 0;
        for (size_t i = 0; i < length; i++) {
            garbage[i] = (uint8_t)nnc_rng_below(&rng, 256);
        }
        if (round % 2 == 0) { /* a head that is right, and no greeting behind it */
            memcpy(garbage, "NNCH\1\0\0\0\377", 9);
            length = sizeof(garbage);
        }
        struct pollfd poll_fd = {.fd = stranger_at(nnc_door_address(door)), .events = POLLOUT};
        cr_assert_eq(poll(&poll_fd, 1, 20000), 1);
        cr_assert_eq(send(poll_fd.fd, garbage, length, MSG_NOSIGNAL), (ssize_t)length);
        expect_shown_out(door, poll_fd.fd, &bytes);
        cr_assert_eq(bytes, 0);
        close(poll_fd.fd);
    }
    expect_let_in(door);
    nnc_door_close(door);
}

/* ---- crowds ---- */

Test(rendezvous, two_hundred_strangers_hold_64_places_and_keep_nobody_out) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_guest guest;
    int fds[STRANGERS], before = count_descriptors();
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = stranger_at(nnc_door_address(door));
        if (i % 50 == 49) {
            cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
        }
    }
    wait_a_little();
    cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
    cr_expect_eq(count_descriptors(), before + STRANGERS + 64);
    expect_let_in(door);
    for (int i = 0; i < STRANGERS; i++) {
        close(fds[i]);
    }
    nnc_door_close(door);
    cr_expect_eq(count_descriptors(), before - 1);
}

/* Also when all come at one time of the clock. */
Test(rendezvous, of_a_crowd_the_one_goes_who_came_first) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_guest guest;
    int fds[2 * 64];
    size_t bytes = 0;
    for (int i = 0; i < 2 * 64; i++) {
        struct pollfd poll_fd = {.fd = stranger_at(nnc_door_address(door)), .events = POLLOUT};
        cr_assert_eq(poll(&poll_fd, 1, 20000), 1);
        fds[i] = poll_fd.fd;
        cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
        cr_expect_not(is_closed(fds[i], &bytes), "the last to come, number %d", i);
        if (i >= 64) {
            expect_shown_out(door, fds[i - 64], &bytes);
        }
    }
    for (int i = 64; i < 2 * 64; i++) {
        cr_expect_not(is_closed(fds[i], &bytes), "number %d", i);
    }
    nnc_door_close(door);
}

/* His last word may have come already when the crowd is let in; then he believes to be inside. */
Test(rendezvous, a_crowd_does_not_turn_out_who_has_proved_himself) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_call *call = call_to(nnc_door_address(door), 1, secret);
    struct nnc_guest at_door, at_caller;
    int fds[64];
    while (nnc_call_work(call, now_ns, &at_caller) == 0) { /* its last word ends it */
        cr_assert_eq(nnc_door_next(door, now_ns, &at_door), 0);
        wait_a_little();
    }
    for (int i = 0; i < 64; i++) {
        struct pollfd poll_fd = {.fd = stranger_at(nnc_door_address(door)), .events = POLLOUT};
        cr_assert_eq(poll(&poll_fd, 1, 20000), 1);
        fds[i] = poll_fd.fd;
    }
    cr_assert_eq(nnc_door_next(door, now_ns, &at_door), 1);
    expect_joined(&at_door, &at_caller);
    for (int i = 0; i < 64; i++) {
        close(fds[i]);
    }
    nnc_call_end(call);
    nnc_door_close(door);
}

/* ---- when nobody answers ---- */

/* Work a call for a while and then at its deadline. */
static void expect_end(struct nnc_call *call, const char *words) {
    struct nnc_guest guest;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(nnc_call_work(call, now_ns, &guest), 0, "%s", nnc_error_text());
        wait_a_little();
        now_ns += SECOND_NS / 4;
    }
    now_ns += 60 * SECOND_NS;
    cr_assert_eq(nnc_call_work(call, now_ns, &guest), -NNC_E_COMM);
    cr_expect_not_null(strstr(nnc_error_text(), words), "%s", nnc_error_text());
    cr_expect_not_null(strstr(nnc_error_text(), "; is nncoord started there"));
    nnc_call_end(call);
}

Test(rendezvous, at_the_deadline_the_last_reason_is_told) {
    struct nnc_address address = address_of("127.0.0.1", free_port());
    expect_end(call_to(&address, 1, secret),
               "node 0 at db7:29500 cannot be reached: Connection refused");
}

/* A listener that never says anything; its backlog takes one more than it should. */
static int mute_listener(struct nnc_address *ret_address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t bytes = sizeof(ret_address->storage);
    *ret_address = address_of("127.0.0.1", 0);
    cr_assert(fd >= 0 &&
              bind(fd, (struct sockaddr *)&ret_address->storage, ret_address->bytes) == 0 &&
              listen(fd, 0) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&ret_address->storage, &bytes), 0);
    return fd;
}

Test(rendezvous, who_accepts_and_says_nothing_is_named_as_that) {
    struct nnc_address address;
    int fd = mute_listener(&address);
    expect_end(call_to(&address, 1, secret),
               "node 0 at db7:29500 cannot be reached: it accepts and then says nothing");
    close(fd);
}

Test(rendezvous, who_does_not_even_accept_is_named_as_that) {
    struct nnc_address address;
    int fd = mute_listener(&address), first = stranger_at(&address);
    struct pollfd poll_fd = {.fd = first, .events = POLLOUT};
    cr_assert_eq(poll(&poll_fd, 1, 20000), 1);
    expect_end(call_to(&address, 1, secret), "node 0 at db7:29500 cannot be reached: no answer");
    close(first);
    close(fd);
}

Test(rendezvous, a_call_that_hangs_for_five_seconds_is_made_again) {
    struct nnc_address address;
    struct nnc_guest guest;
    int fd = mute_listener(&address), taken[2];
    struct nnc_call *call = call_to(&address, 1, secret);
    for (int i = 0; i < 2; i++) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        cr_assert_eq(nnc_call_work(call, now_ns, &guest), 0);
        cr_assert_eq(poll(&poll_fd, 1, 20000), 1);
        taken[i] = accept(fd, NULL, NULL);
        cr_assert_geq(taken[i], 0);
        cr_assert_eq(nnc_call_work(call, now_ns, &guest), 0);
        now_ns += 5 * SECOND_NS + 1;
        cr_assert_eq(nnc_call_work(call, now_ns, &guest), 0);
        now_ns += SECOND_NS;
    }
    nnc_call_end(call);
    close(taken[0]);
    close(taken[1]);
    close(fd);
}

/* ---- addresses ---- */

Test(rendezvous, a_door_that_cannot_open_says_why) {
    static const struct {
        const char *host;
        int code;
    } rows[] = {
        {"203.0.113.1", -EADDRNOTAVAIL}, /* of documentation, nobody's */
        {"0.0.0.0", -EADDRNOTAVAIL},     /* all of the machine's are not one */
        {"::", -EADDRNOTAVAIL},
        {"::ffff:0.0.0.0", -EADDRNOTAVAIL},
    };
    struct nnc_door *door = open_door("127.0.0.1", 0), *second = NULL;
    int before = count_descriptors();
    cr_expect_eq(nnc_door_open(nnc_door_address(door), secret, epoll_fd, &second), -EADDRINUSE);
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_address address = address_of(rows[row].host, 0);
        int code = nnc_door_open(&address, secret, epoll_fd, &second);
        cr_expect_eq(code, rows[row].code, "%s gives %d", rows[row].host, code);
        cr_expect_not_null(strstr(nnc_error_text(), rows[row].host), "%s", nnc_error_text());
    }
    cr_expect_null(second);
    cr_expect_eq(count_descriptors(), before);
    nnc_door_close(door);
    nnc_door_close(NULL);
    nnc_call_end(NULL);
}

Test(rendezvous, addresses_are_printed_as_endpoints_are_written) {
    static const struct {
        const char *host;
        uint16_t port;
        const char *text;
    } rows[] = {
        {"10.0.0.7", 29500, "10.0.0.7:29500"},
        {"255.255.255.255", 65535, "255.255.255.255:65535"},
        {"::1", 1, "[::1]:1"},
        {"2001:db8:1111:2222:3333:4444:5555:6666", 29500,
         "[2001:db8:1111:2222:3333:4444:5555:6666]:29500"},
    };
    char text[NNC_ENDPOINT_MAX];
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_address address = address_of(rows[row].host, rows[row].port);
        nnc_address_text(&address, text, sizeof(text));
        cr_expect_str_eq(text, rows[row].text);
        memset(text, 'x', sizeof(text));
        nnc_address_text(&address, text, 5);
        cr_expect_eq(strlen(text), 4);
    }
    const struct nnc_address nowhere = {.bytes = 0};
    nnc_address_text(&nowhere, text, sizeof(text));
    cr_expect_str_eq(text, "?:?");
}

Test(rendezvous, an_endpoint_is_looked_up) {
    struct nnc_address addresses[4];
    char text[NNC_ENDPOINT_MAX];
    struct nnc_endpoint endpoint = {.host = "127.0.0.1", .port = 29500};
    cr_assert_eq(nnc_address_resolve(&endpoint, addresses, 4), 1, "%s", nnc_error_text());
    nnc_address_text(&addresses[0], text, sizeof(text));
    cr_expect_str_eq(text, "127.0.0.1:29500");
    strcpy(endpoint.host, "::1");
    if (nnc_address_resolve(&endpoint, addresses, 1) == 1) {
        nnc_address_text(&addresses[0], text, sizeof(text));
        cr_expect_str_eq(text, "[::1]:29500");
    }
    strcpy(endpoint.host, "a..b");
    cr_assert_eq(nnc_address_resolve(&endpoint, addresses, 4), -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), "the host \"a..b\" cannot be looked up"));
}

Test(rendezvous, this_sides_address_is_told_without_its_port) {
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_address here;
    char text[NNC_ENDPOINT_MAX];
    int fd = stranger_at(nnc_door_address(door));
    cr_assert_eq(nnc_address_here(fd, &here), 0);
    nnc_address_text(&here, text, sizeof(text));
    cr_expect_str_eq(text, "127.0.0.1:0");
    cr_expect_eq(nnc_address_here(-1, &here), -EBADF);
    close(fd);
    nnc_door_close(door);
}

/* ---- what is left behind ---- */

Test(rendezvous, no_descriptor_is_left_behind) {
    int before = count_descriptors(), fds[3];
    struct nnc_door *door = open_door("127.0.0.1", 0);
    struct nnc_guest guest;
    expect_let_in(door);
    for (int i = 0; i < 3; i++) {
        fds[i] = stranger_at(nnc_door_address(door));
    }
    wait_a_little();
    cr_assert_eq(nnc_door_next(door, now_ns, &guest), 0);
    struct nnc_call *calls[] = {call_to(nnc_door_address(door), 1, secret),
                                call_to(nnc_door_address(door), 1, secret)};
    cr_assert_eq(nnc_call_work(calls[0], now_ns, &guest), 0); /* the other was never worked */
    nnc_door_close(door);
    for (int i = 0; i < 2; i++) {
        nnc_call_end(calls[i]);
        close(fds[i]);
    }
    close(fds[2]);
    cr_expect_eq(count_descriptors(), before);
}
