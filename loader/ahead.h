/* SPDX-License-Identifier: Apache-2.0 */
/* Whether fetching samples ahead of their claims pays: only while a loader loses time waiting for
 * reads. Pure but for the state in the struct, which begins as zero. */
#ifndef NNC_LOADER_AHEAD_H
#define NNC_LOADER_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define NNC_AHEAD_READS  64        /* waits that are judged together */
#define NNC_AHEAD_NS     100000ull /* mean wait for a read that is slow: no copy takes so long */
#define NNC_AHEAD_SHARE  8         /* slow reads take at least 1 / so much of the time */
#define NNC_AHEAD_CLAIMS 4096      /* claims for which slow reads switch it on */

struct nnc_ahead {
    uint64_t began_ns;  /* of the waits that are being counted */
    uint64_t waited_ns; /* in them */
    uint32_t waits;
    uint32_t left; /* claims for which to fetch ahead */
};

/* A wait for a read ended at now_ns of the monotonic clock and took waited_ns. Returns true when
 * this was the one that switched fetching ahead on. */
bool nnc_ahead_waited(struct nnc_ahead *ahead, uint64_t waited_ns, uint64_t now_ns);

/* A sample was claimed: should that one ring further ahead be fetched? */
bool nnc_ahead_claim(struct nnc_ahead *ahead);

#endif
