/* SPDX-License-Identifier: Apache-2.0 */
/* What a test leaves open. */
#ifndef NNC_TESTS_DESCRIPTORS_H
#define NNC_TESTS_DESCRIPTORS_H

/* Entries of /proc/self/fd: a number to compare with itself, before and after. */
int count_descriptors(void);

#endif
