/* SPDX-License-Identifier: Apache-2.0 */
/* A loader that makes stamped samples until the ring closes, or kills itself with SIGKILL at the
 * n-th visit of one step of the protocol: ring_loader INCARNATION STEP VISITS. Built with the
 * ring's steps compiled in. */
#include "base/err.h"
#include "base/log.h"
#include "ring_stamp.h"
#include "ring_world.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>

static int deadly_step;
static long visits_left;

static void visit(int step) {
    if (step == deadly_step && --visits_left <= 0) {
        raise(SIGKILL);
    }
}

void ring_step(enum ring_step step) {
    visit((int)step);
}

static void make_sample(struct nnc_ring *ring, const struct nnc_claim *claim) {
    uint8_t *pixels = nnc_ring_claim_pixels(ring, claim);
    ring_stamp_fill(pixels, 0, WORLD_PIXEL_BYTES / 2, claim->seq, claim->index);
    visit(WORLD_STEP_MID_WRITE);
    ring_stamp_fill(pixels, WORLD_PIXEL_BYTES / 2, WORLD_PIXEL_BYTES, claim->seq, claim->index);
    struct nnc_sample_result result = ring_stamp_result(claim->seq, claim->index);
    nnc_ring_publish(ring, claim, &result);
}

static int work(struct nnc_ring *ring) {
    for (;;) {
        uint32_t generation = nnc_ring_work_generation(ring);
        struct nnc_claim claim;
        int found = nnc_ring_claim(ring, &claim);
        if (found < 0) {
            return 0;
        }
        if (found == 0) {
            nnc_ring_wait_work(ring, generation);
        } else {
            make_sample(ring, &claim);
        }
    }
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 4) {
        return 2;
    }
    uint32_t incarnation = (uint32_t)strtoul(argv[1], NULL, 10);
    deadly_step = atoi(argv[2]);
    visits_left = atol(argv[3]);
    struct nnc_ring *ring;
    int code = nnc_ring_attach(&world_geometry, NNC_RING_LOADER, WORLD_FD_CTL, WORLD_FD_DATA, 1,
                               incarnation, &ring);
    if (code < 0) {
        nnc_log(NNC_LOG_ERROR, "%s", nnc_error_text());
        return 1;
    }
    work(ring);
    nnc_ring_destroy(ring);
    return 0;
}
