/* SPDX-License-Identifier: Apache-2.0 */
/* An authenticated connection between two machines of a run: frames over a stream socket.
 *
 *   frame:  type 4 | bytes 4 | number 8 | body ... | tag 32      little-endian
 *
 * The tag is HMAC-SHA256 under the direction's key over everything before it; the number counts
 * from 0 in each direction, so that a frame can be neither changed, left out, repeated nor sent
 * back. Nothing is hidden: run it over a fabric that others may not read, or through a VPN.
 *
 * Never blocks. Bytes that come in are another machine's word: a frame is handed out only when its
 * tag is right.
 *
 * Source: RFC 2104 (HMAC), FIPS 180-4. */
#ifndef NNC_IPC_WIRE_H
#define NNC_IPC_WIRE_H

#include "base/hmac.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NNC_WIRE_BODY_MAX  65536 /* bytes of a frame's body */
#define NNC_WIRE_KEY_BYTES NNC_HMAC_KEY_BYTES
#define NNC_WIRE_TAG_BYTES NNC_HMAC_TAG_BYTES

/* One key for each direction; handshake.h makes them. */
struct nnc_wire_keys {
    uint8_t send[NNC_WIRE_KEY_BYTES], receive[NNC_WIRE_KEY_BYTES];
};

struct nnc_wire_frame {
    uint32_t type, bytes;
    const uint8_t *body; /* 16-byte aligned; valid until the next nnc_wire_receive() on this wire */
};

struct nnc_wire;

/* Wrap a connected stream socket, which becomes non-blocking and close-on-exec (TCP_NODELAY too,
 * where it has that). queue_max: bytes that may wait to be sent; one frame always may.
 * Owner: the wire closes fd, unless this fails; keys are copied, the caller wipes its own.
 * Errors: -ENOMEM, -ENOTSUP no HMAC in libcrypto, -errno. */
int nnc_wire_create(int fd, const struct nnc_wire_keys *keys, size_t queue_max,
                    struct nnc_wire **ret_wire);

/* Close the socket and wipe the keys; what waits to be sent is lost. Takes NULL. */
void nnc_wire_destroy(struct nnc_wire *wire);

/* The socket, and what to poll it for: POLLIN, and POLLOUT while something waits to be sent. */
int nnc_wire_fd(const struct nnc_wire *wire);
short nnc_wire_events(const struct nnc_wire *wire);

/* Send one frame, or queue what the socket does not take. bytes: 0..NNC_WIRE_BODY_MAX (assert).
 * Errors: -ENOBUFS it would wait behind too much, nothing was sent or queued: try again later.
 * After others nothing can be sent any more: -EPIPE the other side is gone; -EIO no tag; -errno. */
int nnc_wire_send(struct nnc_wire *wire, uint32_t type, const void *body, size_t bytes);

/* Send what waits, as far as the socket takes it. Returns the bytes that still wait.
 * Errors: as nnc_wire_send(), but -ENOBUFS. */
ssize_t nnc_wire_flush(struct nnc_wire *wire);

/* The next frame: 1 with *ret_frame, 0 when none is complete yet. Ask until 0 before polling again:
 * more than one may have come, and the socket tells only of what is still in it.
 * Errors, after which the wire is spent: -EPIPE the other side closed or is gone; -NNC_E_FORMAT a
 * tag or number is wrong or a body too long; -EIO; -errno. */
int nnc_wire_receive(struct nnc_wire *wire, struct nnc_wire_frame *ret_frame);

#endif
