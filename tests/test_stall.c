/* SPDX-License-Identifier: Apache-2.0 */
/* Which trainer is to blame when nothing moves. */
#include "coordinator/stall.h"

#include "ipc/child.h"

#include <criterion/criterion.h>
#include <string.h>

#define SECOND 1000000000ull

enum {
    RANKS = 3
};

struct scene {
    struct nnc_stall stall;
    struct nnc_stall_rank rank[RANKS];
    char words[256];
};

static struct scene scene_of(bool on_device) {
    struct scene scene = {.words = ""};
    for (int i = 0; i < RANKS; i++) {
        scene.rank[i] = (struct nnc_stall_rank){.running = true,
                                                .on_device = on_device,
                                                .activity = NNC_DOING_BACKWARD,
                                                .step = 7,
                                                .seq = 8,
                                                .ready = 20,
                                                .reduced = 20};
    }
    return scene;
}

/* A look at `second`, all hearts beating but those of `stopped` (a bit each). */
static int look(struct scene *scene, uint64_t second, uint32_t stopped) {
    for (uint32_t i = 0; i < RANKS; i++) {
        if ((stopped >> i & 1) == 0) {
            scene->rank[i].beat_ns = second * SECOND;
        }
    }
    return nnc_stall_look(&scene->stall, scene->rank, RANKS, second * SECOND, 5 * SECOND,
                          scene->words, sizeof(scene->words));
}

Test(stall, a_heart_that_stands_still_is_blamed_with_its_place) {
    struct scene scene = scene_of(false);
    cr_assert_eq(look(&scene, 1, 0), -1);
    cr_assert_eq(look(&scene, 5, 2), -1, "four seconds are within the limit");
    cr_assert_eq(look(&scene, 6, 2), 1);
    cr_assert_str_eq(scene.words,
                     "has not moved for 5 s in backward, step 7, after 20 all-reduces");
}

Test(stall, of_several_stopped_hearts_the_first_one_is_blamed) {
    struct scene scene = scene_of(true);
    cr_assert_eq(look(&scene, 1, 0), -1);
    cr_assert_eq(look(&scene, 3, 4), -1);
    cr_assert_eq(look(&scene, 9, 5), 2);
}

Test(stall, hearts_that_beat_while_nothing_moves_blame_the_device_that_is_least_far) {
    struct scene scene = scene_of(true);
    cr_assert_eq(look(&scene, 1, 0), -1);
    scene.rank[0].ready = scene.rank[2].ready = 22;
    scene.rank[1].ready = 21;
    cr_assert_eq(look(&scene, 2, 0), -1);
    cr_assert_eq(look(&scene, 6, 0), -1);
    cr_assert_eq(look(&scene, 7, 0), 1);
    cr_assert_not_null(strstr(scene.words, "GPU"), "%s", scene.words);
}

Test(stall, a_rank_that_moves_keeps_all_from_blame) {
    struct scene scene = scene_of(true);
    for (uint64_t second = 1; second < 60; second++) {
        scene.rank[2].seq++;
        cr_assert_eq(look(&scene, second, 0), -1);
    }
}

Test(stall, waiting_for_data_is_no_hang) {
    struct scene scene = scene_of(true);
    scene.rank[1].activity = NNC_DOING_DATA;
    for (uint64_t second = 1; second < 60; second++) {
        cr_assert_eq(look(&scene, second, 0), -1);
    }
}

Test(stall, a_long_step_on_the_cpu_whose_heart_beats_is_no_hang) {
    struct scene scene = scene_of(false);
    for (uint64_t second = 1; second < 60; second++) {
        cr_assert_eq(look(&scene, second, 0), -1);
    }
}

Test(stall, ranks_that_are_done_or_not_yet_running_are_not_blamed) {
    struct scene scene = scene_of(true);
    scene.rank[1].running = false;
    for (uint64_t second = 1; second < 60; second++) {
        cr_assert_eq(look(&scene, second, 2), -1);
    }
}

Test(stall, ranks_on_cpus_that_all_wait_for_each_other_are_found) {
    struct scene scene = scene_of(false);
    for (int i = 0; i < RANKS; i++) {
        scene.rank[i].activity = NNC_DOING_REDUCE;
    }
    scene.rank[1].reduced = 19;
    cr_assert_eq(look(&scene, 1, 0), -1);
    cr_assert_eq(look(&scene, 5, 0), -1);
    cr_assert_eq(look(&scene, 6, 0), 1);
    cr_assert_str_eq(scene.words, "waits for other trainers and gets nothing for 5 s in reduce, "
                                  "step 7, after 19 all-reduces");
    scene.rank[2].activity = NNC_DOING_BACKWARD;
    cr_assert_eq(look(&scene, 7, 0), -1, "one computes: all wait for it");
}

Test(stall, ranks_at_the_same_place_are_all_named) {
    struct scene scene = scene_of(true);
    cr_assert_eq(look(&scene, 1, 0), -1);
    cr_assert_eq(look(&scene, 6, 0), 0);
    cr_assert_not_null(strstr(scene.words, "; trainers 1, 2 stand there too"), "%s", scene.words);
    scene.rank[2].reduced = 21;
    cr_assert_eq(look(&scene, 7, 0), -1);
    cr_assert_eq(look(&scene, 12, 0), 0);
    cr_assert_not_null(strstr(scene.words, "; trainer 1 stands there too"), "%s", scene.words);
}
