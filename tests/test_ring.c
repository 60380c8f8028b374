/* SPDX-License-Identifier: Apache-2.0 */
/* The ring's rules, one at a time, in one process. */
#include "base/err.h"
#include "ipc/ring_private.h"
#include "support/ring_stamp.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define BATCH       5
#define SLOTS       3
#define PIXEL_BYTES (4 * 7 * 3)

static const struct nnc_ring_geometry small = {
    .batch = BATCH, .slots = SLOTS, .height = 4, .width = 7, .channels = 3};

/* The processes of a run, all in this one. */
struct world {
    struct nnc_ring *coordinator, *trainer, *loader, *other;
};

static struct nnc_ring *attach(const struct world *world, enum nnc_ring_role role,
                               uint32_t incarnation) {
    struct nnc_ring *ring = NULL;
    int code =
        nnc_ring_attach(&world->coordinator->geometry, role, nnc_ring_ctl_fd(world->coordinator),
                        nnc_ring_data_fd(world->coordinator), 1, incarnation, &ring);
    cr_assert_eq(code, 0, "%s", nnc_error_text());
    return ring;
}

static struct world make_world(const struct nnc_ring_geometry *geometry) {
    struct world world = {0};
    cr_assert_eq(nnc_ring_create(geometry, 1, NULL, &world.coordinator), 0, "%s", nnc_error_text());
    world.trainer = attach(&world, NNC_RING_TRAINER, 0);
    world.loader = attach(&world, NNC_RING_LOADER, 10);
    world.other = attach(&world, NNC_RING_LOADER, 11);
    return world;
}

static void destroy_world(struct world *world) {
    nnc_ring_destroy(world->other);
    nnc_ring_destroy(world->loader);
    nnc_ring_destroy(world->trainer);
    nnc_ring_destroy(world->coordinator);
}

static void publish(struct nnc_ring *loader, const struct nnc_claim *claim) {
    ring_stamp_fill(nnc_ring_claim_pixels(loader, claim), 0, PIXEL_BYTES, claim->seq, claim->index);
    struct nnc_sample_result result = ring_stamp_result(claim->seq, claim->index);
    nnc_ring_publish(loader, claim, &result);
}

/* Claim and publish until there is nothing; returns how many. */
static unsigned make_all(struct nnc_ring *loader) {
    unsigned made = 0;
    struct nnc_claim claim;
    while (nnc_ring_claim(loader, &claim) == 1) {
        publish(loader, &claim);
        made++;
    }
    return made;
}

static struct nnc_batch take(struct nnc_ring *trainer, uint64_t seq) {
    struct nnc_batch batch;
    cr_assert_eq(nnc_ring_acquire(trainer, seq, 0, &batch), 0, "%s", nnc_error_text());
    return batch;
}

Test(ring, impossible_geometries_are_refused) {
    static const struct nnc_ring_geometry bad[] = {
        {0, 4, 8, 8, 3},
        {10001, 4, 8, 8, 3},
        {8, 1, 8, 8, 3},
        {8, 65, 8, 8, 3},
        {8, 4, 0, 8, 3},
        {8, 4, 8, 0, 3},
        {8, 4, 8, 8, 2},
        {8, 4, 8, 8, 4},
        {10000, 64, UINT32_MAX, UINT32_MAX, 3},
        {10000, 64, UINT32_MAX, 4000, 1},
    };
    for (size_t row = 0; row < sizeof(bad) / sizeof(bad[0]); row++) {
        size_t ctl_bytes, data_bytes;
        cr_assert_eq(nnc_ring_bytes(&bad[row], &ctl_bytes, &data_bytes), -NNC_E_USAGE, "row %zu",
                     row);
    }
}

