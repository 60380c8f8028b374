/* SPDX-License-Identifier: Apache-2.0 */
/* Several loaders as threads of one process over one mapping, so that a thread sanitizer sees every
 * access. Some of them "die" with a claim in hand: they drop it, are swept, and go on under a new
 * incarnation. */
#include "base/err.h"
#include "ipc/ring.h"
#include "support/ring_stamp.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define LOADERS    4
#define BATCHES    20000u
#define DIES_EVERY 97u

/* Ends the program when the condition does not hold. */
#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("1..1\nnot ok 1 - " __VA_ARGS__);                                               \
            printf(" (%s)\n", #condition);                                                         \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static const struct nnc_ring_geometry geometry = {
    .batch = 70, .slots = 3, .height = 5, .width = 5, .channels = 1};
#define PIXEL_BYTES 25

struct run {
    uint64_t batches;
    struct nnc_ring *owner; /* holds the mappings */
    struct nnc_ring *sweeper;
    _Atomic uint32_t next_incarnation;
    _Atomic uint32_t deaths, requeued;
    uint8_t *published; /* per (seq, index); changed by atomic additions */
};

/* One loader: its view of the ring under its present incarnation. */
struct loader {
    struct run *run;
    uint32_t incarnation;
    struct nnc_ring *ring;
};

static void be_born(struct loader *loader) {
    loader->incarnation = atomic_fetch_add(&loader->run->next_incarnation, 1);
    int code =
        nnc_ring_clone(loader->run->owner, NNC_RING_LOADER, loader->incarnation, &loader->ring);
    if (code < 0) {
        abort();
    }
}

/* Half a sample, then nothing of this incarnation runs any more: it may be swept. */
static void die(struct loader *loader, const struct nnc_claim *claim) {
    struct run *run = loader->run;
    ring_stamp_fill(nnc_ring_claim_pixels(loader->ring, claim), 0, PIXEL_BYTES / 2, 0, 0);
    nnc_ring_destroy(loader->ring);
    atomic_fetch_add(&run->requeued, nnc_ring_sweep(run->sweeper, loader->incarnation));
    atomic_fetch_add(&run->deaths, 1);
    be_born(loader);
}

static void make_sample(struct loader *loader, const struct nnc_claim *claim) {
    uint64_t place = claim->seq * geometry.batch + claim->index;
    ring_stamp_fill(nnc_ring_claim_pixels(loader->ring, claim), 0, PIXEL_BYTES, claim->seq,
                    claim->index);
    struct nnc_sample_result result = ring_stamp_result(claim->seq, claim->index);
    __atomic_fetch_add(&loader->run->published[place], 1, __ATOMIC_RELAXED);
    nnc_ring_publish(loader->ring, claim, &result);
}

static void *load(void *context) {
    struct loader loader = {.run = context};
    be_born(&loader);
    unsigned claims = 0;
    for (;;) {
        uint32_t generation = nnc_ring_work_generation(loader.ring);
        struct nnc_claim claim;
        int found = nnc_ring_claim(loader.ring, &claim);
        if (found < 0) {
            break;
        }
        if (found == 0) {
            nnc_ring_wait_work(loader.ring, generation);
        } else if (++claims % DIES_EVERY == 0) {
            die(&loader, &claim);
        } else {
            make_sample(&loader, &claim);
        }
    }
    nnc_ring_destroy(loader.ring);
    return NULL;
}

/* Batches of different sizes, empty ones too. */
static uint32_t count_of(uint64_t seq) {
    return seq % 5 == 4 ? (uint32_t)(seq * 7 % (geometry.batch + 1)) : geometry.batch;
}

static void recycle_or_close(struct run *run, struct nnc_ring *trainer, uint64_t seq) {
    if (seq < run->batches) {
        nnc_ring_recycle(trainer, seq, count_of(seq));
    } else {
        nnc_ring_close_slot(trainer, seq);
    }
}

static void check_batch(struct run *run, const struct nnc_batch *batch) {
    CHECK(batch->count == count_of(batch->seq), "batch %" PRIu64, batch->seq);
    for (uint32_t i = 0; i < batch->count; i++) {
        CHECK(ring_stamp_matches(batch, i, PIXEL_BYTES), "batch %" PRIu64 " sample %u", batch->seq,
              i);
        uint8_t times = run->published[batch->seq * geometry.batch + i];
        CHECK(times == 1, "batch %" PRIu64 " sample %u: %u times", batch->seq, i, times);
    }
}

/* All batches in order; returns the number of samples. */
static uint64_t train(struct run *run) {
    struct nnc_ring *trainer;
    CHECK(nnc_ring_clone(run->owner, NNC_RING_TRAINER, 0, &trainer) == 0, "%s", nnc_error_text());
    uint64_t samples = 0;
    for (uint64_t seq = 0; seq < geometry.slots; seq++) {
        recycle_or_close(run, trainer, seq);
    }
    for (uint64_t seq = 0; seq < run->batches; seq++) {
        struct nnc_batch batch;
        int code = nnc_ring_acquire(trainer, seq, 20000, &batch);
        CHECK(code == 0, "%s", nnc_error_text());
        check_batch(run, &batch);
        samples += batch.count;
        nnc_ring_release(trainer, seq);
        recycle_or_close(run, trainer, seq + geometry.slots);
    }
    nnc_ring_destroy(trainer);
    return samples;
}

static void open_run(struct run *run) {
    struct nnc_ring *made;
    CHECK(nnc_ring_create(&geometry, 0, NULL, &made) == 0, "%s", nnc_error_text());
    int code = nnc_ring_attach(&geometry, NNC_RING_LOADER, nnc_ring_ctl_fd(made),
                               nnc_ring_data_fd(made), 0, UINT32_MAX - 1, &run->owner);
    CHECK(code == 0, "%s", nnc_error_text());
    nnc_ring_destroy(made);
    code = nnc_ring_clone(run->owner, NNC_RING_COORDINATOR, 0, &run->sweeper);
    CHECK(code == 0, "%s", nnc_error_text());
    run->published = calloc(run->batches * geometry.batch, 1);
    CHECK(run->published != NULL, "no memory");
}

int main(int argc, char **argv) {
    struct run run = {.batches = BATCHES, .next_incarnation = 1};
    if (argc > 1 && atoi(argv[1]) > 0) {
        run.batches = (uint64_t)atoi(argv[1]);
    }
    open_run(&run);
    pthread_t threads[LOADERS];
    for (unsigned i = 0; i < LOADERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, load, &run) == 0, "no thread");
    }
    uint64_t samples = train(&run);
    for (unsigned i = 0; i < LOADERS; i++) {
        pthread_join(threads[i], NULL);
    }
    nnc_ring_destroy(run.sweeper);
    nnc_ring_destroy(run.owner);
    /* Not vacuous: work was really dropped and put back. Each death held exactly one sample. */
    CHECK(run.deaths >= samples / DIES_EVERY / 2, "%u deaths", run.deaths);
    CHECK(run.requeued == run.deaths, "%u requeued, %u deaths", run.requeued, run.deaths);
    printf("1..1\nok 1 - each_sample_arrives_once_from_many_loaders_that_die # %" PRIu64
           " samples, %u deaths\n",
           samples, run.deaths);
    free(run.published);
    return 0;
}
