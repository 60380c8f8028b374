/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots in memory: whole ones are found, torn, damaged and overwritten ones are not. */
#include "workers/snapshot.h"

#include "base/err.h"
#include "tests/support/checkpoint_case.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

struct fixture {
    struct checkpoint_case run;
    struct nnc_snapshot snapshot;
    void *memory;
    size_t bytes;
};

static void setup(struct fixture *fixture) {
    checkpoint_case_init(&fixture->run, 20);
    cr_assert_eq(nnc_snapshot_bytes(fixture->run.graph, &fixture->bytes), 0);
    fixture->memory = aligned_alloc(4096, fixture->bytes);
    memset(fixture->memory, 0, fixture->bytes);
    cr_assert_eq(nnc_snapshot_attach(fixture->run.graph, fixture->memory, fixture->bytes,
                                     &fixture->snapshot),
                 0);
}

static void teardown(struct fixture *fixture) {
    checkpoint_case_finish(&fixture->run);
    free(fixture->memory);
}

static uint64_t take(struct fixture *fixture, uint32_t half, uint64_t step) {
    checkpoint_case_set(&fixture->run, step);
    float *to = nnc_snapshot_begin(&fixture->snapshot, half);
    memcpy(to, fixture->run.tensors, fixture->run.floats * sizeof(float));
    return nnc_snapshot_commit(&fixture->snapshot, half, &fixture->run.state);
}

/* The half that holds `step`, or -1. */
static int half_of(const struct fixture *fixture, uint64_t step) {
    for (uint32_t half = 0; half < 2; half++) {
        struct nnc_snapshot_info info;
        if (nnc_snapshot_verify(&fixture->snapshot, half, &info) == 0 &&
            info.state.epoch == step / 100 && info.state.step == step % 100) {
            return (int)half;
        }
    }
    return -1;
}

/* The place in training of the newest whole half, or -1. */
static int newest_of(const struct fixture *fixture) {
    uint32_t half;
    struct nnc_snapshot_info info;
    int code = nnc_snapshot_newest(&fixture->snapshot, &half, &info);
    return code == 0 ? (int)(info.state.epoch * 100 + info.state.step) : -1;
}

Test(snapshot, both_halves_are_found_by_their_place_in_training) {
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(half_of(&fixture, 0), -1, "an empty memory holds nothing");
    take(&fixture, 0, 150);
    take(&fixture, 1, 170);
    cr_assert_eq(half_of(&fixture, 150), 0);
    cr_assert_eq(half_of(&fixture, 170), 1);
    cr_assert_eq(half_of(&fixture, 160), -1);
    struct nnc_snapshot_info info;
    cr_assert_eq(nnc_snapshot_look(&fixture.snapshot, 1, &info), 0);
    cr_assert_eq(memcmp(&info.state, &fixture.run.state, sizeof(info.state)), 0);
    cr_assert_eq(memcmp(nnc_snapshot_tensors(&fixture.snapshot, 1), fixture.run.tensors,
                        fixture.run.floats * sizeof(float)),
                 0);
    teardown(&fixture);
}

Test(snapshot, a_half_whose_writer_died_is_not_used_but_the_other_is) {
    struct fixture fixture;
    setup(&fixture);
    take(&fixture, 0, 1);
    take(&fixture, 1, 2);
    nnc_snapshot_begin(&fixture.snapshot, 0)[3] = 7;
    cr_assert_eq(half_of(&fixture, 1), -1);
    cr_assert_eq(half_of(&fixture, 2), 1);
    /* The next generation's writer uses it again. */
    take(&fixture, 0, 3);
    cr_assert_eq(half_of(&fixture, 3), 0);
    teardown(&fixture);
}

Test(snapshot, the_newest_whole_half_is_found_although_a_newer_one_is_torn) {
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(newest_of(&fixture), -1);
    take(&fixture, 0, 199);
    cr_assert_eq(newest_of(&fixture), 199);
    take(&fixture, 1, 201);
    cr_assert_eq(newest_of(&fixture), 201, "a later epoch is newer than any step before");
    nnc_snapshot_begin(&fixture.snapshot, 1);
    cr_assert_eq(newest_of(&fixture), 199);
    nnc_snapshot_begin(&fixture.snapshot, 0);
    cr_assert_eq(newest_of(&fixture), -1);
    teardown(&fixture);
}

