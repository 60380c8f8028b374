/* SPDX-License-Identifier: Apache-2.0 */
/* Names for the places between two accesses to the ring's shared words. In tests that compile the
 * ring with -DNNC_RING_STEPS=1 each place calls ring_step(), where a process can be killed or
 * another thread of execution can be let in; everywhere else the calls are nothing. */
#ifndef NNC_IPC_RING_STEPS_H
#define NNC_IPC_RING_STEPS_H

#if !defined(NNC_RING_STEPS)
#define NNC_RING_STEPS 0
#endif

enum ring_step {
    RING_STEP_CLAIM_READ_SEQ,
    RING_STEP_CLAIM_CURSOR,
    RING_STEP_CLAIM_TRY,  /* before the compare-and-swap */
    RING_STEP_CLAIM_HELD, /* behind it */
    RING_STEP_PUBLISH_RESULT,
    RING_STEP_PUBLISH_COMMIT, /* before the fetch_or */
    RING_STEP_PUBLISH_LOOK,   /* behind it, before the done words are read */
    RING_STEP_PUBLISH_WAKE,   /* batch seen complete, trainer not woken yet */
    RING_STEP_RECYCLE_CLAIM,
    RING_STEP_RECYCLE_DONE,
    RING_STEP_RECYCLE_SEQ,
    RING_STEP_RECYCLE_WAKE,
    RING_STEP_ACQUIRE_LOOK,
    RING_STEP_ACQUIRE_TAKE,
    RING_STEP_SWEEP_CLAIM,
    RING_STEP_SWEEP_DONE,
    RING_STEP_SWEEP_FREE,
    RING_STEP_SWEEP_WAKE,
    RING_STEP_COUNT,
};

#if NNC_RING_STEPS
/* Provided by the test; may never return. */
void ring_step(enum ring_step step);
#else
static inline void ring_step(enum ring_step step) {
    (void)step;
}
#endif

#endif
