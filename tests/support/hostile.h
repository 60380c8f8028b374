/* SPDX-License-Identifier: Apache-2.0 */
/* Files that want to harm whoever reads them, made anew each time, always the same. */
#ifndef NNC_TESTS_SUPPORT_HOSTILE_H
#define NNC_TESTS_SUPPORT_HOSTILE_H

/* How many files were written. */
struct hostile_count {
    unsigned files; /* images by their names */
    unsigned bad;   /* those of them that no crop makes good, named bad-* */
};

/* Write them into a class folder that exists:
 *   bad-NNNN-WHAT.EXT   no sample can be made of it
 *   odd-NNNN-WHAT.EXT   harmless, or bad for some crops only
 *   not-WHAT.jpg        no file at all: a pipe, a folder, a link out of the data set or nowhere
 * At least 500 files. A failure ends the test. */
void hostile_make(const char *folder, struct hostile_count *ret_count);

#endif
