/* SPDX-License-Identifier: Apache-2.0 */
/* From the snapshot memory to a committed checkpoint.
 *
 *   look at the half -> write files from it, hashing what is written -> is it still the snapshot
 * that was looked at, and has it that hash? -> commit
 *
 * The trainer may begin to overwrite this half after two more snapshots. That is noticed before the
 * commit; the newer snapshot is then saved by the next saver.
 *
 * It does not know the coordinator: main.c talks to it. */
#include "workers/saver.h"

#include "base/err.h"
#include "workers/engine.h"
#include "workers/snapshot.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    WRITER_WAIT_MS = 3000,
};

struct source {
    const struct nnc_snapshot *snapshot;
    uint32_t half;
    struct nnc_snapshot_info info;
};

static int confirm(void *context, uint64_t hash) {
    const struct source *source = context;
    return nnc_snapshot_confirm(source->snapshot, source->half, &source->info, hash);
}

/* Hold the half that was asked for, or the other one when a trainer died while writing this one. */
static int hold_half(struct source *source, uint32_t asked) {
    int code = -NNC_E_FORMAT;
    for (uint32_t number = 0; number < 2; number++) {
        source->half = number == 0 ? asked : 1 - asked;
        code = nnc_snapshot_hold(source->snapshot, source->half, WRITER_WAIT_MS);
        if (code < 0) {
            continue;
        }
        code = nnc_snapshot_look(source->snapshot, source->half, &source->info);
        if (code == 0) {
            return 0;
        }
        nnc_snapshot_let_go(source->snapshot, source->half);
    }
    return code;
}

/* 1 when the newest checkpoint holds this very state already. */
static int is_saved(struct nnc_vfs *vfs, const struct nnc_setup *setup, const struct source *source,
                    const struct nnc_graph *graph, struct nnc_checkpoint_saved *ret_saved) {
    struct nnc_checkpoint found;
    if (nnc_checkpoint_find(vfs, setup->run_dir, &found) != 1 ||
        memcmp(&found.state, &source->info.state, sizeof(found.state)) != 0) {
        return 0;
    }
    const float *tensors = nnc_snapshot_tensors(source->snapshot, source->half);
    int code = nnc_state_weights_sha256(graph, tensors, ret_saved->weights_sha256);
    snprintf(ret_saved->path, sizeof(ret_saved->path), "%s", found.path);
    return code < 0 ? code : 1;
}

static int save_half(struct nnc_vfs *vfs, const struct nnc_setup *setup,
                     const struct nnc_graph *graph, struct source *source,
                     struct nnc_checkpoint_saved *ret_saved) {
    int done = is_saved(vfs, setup, source, graph, ret_saved);
    if (done != 0) {
        return done < 0 ? done : 0;
    }
    const struct nnc_train_state *state = &source->info.state;
    const struct nnc_checkpoint_save_params params = {
        .vfs = vfs,
        .run_dir = setup->run_dir,
        .graph = graph,
        .state = state,
        .tensors = nnc_snapshot_tensors(source->snapshot, source->half),
        .confirm = confirm,
        .context = source,
        .keep = setup->config.keep,
        .is_best = state->acc1 >= 0 && state->acc1 >= state->best_acc1,
        .generation = setup->generation,
        .pid = (uint32_t)getpid(),
    };
    return nnc_checkpoint_save(&params, ret_saved);
}

int nnc_saver_save(struct nnc_vfs *vfs, const struct nnc_setup *setup, void *memory,
                   struct nnc_checkpoint_saved *ret_saved, uint64_t *ret_global_step) {
    struct nnc_graph *graph = NULL;
    struct nnc_snapshot snapshot;
    struct source source = {.snapshot = &snapshot};
    if (setup->save_half > 1) {
        return nnc_fail(-NNC_E_FORMAT, "there is no snapshot half %u", setup->save_half);
    }
    int code = nnc_engine_graph(setup, NNC_PHASE_TRAIN, &graph);
    code = code < 0 ? code : nnc_snapshot_attach(graph, memory, setup->snapshot_bytes, &snapshot);
    code = code < 0 ? code : hold_half(&source, setup->save_half);
    if (code == 0) {
        *ret_global_step = nnc_state_global_step(&source.info.state);
        code = save_half(vfs, setup, graph, &source, ret_saved);
        nnc_snapshot_let_go(&snapshot, source.half);
    }
    nnc_graph_destroy(graph);
    return code;
}
