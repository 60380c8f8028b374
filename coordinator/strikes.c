/* SPDX-License-Identifier: Apache-2.0 */
/* A loader's page names the sample in its hand. A loader that crashed, or that we killed because it
 * stayed in one sample for too long, counts against that sample; any other death counts against
 * nothing: an operator or the kernel's memory killer sends SIGKILL to whom they like.
 *
 * The page is another process's memory: what it names is checked. A broken loader can put a sample
 * into quarantine, as it can report one as bad.
 *
 * Source: docs/memory.md, "Death and take-over". */
#include "coordinator/strikes.h"

#include "base/err.h"
#include "base/log.h"
#include "ipc/memfd.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int nnc_strikes_open(const uint64_t samples[2], const char *shm_dir,
                     struct nnc_strikes *ret_strikes) {
    struct nnc_strikes strikes = {.fd = -1};
    int code = nnc_memfd_create("quarantine", nnc_quarantine_bytes(samples), NNC_MEMFD_SHARED, NULL,
                                shm_dir, &strikes.fd);
    code = code < 0 ? code : nnc_quarantine_map(strikes.fd, samples, 1, &strikes.quarantine);
    if (code < 0) {
        nnc_strikes_close(&strikes);
        return code;
    }
    *ret_strikes = strikes;
    return 0;
}

void nnc_strikes_close(struct nnc_strikes *strikes) {
    nnc_quarantine_unmap(&strikes->quarantine);
    free(strikes->list);
    strikes->list = NULL;
    strikes->count = strikes->room = 0;
    if (strikes->fd >= 0) {
        close(strikes->fd);
        strikes->fd = -1;
    }
}

static bool is_crash(const struct nnc_process_end *end) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGXCPU};
    for (size_t i = 0; end->signalled && i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (end->status == signals[i]) {
            return true;
        }
    }
    return false;
}

/* The entry of a sample, made if there is none; NULL: no memory. */
static struct nnc_strike *entry_of(struct nnc_strikes *strikes, uint32_t phase, uint64_t sample) {
    for (uint32_t i = 0; i < strikes->count; i++) {
        if (strikes->list[i].phase == phase && strikes->list[i].sample == sample) {
            return &strikes->list[i];
        }
    }
    if (strikes->count == strikes->room) {
        uint32_t room = 2 * strikes->room + 16;
        struct nnc_strike *list = realloc(strikes->list, room * sizeof(*list));
        if (list == NULL) {
            return NULL;
        }
        strikes->list = list;
        strikes->room = room;
    }
    strikes->list[strikes->count] = (struct nnc_strike){.phase = phase, .sample = sample};
    return &strikes->list[strikes->count++];
}

int nnc_strikes_count(struct nnc_strikes *strikes, const struct nnc_process *process,
                      const struct nnc_process_end *end, struct nnc_strike *ret_strike,
                      char *ret_reason, size_t bytes) {
    bool hung = process->hung && end->signalled && end->status == SIGKILL;
    if (process->role != NNC_ROLE_LOADER || process->page == NULL || (!hung && !is_crash(end))) {
        return 0;
    }
    uint32_t phase;
    uint64_t sample;
    if (!nnc_child_hand(process->page, &phase, &sample) || phase > 1 ||
        sample >= strikes->quarantine.samples[phase] ||
        nnc_quarantine_has(&strikes->quarantine, phase, sample)) {
        return 0;
    }
    struct nnc_strike *strike = entry_of(strikes, phase, sample);
    if (strike == NULL || ++strike->deaths < NNC_STRIKES_MAX) {
        return 0;
    }
    if (hung) {
        snprintf(ret_reason, bytes,
                 "quarantined: %" PRIu32 " loaders hung or crashed in it, "
                 "the last one for longer than --sample-timeout",
                 strike->deaths);
    } else {
        snprintf(ret_reason, bytes,
                 "quarantined: %" PRIu32 " loaders hung or crashed in it, the last one by signal "
                 "%d (%s)",
                 strike->deaths, end->status, strsignal(end->status));
    }
    nnc_quarantine_add(&strikes->quarantine, phase, sample);
    *ret_strike = *strike;
    return 1;
}
