/* SPDX-License-Identifier: Apache-2.0 */
/* `nncoord selftest`: whether a backend computes what the reference computes, on this machine. One
 * line for each check. docs/selftest.md says what the lines mean. */
#ifndef NNC_WORKERS_SELFTEST_H
#define NNC_WORKERS_SELFTEST_H

#include "base/config.h"
#include "workers/selftest_case.h"

enum nnc_selftest_status {
    NNC_SELFTEST_OK,
    NNC_SELFTEST_FAIL,
    NNC_SELFTEST_SKIPPED, /* cannot be checked here; text says why */
};

struct nnc_selftest_line {
    char check[48]; /* "max pooling" */
    enum nnc_precision precision;
    uint32_t cases;
    double error, limit; /* relative, of the case nearest to its limit; < 0: nothing of the kind */
    enum nnc_selftest_status status;
    char text[512]; /* which case and quantity, or why; "" when there is nothing to say */
};

struct nnc_selftest_params {
    const struct nnc_backend_ops *ops;
    const struct nnc_backend_ops *reference;
    uint32_t ranks;                                 /* >= 1 */
    struct nnc_device_params device[NNC_MAX_RANKS]; /* by rank; of device backends */
    enum nnc_precision precision;
    uint32_t threads; /* of CPU backends */
    uint64_t seed;
    const char *model_path; /* text of a whole network; NULL: none is checked */
    /* A case begins, in words; called by this thread. May be NULL. */
    void (*on_case)(void *context, enum nnc_precision precision, const char *name);
    void (*on_line)(void *context, const struct nnc_selftest_line *line);
    void *context;
};

/* All checks of one device, which is device[0]. Returns how many failed: nothing ends it early. */
uint32_t nnc_selftest_device(const struct nnc_selftest_params *params);

/* The checks of several ranks, each in a thread; ranks >= 2. Returns how many failed. */
uint32_t nnc_selftest_ranks(const struct nnc_selftest_params *params);

/* The verb: choose devices and precisions, print lines or JSON.
 * Errors: -NNC_E_GOAL: checks failed, naming the first; -NNC_E_USAGE: no such backend or device. */
int nnc_selftest_command(const struct nnc_config *config);

#endif
