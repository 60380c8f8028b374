/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines go to stderr, one write() each, prefixed with the process's role:
 * "nncoord: ...", "loader 2: ...", "trainer 0: ...". Results never go through here. */
#ifndef NNC_BASE_LOG_H
#define NNC_BASE_LOG_H

#include "base/err.h"

enum nnc_log_level {
    NNC_LOG_ERROR,
    NNC_LOG_WARN,
    NNC_LOG_INFO,
    NNC_LOG_DEBUG,
};

/* Set the prefix (copied, at most 31 bytes) and the most verbose level that is printed. */
void nnc_log_init(const char *prefix, enum nnc_log_level level);

/* The level given to nnc_log_init(), NNC_LOG_INFO before. */
enum nnc_log_level nnc_log_level(void);

/* Write one line; the newline is added. Lines over 2 KiB are cut. Plug-ins write with the prefix of
 * the program that loads them. */
NNC_EXPORT void nnc_log(enum nnc_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
