/* SPDX-License-Identifier: Apache-2.0 */
/* What makes nncoord-loader of tests hang or crash: a sample whose bytes begin with these words. */
#include "loader/poison.h"

#include <string.h>
#include <unistd.h>

static int begins_with(const uint8_t *bytes, size_t size, const char *word) {
    return size >= strlen(word) && memcmp(bytes, word, strlen(word)) == 0;
}

void loader_poison(const uint8_t *bytes, size_t size) {
    if (begins_with(bytes, size, "poison: crash")) {
        __builtin_trap(); /* a fault kills although all signals are blocked */
    }
    while (begins_with(bytes, size, "poison: hang")) {
        sleep(1);
    }
}
