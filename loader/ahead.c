/* SPDX-License-Identifier: Apache-2.0 */
/* The judge of fetching ahead: wait, wait, ... -> slow? -> so many claims fetch one ring ahead.
 *
 * 1. Waits are judged in groups: a single long one may be the scheduler's doing.
 * 2. Slow is what takes long for a read and much of the time of the loader: reads of huge images
 *    take long from the page cache, and those of tiny ones take much of the time.
 * 3. Who waits for storage sleeps; who waits for a CPU that others use does not. Without this, a
 *    busy machine would look like slow storage.
 * 4. Fetching ahead takes away the very waits that tell of slow storage. So it stays on for a
 *    number of claims and is then given up, until reads are slow again.
 *
 * Does not: fetch. */
#include "loader/ahead.h"

bool nnc_ahead_waited(struct nnc_ahead *ahead, uint64_t waited_ns) {
    ahead->waited_ns += waited_ns;
    ahead->waits++;
    return ahead->waits >= NNC_AHEAD_READS;
}

bool nnc_ahead_judge(struct nnc_ahead *ahead, uint64_t now_ns, uint64_t sleeps) {
    bool slow = ahead->waited_ns >= ahead->waits * NNC_AHEAD_NS &&
                ahead->waited_ns >= (now_ns - ahead->began_ns) / NNC_AHEAD_SHARE &&
                sleeps - ahead->began_sleeps >= NNC_AHEAD_SLEEPS;
    bool first = slow && ahead->left == 0;
    *ahead = (struct nnc_ahead){
        .began_ns = now_ns,
        .began_sleeps = sleeps,
        .left = slow ? NNC_AHEAD_CLAIMS : ahead->left,
    };
    return first;
}

bool nnc_ahead_claim(struct nnc_ahead *ahead) {
    if (ahead->left == 0) {
        return false;
    }
    ahead->left--;
    return true;
}
