/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives between the trainers of a run, as a table of functions. All ranks call the same
 * operations in the same order with the same sizes; each returns when this rank's part is done.
 *
 *   comm_null.c    one rank
 *   comm_shm.c     the ranks of one machine
 *   comm_nodes.c   a chain of machines, each with one of the two above for its own ranks
 *
 * Sums are taken in rank order 0, 1, ..., P-1 for every element, whatever the timing, so the result
 * is the same bits on all ranks and in all runs, and on one machine or several.
 *
 * What a neighbour sends that is damaged, or of another operation than this rank's, is
 * -NNC_E_HARDWARE. A wait ends in -NNC_E_COMM when the stop word is set, when a peer does not come
 * within the deadline, or when the `alive` callback says so. After any error the communicator is
 * spent: destroy it. */
#ifndef NNC_WORKERS_COMM_H
#define NNC_WORKERS_COMM_H

#include <stddef.h>
#include <stdint.h>

/* Largest block of nnc_comm_gather(). */
#define NNC_COMM_BLOCK_MAX 256

struct nnc_comm;
struct nnc_wire;

struct nnc_comm_params {
    uint32_t rank, ranks; /* over all machines */
    /* The ranks of this machine, when it is one of several: first .. first + local_ranks - 1, and
     * the machines' ranks follow one another. local_ranks 0: all ranks are on this machine. */
    uint32_t first, local_ranks;
    uint32_t node, nodes; /* this machine in the chain of machines; local_ranks > 0 only */
    /* On rank `first`: to the same rank of the machine before and behind; NULL at the ends of the
     * chain and on other ranks. The caller's, to destroy after the communicator; nobody else may
     * use them until then. */
    struct nnc_wire *before, *after;
    int fd; /* shared memory of nnc_comm_shm_bytes(ranks of this machine) bytes, zero when created;
             * more than one rank here only */
    void *memory;    /* that memory, mapped by the caller, for ranks as threads; NULL: map fd */
    int deadline_ms; /* how long a peer may keep us waiting in one wait */
    /* Called in every slice of a wait (at most 100 ms apart); negative ends the wait with that
     * code. May be NULL. */
    int (*alive)(void *context);
    void *context;
};

struct nnc_comm_ops {
    const char *name; /* "null", "shm", "nodes" */
    void (*destroy)(struct nnc_comm *comm);
    int (*allreduce)(struct nnc_comm *comm, float *values, size_t count);
    int (*broadcast)(struct nnc_comm *comm, float *values, size_t count);
    int (*gather)(struct nnc_comm *comm, const void *block, size_t bytes, void *ret_blocks);
    void (*stop)(struct nnc_comm *comm);
    int (*stopped)(const struct nnc_comm *comm);
};

/* Base of every implementation; embed it first. */
struct nnc_comm {
    const struct nnc_comm_ops *ops;
    uint32_t rank, ranks;
};

/* Join: the null communicator for one rank, shared memory for the ranks of one machine, the chain
 * of machines when 0 < local_ranks < ranks. Does not wait for peers.
 * Owner:  free with nnc_comm_destroy(); fd stays the caller's and may be closed afterwards.
 * Errors: -NNC_E_FORMAT wrong size of the shared memory, -ENOMEM. */
int nnc_comm_create(const struct nnc_comm_params *params, struct nnc_comm **ret_comm);

/* Takes NULL. Says nothing to the peers: call nnc_comm_stop() first when they must not wait. */
void nnc_comm_destroy(struct nnc_comm *comm);

/* values[i] = sum over ranks of values[i], in place.
 * Math:   fp32, ((v0 + v1) + v2) + ...
 * Errors: -NNC_E_COMM; the values are undefined then. */
int nnc_comm_allreduce(struct nnc_comm *comm, float *values, size_t count);

/* Copy rank 0's values to all ranks, bit for bit. Errors: -NNC_E_COMM. */
int nnc_comm_broadcast(struct nnc_comm *comm, float *values, size_t count);

/* Every rank gives `bytes` (1..NNC_COMM_BLOCK_MAX) and gets all ranks' blocks in rank order in
 * ret_blocks[ranks * bytes]. A barrier. Errors: -NNC_E_COMM. */
int nnc_comm_gather(struct nnc_comm *comm, const void *block, size_t bytes, void *ret_blocks);

/* The largest of all ranks' words: how ranks agree, at the same step, to stop or to take a
 * snapshot. Errors: -NNC_E_COMM. */
int nnc_comm_agree(struct nnc_comm *comm, uint32_t word, uint32_t *ret_word);

/* Make every wait of every rank of this machine return -NNC_E_COMM from now on. Other machines get
 * their error when this one's connections close, at the latest. */
void nnc_comm_stop(struct nnc_comm *comm);

/* 1 when a rank of this machine, or whoever has its shared memory, stopped the group; else 0. */
int nnc_comm_stopped(const struct nnc_comm *comm);

/* Bytes of the shared memory of a machine; depends on the number of its ranks only, gradients pass
 * through it in chunks. 0 for one rank. */
size_t nnc_comm_shm_bytes(uint32_t ranks);

/* The implementation's own door; use nnc_comm_create(). */
int nnc_comm_shm_create(const struct nnc_comm_params *params, struct nnc_comm **ret_comm);
int nnc_comm_null_create(const struct nnc_comm_params *params, struct nnc_comm **ret_comm);
int nnc_comm_nodes_create(const struct nnc_comm_params *params, struct nnc_comm **ret_comm);

#endif
