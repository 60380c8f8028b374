/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a run: how many ranks and loaders, how many threads each, what the rings hold and
 * what it all costs in memory. Pure: configuration, machine and data set sizes in, numbers out. */
#ifndef NNC_COORDINATOR_PLAN_H
#define NNC_COORDINATOR_PLAN_H

#include "coordinator/machine.h"
#include "ipc/device.h"
#include "ipc/setup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one loader may need beside the rings: decoder buffers for a large image and its reads. */
#define NNC_PLAN_LOADER_BYTES (48ull << 20)

struct nnc_plan_input {
    const struct nnc_config *config;
    const struct nnc_machine *machine;
    const struct nnc_devices *devices; /* NULL where the configuration asks for no GPU */
    enum nnc_mode mode;
    uint32_t nodes, node; /* machines of the run, all with as many ranks; this one's number */
    uint64_t samples[2];  /* by enum nnc_phase */
    uint32_t channels;    /* of the samples in the ring */
    uint32_t raw_height, raw_width; /* of raw samples; 0: encoded images */
};

struct nnc_plan {
    uint32_t ranks, loaders, threads; /* of this machine; threads: of each trainer */
    uint32_t first_rank;              /* of this machine; schedule.ranks are those of the run */
    uint32_t loaders_max;             /* that may come to run; = loaders when that never changes */
    bool loaders_adapt;               /* their number follows what is measured */
    int32_t device[NNC_MAX_RANKS];    /* of each rank here: the number of its GPU; -1: the CPU */
    struct nnc_schedule schedule;
    struct nnc_ring_geometry geometry;
    size_t ring_bytes; /* of one rank: control and data */
};

/* Make the plan. Errors: -NNC_E_USAGE: GPUs asked for that cannot be had, batch sizes that do not
 * divide, sizes that overflow; the text has the line that would work. */
int nnc_plan_make(const struct nnc_plan_input *input, struct nnc_plan *ret_plan);

/* What the processes will need, in bytes. */
struct nnc_memory_need {
    uint64_t rings; /* all ranks */
    uint64_t comm;
    uint64_t snapshot; /* both halves */
    uint64_t trainers; /* weights, gradients, momentum and activations of all ranks */
    uint64_t loaders;  /* their own buffers */
};

/* Lower plan->loaders_max to what fits into machine->memory beside everything else, plan->loaders
 * included in need->loaders. */
void nnc_plan_limit_loaders(const struct nnc_memory_need *need, const struct nnc_machine *machine,
                            struct nnc_plan *plan);

/* 0 when the sum fits into machine->memory, else -NNC_E_USAGE with the arithmetic and the option
 * that makes it smaller. */
int nnc_plan_check_memory(const struct nnc_memory_need *need, const struct nnc_machine *machine);

#endif
