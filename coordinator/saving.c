/* SPDX-License-Identifier: Apache-2.0 */
/* States: idle -> waiting -> running -> idle. A failed save never stops the training; the run ends
 * with exit status 74 instead. */
#include "coordinator/saving.h"

#include "base/err.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void nnc_saving_snapshot(struct nnc_saving *saving, const struct nnc_msg_snapshot *message) {
    saving->newest = *message;
    saving->have_newest = true;
    if (!saving->enabled || !message->durable) {
        return;
    }
    saving->skipped += saving->have_waiting ? 1 : 0;
    saving->waiting = *message;
    saving->have_waiting = true;
}

static void count_failure(struct nnc_saving *saving, const char *text) {
    saving->failures++;
    snprintf(saving->failure, sizeof(saving->failure), "%s", text);
    nnc_log(NNC_LOG_WARN, "checkpoint not written: %s; training goes on", text);
}

int nnc_saving_start(struct nnc_saving *saving, const struct nnc_process_params *params,
                     struct nnc_setup *setup, int snapshot_fd) {
    if (!saving->have_waiting || saving->running) {
        return 0;
    }
    struct nnc_fd_list fds = {.count = 0};
    setup->role = NNC_ROLE_SAVER;
    setup->number = 0;
    setup->incarnation = 0;
    setup->snapshot_fd = nnc_fd_list_add(&fds, snapshot_fd);
    setup->save_half = saving->waiting.half;
    saving->saving = saving->waiting;
    saving->have_waiting = false;
    saving->saved_reported = false;
    const struct nnc_process_params saver = {
        .directory = params->directory, .setup = setup, .fds = &fds};
    int result = nnc_process_spawn(&saver, &saving->saver);
    if (result < 0) {
        count_failure(saving, nnc_error_text());
        return result;
    }
    saving->running = true;
    return 1;
}

/* Text behind the fixed struct, at most `claimed` bytes of what really came. */
static void copy_tail(const struct nnc_message *message, size_t fixed, uint32_t claimed,
                      char *ret_text, size_t bytes) {
    size_t there = message->header.bytes > fixed ? message->header.bytes - fixed : 0;
    size_t length = claimed < there ? claimed : there;
    length = length < bytes - 1 ? length : bytes - 1;
    memcpy(ret_text, message->body + fixed, length);
    ret_text[length] = '\0';
}

static void on_saved(struct nnc_saving *saving, const struct nnc_message *message) {
    struct nnc_msg_saved saved;
    memcpy(&saved, message->body, sizeof(saved));
    char text[NNC_PATH_MAX];
    copy_tail(message, sizeof(saved), saved.path_bytes, text, sizeof(text));
    saving->saved_reported = true;
    if (saved.status < 0) {
        count_failure(saving, text);
        return;
    }
    saved.weights_sha256[64] = '\0';
    saving->saved++;
    saving->stop_saved = saving->stop_saved || saving->saving.for_stop != 0;
    snprintf(saving->newest_path, sizeof(saving->newest_path), "%s", text);
    snprintf(saving->weights_sha256, sizeof(saving->weights_sha256), "%s", saved.weights_sha256);
    nnc_log(NNC_LOG_DEBUG, "checkpoint %s is durable (%.2f s)", text, saved.seconds);
}

int nnc_saving_message(struct nnc_saving *saving) {
    struct nnc_message message;
    int reported = 0;
    while (saving->running && nnc_channel_receive(saving->saver.channel, &message) == 1) {
        if (message.header.type == NNC_MSG_SAVED && !saving->saved_reported) {
            uint32_t before = saving->saved;
            on_saved(saving, &message);
            reported = saving->saved != before ? 1 : reported;
        }
    }
    return reported;
}

void nnc_saving_exit(struct nnc_saving *saving) {
    struct nnc_process_end end;
    nnc_saving_message(saving);
    if (nnc_process_reap(&saving->saver, &end) >= 0 && !saving->saved_reported) {
        char text[1024];
        nnc_process_describe_end(&saving->saver, &end, text, sizeof(text));
        count_failure(saving, text);
    }
    nnc_process_finish(&saving->saver);
    saving->running = false;
}

bool nnc_saving_idle(const struct nnc_saving *saving) {
    return !saving->running && !saving->have_waiting;
}
