/* SPDX-License-Identifier: Apache-2.0 */
/* Training throughput that others published, for `bench gpu --compare`: 224x224, one device. Years
 * of software and loaders lie between them, so they are bounds and no ranking. None was measured by
 * nncoord.
 *
 * Source: Lambda, deep learning GPU benchmark; NVIDIA DeepLearningExamples (DLE), ResNet-50 v1.5
 *         READMEs; tf_cnn_benchmarks tables of its users; pytorch-image-models discussions and
 *         NVIDIA/apex issue 1445. */
#include "workers/bench_device.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

const struct nnc_published nnc_published[] = {
    {"RTX 2080 Ti", "resnet50", "mixed", 526, 526, "Lambda"},
    {"RTX 2080 Ti", "resnet50", "fp32", 294, 294, "Lambda"},
    {"V100", "resnet50", "mixed", 828, 828, "Lambda"},
    {"V100", "resnet50", "mixed", 1156, 1200, "DLE PyTorch"},
    {"V100", "resnet50", "mixed", 1376, 1492, "DLE MXNet"},
    {"V100", "resnet50", "fp32", 367, 367, "DLE"},
    {"RTX 3090", "resnet50", "mixed", 905, 905, "Lambda"},
    {"RTX 3090", "resnet50", "mixed", 1205, 1205, "tf_cnn_benchmarks"},
    {"RTX 3090", "resnet50", "mixed", 1218, 1218, "timm, NHWC, batch 512"},
    {"RTX 3090", "vgg16", "mixed", 546, 546, "timm"},
    {"RTX 4090", "resnet50", "mixed", 1301, 1301, "Lambda"},
    {"RTX 4090", "resnet50", "mixed", 1776, 1776, "tf_cnn_benchmarks, batch 256"},
    {"A100", "resnet50", "mixed", 1582, 1582, "Lambda"},
    {"A100", "resnet50", "mixed", 2180, 2180, "DLE MXNet"},
    {"A100", "resnet50", "mixed", 2150, 2150, "apex issue 1445, NHWC"},
    {"A100", "resnet50", "mixed", 2470, 2600, "DLE PyTorch, timm"},
    {"A100", "resnet50", "tf32", 938, 938, "DLE PyTorch"},
    {"H100", "resnet50", "mixed", 2616, 2791, "Lambda, SXM, probably limited by its loader"},
    {.device = NULL},
};

bool nnc_published_is_of(const struct nnc_published *row, const char *name) {
    static const char *const others[] = {" Ti", " SUPER", " D", " Laptop", " Mobile", " Max-Q"};
    const char *found = strstr(name, row->device);
    if (found == NULL) {
        return false;
    }
    const char *rest = found + strlen(row->device);
    bool is_other = isalnum((unsigned char)*rest) != 0; /* A100X */
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        is_other = is_other || strncmp(rest, others[i], strlen(others[i])) == 0;
    }
    return !is_other;
}
