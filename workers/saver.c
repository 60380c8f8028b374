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

#include <unistd.h>

struct source {
    const struct nnc_snapshot *snapshot;
    uint32_t half;
    struct nnc_snapshot_info info;
};

static int confirm(void *context, uint64_t hash) {
    const struct source *source = context;
    return nnc_snapshot_confirm(source->snapshot, source->half, &source->info, hash);
}

static int save_half(struct nnc_vfs *vfs, const struct nnc_setup *setup,
                     const struct nnc_graph *graph, struct source *source,
                     struct nnc_checkpoint_saved *ret_saved) {
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
    struct source source = {.snapshot = &snapshot, .half = setup->save_half};
    if (setup->save_half > 1) {
        return nnc_fail(-NNC_E_FORMAT, "there is no snapshot half %u", setup->save_half);
    }
    int code = nnc_engine_graph(setup, NNC_PHASE_TRAIN, &graph);
    code = code < 0 ? code : nnc_snapshot_attach(graph, memory, setup->snapshot_bytes, &snapshot);
    code = code < 0 ? code : nnc_snapshot_look(&snapshot, source.half, &source.info);
    if (code == 0) {
        *ret_global_step = nnc_state_global_step(&source.info.state);
        code = save_half(vfs, setup, graph, &source, ret_saved);
    }
    nnc_graph_destroy(graph);
    return code;
}
