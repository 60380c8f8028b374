/* SPDX-License-Identifier: Apache-2.0 */
/* The backends that were built in, and the choice among them. A new one is a row in nnc_backends.
 */
#include "base/err.h"
#include "cpu/reference.h"
#if NNC_HAVE_ONEDNN
#include "cpu/onednn.h"
#endif

#include <assert.h>
#include <string.h>

const struct nnc_backend_ops *const nnc_backends[] = {
#if NNC_HAVE_ONEDNN
    &nnc_backend_onednn,
#endif
    &nnc_backend_reference,
    NULL,
};

/* What to do where a kind is not built in; NULL: it always is. */
struct kind_row {
    const char *name;
    const char *remedy;
};

static const struct kind_row kinds[] = {
    [NNC_BACKEND_AUTO] = {NULL, NULL},
    [NNC_BACKEND_ONEDNN] = {"onednn", "install libdnnl-dev and build again, or use --backend "
                                      "reference"},
    [NNC_BACKEND_REFERENCE] = {"reference", NULL},
    [NNC_BACKEND_CUDA] = {"cuda", "train on the CPU with --gpus 0"},
};

int nnc_backend_find(int32_t kind, const struct nnc_backend_ops **ret_ops) {
    assert(kind >= 0 && (size_t)kind < sizeof(kinds) / sizeof(kinds[0]));
    const struct kind_row *row = &kinds[kind];
    for (size_t number = 0; nnc_backends[number]; number++) {
        if (!row->name || strcmp(row->name, nnc_backends[number]->name) == 0) {
            *ret_ops = nnc_backends[number];
            return 0;
        }
    }
    return nnc_fail(-NNC_E_USAGE, "this nncoord was built without the %s backend; %s", row->name,
                    row->remedy);
}
