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
    "cuDNN %u.%u.%u was asked about every convolution that the models of `models/` train with: "
    "forward with\nits bias and ReLU, and both gradients, %u different ones, at batches of 1, 7, "
    "32 and 256 images. No GPU is\nneeded for the question: the devices are described in "
    "`tests/devices/`, from public figures. Only\nengines that come compiled are taken, with "
    "512 MiB of workspace or less. `tests/gpu/test_dnn_matrix.c` says\nwhat must hold.\n"
    "\n";

static const char meaning[] =
    "\n"
    "- **Plans**: convolutions that cuDNN has an engine for. The rest would be refused before "
    "training starts;\n  the message names the type that works.\n"
    "- **On tensor cores**: of the first choice. fp32 is rounded to TF32 there. Autotuning may "
    "choose otherwise.\n"
    "- **Deterministic**: convolutions that have a plan under `--deterministic`; **first**: those "
    "whose first\n  choice gives the same bits each time anyhow.\n"
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
        char shape[160];
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
    uint32_t version = nnc_dnn_version();
    printf(opening, version / 10000, version / 100 % 100, version % 100, cases.count);
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
