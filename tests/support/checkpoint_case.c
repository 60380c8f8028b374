/* SPDX-License-Identifier: Apache-2.0 */
/* States of a run whose every bit follows from the step. */
#include "tests/support/checkpoint_case.h"

#include "base/rng.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void checkpoint_case_init(struct checkpoint_case *ret_case, unsigned hidden) {
    char text[256];
    snprintf(text, sizeof(text),
             "Sequential(Conv2d(1, 4, kernel_size=3), BatchNorm2d(4), ReLU(), Flatten(),\n"
             "    Linear(144, %u), Linear(%u, 10))\n",
             hidden, hidden);
    const struct nnc_graph_params params = {
        .path = "case.nn", .text = text, .model_args = "", .input = {1, 8, 8}, .classes = 10};
    *ret_case = (struct checkpoint_case){0};
    int code = nnc_graph_create(&params, &ret_case->graph);
    if (code < 0) {
        fprintf(stderr, "%s\n", nnc_error_text());
        abort();
    }
    code = nnc_state_floats(ret_case->graph, &ret_case->floats);
    assert(code == 0);
    ret_case->tensors = calloc(ret_case->floats, sizeof(float));
    assert(ret_case->tensors != NULL);
    checkpoint_case_set(ret_case, 0);
}

void checkpoint_case_finish(struct checkpoint_case *checkpoint) {
    nnc_graph_destroy(checkpoint->graph);
    free(checkpoint->tensors);
}

void checkpoint_case_set(struct checkpoint_case *checkpoint, uint64_t step) {
    struct nnc_rng rng = nnc_rng_make(99, NNC_RNG_SYNTHETIC, 0, step);
    for (size_t i = 0; i < checkpoint->floats; i++) {
        checkpoint->tensors[i] = nnc_rng_normal(&rng);
    }
    checkpoint->state = (struct nnc_train_state){
        .epoch = (uint32_t)(step / 100),
        .ranks = 2,
        .step = step % 100,
        .steps_per_epoch = 100,
        .seed = UINT64_MAX - 5,
        .train_samples = 12800,
        .global_batch = 128,
        .param_hash = nnc_state_param_hash(checkpoint->graph),
        .acc1 = -1,
        .best_acc1 = 0.1 + (double)step / 3000,
        .loss_scale = 65536,
        .loss_scale_steps = (uint32_t)step,
        .metrics = {{.loss_sum = 1.0 / (double)(step + 3), .count = step * 128, .correct1 = step},
                    {.loss_sum = 1e9 / 7, .seconds = 0.1, .left_out = 3, .correct5 = step * 2}}};
}

int checkpoint_case_save(struct checkpoint_case *checkpoint, struct nnc_vfs *vfs, uint32_t keep,
                         bool is_best) {
    const struct nnc_checkpoint_save_params params = {.vfs = vfs,
                                                      .run_dir = "run",
                                                      .graph = checkpoint->graph,
                                                      .state = &checkpoint->state,
                                                      .tensors = checkpoint->tensors,
                                                      .keep = keep,
                                                      .is_best = is_best,
                                                      .generation = 1,
                                                      .pid = 4711};
    struct nnc_checkpoint_saved saved;
    return nnc_checkpoint_save(&params, &saved);
}

int64_t checkpoint_case_find(struct checkpoint_case *checkpoint, struct nnc_vfs *vfs) {
    struct nnc_checkpoint found;
    int code = nnc_checkpoint_find(vfs, "run", &found);
    if (code <= 0) {
        return code == 0 ? -1 : -2;
    }
    float *tensors = malloc(checkpoint->floats * sizeof(float));
    assert(tensors != NULL);
    int64_t step = (int64_t)nnc_state_global_step(&found.state);
    checkpoint_case_set(checkpoint, (uint64_t)step);
    if (nnc_checkpoint_load(vfs, &found, checkpoint->graph, tensors) < 0) {
        step = -2;
    } else if (memcmp(tensors, checkpoint->tensors, checkpoint->floats * sizeof(float)) != 0 ||
               memcmp(&found.state, &checkpoint->state, sizeof(found.state)) != 0) {
        step = -3;
    }
    free(tensors);
    return step;
}
