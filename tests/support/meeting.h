/* SPDX-License-Identifier: Apache-2.0 */
/* What the machines of a test's run meet with: a secret and a free port of this machine. */
#ifndef NNC_TESTS_MEETING_H
#define NNC_TESTS_MEETING_H

struct meeting {
    char secret[300];  /* path of the file, for --rdzv-secret */
    char endpoint[32]; /* for --rdzv-endpoint */
};

/* Write a secret of one repeated digit into a file of the scratch folder, which has none of that
 * name yet, and find a port of 127.0.0.1 that nobody has right now. */
struct meeting meeting_make(const char *scratch, const char *name, char digit);

#endif
