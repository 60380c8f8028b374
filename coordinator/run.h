/* SPDX-License-Identifier: Apache-2.0 */
/* One run of processes: prepares memory, spawns the group that group.h decides about, moves
 * messages between it and the real processes, and hands back what came out. train, eval, predict,
 * check and both benchmarks are runs of different modes. */
#ifndef NNC_COORDINATOR_RUN_H
#define NNC_COORDINATOR_RUN_H

#include "coordinator/dataset.h"
#include "coordinator/machine.h"
#include "coordinator/plan.h"
#include "coordinator/report.h"
#include "coordinator/rundir.h"
#include "coordinator/usage.h"

#include <jansson.h>

struct nnc_run_params {
    const struct nnc_config *config;
    enum nnc_mode mode;
    const struct nnc_machine *machine;
    const struct nnc_dataset *dataset; /* NULL for synthetic modes */
    struct nnc_rundir *rundir;         /* opened; NULL: nothing is written */
    char model_path[NNC_PATH_MAX];     /* "" for modes without a model */
    uint32_t classes; /* of the model when the data set has none; 0: the text's own */
    json_t *bad_list; /* check: gets the bad samples, as in bad.h; NULL: nobody wants them */
    /* predict: called for each chunk of logits, in order of samples */
    void (*on_logits)(void *context, const struct nnc_msg_logits *message, const float *values);
    /* bench comm: called for each figure */
    void (*on_comm)(void *context, const struct nnc_msg_comm *message);
    void *context;
};

struct nnc_run_result {
    struct nnc_plan plan;
    struct nnc_phase_sums train, val; /* of the last epoch */
    bool have_train, have_val;
    double best_acc1;       /* < 0: no validation */
    uint32_t epochs;        /* completed, those before a resumption included, as are the steps */
    uint64_t steps, images; /* images: consumed; bench input: in the measured part */
    double seconds;         /* from START to the last DONE */
    double trainer_seconds; /* as the slowest trainer measured its loop */
    double
        first_batch_seconds; /* from the program's start to the first batch consumed; < 0: none */
    char weights_sha256[65];
    char checkpoint[NNC_PATH_MAX]; /* newest durable one, else the one resumed from; "" none */
    uint64_t bad_samples;
    uint32_t loader_deaths, restarts;
    uint32_t loaders, loader_changes; /* at the end; added or retired on the way */
    struct nnc_usage measured;  /* by all loaders over the measured part: the whole run, but in
                                   bench input what follows the warm-up */
    uint64_t warm_images;       /* bench input: taken before that part */
    double utilisation;         /* bench input: busy share of the simulated device; < 0: none */
    uint64_t peak_memory_bytes; /* coordinator, loaders and, in bench input, consumer: largest sum
                                   of proportional set sizes beside the rings; 0: unknown */
    uint64_t ring_bytes;
    bool uses_uring;
    char backend_note[128];
    uint64_t parameters;
};

/* Run to the end. Returns 0, or the negative code whose exit status the program ends with; the text
 * is complete. *ret_result is filled as far as the run came. started_ns: when the program began. */
int nnc_run(const struct nnc_run_params *params, uint64_t started_ns,
            struct nnc_run_result *ret_result);

#endif
