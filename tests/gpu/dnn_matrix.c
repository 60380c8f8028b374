/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/dnn_matrix.h"

#include "base/text.h"

static const uint32_t batches[] = {1, 7, 32, 256};

bool dnn_needs_tensor_core(const struct nnc_dnn_key *key) {
    uint64_t rows = (key->h + 2 * key->pad_h - key->r) / key->stride_h + 1;
    uint64_t columns = (key->w + 2 * key->pad_w - key->s) / key->stride_w + 1;
    uint64_t flops = 2ull * key->n * rows * columns * key->k * key->c * key->r * key->s;
    return key->type != NNC_GPU_F32 && flops >= 1000000000u;
}

static size_t larger(size_t left, size_t right) {
    return left > right ? left : right;
}

/* The usual plan, and where that one is not deterministic, one that is. */
static struct dnn_answer ask(struct nnc_dnn_device *device, const struct nnc_dnn_key *key) {
    struct nnc_dnn_policy policy = {.workspace_cap = DNN_WORKSPACE_CAP};
    struct dnn_answer answer = {0};
    struct nnc_dnn_plan *plan = NULL;
    answer.code = nnc_dnn_select(device, key, &policy, NULL, &plan);
    if (answer.code < 0) {
        return answer;
    }
    answer.notes = nnc_dnn_plan_notes(plan);
    answer.workspace = nnc_dnn_plan_workspace(plan);
    answer.deterministic = (answer.notes & NNC_DNN_NONDETERMINISTIC) == 0;
    nnc_dnn_plan_free(plan);
    policy.deterministic = true;
    if (!answer.deterministic && nnc_dnn_select(device, key, &policy, NULL, &plan) == 0) {
        answer.deterministic = (nnc_dnn_plan_notes(plan) & NNC_DNN_NONDETERMINISTIC) == 0;
        answer.workspace = larger(answer.workspace, nnc_dnn_plan_workspace(plan));
        nnc_dnn_plan_free(plan);
    }
    return answer;
}

static void add(const struct dnn_answer *answer, struct dnn_cell *cell) {
    cell->asked++;
    cell->planned += answer->code == 0;
    cell->tensor_core += (answer->notes & NNC_DNN_TENSOR_CORE) != 0;
    cell->deterministic += answer->deterministic;
    cell->deterministic_first +=
        answer->code == 0 && (answer->notes & NNC_DNN_NONDETERMINISTIC) == 0;
    cell->workspace = larger(cell->workspace, answer->workspace);
}

void dnn_matrix_ask(struct nnc_dnn_device *device, const struct dnn_cases *cases,
                    enum nnc_gpu_type type, dnn_visit *visit, void *context,
                    struct dnn_cell *cell) {
    for (size_t batch = 0; batch < sizeof(batches) / sizeof(batches[0]); batch++) {
        for (uint32_t row = 0; row < cases->count; row++) {
            struct nnc_dnn_key key = cases->rows[row];
            key.n = batches[batch];
            key.type = type;
            struct dnn_answer answer = ask(device, &key);
            add(&answer, cell);
            visit(context, &key, &answer);
        }
    }
}

void dnn_version_text(char *ret_text, size_t room) {
    uint32_t version = nnc_dnn_version();
    snprintf(ret_text, room, "cuDNN %u.%u.%u", version / 10000, version / 100 % 100, version % 100);
}

void dnn_matrix_print_head(FILE *file) {
    fprintf(file, "| Device | sm | Type | Convolutions | Plans | On tensor cores | Deterministic | "
                  "first | Largest workspace |\n"
                  "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
}

void dnn_matrix_print_row(FILE *file, const struct dnn_device *device, enum nnc_gpu_type type,
                          const struct dnn_cell *cell) {
    static const char *const names[NNC_GPU_TYPE_COUNT] = {"fp32", "bf16", "fp16"};
    char workspace[16];
    nnc_text_bytes(cell->workspace, workspace, sizeof(workspace));
    fprintf(file, "| %s | %u | %s | %u | %u | %u | %u | %u | %s |\n", device->name,
            device->capability, names[type], cell->asked, cell->planned, cell->tensor_core,
            cell->deterministic, cell->deterministic_first, workspace);
}
