/* SPDX-License-Identifier: Apache-2.0 */
/* Real loader processes, killed with SIGKILL at chosen steps of the protocol and at random moments,
 * swept after they were reaped, and replaced, while a trainer checks every byte of every batch.
 *
 *   this process: coordinator (spawn, kill, reap, sweep) + a thread that is the trainer
 *   children:     ring_loader, LOADERS at a time, each with a planned death or none
 *
 * Proved: nothing is lost (each batch completes), nothing comes twice (a second publish of a sample
 * aborts its loader, which is not a SIGKILL), content is whole, and the sweep puts back exactly the
 * sample in hand. Not vacuous: every deadly step kills a minimum of times. */
#include "base/err.h"
#include "base/rng.h"
#include "support/ring_stamp.h"
#include "support/ring_world.h"
#include "support/spawn.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOADERS      4
#define DEATHS_LEAST 1000
#define STEP_LEAST   30
#define STALL_MS     20000

/* Steps at which a loader may be told to die, and what it then holds. */
static const struct {
    int step;
    const char *name;
    bool has_claim; /* unpublished: must be put back */
} deadly[] = {
    {RING_STEP_CLAIM_READ_SEQ, "before reading seq", false},
    {RING_STEP_CLAIM_CURSOR, "before the cursor", false},
    {RING_STEP_CLAIM_TRY, "between cursor and claim", false},
    {RING_STEP_CLAIM_HELD, "after the claim", true},
    {WORLD_STEP_MID_WRITE, "in the middle of the pixels", true},
    {RING_STEP_PUBLISH_RESULT, "before the result words", true},
    {RING_STEP_PUBLISH_COMMIT, "before the done bit", true},
    {RING_STEP_PUBLISH_LOOK, "behind the done bit", false},
    {RING_STEP_PUBLISH_WAKE, "before waking the trainer", false},
    {WORLD_STEP_NONE, "random moment", false},
};
#define DEADLY (sizeof(deadly) / sizeof(deadly[0]))

struct loader {
    pid_t pid;
    int pidfd;
    uint32_t incarnation;
    size_t plan; /* row of deadly[] */
};

struct world {
    struct nnc_ring *ring; /* coordinator */
    struct nnc_rng rng;
    struct loader loaders[LOADERS];
    uint32_t next_incarnation;
    unsigned deaths[DEADLY];
    unsigned total_deaths, requeued;
    _Atomic bool enough;   /* coordinator to trainer: finish */
    _Atomic bool finished; /* trainer to coordinator */
    uint64_t batches, samples;
    char failure[256]; /* of the trainer thread */
};

/* Mostly full, sometimes short or empty. */
static uint32_t count_of(uint64_t seq) {
    return seq % 4 == 3 ? (uint32_t)(seq * 5 % (world_geometry.batch + 1)) : world_geometry.batch;
}

static bool check_batch(struct world *world, const struct nnc_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        if (!ring_stamp_matches(batch, i, WORLD_PIXEL_BYTES)) {
            snprintf(world->failure, sizeof(world->failure), "batch %" PRIu64 " sample %u is wrong",
                     batch->seq, i);
            return false;
        }
    }
    world->samples += batch->count;
    return true;
}

/* One batch in, the next one asked for, or its slot closed once there is no next. */
static bool train_one(struct world *world, struct nnc_ring *trainer, uint64_t seq, uint64_t *end) {
    struct nnc_batch batch;
    int code = nnc_ring_acquire(trainer, seq, STALL_MS, &batch);
    if (code < 0) {
        snprintf(world->failure, sizeof(world->failure), "%.200s", nnc_error_text());
        return false;
    }
    if (!check_batch(world, &batch)) {
        return false;
    }
    nnc_ring_release(trainer, seq);
    uint64_t next = seq + world_geometry.slots;
    if (*end == UINT64_MAX && atomic_load(&world->enough)) {
        *end = next;
    }
    if (next < *end) {
        nnc_ring_recycle(trainer, next, count_of(next));
    } else {
        nnc_ring_close_slot(trainer, next);
    }
    return true;
}

