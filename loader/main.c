/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord-loader: reads, decodes and augments samples into the rings of all ranks of the node.
 *
 *   begin (setup, page, channel, HELLO) -> attach rings, index -> ATTACHED -> reader, decoders ->
 * READY
 *     -> START -> loop until all slots are closed -> exit 0
 *
 * It keeps no state: any loader can make any sample again, so it may be killed at any instruction.
 * Started by the coordinator only; everything it needs comes in the setup (ipc/setup.h). */
#include "base/err.h"
#include "base/log.h"
#include "ipc/child.h"
#include "loader/loop.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct process {
    struct nnc_child *child;
    struct nnc_ring *rings[NNC_MAX_RANKS];
    struct nnc_source *sources[2];
    struct nnc_maker *maker;
    struct nnc_reader *reader;
    struct nnc_quarantine quarantine;
};

/* Decoders allocate and free per image; keep that memory instead of giving it back to the kernel,
 * which would fault it in again for the next image. Huge images still come and go as mappings. */
static void tune_malloc(void) {
    mallopt(M_MMAP_THRESHOLD, 8 * 1048576);
    mallopt(M_TRIM_THRESHOLD, 16 * 1048576);
}

static int attach_rings(struct process *process) {
    const struct nnc_setup *setup = nnc_child_setup(process->child);
    for (uint32_t rank = 0; rank < setup->local_ranks; rank++) {
        int code = nnc_ring_attach(&setup->geometry, NNC_RING_LOADER, setup->ring_ctl_fd[rank],
                                   setup->ring_data_fd[rank], setup->generation, setup->incarnation,
                                   &process->rings[rank]);
        if (code < 0) {
            return nnc_fail_in(code, "ring of rank %u", rank);
        }
        close(setup->ring_ctl_fd[rank]);
        close(setup->ring_data_fd[rank]);
    }
    return 0;
}

static int attach_sources(struct process *process) {
    const struct nnc_setup *setup = nnc_child_setup(process->child);
    for (int phase = 0; phase < 2; phase++) {
        const struct nnc_setup_data *data = &setup->data[phase];
        if (data->samples == 0) {
            continue;
        }
        int code = nnc_source_open(data, setup->config.direct_io, &process->sources[phase]);
        if (code < 0) {
            return code;
        }
        uint64_t samples = nnc_source_index(process->sources[phase])->header->samples;
        if (samples != data->samples) {
            return nnc_fail(-NNC_E_FORMAT, "index has %llu samples, the setup says %llu",
                            (unsigned long long)samples, (unsigned long long)data->samples);
        }
    }
    return 0;
}

static int attach_quarantine(struct process *process) {
    const struct nnc_setup *setup = nnc_child_setup(process->child);
    if (setup->quarantine_fd < 0) {
        return 0;
    }
    const uint64_t samples[2] = {setup->data[0].samples, setup->data[1].samples};
    int code = nnc_quarantine_map(setup->quarantine_fd, samples, 0, &process->quarantine);
    if (code < 0) {
        return nnc_fail_in(code, "mapping the quarantine");
    }
    close(setup->quarantine_fd);
    return 0;
}

static int create_maker(struct process *process) {
    const struct nnc_setup *setup = nnc_child_setup(process->child);
    const struct nnc_maker_params params = {
        .seed = setup->config.seed,
        .augment = {nnc_augment_make(&setup->config, NNC_PHASE_TRAIN),
                    nnc_augment_make(&setup->config, NNC_PHASE_VAL)},
        .channels = setup->geometry.channels,
        .simd = (enum nnc_simd)setup->config.simd,
        .fast = setup->config.decode == NNC_DECODE_FAST,
        .whole = setup->mode == NNC_MODE_CHECK,
    };
    for (int phase = 0; phase < 2; phase++) {
        uint32_t size = params.augment[phase].size;
        if (process->sources[phase] != NULL &&
            (size < 1 || size > setup->geometry.height || size > setup->geometry.width)) {
            return nnc_fail(-NNC_E_FORMAT, "samples of %u x %u do not fit the ring's %u x %u", size,
                            size, setup->geometry.height, setup->geometry.width);
        }
    }
    return nnc_maker_create(&params, &process->maker);
}

static int open_reader(struct process *process, uint32_t claims_max) {
    const struct nnc_setup *setup = nnc_child_setup(process->child);
    const struct nnc_reader_params params = {
        .sources = {process->sources[0], process->sources[1]},
        .depth = claims_max,
    };
    struct nnc_msg_ready ready = {0};
    int code = nnc_reader_open(&params, (enum nnc_io_method)setup->config.io, ready.note,
                               sizeof(ready.note), &process->reader);
    if (code < 0) {
        return code;
    }
    const char *name = nnc_reader_name(process->reader);
    ready.uses_uring = strcmp(name, "io_uring") == 0;
    nnc_log(NNC_LOG_DEBUG, "reads with %s (%s), holds up to %u claims", name, ready.note,
            claims_max);
    return nnc_child_ready(process->child, &ready);
}

static int run(struct process *process) {
    const struct nnc_setup *setup = nnc_child_setup(process->child);
    uint32_t claims_max =
        nnc_loop_claims_max(setup->geometry.batch, setup->local_ranks, setup->loaders);
    int code = attach_rings(process);
    if (code >= 0) {
        code = attach_sources(process);
    }
    if (code >= 0) {
        code = attach_quarantine(process);
    }
    if (code >= 0) {
        code = nnc_child_attached(process->child);
    }
    if (code >= 0) {
        code = create_maker(process);
    }
    if (code >= 0) {
        code = open_reader(process, claims_max);
    }
    if (code >= 0) {
        code = nnc_child_wait_start(process->child);
    }
    if (code < 0) {
        return code;
    }
    const struct nnc_loop_params params = {
        .child = process->child,
        .rings = process->rings,
        .ranks = setup->local_ranks,
        .sources = {process->sources[0], process->sources[1]},
        .sampler = {.schedule = setup->schedule,
                    .first_rank = setup->first_rank,
                    .seed = setup->config.seed},
        .maker = process->maker,
        .reader = process->reader,
        .quarantine = &process->quarantine,
        .ahead = setup->geometry.slots,
        .claims_max = claims_max,
    };
    return nnc_loop_run(&params);
}

int main(void) {
    tune_malloc();
    struct process process = {0};
    int code = nnc_child_begin(NNC_ROLE_LOADER, &process.child);
    if (code < 0) {
        fprintf(stderr, "nncoord-loader: %s\n", nnc_error_text());
        return nnc_error_exit_status(code);
    }
    code = run(&process);
    nnc_reader_close(process.reader);
    nnc_quarantine_unmap(&process.quarantine);
    nnc_maker_destroy(process.maker);
    for (int phase = 0; phase < 2; phase++) {
        nnc_source_close(process.sources[phase]);
    }
    for (uint32_t rank = 0; rank < NNC_MAX_RANKS; rank++) {
        nnc_ring_destroy(process.rings[rank]);
    }
    return nnc_child_end(process.child, code);
}
