/* SPDX-License-Identifier: Apache-2.0 */
/* See choices.h.
 *
 *   all     type: gather -> compared by each with rank 0's
 *   rank 0  choices -> bytes: gather, content: broadcast
 *   others  bytes -> memory -> content -> set
 *
 * Only the communicator carries them: ranks may be on machines that share no files.
 * What it does not do: know what is in them (the backend does). */
#include "workers/choices.h"

#include "base/config.h"
#include "base/err.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct nnc_device_type) <= NNC_COMM_BLOCK_MAX, "a type can be gathered");

#define CHOICES_MAX ((uint64_t)64 << 20)

static const char *type_name(int32_t amp) {
    return amp == NNC_AMP_BF16 ? "bf16" : amp == NNC_AMP_FP16 ? "fp16" : "fp32";
}

int nnc_choices_agree(const struct nnc_device_ops *device, const struct nnc_backend *backend,
                      struct nnc_comm *comm) {
    struct nnc_device_type all[NNC_MAX_RANKS], own;
    memset(&own, 0, sizeof(own));
    int code = device->get_type(backend, &own);
    code = code < 0 ? code : nnc_comm_gather(comm, &own, sizeof(own), all);
    for (uint32_t rank = 1; code == 0 && rank < comm->ranks; rank++) {
        if (all[rank].amp != all[0].amp) {
            code = nnc_fail(-NNC_E_USAGE,
                            "rank %" PRIu32 " (%.63s) computes in %s and rank 0 (%.63s) in %s: "
                            "give all --amp fp16",
                            rank, all[rank].name, type_name(all[rank].amp), all[0].name,
                            type_name(all[0].amp));
        }
    }
    return code;
}

/* The same number of bytes to all, and memory for them that ends with a zero. */
static int agree_on_bytes(struct nnc_comm *comm, uint64_t own, uint64_t *ret_bytes,
                          float **ret_words) {
    uint64_t all[NNC_MAX_RANKS];
    int code = nnc_comm_gather(comm, &own, sizeof(own), all);
    if (code < 0) {
        return code;
    }
    if (all[0] > CHOICES_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "rank 0 tells %" PRIu64 " bytes of chosen algorithms",
                        all[0]);
    }
    float *words = calloc(all[0] / sizeof(*words) + 1, sizeof(*words));
    if (words == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %" PRIu64 " bytes of chosen algorithms", all[0]);
    }
    *ret_bytes = all[0];
    *ret_words = words;
    return 0;
}

int nnc_choices_share(const struct nnc_device_ops *device, struct nnc_backend *backend,
                      struct nnc_comm *comm) {
    char *choices = NULL;
    size_t own = 0;
    uint64_t bytes = 0;
    float *words = NULL;
    int code = comm->rank == 0 ? device->get_choices(backend, &choices, &own) : 0;
    code = code < 0 ? code : agree_on_bytes(comm, own, &bytes, &words);
    if (code == 0 && comm->rank == 0) {
        memcpy(words, choices, own);
    }
    code = code < 0 ? code : nnc_comm_broadcast(comm, words, bytes / sizeof(*words) + 1);
    if (code == 0 && comm->rank != 0) {
        device->set_choices(backend, (char *)words, bytes);
    }
    free(choices);
    free(words);
    return code;
}
