/* SPDX-License-Identifier: Apache-2.0 */
/* A bit per sample keeps repeated reports (other epochs, respawned loaders) from counting twice. */
#include "coordinator/bad.h"

#include "base/config.h"
#include "base/err.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int nnc_bad_open(const struct nnc_index *const index[2], double max_bad, int fail_at_once,
                 FILE *file, struct nnc_bad_ledger *ret_ledger) {
    struct nnc_bad_ledger ledger = {.file = file, .fail_at_once = fail_at_once};
    uint64_t all = 0;
    for (int phase = 0; phase < 2; phase++) {
        if (index[phase] == NULL) {
            continue;
        }
        ledger.index[phase] = index[phase];
        ledger.samples[phase] = index[phase]->header->samples;
        ledger.seen[phase] = calloc(ledger.samples[phase] / 64 + 1, sizeof(uint64_t));
        if (ledger.seen[phase] == NULL) {
            nnc_bad_close(&ledger);
            return nnc_fail(-ENOMEM, "bad-sample ledger: out of memory");
        }
        all += ledger.samples[phase];
    }
    ledger.budget = (uint64_t)(max_bad * (double)all);
    /* One bad image ends no small set, but where it is the only one nothing is left. */
    ledger.budget = ledger.budget == 0 && max_bad > 0.0 && all > 1 ? 1 : ledger.budget;
    *ret_ledger = ledger;
    return 0;
}

void nnc_bad_close(struct nnc_bad_ledger *ledger) {
    for (int phase = 0; phase < 2; phase++) {
        free(ledger->seen[phase]);
        ledger->seen[phase] = NULL;
    }
}

static void write_line(const struct nnc_bad_ledger *ledger, unsigned phase, uint64_t sample,
                       const char *path, const char *reason) {
    json_t *line = json_pack("{s:s, s:I, s:s, s:s}", "split", phase == 0 ? "train" : "val",
                             "sample", (json_int_t)sample, "path", path, "reason", reason);
    if (line == NULL) { /* a path that is no UTF-8 */
        line = json_pack("{s:s, s:I, s:s}", "split", phase == 0 ? "train" : "val", "sample",
                         (json_int_t)sample, "reason", reason);
    }
    if (line != NULL && ledger->file != NULL) {
        json_dumpf(line, ledger->file, JSON_COMPACT);
        fputc('\n', ledger->file);
    }
    json_decref(line);
}

int nnc_bad_add(struct nnc_bad_ledger *ledger, uint32_t phase, uint64_t sample,
                const char *reason) {
    assert(phase <= 1 && sample < ledger->samples[phase]);
    uint64_t *word = &ledger->seen[phase][sample / 64];
    uint64_t bit = 1ull << (sample % 64);
    if ((*word & bit) != 0) {
        return 0;
    }
    *word |= bit;
    ledger->count++;
    char path[NNC_PATH_MAX];
    nnc_index_sample_path(ledger->index[phase], sample, path, sizeof(path));
    write_line(ledger, phase, sample, path, reason);
    if (ledger->list != NULL && json_array_size(ledger->list) < NNC_BAD_LISTED) {
        json_array_append_new(ledger->list,
                              json_pack("{s:s, s:s}", "path", path, "reason", reason));
    }
    if (ledger->names_all || ledger->count <= 10) {
        bool is_last = !ledger->names_all && ledger->count == 10;
        nnc_log(NNC_LOG_WARN, "bad sample %s: %s%s", path, reason,
                !is_last               ? ""
                : ledger->file == NULL ? " (further ones are not named)"
                                       : " (further ones only in bad-samples.jsonl)");
    }
    if (ledger->fail_at_once) {
        return nnc_fail(-NNC_E_DATA_BUDGET,
                        "bad sample %s: %s (--on-bad replace goes on with a substitute)", path,
                        reason);
    }
    if (ledger->count > ledger->budget) {
        return nnc_fail(-NNC_E_DATA_BUDGET,
                        "%" PRIu64 " bad samples, --max-bad allows %" PRIu64
                        "; the last one: %s: %s",
                        ledger->count, ledger->budget, path, reason);
    }
    return 0;
}

int nnc_bad_report(struct nnc_bad_ledger *ledger, const struct nnc_message *message) {
    struct nnc_msg_bad bad;
    memcpy(&bad, message->body, sizeof(bad));
    if (bad.phase > 1 || bad.sample >= ledger->samples[bad.phase]) {
        return nnc_fail(-NNC_E_FORMAT, "a loader reported sample %" PRIu64 ", which does not exist",
                        bad.sample);
    }
    char reason[512];
    size_t there = message->header.bytes - sizeof(bad);
    size_t length = bad.reason_bytes < there ? bad.reason_bytes : there;
    length = length < sizeof(reason) - 1 ? length : sizeof(reason) - 1;
    memcpy(reason, message->body + sizeof(bad), length);
    reason[length] = '\0';
    return nnc_bad_add(ledger, bad.phase, bad.sample, reason);
}
