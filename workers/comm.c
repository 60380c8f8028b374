/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a communicator and what all of them share. The table's functions are called through
 * here only, so argument checks stand in one place.
 *
 * It does not know how bytes travel: comm_null.c, comm_shm.c, comm_nodes.c. */
#include "workers/comm.h"

#include "base/config.h"

#include <assert.h>

int nnc_comm_create(const struct nnc_comm_params *params, struct nnc_comm **ret_comm) {
    assert(params != NULL && ret_comm != NULL);
    assert(params->ranks >= 1 && params->rank < params->ranks);
    if (params->ranks == 1) {
        return nnc_comm_null_create(params, ret_comm);
    }
    if (params->local_ranks > 0 && params->local_ranks < params->ranks) {
        return nnc_comm_nodes_create(params, ret_comm);
    }
    return nnc_comm_shm_create(params, ret_comm);
}

void nnc_comm_destroy(struct nnc_comm *comm) {
    if (comm != NULL) {
        comm->ops->destroy(comm);
    }
}

int nnc_comm_allreduce(struct nnc_comm *comm, float *values, size_t count) {
    assert(comm != NULL && (values != NULL || count == 0));
    return comm->ops->allreduce(comm, values, count);
}

int nnc_comm_broadcast(struct nnc_comm *comm, float *values, size_t count) {
    assert(comm != NULL && (values != NULL || count == 0));
    return comm->ops->broadcast(comm, values, count);
}

int nnc_comm_gather(struct nnc_comm *comm, const void *block, size_t bytes, void *ret_blocks) {
    assert(comm != NULL && block != NULL && ret_blocks != NULL);
    assert(bytes >= 1 && bytes <= NNC_COMM_BLOCK_MAX);
    return comm->ops->gather(comm, block, bytes, ret_blocks);
}

int nnc_comm_agree(struct nnc_comm *comm, uint32_t word, uint32_t *ret_word) {
    assert(comm != NULL && ret_word != NULL);
    uint32_t words[NNC_MAX_RANKS];
    assert(comm->ranks <= NNC_MAX_RANKS);
    int code = comm->ops->gather(comm, &word, sizeof(word), words);
    if (code < 0) {
        return code;
    }
    uint32_t largest = 0;
    for (uint32_t rank = 0; rank < comm->ranks; rank++) {
        largest = words[rank] > largest ? words[rank] : largest;
    }
    *ret_word = largest;
    return 0;
}

void nnc_comm_stop(struct nnc_comm *comm) {
    assert(comm != NULL);
    comm->ops->stop(comm);
}

int nnc_comm_stopped(const struct nnc_comm *comm) {
    assert(comm != NULL);
    return comm->ops->stopped(comm);
}
