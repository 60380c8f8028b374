/* SPDX-License-Identifier: Apache-2.0 */
/* libnccl.so.2: the memory that the ranks of a communicator share. No locks: every word has one
 * writer, and `published` and `finished` order the rest. */
#ifndef NNC_TESTS_FAKECUDA_NCCL_WORLD_H
#define NNC_TESTS_FAKECUDA_NCCL_WORLD_H

#include <nccl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NCCL_RANKS_MAX = 16,
};
#define NCCL_AREA_BYTES ((size_t)256 << 20) /* of one rank's contribution; sparse */

enum nccl_kind {
    NCCL_ALL_REDUCE,
    NCCL_BROADCAST,
};

/* One collective, as its rank called it. */
struct nccl_call {
    uint64_t count;
    enum nccl_kind kind;
    ncclDataType_t type;
    ncclRedOp_t op;
    int root;
    uint64_t recorded; /* number among the rank's recorded calls; 0: queued */
};

/* Rank's words: `call` and its area are of call number `published`; the next is written when all
 * ranks have `finished` this one. */
struct nccl_rank {
    _Alignas(64) _Atomic uint64_t published;
    _Atomic uint64_t finished;
    struct nccl_call call;
};

struct nccl_world {
    uint64_t cookie;
    _Atomic uint32_t joined;
    struct nccl_rank ranks[NCCL_RANKS_MAX];
};

/* Make a world and its name; attach to one by name: NULL when it is not there. */
bool nccl_world_create(ncclUniqueId *ret_id);
struct nccl_world *nccl_world_attach(const ncclUniqueId *id);

/* All have joined: its maker keeps it open for nobody any more. */
void nccl_world_complete(const ncclUniqueId *id);
void nccl_world_detach(struct nccl_world *world);

/* Where a rank puts what it contributes. */
void *nccl_world_area(struct nccl_world *world, int rank);

/* Bytes of a value; 0: a type that the stand-in does not have. */
size_t nccl_type_bytes(ncclDataType_t type);

/* result = the areas of all ranks, reduced in the order of ranks; or the root's. */
void nccl_world_result(struct nccl_world *world, int ranks, const struct nccl_call *call,
                       void *result);

enum {
    HELD_MAX = 64,
};

struct ncclComm {
    unsigned uses; /* the caller's, and one a collective */
    struct nccl_world *world;
    ncclUniqueId id;
    int rank, ranks, device;
    bool blocking, complete, aborted, finalizing;
    uint64_t queued, published, done; /* numbers of calls */
    uint64_t recorded;                /* calls that were recorded, since ever */
    unsigned in_graphs;               /* those of them in graphs that are there */
    ncclResult_t error;
    char words[256];
    struct collective *held[HELD_MAX]; /* in progress: not yet queued */
    unsigned held_count, polls;
};

struct collective {
    struct ncclComm *comm;
    struct nccl_call call;
    const void *send;
    void *recv;
    cudaStream_t stream;
    bool hang;
};

/* Say why, on stderr too; comm NULL: none is there. Gives the code back. */
ncclResult_t nccl_fail(struct ncclComm *comm, ncclResult_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Whether all ranks have joined. */
bool nccl_check_complete(struct ncclComm *comm);
void nccl_release(struct ncclComm *comm);

/* Queue a collective, or let go of it. */
ncclResult_t nccl_submit(struct collective *collective);
void nccl_drop(void *collective);

#endif