Test(ring, words_of_different_writers_and_samples_are_aligned) {
    static const struct nnc_ring_geometry rows[] = {
        {1, 2, 1, 1, 1},
        {64, 4, 28, 28, 1},
        {65, 8, 32, 32, 3},
        {10000, 64, 5, 5, 3},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct ring_layout layout;
        cr_assert_eq(ring_layout_make(&rows[row], &layout), 0);
        size_t all = layout.claim_offset | layout.ctl_slot_bytes | layout.label_offset |
                     layout.number_offset | layout.status_offset;
        cr_assert_eq(all % 128, 0, "row %zu", row);
        cr_assert_eq(layout.sample_bytes % 64, 0, "row %zu", row);
        cr_assert_eq(layout.data_slot_bytes % 4096, 0, "row %zu", row);
        size_t pixels = (size_t)rows[row].height * rows[row].width * rows[row].channels;
        cr_assert_geq(layout.sample_bytes, pixels, "row %zu", row);
        cr_assert_geq(layout.done_words * 64, rows[row].batch, "row %zu", row);
        cr_assert_geq(layout.ctl_slot_bytes - layout.claim_offset, rows[row].batch * 8u);
        cr_assert_geq(layout.data_slot_bytes - layout.status_offset, rows[row].batch * 4u);
    }
}

Test(ring, a_ring_without_batches_has_no_work_but_is_not_closed) {
    struct world world = make_world(&small);
    struct nnc_claim claim;
    cr_assert_eq(nnc_ring_claim(world.loader, &claim), 0);
    cr_assert_eq(nnc_ring_ready_batches(world.coordinator), 0);
    destroy_world(&world);
}

Test(ring, claims_come_from_the_oldest_batch_and_never_twice) {
    struct world world = make_world(&small);
    /* A resumed run does not begin at slot 0. */
    for (uint64_t seq = 7; seq < 7 + SLOTS; seq++) {
        nnc_ring_recycle(world.trainer, seq, BATCH);
    }
    for (unsigned i = 0; i < BATCH * SLOTS; i++) {
        struct nnc_claim claim;
        struct nnc_ring *who = i % 3 == 0 ? world.other : world.loader;
        cr_assert_eq(nnc_ring_claim(who, &claim), 1);
        cr_assert(claim.seq == 7 + i / BATCH && claim.index == i % BATCH &&
                      claim.slot == claim.seq % SLOTS,
                  "claim %u: seq %lu slot %u index %u", i, (unsigned long)claim.seq, claim.slot,
                  claim.index);
    }
    struct nnc_claim claim;
    cr_assert_eq(nnc_ring_claim(world.loader, &claim), 0);
    cr_assert_eq(nnc_ring_claim(world.other, &claim), 0);
    destroy_world(&world);
}

Test(ring, a_batch_is_delivered_when_its_last_sample_is_published) {
    struct world world = make_world(&small);
    nnc_ring_recycle(world.trainer, 0, BATCH);
    struct nnc_batch batch = {.seq = 99};
    for (unsigned i = 0; i < BATCH; i++) {
        cr_assert_eq(nnc_ring_acquire(world.trainer, 0, i == 0 ? 20 : 0, &batch), -ETIMEDOUT);
        cr_assert_eq(batch.seq, 99, "outputs stay untouched");
        cr_assert_eq(nnc_ring_ready_batches(world.coordinator), 0);
        struct nnc_claim claim;
        cr_assert_eq(nnc_ring_claim(i % 2 ? world.loader : world.other, &claim), 1);
        publish(i % 2 ? world.loader : world.other, &claim);
    }
    cr_assert_eq(nnc_ring_ready_batches(world.coordinator), 1);
    batch = take(world.trainer, 0);
    cr_assert_eq(nnc_ring_ready_batches(world.coordinator), 0, "an acquired batch is not unread");
    cr_assert(batch.seq == 0 && batch.count == BATCH);
    for (uint32_t i = 0; i < BATCH; i++) {
        cr_assert(ring_stamp_matches(&batch, i, PIXEL_BYTES), "sample %u", i);
        cr_assert_eq((uintptr_t)(batch.images + i * batch.sample_bytes) % 64, 0);
    }
    destroy_world(&world);
}

