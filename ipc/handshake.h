/* SPDX-License-Identifier: Apache-2.0 */
/* How two machines of a run find out, over a fresh connection, that both know its secret:
 *
 *   client                                   server
 *     greeting, nonce_c                  ->
 *                                     <-     nonce_s, HMAC(secret, "server" | greeting | nonces)
 *     HMAC(secret, "client" | greeting | nonces)  ->
 *
 * Both then make one key for each direction from secret, greeting and nonces. The server tells
 * nothing to a client that does not know the secret but that it has it itself; all compares take
 * constant time. One struct for both sides, driven by poll(); never blocks.
 *
 * Source: ISO/IEC 9798-4 (three-pass mutual authentication by a cryptographic check function),
 * RFC 5869 (keys by HMAC). */
#ifndef NNC_IPC_HANDSHAKE_H
#define NNC_IPC_HANDSHAKE_H

#include "ipc/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define NNC_SECRET_BYTES 32

/* What a connection is for. */
enum nnc_greeting_kind {
    NNC_GREETING_CONTROL, /* a node's coordinator to node 0's */
    NNC_GREETING_DATA,    /* the first trainer of a node to that of the node before it */
    NNC_GREETING_KINDS,
};

/* What the client says of itself; covered by the tags, so the server can rely on it as far as it
 * relies on whoever has the secret. Whether it fits the run is the caller's to check. */
struct nnc_greeting {
    uint32_t kind; /* enum nnc_greeting_kind */
    uint32_t node, nodes;
    uint32_t generation;
    char job[64];      /* --rdzv-id */
    char build_id[64]; /* nnc_build_id() */
};

struct nnc_handshake;

/* Begin. greeting: the client's, its texts ended and its kind known (assert); NULL makes the
 * server's side. fd is a connected stream socket that the caller keeps. secret[NNC_SECRET_BYTES] is
 * copied. Errors: -ENOMEM, -EIO no random numbers, -ENOTSUP no HMAC in libcrypto. */
int nnc_handshake_create(int fd, const uint8_t *secret, const struct nnc_greeting *greeting,
                         struct nnc_handshake **ret_handshake);

/* Wipe and free; fd stays open. Takes NULL. */
void nnc_handshake_destroy(struct nnc_handshake *handshake);

/* What to poll the socket for next: POLLIN or POLLOUT. */
short nnc_handshake_events(const struct nnc_handshake *handshake);

/* Go on as far as the socket allows. Returns 1 when the other side is proved and this side's proof
 * is sent, with the client's greeting and this side's keys, which the caller wipes; 0 when more is
 * to come. Reads no byte beyond the handshake. How long it may take is the caller's to limit. The
 * client's proof goes last: a server that does not take it closes after the client's 1. Errors,
 * after which only destroy is left: -EACCES the other side does not know the secret; -EPIPE it
 * closed, as a client does that finds the server's secret wrong; -NNC_E_FORMAT it speaks something
 * else, or another version, or a text of its greeting does not end; -EIO; -errno. */
int nnc_handshake_work(struct nnc_handshake *handshake, struct nnc_greeting *ret_greeting,
                       struct nnc_wire_keys *ret_keys);

#endif
