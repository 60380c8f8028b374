/* SPDX-License-Identifier: Apache-2.0 */
/* See rendezvous.h.
 *
 * Invariants:
 *   1. Before a handshake is done nothing of a caller is believed, and of the first one alone more
 *      than a debug line is logged: strangers can neither fill the log nor the memory.
 *   2. A socket leaves the epoll instance before it is handed out, because a copy of it in another
 *      process would keep it there.
 *
 * Does not do: anything with frames, any decision on who may come (greetings are the caller's to
 * judge). */
#include "coordinator/rendezvous.h"

#include "base/err.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define DOORSTEP_MAX   64
#define HANDSHAKE_NS   5000000000ull
#define CALL_AGAIN_NS  200000000ull
#define ADDRESSES_MAX  8
#define LISTEN_BACKLOG 64

/* ---- addresses ---- */

void nnc_address_text(const struct nnc_address *address, char *ret_text, size_t bytes) {
    char host[INET6_ADDRSTRLEN] = "?", port[8] = "?";
    getnameinfo((const struct sockaddr *)&address->storage, address->bytes, host, sizeof(host),
                port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(ret_text, bytes, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

int nnc_address_resolve(const struct nnc_endpoint *endpoint, struct nnc_address *ret_list,
                        int most) {
    char port[8];
    snprintf(port, sizeof(port), "%u", endpoint->port);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    int error = getaddrinfo(endpoint->host, port, &hints, &found);
    if (error != 0) {
        return nnc_fail(-NNC_E_USAGE, "the host \"%s\" cannot be looked up: %s", endpoint->host,
                        gai_strerror(error));
    }
    int count = 0;
    for (const struct addrinfo *at = found; at != NULL && count < most; at = at->ai_next) {
        struct nnc_address *address = &ret_list[count++];
        *address = (struct nnc_address){.bytes = (uint32_t)at->ai_addrlen};
        memcpy(&address->storage, at->ai_addr, at->ai_addrlen);
    }
    freeaddrinfo(found);
    return count;
}

static void set_port(struct nnc_address *address, in_port_t port) {
    if (address->storage.ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)(void *)&address->storage)->sin6_port = port;
    } else {
        ((struct sockaddr_in *)(void *)&address->storage)->sin_port = port;
    }
}

/* The socket's own address as it is. */
static int own_address(int fd, struct nnc_address *ret_address) {
    socklen_t bytes = sizeof(ret_address->storage);
    *ret_address = (struct nnc_address){.bytes = 0};
    if (getsockname(fd, (struct sockaddr *)&ret_address->storage, &bytes) < 0) {
        return nnc_fail_errno("getsockname");
    }
    ret_address->bytes = bytes;
    return 0;
}

int nnc_address_here(int fd, struct nnc_address *ret_address) {
    int code = own_address(fd, ret_address);
    if (code == 0) {
        set_port(ret_address, 0);
    }
    return code;
}

/* ---- door ---- */

static int watch(int epoll_fd, int fd) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? nnc_fail_errno("epoll_ctl") : 0;
}

static void unwatch(int epoll_fd, int fd) {
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* A connection in its handshake; fd < 0: a free place. */
struct knock {
    int fd;
    struct nnc_handshake *handshake;
    uint64_t since_ns, number; /* since when, and in which order: many come at one time */
};

struct nnc_door {
    int fd, epoll_fd;
    struct nnc_address address;
    uint8_t secret[NNC_SECRET_BYTES];
    bool told; /* of a stranger */
    struct knock knock[DOORSTEP_MAX];
    uint64_t came; /* so far */
};

/* "0.0.0.0", "::" and the first in the form of the second: all addresses of the machine. */
static bool is_wildcard(const struct nnc_address *address) {
    const struct sockaddr_in *four = (const void *)&address->storage;
    const struct sockaddr_in6 *six = (const void *)&address->storage;
    if (address->storage.ss_family != AF_INET6) {
        return four->sin_addr.s_addr == INADDR_ANY;
    }
    const uint8_t *bytes = six->sin6_addr.s6_addr;
    bool is_mapped = IN6_IS_ADDR_V4MAPPED(&six->sin6_addr) &&
                     (bytes[12] | bytes[13] | bytes[14] | bytes[15]) == 0;
    return is_mapped || IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr);
}

static int listen_at(const struct nnc_address *address, int *ret_fd) {
    const int on = 1;
    char text[NNC_ENDPOINT_MAX];
    nnc_address_text(address, text, sizeof(text));
    if (is_wildcard(address)) {
        return nnc_fail(-EADDRNOTAVAIL, "listen at %s: that is no address of one machine", text);
    }
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return nnc_fail_errno("socket");
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)); /* of a run that ended just now */
    if (bind(fd, (const struct sockaddr *)&address->storage, address->bytes) < 0 ||
        listen(fd, LISTEN_BACKLOG) < 0) {
        int code = nnc_fail_errno("listen at %s", text);
        close(fd);
        return code;
    }
    *ret_fd = fd;
    return 0;
}

