/* SPDX-License-Identifier: Apache-2.0 */
/* Error codes, exit statuses and the text that goes with an error.
 *
 * Every function that can fail returns >= 0 or a negative code: either a negative errno, or one of
 * enum nnc_error. The code says what kind of failure it is, the text (one per thread) says which
 * file, which place and what to do. Only main files print it and exit. */
#ifndef NNC_BASE_ERR_H
#define NNC_BASE_ERR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum nnc_error {
    NNC_E_USAGE = 1000, /* wrong option, impossible combination, preflight refused */
    NNC_E_FORMAT,       /* bytes from a file or another process do not parse */
    NNC_E_DATA_BUDGET,  /* more bad samples than --max-bad allows */
    NNC_E_HARDWARE,     /* device failure or repeated crash of a child */
    NNC_E_COMM,         /* collective or rendezvous failed */
    NNC_E_NUMERIC,      /* loss or gradient is not finite */
    NNC_E_CHECKPOINT,   /* a checkpoint or an output cannot be written, or none can be read */
    NNC_E_STOPPED,      /* stopped by a signal after a durable checkpoint */
    NNC_E_SANDBOX,      /* a required sandbox layer is missing */
    NNC_E_CHILD,        /* a child process failed */
    NNC_E_GOAL,         /* all went well, but what was measured misses its goal */

    /* Plus the number of the signal that stopped a verb which has no checkpoint to go on from. */
    NNC_E_SIGNAL = 1100,
    NNC_E_SIGNAL_LAST = NNC_E_SIGNAL + 64,
};

enum nnc_exit {
    NNC_EXIT_OK = 0,
    NNC_EXIT_INTERNAL = 1,
    NNC_EXIT_USAGE = 2,
    NNC_EXIT_DATA = 3,
    NNC_EXIT_HARDWARE = 4,
    NNC_EXIT_COMM = 5,
    NNC_EXIT_NUMERIC = 6,
    NNC_EXIT_CHECKPOINT = 74,
    NNC_EXIT_STOPPED = 75,
    NNC_EXIT_SANDBOX = 77,
    NNC_EXIT_SIGNAL =
        128, /* plus its number, as shells have it for a process that a signal ended */
};

/* Plug-ins take these functions from the program that loads them, so that there is one text. */
#define NNC_EXPORT __attribute__((visibility("default")))

/* Longest error text kept, including the terminating zero. */
#define NNC_ERROR_TEXT_MAX 1024

/* Set this thread's error text from a printf format and return code, so that a failing function can
 * say `return nnc_fail(-EINVAL, "...")`. code must be negative. Never allocates. */
NNC_EXPORT int nnc_fail(int code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Put "prefix: " in front of this thread's error text and return code unchanged. */
NNC_EXPORT int nnc_fail_in(int code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Set the text to "WHAT: strerror(errno)" and return -errno. Call directly after the failed call.
 */
NNC_EXPORT int nnc_fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/* This thread's last error text; never NULL, "" when there is none. Valid until the next nnc_fail*.
 */
NNC_EXPORT const char *nnc_error_text(void);

/* Forget this thread's error text. */
NNC_EXPORT void nnc_error_clear(void);

/* The signal of a code NNC_E_SIGNAL + number, or 0 for any other code. */
int nnc_error_signal(int code);

/* Exit status (enum nnc_exit) for a negative code as returned by any nnc function; 0 for code >= 0.
 */
int nnc_error_exit_status(int code);

#ifdef __cplusplus
}
#endif

#endif