Test(ring, full_ring_gives_no_work_until_a_slot_is_recycled) {
    struct world world = make_world(&small);
    for (uint64_t seq = 0; seq < SLOTS; seq++) {
        nnc_ring_recycle(world.trainer, seq, BATCH);
    }
    cr_assert_eq(make_all(world.loader), BATCH * SLOTS);
    for (uint64_t seq = 0; seq < 40; seq++) {
        struct nnc_claim claim;
        cr_assert_eq(nnc_ring_claim(world.loader, &claim), 0);
        struct nnc_batch batch = take(world.trainer, seq);
        cr_assert(ring_stamp_matches(&batch, BATCH - 1, PIXEL_BYTES));
        cr_assert_eq(nnc_ring_claim(world.loader, &claim), 0);
        nnc_ring_release(world.trainer, seq);
        nnc_ring_recycle(world.trainer, seq + SLOTS, BATCH);
        cr_assert_eq(make_all(world.other), BATCH);
    }
    destroy_world(&world);
}

Test(ring, short_and_empty_batches_need_only_their_own_samples) {
    static const uint32_t sizes[] = {1, 63, 64, 65, 130};
    for (size_t row = 0; row < sizeof(sizes) / sizeof(sizes[0]); row++) {
        struct nnc_ring_geometry geometry = small;
        geometry.batch = sizes[row];
        struct world world = make_world(&geometry);
        for (uint32_t count = 0; count <= sizes[row]; count++) {
            nnc_ring_recycle(world.trainer, count, count);
            cr_assert_eq(make_all(world.loader), count, "batch %u count %u", sizes[row], count);
            struct nnc_batch batch = take(world.trainer, count);
            cr_assert_eq(batch.count, count);
            for (uint32_t i = 0; i < count; i++) {
                cr_assert(ring_stamp_matches(&batch, i, PIXEL_BYTES), "count %u", count);
            }
            nnc_ring_release(world.trainer, count);
        }
        destroy_world(&world);
    }
}

Test(ring, loaders_are_sent_home_when_all_slots_are_closed) {
    struct world world = make_world(&small);
    nnc_ring_recycle(world.trainer, 0, BATCH);
    nnc_ring_close_slot(world.trainer, 1);
    nnc_ring_close_slot(world.trainer, 2);
    cr_assert_eq(make_all(world.loader), BATCH);
    take(world.trainer, 0);
    nnc_ring_release(world.trainer, 0);
    struct nnc_claim claim;
    cr_assert_eq(nnc_ring_claim(world.loader, &claim), 0);
    nnc_ring_close_slot(world.trainer, 0);
    cr_assert_eq(nnc_ring_claim(world.loader, &claim), -EPIPE);
    cr_assert_eq(nnc_ring_ready_batches(world.coordinator), 0);
    destroy_world(&world);
}

static void *stop_soon(void *ring) {
    usleep(20000);
    nnc_ring_stop(ring);
    return NULL;
}

Test(ring, a_stopped_ring_ends_every_wait_and_claim, .timeout = 10) {
    struct world world = make_world(&small);
    nnc_ring_recycle(world.trainer, 0, BATCH);
    pthread_t stopper;
    cr_assert_eq(pthread_create(&stopper, NULL, stop_soon, world.coordinator), 0);
    struct nnc_batch batch;
    cr_assert_eq(nnc_ring_acquire(world.trainer, 0, 1000000, &batch), -EPIPE);
    pthread_join(stopper, NULL);
    struct nnc_claim claim;
    cr_assert_eq(nnc_ring_claim(world.loader, &claim), -EPIPE);
    destroy_world(&world);
}

Test(ring, result_words_are_not_trusted) {
    static const struct {
        uint32_t status, label;
        int code;
    } rows[] = {
        {0, 1, -EBADMSG},          {4, 1, -EBADMSG},
        {UINT32_MAX, 1, -EBADMSG}, {1, (uint32_t)-2, -EBADMSG},
        {2, 1u << 31, -EBADMSG},   {3, 0, -EBADMSG},
        {3, (uint32_t)-1, 0},      {1, (uint32_t)-1, 0},
        {2, INT32_MAX, 0},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct world world = make_world(&small);
        nnc_ring_recycle(world.trainer, 4, BATCH);
        make_all(world.loader);
        const struct ring_layout *layout = &world.loader->layout;
        ring_words(world.loader, 1, layout->status_offset)[BATCH - 1] = rows[row].status;
        ring_words(world.loader, 1, layout->label_offset)[BATCH - 1] = rows[row].label;
        struct nnc_batch batch;
        cr_assert_eq(nnc_ring_acquire(world.trainer, 4, 0, &batch), rows[row].code, "row %zu", row);
        if (rows[row].code == 0) {
            ring_words(world.loader, 1, layout->label_offset)[BATCH - 1] = 77;
            cr_assert_eq((uint32_t)batch.labels[BATCH - 1], rows[row].label,
                         "changed after the check");
        }
        destroy_world(&world);
    }
}

