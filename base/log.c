/* SPDX-License-Identifier: Apache-2.0 */
/* One line, one write(): lines of different processes on one pipe never mix. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char log_prefix[32] = "nncoord";
static enum nnc_log_level log_level = NNC_LOG_INFO;

void nnc_log_init(const char *prefix, enum nnc_log_level level) {
    snprintf(log_prefix, sizeof(log_prefix), "%s", prefix);
    log_level = level;
}

enum nnc_log_level nnc_log_level(void) {
    return log_level;
}

void nnc_log(enum nnc_log_level level, const char *format, ...) {
    if (level > log_level) {
        return;
    }
    static const char *const tags[] = {"error: ", "warning: ", "", ""};
    char line[2048];
    int used = snprintf(line, sizeof(line), "%s: %s", log_prefix, tags[level]);
    va_list args;
    va_start(args, format);
    vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
    va_end(args);
    size_t length = strlen(line);
    line[length++] = '\n';
    /* A log pipe is non-blocking: a full one drops the line rather than stop the work. */
    while (write(STDERR_FILENO, line, length) < 0 && errno == EINTR) {
    }
}
