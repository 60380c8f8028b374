/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/overlap.h"

#include <math.h>

struct nnc_overlap nnc_overlap_of(const struct nnc_msg_comm *alone,
                                  const struct nnc_msg_comm *together,
                                  const struct nnc_msg_comm *sums) {
    struct nnc_overlap overlap = {.varies = fmax(alone->spread, together->spread)};
    overlap.known = alone->repeats >= 2 && together->repeats >= 2 && sums->seconds > overlap.varies;
    if (overlap.known) {
        overlap.share = 1 - (together->seconds - alone->seconds) / sums->seconds;
    }
    return overlap;
}