Test(snapshot, a_reader_notices_that_it_was_overtaken) {
    struct fixture fixture;
    setup(&fixture);
    uint64_t hash = take(&fixture, 0, 1);
    struct nnc_snapshot_info info;
    cr_assert_eq(nnc_snapshot_look(&fixture.snapshot, 0, &info), 0);
    cr_assert_eq(info.hash, hash);
    cr_assert_eq(nnc_snapshot_confirm(&fixture.snapshot, 0, &info, hash), 0);
    cr_assert_eq(nnc_snapshot_confirm(&fixture.snapshot, 0, &info, hash + 1), -NNC_E_FORMAT);
    nnc_snapshot_begin(&fixture.snapshot, 0);
    cr_assert_eq(nnc_snapshot_confirm(&fixture.snapshot, 0, &info, hash), -NNC_E_FORMAT);
    take(&fixture, 0, 1);
    cr_assert_eq(nnc_snapshot_confirm(&fixture.snapshot, 0, &info, hash), -NNC_E_FORMAT);
    teardown(&fixture);
}

Test(snapshot, damaged_bytes_are_noticed_wherever_they_are) {
    struct fixture fixture;
    setup(&fixture);
    take(&fixture, 0, 5);
    uint8_t *bytes = fixture.memory;
    const size_t header = 40 + sizeof(struct nnc_train_state);
    const size_t tensors = fixture.run.floats * sizeof(float);
    unsigned checked = 0;
    for (size_t offset = 0; offset < 8192 + tensors; offset += offset < header ? 1 : 509) {
        if (offset >= header && offset < 8192) {
            continue;
        }
        bytes[offset] ^= 0x10;
        /* The sequence number may change to another whole one. */
        cr_assert(half_of(&fixture, 5) == -1 || (offset >= 12 && offset < 16), "byte %zu", offset);
        bytes[offset] ^= 0x10;
        checked++;
    }
    cr_assert_gt(checked, header);
    cr_assert_eq(half_of(&fixture, 5), 0);
    teardown(&fixture);
}

Test(snapshot, a_half_that_is_being_saved_is_left_alone) {
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(nnc_snapshot_choose(&fixture.snapshot, 0), 0);
    take(&fixture, 0, 1);
    cr_assert_eq(nnc_snapshot_hold(&fixture.snapshot, 0, 0), 0);
    cr_assert_eq(nnc_snapshot_choose(&fixture.snapshot, 0), 1);
    take(&fixture, 1, 2);
    cr_assert_eq(nnc_snapshot_choose(&fixture.snapshot, 0), 1);
    take(&fixture, 1, 3);
    nnc_snapshot_let_go(&fixture.snapshot, 0);
    cr_assert_eq(nnc_snapshot_choose(&fixture.snapshot, 0), 0);
    teardown(&fixture);
}

Test(snapshot, the_dead_hold_nothing) {
    struct fixture fixture;
    setup(&fixture);
    take(&fixture, 0, 1);
    pid_t pid = fork();
    if (pid == 0) { /* a saver that dies; the memory is not shared, so its hold is copied below */
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    uint32_t *holder = (uint32_t *)(void *)((uint8_t *)fixture.memory + 8188);
    *holder = (uint32_t)pid;
    cr_assert_eq(nnc_snapshot_choose(&fixture.snapshot, 0), 0, "the writer takes it over");
    *holder = (uint32_t)pid;
    cr_assert_eq(nnc_snapshot_hold(&fixture.snapshot, 0, 0), 0, "so does the next saver");
    /* A trainer that died while writing: a saver gives up, the next trainer does not. */
    *holder = UINT32_MAX;
    cr_assert_eq(nnc_snapshot_hold(&fixture.snapshot, 0, 5), -EBUSY);
    cr_assert_eq(nnc_snapshot_choose(&fixture.snapshot, 0), 0);
    teardown(&fixture);
}

Test(snapshot, memory_of_another_model_is_refused) {
    struct fixture fixture;
    setup(&fixture);
    struct nnc_snapshot snapshot;
    cr_assert_eq(
        nnc_snapshot_attach(fixture.run.graph, fixture.memory, fixture.bytes - 4096, &snapshot),
        -NNC_E_FORMAT);
    teardown(&fixture);
}
