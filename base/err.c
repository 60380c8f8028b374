/* SPDX-License-Identifier: Apache-2.0 */
/* One error text per thread, in static storage: reporting a failure can itself never fail. */
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char error_text[NNC_ERROR_TEXT_MAX];

int nnc_fail(int code, const char *format, ...) {
    assert(code < 0);
    /* Arguments may point into error_text itself, so the new text is made beside it. */
    char text[NNC_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    memcpy(error_text, text, sizeof(text));
    return code;
}

int nnc_fail_in(int code, const char *format, ...) {
    assert(code < 0);
    char text[2 * NNC_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, NNC_ERROR_TEXT_MAX, format, args);
    va_end(args);
    size_t used = strlen(text);
    snprintf(text + used, sizeof(text) - used, ": %s", error_text);
    text[NNC_ERROR_TEXT_MAX - 1] = '\0';
    memcpy(error_text, text, NNC_ERROR_TEXT_MAX);
    return code;
}

int nnc_fail_errno(const char *format, ...) {
    int saved = errno;
    assert(saved > 0);
    char text[NNC_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return nnc_fail(-saved, "%s: %s", text, strerror(saved));
}

const char *nnc_error_text(void) {
    return error_text;
}

void nnc_error_clear(void) {
    error_text[0] = '\0';
}

int nnc_error_signal(int code) {
    return -code > NNC_E_SIGNAL && -code <= NNC_E_SIGNAL_LAST ? -code - NNC_E_SIGNAL : 0;
}

int nnc_error_exit_status(int code) {
    if (nnc_error_signal(code) != 0) {
        return NNC_EXIT_SIGNAL + nnc_error_signal(code);
    }
    switch (-code) {
    case NNC_E_USAGE:
    case NNC_E_FORMAT:
        return NNC_EXIT_USAGE;
    case NNC_E_DATA_BUDGET:
        return NNC_EXIT_DATA;
    case NNC_E_HARDWARE:
        return NNC_EXIT_HARDWARE;
    case NNC_E_COMM:
        return NNC_EXIT_COMM;
    case NNC_E_NUMERIC:
        return NNC_EXIT_NUMERIC;
    case NNC_E_CHECKPOINT:
        return NNC_EXIT_CHECKPOINT;
    case NNC_E_STOPPED:
        return NNC_EXIT_STOPPED;
    case NNC_E_SANDBOX:
        return NNC_EXIT_SANDBOX;
    default:
        return code >= 0 ? NNC_EXIT_OK : NNC_EXIT_INTERNAL;
    }
}
