/* SPDX-License-Identifier: Apache-2.0 */
/* Real nncoord-loader processes fed and consumed by a test: the test is coordinator and trainers.
 */
#ifndef NNC_TESTS_LOADER_RUN_H
#define NNC_TESTS_LOADER_RUN_H

#include "base/config.h"
#include "coordinator/dataset.h"

#include <stdbool.h>
#include <stdint.h>

#define LOADER_RUN_LOADERS_MAX 8

/* A sample as a trainer gets it. */
struct loader_run_sample {
    enum nnc_phase phase;
    uint32_t epoch;
    uint64_t k;
    const uint8_t *pixels; /* in the ring, packed */
    size_t bytes;
    int32_t label;
    uint32_t number, status;
};

struct loader_run_params {
    const struct nnc_dataset *dataset;
    struct nnc_config config; /* seed, recipe, io; limits and epochs */
    uint32_t ranks, loaders, batch, slots, epochs;
    uint32_t channels;
    bool check;       /* NNC_MODE_CHECK */
    bool no_training; /* the schedule has validation only */
    /* By sample of the training set: how often it was delivered and reported bad. NULL: unwanted.
     */
    uint8_t *delivered, *reported;
    /* Called for each sample in the order of batches; may be NULL. */
    void (*on_sample)(void *context, const struct loader_run_sample *sample);
    void *context;
    uint32_t kills;   /* SIGKILLs of loaders, spread over the run; each is replaced */
    uint32_t retires; /* loaders told to stop, spread over the run; fewer than loaders */
};

struct loader_run_result {
    uint64_t hash; /* of pixels, labels, numbers and statuses in order, all ranks */
    uint64_t batches, samples;
    uint64_t ok, replaced, bad; /* by status */
    uint64_t wrong_labels;      /* label is not the one of the sample in its index */
    uint64_t bad_messages;
    char last_reason[256];   /* of a bad message */
    uint32_t uring_loaders;  /* that said they use io_uring */
    char note[128];          /* of the last READY */
    uint32_t requeued;       /* claims put back after kills */
    uint32_t clean_exits;    /* loaders that ended with status 0 after the last slot was closed */
    uint32_t retired;        /* loaders that ended with status 0 when they were told to */
    uint32_t left_behind;    /* claims that those had not published */
    uint64_t peak_rss_bytes; /* largest of all loaders */
    uint64_t end_ns;         /* from the last slot's closing to the last exit */
};

/* Run the whole schedule. Fails the test on anything that cannot go on. */
void loader_run(const struct loader_run_params *params, struct loader_run_result *ret_result);

#endif