static void *train(void *context) {
    struct world *world = context;
    struct nnc_ring *trainer;
    int code = nnc_ring_attach(&world_geometry, NNC_RING_TRAINER, nnc_ring_ctl_fd(world->ring),
                               nnc_ring_data_fd(world->ring), 1, 0, &trainer);
    if (code < 0) {
        snprintf(world->failure, sizeof(world->failure), "%.200s", nnc_error_text());
        return NULL;
    }
    for (uint64_t seq = 0; seq < world_geometry.slots; seq++) {
        nnc_ring_recycle(trainer, seq, count_of(seq));
    }
    uint64_t end = UINT64_MAX;
    uint64_t seq = 0;
    while (seq < end && train_one(world, trainer, seq, &end)) {
        seq++;
    }
    world->batches = seq;
    nnc_ring_destroy(trainer);
    atomic_store(&world->finished, true);
    return NULL;
}

/* A loader with the given plan; one without a plan lives until it is killed or the ring closes. */
static void spawn_loader(struct world *world, struct loader *loader, size_t plan) {
    loader->plan = plan;
    loader->incarnation = world->next_incarnation++;
    char incarnation[16], step[16], visits[16];
    snprintf(incarnation, sizeof(incarnation), "%u", loader->incarnation);
    snprintf(step, sizeof(step), "%d", deadly[plan].step);
    /* Few batches are completed by one loader, so the last step must kill early. */
    uint32_t most = deadly[plan].step == RING_STEP_PUBLISH_WAKE ? 2 : 60;
    snprintf(visits, sizeof(visits), "%u", 1 + nnc_rng_below(&world->rng, most));
    char name[] = "ring_loader";
    char *argv[] = {name, incarnation, step, visits, NULL};
    int fds[] = {nnc_ring_ctl_fd(world->ring), nnc_ring_data_fd(world->ring)};
    loader->pid = test_spawn(NNC_TEST_RING_LOADER, argv, fds, 2);
    cr_assert_gt(loader->pid, 0, "spawn %s", NNC_TEST_RING_LOADER);
    loader->pidfd = (int)syscall(SYS_pidfd_open, loader->pid, 0);
    cr_assert_geq(loader->pidfd, 0);
}

/* The plan that has killed least: all steps get their share. */
static size_t rarest_plan(const struct world *world) {
    size_t rarest = 0;
    for (size_t plan = 1; plan < DEADLY; plan++) {
        if (world->deaths[plan] < world->deaths[rarest]) {
            rarest = plan;
        }
    }
    return rarest;
}

static size_t next_plan(struct world *world) {
    bool even = nnc_rng_below(&world->rng, 2) == 0;
    return even ? rarest_plan(world) : nnc_rng_below(&world->rng, DEADLY);
}

/* Reap, then sweep: what was in hand comes back, nothing else. Returns whether it was killed. */
static bool bury(struct world *world, struct loader *loader) {
    siginfo_t info = {0};
    cr_assert_eq(waitid(P_PIDFD, (id_t)loader->pidfd, &info, WEXITED), 0);
    close(loader->pidfd);
    if (info.si_code == CLD_EXITED) {
        cr_assert_eq(info.si_status, 0, "loader %u exits %d", loader->incarnation, info.si_status);
        cr_assert_eq(nnc_ring_sweep(world->ring, loader->incarnation), 0);
        return false;
    }
    cr_assert_eq(info.si_status, SIGKILL, "loader %u: signal %d", loader->incarnation,
                 info.si_status);
    struct nnc_claim held;
    int found = nnc_ring_find_claim(world->ring, loader->incarnation, &held);
    unsigned freed = nnc_ring_sweep(world->ring, loader->incarnation);
    cr_assert_eq(freed, (unsigned)found, "found %d, freed %u", found, freed);
    cr_assert_leq(freed, 1);
    if (deadly[loader->plan].step != WORLD_STEP_NONE) {
        cr_assert_eq(freed, deadly[loader->plan].has_claim, "killed %s: %u put back",
                     deadly[loader->plan].name, freed);
    }
    cr_assert_eq(nnc_ring_find_claim(world->ring, loader->incarnation, &held), 0);
    world->deaths[loader->plan]++;
    world->total_deaths++;
    world->requeued += freed;
    return true;
}