int nnc_door_open(const struct nnc_address *address, const uint8_t *secret, int epoll_fd,
                  struct nnc_door **ret_door) {
    struct nnc_door *door = calloc(1, sizeof(*door));
    if (door == NULL) {
        return nnc_fail(-ENOMEM, "rendezvous: out of memory");
    }
    door->fd = -1;
    door->epoll_fd = epoll_fd;
    memcpy(door->secret, secret, NNC_SECRET_BYTES);
    for (int i = 0; i < DOORSTEP_MAX; i++) {
        door->knock[i].fd = -1;
    }
    int code = listen_at(address, &door->fd);
    code = code < 0 ? code : own_address(door->fd, &door->address);
    code = code < 0 ? code : watch(epoll_fd, door->fd);
    if (code < 0) {
        nnc_door_close(door);
        return code;
    }
    *ret_door = door;
    return 0;
}

static void drop(struct knock *knock) {
    nnc_handshake_destroy(knock->handshake);
    close(knock->fd);
    *knock = (struct knock){.fd = -1};
}

void nnc_door_close(struct nnc_door *door) {
    if (door == NULL) {
        return;
    }
    for (int i = 0; i < DOORSTEP_MAX; i++) {
        if (door->knock[i].fd >= 0) {
            drop(&door->knock[i]);
        }
    }
    if (door->fd >= 0) {
        close(door->fd);
    }
    OPENSSL_cleanse(door->secret, sizeof(door->secret));
    free(door);
}

const struct nnc_address *nnc_door_address(const struct nnc_door *door) {
    return &door->address;
}

/* A free place, or that of the one who has stood there for longest. */
static struct knock *place_for(struct nnc_door *door) {
    struct knock *oldest = &door->knock[0];
    for (int i = 0; i < DOORSTEP_MAX; i++) {
        if (door->knock[i].fd < 0) {
            return &door->knock[i];
        }
        oldest = door->knock[i].number < oldest->number ? &door->knock[i] : oldest;
    }
    nnc_log(NNC_LOG_DEBUG, "rendezvous: too many strangers at once; the oldest goes");
    drop(oldest);
    return oldest;
}

static void let_in(struct nnc_door *door, uint64_t now_ns) {
    for (;;) {
        int fd = accept4(door->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && errno != EINTR && errno != ECONNABORTED) {
            return; /* nobody there, or no descriptor for him: he may come again */
        }
        if (fd < 0) {
            continue;
        }
        struct knock *knock = place_for(door);
        *knock = (struct knock){.fd = fd, .since_ns = now_ns, .number = door->came++};
        if (nnc_handshake_create(fd, door->secret, NULL, &knock->handshake) < 0 ||
            watch(door->epoll_fd, fd) < 0) {
            drop(knock);
        }
    }
}

/* The first one may be a machine of the run with another secret. */
static void tell_of_stranger(struct nnc_door *door, const struct knock *knock, const char *why) {
    struct nnc_address address = {.bytes = sizeof(address.storage)};
    char text[NNC_ENDPOINT_MAX] = "?";
    socklen_t bytes = sizeof(address.storage);
    if (getpeername(knock->fd, (struct sockaddr *)&address.storage, &bytes) == 0) {
        address.bytes = bytes;
        nnc_address_text(&address, text, sizeof(text));
    }
    nnc_log(door->told ? NNC_LOG_DEBUG : NNC_LOG_INFO,
            "a connection from %s did not prove that it knows the run's secret (%s); more of them "
            "are not told of",
            text, why);
    door->told = true;
}

/* Go on with all who are on the doorstep: 1 with one that is proved. */
static int work_doorstep(struct nnc_door *door, uint64_t now_ns, struct nnc_guest *ret_guest) {
    for (int i = 0; i < DOORSTEP_MAX; i++) {
        struct knock *knock = &door->knock[i];
        if (knock->fd < 0) {
            continue;
        }
        int done = nnc_handshake_work(knock->handshake, &ret_guest->greeting, &ret_guest->keys);
        if (done == 1) {
            unwatch(door->epoll_fd, knock->fd);
            ret_guest->fd = knock->fd;
            nnc_handshake_destroy(knock->handshake);
            *knock = (struct knock){.fd = -1};
            return 1;
        }
        if (done < 0 || now_ns - knock->since_ns > HANDSHAKE_NS) {
            tell_of_stranger(door, knock, done < 0 ? nnc_error_text() : "no word within 5 s");
            drop(knock);
        }
    }
    return 0;
}

int nnc_door_next(struct nnc_door *door, uint64_t now_ns, struct nnc_guest *ret_guest) {
    /* Whose proof has come believes to be in: he goes before a crowd can take his place. */
    if (work_doorstep(door, now_ns, ret_guest) == 1) {
        return 1;
    }
    let_in(door, now_ns);
    return work_doorstep(door, now_ns, ret_guest);
}

/* ---- call ---- */

struct nnc_call {
    struct nnc_address address[ADDRESSES_MAX];
    int count, at; /* the one that is being called */
    char what[NNC_ENDPOINT_MAX + 32];
    uint8_t secret[NNC_SECRET_BYTES];
    struct nnc_greeting greeting;
    int epoll_fd, fd; /* fd < 0: between two calls */
    bool connected;
    struct nnc_handshake *handshake;
    uint64_t again_ns, since_ns, deadline_ns;
    char last[256]; /* why the last call failed */
};

