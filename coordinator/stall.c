/* SPDX-License-Identifier: Apache-2.0 */
/* See stall.h. Invariant: a rank is blamed only after it stood still for the whole limit, seen by
 * this struct; a look after a restart begins anew, because the counters of new processes differ. */
#include "coordinator/stall.h"

#include "ipc/child.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool moved(const struct nnc_stall_rank *before, const struct nnc_stall_rank *now) {
    return before->running != now->running || before->seq != now->seq ||
           before->step != now->step || before->ready != now->ready ||
           before->reduced != now->reduced;
}

/* -1, 0, 1: whether a is less far than b, as far, farther. */
static int compare(const struct nnc_stall_rank *a, const struct nnc_stall_rank *b) {
    const uint64_t one[] = {a->step, a->ready, a->reduced, a->seq};
    const uint64_t two[] = {b->step, b->ready, b->reduced, b->seq};
    for (size_t i = 0; i < sizeof(one) / sizeof(one[0]); i++) {
        if (one[i] != two[i]) {
            return one[i] < two[i] ? -1 : 1;
        }
    }
    return 0;
}

void nnc_stall_place(const struct nnc_stall_rank *rank, char *ret_words, size_t bytes) {
    bool known = rank->activity < NNC_DOING_COUNT;
    const char *doing = known ? nnc_activity_name((enum nnc_activity)rank->activity) : "?";
    snprintf(ret_words, bytes, "in %s, step %" PRIu64 ", after %" PRIu64 " all-reduces", doing,
             rank->step, rank->reduced);
}

/* The rank whose heart has stood still for longest, and longer than the limit. */
static int find_stopped(const struct nnc_stall_rank *ranks, uint32_t count, uint64_t now_ns,
                        uint64_t limit_ns) {
    int worst = -1;
    for (uint32_t i = 0; i < count; i++) {
        bool stopped = ranks[i].running && ranks[i].beat_ns != 0 && ranks[i].beat_ns < now_ns &&
                       now_ns - ranks[i].beat_ns >= limit_ns;
        if (stopped && (worst < 0 || ranks[i].beat_ns < ranks[worst].beat_ns)) {
            worst = (int)i;
        }
    }
    return worst;
}

/* Whether a rank whose heart beats does so because it waits: for its device, or for other ranks. */
static bool waits(const struct nnc_stall_rank *rank) {
    return rank->on_device ? rank->activity != NNC_DOING_DATA : rank->activity == NNC_DOING_REDUCE;
}

/* The least far of ranks that have all waited and stood still. */
static int find_held(const struct nnc_stall *stall, const struct nnc_stall_rank *ranks,
                     uint32_t count, uint64_t now_ns, uint64_t limit_ns) {
    int worst = -1;
    for (uint32_t i = 0; i < count; i++) {
        if (!ranks[i].running || !waits(&ranks[i]) || now_ns - stall->moved_ns[i] < limit_ns) {
            return -1;
        }
        if (worst < 0 || compare(&ranks[i], &ranks[worst]) < 0) {
            worst = (int)i;
        }
    }
    return worst;
}

/* "; trainers 1, 2 stand there too", or nothing: which of them hangs cannot be told then. */
static void add_others(const struct nnc_stall_rank *ranks, uint32_t count, uint32_t held,
                       char *words, size_t bytes) {
    size_t used = strlen(words);
    uint32_t others = 0;
    for (uint32_t i = 0; i < count; i++) {
        others += i != held && compare(&ranks[i], &ranks[held]) == 0 ? 1 : 0;
    }
    const char *before = others > 1 ? "; trainers " : "; trainer ";
    for (uint32_t i = 0; i < count && used < bytes; i++) {
        if (i != held && compare(&ranks[i], &ranks[held]) == 0) {
            used += (size_t)snprintf(words + used, bytes - used, "%s%" PRIu32, before, i);
            before = ", ";
        }
    }
    if (others > 0 && used < bytes) {
        snprintf(words + used, bytes - used, others > 1 ? " stand there too" : " stands there too");
    }
}

int nnc_stall_look(struct nnc_stall *stall, const struct nnc_stall_rank *ranks, uint32_t count,
                   uint64_t now_ns, uint64_t limit_ns, char *ret_words, size_t bytes) {
    for (uint32_t i = 0; i < count; i++) {
        if (stall->moved_ns[i] == 0 || moved(&stall->last[i], &ranks[i])) {
            stall->moved_ns[i] = now_ns;
        }
        stall->last[i] = ranks[i];
    }
    int stopped = find_stopped(ranks, count, now_ns, limit_ns);
    int held = stopped >= 0 ? -1 : find_held(stall, ranks, count, now_ns, limit_ns);
    if (stopped < 0 && held < 0) {
        return -1;
    }
    char place[128];
    int rank = stopped >= 0 ? stopped : held;
    uint64_t since_ns = stopped >= 0 ? ranks[rank].beat_ns : stall->moved_ns[rank];
    const char *why = stopped >= 0            ? "has not moved"
                      : ranks[rank].on_device ? "waits for its GPU, which has finished nothing"
                                              : "waits for other trainers and gets nothing";
    nnc_stall_place(&ranks[rank], place, sizeof(place));
    snprintf(ret_words, bytes, "%s for %" PRIu64 " s %s", why,
             (uint64_t)((now_ns - since_ns) / 1000000000u), place);
    if (held >= 0) {
        add_others(ranks, count, (uint32_t)held, ret_words, bytes);
    }
    return rank;
}
