/* SPDX-License-Identifier: Apache-2.0 */
/* Whether fetching samples ahead of their claims pays: only while a loader loses time waiting for
 * reads. Pure but for the state in the struct, which begins as zero. */
#ifndef NNC_LOADER_AHEAD_H
#define NNC_LOADER_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define NNC_AHEAD_READS  64        /* waits that are judged together */
#define NNC_AHEAD_NS     100000ull /* mean wait for a read that is slow */
#define NNC_AHEAD_SHARE  8         /* and they take at least 1 / so much of the time */
#define NNC_AHEAD_SLEEPS 4         /* at least, of the process meanwhile */
#define NNC_AHEAD_CLAIMS 4096      /* claims for which slow reads switch it on */

struct nnc_ahead {
    uint64_t began_ns;     /* when the last judgement was made */
    uint64_t began_sleeps; /* of the process then */
    uint64_t waited_ns;    /* for reads since then */
    uint32_t waits;
    uint32_t left; /* claims for which to fetch ahead */
};

/* A wait for a read took so long. Returns true when it is time to judge. */
bool nnc_ahead_waited(struct nnc_ahead *ahead, uint64_t waited_ns);

/* Judge the waits since the last judgement: now_ns is of the monotonic clock, sleeps how often this
 * process gave its CPU up so far. Returns true when this switched fetching ahead on. */
bool nnc_ahead_judge(struct nnc_ahead *ahead, uint64_t now_ns, uint64_t sleeps);

/* A sample was claimed: should that one ring further ahead be fetched? */
bool nnc_ahead_claim(struct nnc_ahead *ahead);

#endif