static bool is_enough(const struct world *world) {
    bool enough = world->total_deaths >= DEATHS_LEAST;
    for (size_t plan = 0; plan < DEADLY; plan++) {
        enough = enough && world->deaths[plan] >= STEP_LEAST;
    }
    return enough;
}

/* Kill one of the loaders that have no plan, at a moment nobody has chosen. */
static void kill_unplanned(struct world *world) {
    struct loader *loader = &world->loaders[nnc_rng_below(&world->rng, LOADERS)];
    if (loader->pid > 0 && deadly[loader->plan].step == WORLD_STEP_NONE) {
        kill(loader->pid, SIGKILL);
    }
}

/* One round of the coordinator; returns the number of loaders left. */
static unsigned supervise(struct world *world) {
    struct pollfd ends[LOADERS];
    for (unsigned i = 0; i < LOADERS; i++) {
        ends[i] = (struct pollfd){.fd = world->loaders[i].pid > 0 ? world->loaders[i].pidfd : -1,
                                  .events = POLLIN};
    }
    int ready = poll(ends, LOADERS, 1);
    if (ready == 0 && !atomic_load(&world->enough)) {
        kill_unplanned(world);
    }
    unsigned alive = 0;
    for (unsigned i = 0; i < LOADERS; i++) {
        struct loader *loader = &world->loaders[i];
        if (ends[i].fd >= 0 && ends[i].revents != 0) {
            loader->pid = 0;
            bool killed = bury(world, loader);
            bool enough = is_enough(world);
            atomic_store(&world->enough, enough);
            if (killed) {
                /* Towards the end only loaders that live: the last batches must be made. */
                spawn_loader(world, loader, enough ? DEADLY - 1 : next_plan(world));
            }
        }
        alive += loader->pid > 0;
    }
    return alive;
}

Test(ring_process, killed_loaders_lose_nothing_and_double_nothing, .timeout = 100) {
    const uint64_t seed = 20261123;
    static struct world world;
    world.rng = nnc_rng_make(seed, NNC_RNG_SYNTHETIC, 1, 0);
    world.next_incarnation = 1;
    cr_assert_eq(nnc_ring_create(&world_geometry, 1, NULL, &world.ring), 0, "%s", nnc_error_text());
    pthread_t trainer;
    cr_assert_eq(pthread_create(&trainer, NULL, train, &world), 0);
    for (unsigned i = 0; i < LOADERS; i++) {
        spawn_loader(&world, &world.loaders[i], i % DEADLY);
    }
    while (supervise(&world) > 0) {
        cr_assert(world.failure[0] == '\0', "seed %" PRIu64 ": %s", seed, world.failure);
    }
    pthread_join(trainer, NULL);
    cr_assert(world.failure[0] == '\0', "seed %" PRIu64 ": %s", seed, world.failure);
    for (size_t plan = 0; plan < DEADLY; plan++) {
        cr_assert_geq(world.deaths[plan], STEP_LEAST, "killed %s", deadly[plan].name);
    }
    cr_assert_geq(world.total_deaths, DEATHS_LEAST);
    cr_assert_geq(world.requeued, DEATHS_LEAST / 4);
    cr_log_info("seed %" PRIu64 ": %u kills, %u samples put back, %" PRIu64 " batches, %" PRIu64
                " samples whole",
                seed, world.total_deaths, world.requeued, world.batches, world.samples);
    nnc_ring_destroy(world.ring);
}
