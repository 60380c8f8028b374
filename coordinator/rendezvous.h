/* SPDX-License-Identifier: Apache-2.0 */
/* How connections between the machines of a run come to be: a door where others knock, and a call
 * to another's door. Both end with a connection on which each side has proved that it knows the
 * run's secret (ipc/handshake.h); what is said on it then is nodes.h's.
 *
 * A door listens at one address, never at all of the machine's. Nothing here blocks but the lookup
 * of a host name. All sockets are in the epoll instance that the caller gives, edge-triggered,
 * until they are handed out. */
#ifndef NNC_COORDINATOR_RENDEZVOUS_H
#define NNC_COORDINATOR_RENDEZVOUS_H

#include "base/endpoint.h"
#include "ipc/handshake.h"

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

/* A TCP address, of IPv4 or IPv6. */
struct nnc_address {
    struct sockaddr_storage storage;
    uint32_t bytes; /* used of it */
    uint32_t reserved;
};

/* A connection whose other side is proved. */
struct nnc_guest {
    int fd; /* the receiver's to close */
    struct nnc_greeting greeting;
    struct nnc_wire_keys keys;
};

/* "10.0.0.7:29500", "[::1]:29500"; always ends with a zero. */
void nnc_address_text(const struct nnc_address *address, char *ret_text, size_t bytes);

/* The addresses of an endpoint, at most `most` of them. Returns their number. Blocks while the name
 * is looked up. Errors: -NNC_E_USAGE. */
int nnc_address_resolve(const struct nnc_endpoint *endpoint, struct nnc_address *ret_list,
                        int most);

/* The address of this side of a connection, with port 0. Errors: -errno. */
int nnc_address_here(int fd, struct nnc_address *ret_address);

struct nnc_door;

/* Listen at one address; port 0: any that is free. secret[NNC_SECRET_BYTES] is copied.
 * Errors: -EADDRNOTAVAIL the address is not this machine's; -EADDRINUSE; -errno. */
int nnc_door_open(const struct nnc_address *address, const uint8_t *secret, int epoll_fd,
                  struct nnc_door **ret_door);

/* Close it, and all connections not handed out. Takes NULL. */
void nnc_door_close(struct nnc_door *door);

/* Where it listens, with its true port. */
const struct nnc_address *nnc_door_address(const struct nnc_door *door);

/* Let in who knocks, as far as that goes without waiting, and drop who takes longer than 5 s or
 * does not know the secret. At most 64 may be on the doorstep; then the oldest goes. Returns 1 with
 * the next that is proved, 0 when there is none. */
int nnc_door_next(struct nnc_door *door, uint64_t now_ns, struct nnc_guest *ret_guest);

struct nnc_call;

/* Begin to call the first of the addresses that answers; refused and failed calls are tried again
 * until the deadline. what: who is called, for errors, "node 0 at db7:29500". Errors: -ENOMEM. */
int nnc_call_begin(const struct nnc_address *addresses, int count, const char *what,
                   const uint8_t *secret, const struct nnc_greeting *greeting, int epoll_fd,
                   uint64_t deadline_ns, struct nnc_call **ret_call);

/* Give up. Takes NULL. */
void nnc_call_end(struct nnc_call *call);

/* "node 0 at db7:29500 does not answer yet: Connection refused". */
void nnc_call_describe(const struct nnc_call *call, char *ret_words, size_t bytes);

/* Go on with it. Returns 1 with the connection (guest->greeting is the caller's own), 0 when more
 * is to come. Errors: -NNC_E_COMM nobody there until the deadline, or it does not know the secret.
 */
int nnc_call_work(struct nnc_call *call, uint64_t now_ns, struct nnc_guest *ret_guest);

#endif
