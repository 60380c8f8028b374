/* SPDX-License-Identifier: Apache-2.0 */
/* What the devices of a run must have alike. The type that they compute in: gradients are summed as
 * they lie, and unlike devices may take unlike types. The algorithms: rank 0 chooses, the others do
 * as it does. What is
 * fastest is measured, and measurements differ; ranks that run different algorithms wait for each
 * other in every step, and round differently. */
#ifndef NNC_WORKERS_CHOICES_H
#define NNC_WORKERS_CHOICES_H

#include "workers/backend.h"
#include "workers/comm.h"

/* Whether all ranks compute in the same type; each calls it once, before it computes anything.
 * Errors: -NNC_E_USAGE on all of them, naming the first rank that differs from rank 0, both devices
 *         and what to give; -NNC_E_COMM; what the backend says. */
int nnc_choices_agree(const struct nnc_device_ops *device, const struct nnc_backend *backend,
                      struct nnc_comm *comm);

/* Rank 0's choices to all: each rank calls it once, rank 0 when it has compiled, the others before
 * they do. A device of another kind than rank 0's goes on choosing for itself.
 * Errors: -NNC_E_COMM; -NNC_E_FORMAT: what was told is too long; -ENOMEM; what the backend says. */
int nnc_choices_share(const struct nnc_device_ops *device, struct nnc_backend *backend,
                      struct nnc_comm *comm);

#endif
