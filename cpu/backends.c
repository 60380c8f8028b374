/* SPDX-License-Identifier: Apache-2.0 */
/* The backends that were built in. A new one is a row. */
#include "cpu/reference.h"
#if NNC_HAVE_ONEDNN
#include "cpu/onednn.h"
#endif

const struct nnc_backend_ops *const nnc_backends[] = {
#if NNC_HAVE_ONEDNN
    &nnc_backend_onednn,
#endif
    &nnc_backend_reference,
    NULL,
};
