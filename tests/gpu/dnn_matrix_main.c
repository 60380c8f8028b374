/* SPDX-License-Identifier: Apache-2.0 */
/* Prints docs/gpu-support.md: the support matrix for people to read. What must hold of it is in
 * test_dnn_matrix.c. */
#include "base/err.h"
#include "tests/gpu/dnn_matrix.h"

#include <errno.h>
#include <stdlib.h>

static const char opening[] =
    "<!-- Generated: build/tests/gpu/dnn_matrix > docs/gpu-support.md -->\n"
    "# What cuDNN supports\n"
    "\n"
    "%s was asked about every convolution that the models of `models/` train with: forward, with "
    "bias and ReLU\n"
    "where the model has them, and both gradients; %u different ones, at batches of 1, 7, 32 and "
    "256 images.\n"
    "No GPU is needed for the question: `tests/devices/` describes the devices, from public "
    "figures. Only engines\n"
    "that come compiled are taken, with at most 512 MiB of workspace.\n"
    "`tests/gpu/test_dnn_matrix.c` says what must hold.\n"
    "\n";

static const char meaning[] =
    "\n"
    "- **Plans**: convolutions that cuDNN has an engine for. A model with one that has none is "
    "refused before it\n"
    "  trains; the message names the type that works.\n"
    "- **On tensor cores**: of the first choice, which autotuning may change. fp32 is rounded to "
    "TF32 there.\n"
    "- **Deterministic**: convolutions with a plan under `--deterministic`; **first**: those "
    "whose first choice is\n"
    "  one anyhow.\n"
    "- **Largest workspace**: of both kinds of plan.\n"
    "\n"
    "## 16-bit convolutions of 1 GFLOP or more whose first choice is not on tensor cores\n"
    "\n"
    "| Device | Convolution |\n"
    "| --- | --- |\n";

struct report {
    const struct dnn_device *device;
    FILE *rest; /* rows of the second table */
};

static void note_rest(void *context, const struct nnc_dnn_key *key,
                      const struct dnn_answer *answer) {
    struct report *report = context;
    if (answer->code == 0 && dnn_needs_tensor_core(key) &&
        (answer->notes & NNC_DNN_TENSOR_CORE) == 0) {
        char shape[NNC_DNN_KEY_TEXT_MAX];
        nnc_dnn_key_text(key, shape, sizeof(shape));
        fprintf(report->rest, "| %s | %s |\n", report->device->name, shape);
    }
}

static int print_device(const struct dnn_cases *cases, struct report *report) {
    struct nnc_dnn_device *device = NULL;
    int code = dnn_device_load(report->device, &device);
    for (int type = 0; code == 0 && type < NNC_GPU_TYPE_COUNT; type++) {
        struct dnn_cell cell = {0};
        dnn_matrix_ask(device, cases, (enum nnc_gpu_type)type, note_rest, report, &cell);
        dnn_matrix_print_row(stdout, report->device, (enum nnc_gpu_type)type, &cell);
    }
    nnc_dnn_close(device);
    return code;
}

int main(void) {
    static struct dnn_cases cases;
    char *rest = NULL;
    size_t rest_bytes = 0;
    struct report report = {.rest = open_memstream(&rest, &rest_bytes)};
    int code = report.rest == NULL ? -ENOMEM : dnn_cases_load(&cases);
    char version[32];
    dnn_version_text(version, sizeof(version));
    printf(opening, version, cases.count);
    dnn_matrix_print_head(stdout);
    for (report.device = dnn_devices; code == 0 && report.device->name != NULL; report.device++) {
        code = print_device(&cases, &report);
    }
    if (report.rest != NULL) {
        fclose(report.rest);
    }
    printf("%s%s", meaning, rest != NULL ? rest : "");
    free(rest);
    if (code < 0) {
        fprintf(stderr, "%s\n", nnc_error_text());
    }
    return code == 0 ? 0 : 1;
}
