/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory a process costs beside the rings: its proportional set size, in which a page that
 * several processes map counts for each of them by its part only. Adding these up over processes
 * counts each page once; adding resident sizes would count the index, libraries and inflated pixels
 * as often as they are mapped. */
#ifndef NNC_IPC_FOOTPRINT_H
#define NNC_IPC_FOOTPRINT_H

#include <stdint.h>

/* When the own footprint was measured; starts as zeros. */
struct nnc_footprint {
    uint64_t next_ns;  /* not again before this */
    uint64_t pause_ns; /* between the last two */
    uint64_t bytes;    /* the last result; 0: unknown */
};

/* Add up the proportional set sizes in a list of mappings, leaving out rings.
 * Shape:  fd reads as /proc/PID/smaps does.
 * Errors: negative errno of the read; *ret_bytes is untouched then. */
int nnc_footprint_read(int fd, uint64_t *ret_bytes);

/* The own process's footprint, measured anew when that is due: often at first, while memory grows,
 * later twice a second, and never so often that it costs more than one percent of a CPU. Never
 * allocates. Returns bytes, 0 when /proc does not tell. */
uint64_t nnc_footprint_own(struct nnc_footprint *footprint);

#endif