Test(ring, attaching_to_another_ring_is_refused) {
    struct world world = make_world(&small);
    int ctl = nnc_ring_ctl_fd(world.coordinator);
    int data = nnc_ring_data_fd(world.coordinator);
    struct nnc_ring *ring = NULL;
    struct nnc_ring_geometry wider = small;
    wider.width++;
    struct nnc_ring_geometry turned = small;
    turned.height = small.width;
    turned.width = small.height;
    const struct {
        const struct nnc_ring_geometry *geometry;
        int ctl, data;
        uint32_t generation;
        const char *text;
    } rows[] = {
        {&wider, ctl, data, 1, "layout hash"},     {&turned, ctl, data, 1, "layout hash"},
        {&small, ctl, data, 2, "generation"},      {&small, data, ctl, 1, "bytes instead of"},
        {&small, ctl, ctl, 1, "bytes instead of"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        int code = nnc_ring_attach(rows[row].geometry, NNC_RING_LOADER, rows[row].ctl,
                                   rows[row].data, rows[row].generation, 3, &ring);
        cr_assert_eq(code, -NNC_E_FORMAT, "row %zu: %d", row, code);
        cr_assert_not_null(strstr(nnc_error_text(), rows[row].text), "row %zu: %s", row,
                           nnc_error_text());
    }
    ring_header(world.coordinator)->magic++;
    cr_assert_eq(nnc_ring_attach(&small, NNC_RING_LOADER, ctl, data, 1, 3, &ring), -NNC_E_FORMAT);
    cr_assert_null(ring);
    destroy_world(&world);
}

Test(ring, trainer_cannot_write_pixels) {
    struct world world = make_world(&small);
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(write(ends[1], "xy", 2), 2);
    /* The kernel tells whether it could write there, without a signal. */
    cr_assert_eq(read(ends[0], world.loader->data, 1), 1);
    cr_assert(read(ends[0], world.trainer->data, 1) < 0 && errno == EFAULT);
    destroy_world(&world);
}

Test(ring, sweep_frees_what_the_dead_loader_had_not_published) {
    struct world world = make_world(&small);
    nnc_ring_recycle(world.trainer, 0, BATCH);
    nnc_ring_recycle(world.trainer, 1, BATCH);
    struct nnc_claim kept, published, lost, found;
    cr_assert_eq(nnc_ring_claim(world.other, &kept), 1);
    cr_assert_eq(nnc_ring_claim(world.loader, &published), 1);
    publish(world.loader, &published);
    cr_assert_eq(nnc_ring_find_claim(world.coordinator, 10, &found), 0);
    cr_assert_eq(nnc_ring_claim(world.loader, &lost), 1);
    ring_stamp_fill(nnc_ring_claim_pixels(world.loader, &lost), 0, 9, 1234, 5);
    cr_assert_eq(nnc_ring_find_claim(world.coordinator, 10, &found), 1);
    cr_assert(found.seq == lost.seq && found.slot == lost.slot && found.index == lost.index);

    uint32_t generation = nnc_ring_work_generation(world.other);
    cr_assert_eq(nnc_ring_sweep(world.coordinator, 10), 1);
    cr_assert_neq(nnc_ring_work_generation(world.other), generation, "loaders are told");
    cr_assert_eq(nnc_ring_find_claim(world.coordinator, 10, &found), 0);
    cr_assert_eq(nnc_ring_sweep(world.coordinator, 10), 0);

    struct nnc_claim again;
    cr_assert_eq(nnc_ring_claim(world.other, &again), 1);
    cr_assert(again.seq == lost.seq && again.index == lost.index, "freed work comes first");
    publish(world.other, &again);
    publish(world.other, &kept);
    cr_assert_eq(make_all(world.other), 2 * BATCH - 3);
    for (uint64_t seq = 0; seq < 2; seq++) {
        struct nnc_batch batch = take(world.trainer, seq);
        for (uint32_t i = 0; i < BATCH; i++) {
            cr_assert(ring_stamp_matches(&batch, i, PIXEL_BYTES), "seq %u i %u", (unsigned)seq, i);
        }
    }
    destroy_world(&world);
}

Test(ring, work_put_back_is_found_by_loaders_that_had_seen_none) {
    struct world world = make_world(&small);
    nnc_ring_recycle(world.trainer, 0, BATCH);
    struct nnc_claim claim;
    for (unsigned i = 0; i < BATCH; i++) {
        cr_assert_eq(nnc_ring_claim(world.loader, &claim), 1);
    }
    cr_assert_eq(nnc_ring_claim(world.other, &claim), 0);
    cr_assert_eq(nnc_ring_claim(world.other, &claim), 0);
    cr_assert_eq(nnc_ring_sweep(world.coordinator, 10), BATCH);
    cr_assert_eq(make_all(world.other), BATCH);
    destroy_world(&world);
}

Test(ring, a_used_up_cursor_does_not_hide_free_samples) {
    struct world world = make_world(&small);
    nnc_ring_recycle(world.trainer, 0, BATCH);
    /* Loaders that died between the hint and the claim. */
    atomic_store(&ring_slot(world.loader, 0)->cursor, BATCH);
    cr_assert_eq(make_all(world.loader), BATCH);
    take(world.trainer, 0);
    destroy_world(&world);
}

Test(ring, a_lost_change_of_the_work_generation_costs_one_sleep) {
    struct world world = make_world(&small);
    nnc_ring_recycle(world.trainer, 0, BATCH);
    struct nnc_claim claim;
    for (unsigned i = 0; i < BATCH; i++) {
        cr_assert_eq(nnc_ring_claim(world.loader, &claim), 1);
    }
    uint32_t generation = nnc_ring_work_generation(world.other);
    cr_assert_eq(nnc_ring_claim(world.other, &claim), 0);
    atomic_store(&ring_claims(world.loader, 0)[2], ring_claim_word(0, 0));
    nnc_ring_wait_work(world.other, generation);
    cr_assert_eq(nnc_ring_claim(world.other, &claim), 1);
    cr_assert_eq(claim.index, 2);
    destroy_world(&world);
}

Test(ring, nonsense_in_seq_gives_no_claim_and_no_crash) {
    static const uint64_t nonsense[] = {1, 2, 4, UINT64_MAX - 2, UINT64_MAX - 1, 1ull << 63};
    struct world world = make_world(&small);
    for (size_t row = 0; row < sizeof(nonsense) / sizeof(nonsense[0]); row++) {
        atomic_store(&ring_slot(world.loader, 0)->seq, nonsense[row]);
        struct nnc_claim claim;
        cr_assert_eq(nnc_ring_claim(world.loader, &claim), 0, "row %zu", row);
    }
    destroy_world(&world);
}

static void *recycle_soon(void *trainer) {
    usleep(20000);
    nnc_ring_recycle(trainer, 0, BATCH);
    return NULL;
}

Test(ring, one_wait_watches_the_rings_of_all_ranks, .timeout = 10) {
    struct world left = make_world(&small);
    struct world right = make_world(&small);
    struct nnc_ring *rings[] = {left.loader, right.loader};
    uint32_t generations[] = {nnc_ring_work_generation(left.loader),
                              nnc_ring_work_generation(right.loader)};
    pthread_t recycler;
    cr_assert_eq(pthread_create(&recycler, NULL, recycle_soon, right.trainer), 0);
    struct nnc_claim claim;
    while (nnc_ring_claim(right.loader, &claim) == 0) {
        nnc_ring_wait_any(rings, generations, 2);
    }
    cr_assert_neq(nnc_ring_work_generation(right.loader), generations[1]);
    pthread_join(recycler, NULL);
    destroy_world(&left);
    destroy_world(&right);
}
