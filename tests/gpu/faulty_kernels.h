/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels with one fault each, and one without, for the tests of the host build itself. */
#ifndef NNC_TESTS_GPU_FAULTY_KERNELS_H
#define NNC_TESTS_GPU_FAULTY_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Each launches 64 threads that write out[thread]. */
int faulty_none(float *out);            /* the neighbour's number, through shared memory */
int faulty_missing_barrier(float *out); /* the same without a barrier */
int faulty_two_barriers(float *out);    /* odd threads wait elsewhere than even ones */
int faulty_early_exit(float *out);      /* thread 5 leaves before the barrier */
int faulty_lane_gone(float *out);       /* thread 5 leaves before a shuffle of all lanes */
int faulty_narrow_mask(float *out);     /* a shuffle reads from outside its mask */
int faulty_fresh_shared(float *out);    /* shared memory that nobody wrote */

#ifdef __cplusplus
}
#endif

#endif
