/* SPDX-License-Identifier: Apache-2.0 */
/* From bytes in the ring to the first operation's source: y = (u8 / 255 - mean) / std, by a table
 * of 256 values a channel, straight into the layout that operation wants.
 *
 * Source: torchvision's ToTensor and Normalize. */
#include <assert.h>
#include <string.h>

#include "cpu/onednn_executable.h"
#include "cpu/onednn_parallel.h"

enum {
    MAX_CHANNELS = 3,
};

struct input_job {
    const struct nnc_feed *feed;
    struct nnc_dnn_layout layout;
    float *to;
    float table[MAX_CHANNELS][256];
};

static void convert_sample(const struct input_job *job, size_t n) {
    const struct nnc_dnn_layout *layout = &job->layout;
    const uint8_t *image = job->feed->images + n * job->feed->sample_stride;
    float *to = job->to + n * layout->outer * layout->positions * layout->inner;
    for (uint32_t c = 0; c < layout->c; c++) {
        const float *table = job->table[c];
        float *plane =
            to + c / layout->inner * layout->positions * layout->inner + c % layout->inner;
        for (size_t s = 0; s < layout->positions; s++) {
            plane[s * layout->inner] = table[image[s * layout->c + c]];
        }
    }
}

static void convert_share(void *context, uint32_t thread, uint32_t threads) {
    const struct input_job *job = context;
    size_t begin;
    size_t end;
    nnc_share(job->layout.n, 1, thread, threads, &begin, &end);
    for (size_t n = begin; n < end; n++) {
        convert_sample(job, n);
    }
}

void nnc_input_feed(struct nnc_executable *executable, const struct nnc_feed *feed) {
    const struct nnc_backend_params *params = &executable->backend->params;
    const struct nnc_dnn_tensor *y = &executable->tensors[executable->program->ops[0].y];
    struct input_job job = {
        .feed = feed,
        .layout = y->layout,
        .to = nnc_place_address(executable, y->place),
    };
    assert(job.layout.c <= MAX_CHANNELS);
    for (uint32_t c = 0; c < job.layout.c; c++) {
        for (int value = 0; value < 256; value++) {
            job.table[c][value] = (float)((value / 255.0 - params->mean[c]) / params->std[c]);
        }
    }
    size_t values = job.layout.n * job.layout.c * job.layout.positions;
    nnc_parallel(nnc_team(params->threads, 0.3 * (double)values), convert_share, &job);
}
