/* SPDX-License-Identifier: Apache-2.0 */
/* Prints docs/gpu-support.md: the support matrix as text for people. What must hold of it is in
 * test_dnn_matrix.c. */
#include "base/err.h"
#include "tests/gpu/dnn_matrix.h"

#include <string.h>

#define LARGE_FLOPS 1000000000u

static const uint32_t batches[] = {1, 7, 32, 256};

/* Large convolutions of 16-bit types that are not on tensor cores, as rows of a table. */
struct leftover {
    const struct dnn_device *device;
    FILE *rows;
};

static void note_leftover(void *context, const struct nnc_dnn_key *key,
                          const struct dnn_answer *answer) {
    struct leftover *leftover = context;
    if (answer->code == 0 && key->type != NNC_GPU_F32 && dnn_flops(key) >= LARGE_FLOPS &&
        (answer->notes & NNC_DNN_TENSOR_CORE) == 0) {
        char shape[160];
        nnc_dnn_key_text(key, shape, sizeof(shape));
        fprintf(leftover->rows, "| %s | %s |\n", leftover->device->name, shape);
    }
}

static int print_device(const struct dnn_device *described, const struct dnn_cases *cases,
                        FILE *leftovers) {
    struct nnc_dnn_device *device = NULL;
    struct leftover leftover = {described, leftovers};
    int code = dnn_device_load(described, &device);
    if (code < 0) {
        return code;
    }
    for (int type = 0; type < NNC_GPU_TYPE_COUNT; type++) {
        struct dnn_cell cell = {0};
        for (size_t batch = 0; batch < sizeof(batches) / sizeof(batches[0]); batch++) {
            dnn_matrix_ask(device, cases, (enum nnc_gpu_type)type, batches[batch], note_leftover,
                           &leftover, &cell);
        }
        dnn_matrix_print_row(stdout, described, (enum nnc_gpu_type)type, &cell);
    }
    nnc_dnn_close(device);
    return 0;
}

int main(void) {
    static struct dnn_cases cases;
    char leftovers[16384] = "";
    FILE *stream = fmemopen(leftovers, sizeof(leftovers), "w");
    int code = stream == NULL ? -1 : dnn_cases_load(&cases);
    for (const struct dnn_device *row = dnn_devices; code == 0 && row->name != NULL; row++) {
        code = print_device(row, &cases, stream);
    }
    if (stream != NULL) {
        fclose(stream);
    }
    printf("%s", leftovers);
    return code == 0 ? 0 : 1;
}
