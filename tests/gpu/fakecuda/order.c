/* SPDX-License-Identifier: Apache-2.0 */
/* Which accesses happen before which, whatever the schedule.
 *
 * The order of CUDA's operations is known when they are queued: the stream they go to, the events
 * it waited for, what the host had waited for. So the check is made then, and sees a missing wait
 * under every schedule.
 *
 * An access is kept as (actor, tick): operation number `tick` of that actor. It happens before an
 * operation with clock c when c[actor] >= tick.
 *
 * Invariants: 1. No kept access happened before the host's clock: all that is queued later follows
 *                the host, so it could conflict with none of them (fake_order_prune).
 *             2. A write drops the accesses it covers: whoever is ordered after it is ordered after
 *                them, and whoever is not conflicts with it.
 *
 * Source: Flanagan, Freund, "FastTrack: efficient and precise dynamic race detection", 2009. */
#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct access {
    uintptr_t low, high;
    bool write;
    unsigned actor;
    uint64_t tick;
    char name[FAKE_NAME_MAX];
};

static struct access *accesses;
static size_t access_count, access_room;

void fake_clock_join(struct fake_clock *clock, const struct fake_clock *other) {
    for (size_t i = 0; i < FAKE_ACTORS; i++) {
        if (clock->tick[i] < other->tick[i]) {
            clock->tick[i] = other->tick[i];
        }
    }
}

static bool before(const struct access *access, const struct fake_clock *clock) {
    return clock->tick[access->actor] >= access->tick;
}

static const struct access *find_conflict(const struct fake_clock *clock,
                                          const struct fake_range *range) {
    uintptr_t low = (uintptr_t)range->memory, high = low + range->bytes;
    for (size_t i = 0; i < access_count; i++) {
        const struct access *access = &accesses[i];
        if (access->low < high && low < access->high && (access->write || range->write) &&
            !before(access, clock)) {
            return access;
        }
    }
    return NULL;
}

/* Whether an access says nothing more once the new one is kept. */
static bool superseded(const struct access *old, const struct access *fresh) {
    bool covered = fresh->low <= old->low && old->high <= fresh->high;
    return covered && (fresh->write || (!old->write && old->actor == fresh->actor));
}

static void keep(const struct access *fresh) {
    size_t kept = 0;
    for (size_t i = 0; i < access_count; i++) {
        if (!superseded(&accesses[i], fresh)) {
            accesses[kept++] = accesses[i];
        }
    }
    access_count = kept;
    if (access_count == access_room) {
        access_room = access_room ? 2 * access_room : 256;
        accesses = realloc(accesses, access_room * sizeof *accesses);
        if (!accesses) {
            abort();
        }
    }
    accesses[access_count++] = *fresh;
}

void fake_order_access(const struct fake_clock *clock, unsigned actor, const char *name,
                       const struct fake_range *range) {
    const struct access *other = find_conflict(clock, range);
    if (other) {
        fake_violation("race: %s %s %p + %zu, unordered with %s, which %s %p + %zu", name,
                       range->write ? "writes" : "reads", range->memory, range->bytes, other->name,
                       other->write ? "writes" : "reads", (void *)other->low,
                       (size_t)(other->high - other->low));
    }
    struct access fresh = {.low = (uintptr_t)range->memory,
                           .high = (uintptr_t)range->memory + range->bytes,
                           .write = range->write,
                           .actor = actor,
                           .tick = clock->tick[actor]};
    snprintf(fresh.name, sizeof fresh.name, "%s", name);
    keep(&fresh);
}

const char *fake_order_conflict(const struct fake_clock *clock, const struct fake_range *range) {
    const struct access *access = find_conflict(clock, range);
    return access ? access->name : NULL;
}

void fake_order_prune(const struct fake_clock *host) {
    size_t kept = 0;
    for (size_t i = 0; i < access_count; i++) {
        if (!before(&accesses[i], host)) {
            accesses[kept++] = accesses[i];
        }
    }
    access_count = kept;
}

void fake_order_forget(const void *memory, size_t bytes) {
    uintptr_t low = (uintptr_t)memory, high = low + bytes;
    size_t kept = 0;
    for (size_t i = 0; i < access_count; i++) {
        if (accesses[i].high <= low || high <= accesses[i].low) {
            accesses[kept++] = accesses[i];
        }
    }
    access_count = kept;
}