int nnc_call_begin(const struct nnc_address *addresses, int count, const char *what,
                   const uint8_t *secret, const struct nnc_greeting *greeting, int epoll_fd,
                   uint64_t deadline_ns, struct nnc_call **ret_call) {
    assert(count >= 1);
    struct nnc_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return nnc_fail(-ENOMEM, "rendezvous: out of memory");
    }
    call->count = count < ADDRESSES_MAX ? count : ADDRESSES_MAX;
    memcpy(call->address, addresses, (size_t)call->count * sizeof(addresses[0]));
    snprintf(call->what, sizeof(call->what), "%s", what);
    memcpy(call->secret, secret, NNC_SECRET_BYTES);
    call->greeting = *greeting;
    call->epoll_fd = epoll_fd;
    call->fd = -1;
    call->deadline_ns = deadline_ns;
    snprintf(call->last, sizeof(call->last), "not called yet");
    *ret_call = call;
    return 0;
}

/* Close this attempt; the next goes to the next address, and after the last there is a pause. */
static void hang_up(struct nnc_call *call, uint64_t now_ns, const char *why) {
    snprintf(call->last, sizeof(call->last), "%s", why);
    nnc_handshake_destroy(call->handshake);
    call->handshake = NULL;
    if (call->fd >= 0) {
        close(call->fd);
        call->fd = -1;
    }
    call->at = (call->at + 1) % call->count;
    call->again_ns = call->at == 0 ? now_ns + CALL_AGAIN_NS : now_ns;
}

void nnc_call_end(struct nnc_call *call) {
    if (call == NULL) {
        return;
    }
    hang_up(call, 0, "");
    OPENSSL_cleanse(call->secret, sizeof(call->secret));
    free(call);
}

static void dial(struct nnc_call *call, uint64_t now_ns) {
    const struct nnc_address *address = &call->address[call->at];
    call->connected = false;
    call->since_ns = now_ns;
    call->fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (call->fd < 0 || watch(call->epoll_fd, call->fd) < 0) {
        hang_up(call, now_ns, call->fd < 0 ? strerror(errno) : nnc_error_text());
        return;
    }
    int result = connect(call->fd, (const struct sockaddr *)&address->storage, address->bytes);
    if (result < 0 && errno != EINPROGRESS) {
        hang_up(call, now_ns, strerror(errno));
    }
}

/* Whether the connection stands; a handshake begins then. */
static bool is_connected(struct nnc_call *call, uint64_t now_ns) {
    int error = 0;
    socklen_t bytes = sizeof(error);
    struct sockaddr_storage peer;
    socklen_t peer_bytes = sizeof(peer);
    getsockopt(call->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error == 0 && getpeername(call->fd, (struct sockaddr *)&peer, &peer_bytes) < 0) {
        return false; /* still on its way */
    }
    if (error == 0 &&
        nnc_handshake_create(call->fd, call->secret, &call->greeting, &call->handshake) == 0) {
        call->connected = true;
        call->since_ns = now_ns;
        return true;
    }
    hang_up(call, now_ns, error != 0 ? strerror(error) : nnc_error_text());
    return false;
}

static int shake(struct nnc_call *call, uint64_t now_ns, struct nnc_guest *ret_guest) {
    int done = nnc_handshake_work(call->handshake, &ret_guest->greeting, &ret_guest->keys);
    if (done == -EACCES) {
        return nnc_fail(-NNC_E_COMM,
                        "%s does not know this run's secret: give all machines the same "
                        "--rdzv-secret",
                        call->what);
    }
    if (done < 0) {
        hang_up(call, now_ns, nnc_error_text());
        return 0;
    }
    if (done == 1) {
        unwatch(call->epoll_fd, call->fd);
        ret_guest->fd = call->fd;
        ret_guest->greeting = call->greeting;
        call->fd = -1;
    }
    return done;
}

void nnc_call_describe(const struct nnc_call *call, char *ret_words, size_t bytes) {
    snprintf(ret_words, bytes, "%s does not answer yet: %s", call->what, call->last);
}

int nnc_call_work(struct nnc_call *call, uint64_t now_ns, struct nnc_guest *ret_guest) {
    bool is_over = now_ns >= call->deadline_ns;
    if (call->fd >= 0 && (is_over || now_ns - call->since_ns > HANDSHAKE_NS)) {
        hang_up(call, now_ns, call->connected ? "it accepts and then says nothing" : "no answer");
    }
    if (is_over) {
        return nnc_fail(-NNC_E_COMM,
                        "%s cannot be reached: %s; is nncoord started there, and does a firewall "
                        "let its port through?",
                        call->what, call->last);
    }
    if (call->fd < 0 && now_ns >= call->again_ns) {
        dial(call, now_ns);
    }
    if (call->fd < 0 || (!call->connected && !is_connected(call, now_ns))) {
        return 0;
    }
    return shake(call, now_ns, ret_guest);
}
