/* SPDX-License-Identifier: Apache-2.0 */
/* The supervision rules on modelled children: no process is started here. */
#include "coordinator/group.h"

#include "base/err.h"
#include "base/log.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000000ull

/* A model of the world that the actions act upon. */
struct world {
    struct nnc_group group;
    bool alive[NNC_GROUP_CHILDREN_MAX];
    bool doomed[NNC_GROUP_CHILDREN_MAX]; /* killed, not yet reaped */
    uint32_t incarnation[NNC_GROUP_CHILDREN_MAX];
    uint32_t spawns, sweeps, starts, stops, generations;
    uint32_t last_incarnation;
    bool finished;
    uint64_t now;
};

static void perform(struct world *world, struct nnc_actions *actions) {
    for (uint32_t i = 0; i < actions->count; i++) {
        const struct nnc_action action = actions->item[i];
        switch ((enum nnc_action_kind)action.kind) {
        case NNC_ACTION_SPAWN:
            cr_assert(!world->alive[action.child], "child %u spawned twice", action.child);
            world->alive[action.child] = true;
            world->doomed[action.child] = false;
            world->incarnation[action.child] = action.argument;
            if (action.argument != 0) {
                cr_assert(action.argument > world->last_incarnation, "incarnation used twice");
                world->last_incarnation = action.argument;
            }
            world->spawns++;
            break;
        case NNC_ACTION_KILL:
            cr_assert(world->alive[action.child], "child %u killed though gone", action.child);
            world->doomed[action.child] = true;
            break;
        case NNC_ACTION_SWEEP:
            cr_assert(!world->alive[action.child], "claims swept before the owner was reaped");
            world->sweeps++;
            break;
        case NNC_ACTION_SEND:
            world->starts += action.argument == NNC_MSG_START ? 1 : 0;
            world->stops += action.argument == NNC_MSG_STOP ? 1 : 0;
            break;
        case NNC_ACTION_NEW_GENERATION: {
            world->generations++;
            struct nnc_actions more = {.count = 0};
            nnc_group_start_generation(&world->group, world->now, &more);
            perform(world, &more);
            break;
        }
        case NNC_ACTION_FINISH:
            cr_assert(!world->finished, "finished twice");
            world->finished = true;
            break;
        case NNC_ACTION_STOP_RINGS:
            break;
        }
    }
}

static void message(struct world *world, uint32_t child, enum nnc_message_type type) {
    struct nnc_actions actions = {.count = 0};
    nnc_group_message(&world->group, child, type, world->now, &actions);
    perform(world, &actions);
}

static void end(struct world *world, uint32_t child, bool signalled, int status, int code) {
    struct nnc_actions actions = {.count = 0};
    const struct nnc_exit_event event = {
        .signalled = signalled, .status = status, .error_code = code, .words = "ended so"};
    world->alive[child] = false;
    world->doomed[child] = false;
    nnc_group_exit(&world->group, child, &event, world->now, &actions);
    perform(world, &actions);
}

/* One death may doom others, so the walk starts again after each. */
static void reap_doomed(struct world *world) {
    for (uint32_t i = 0; i < world->group.children; i++) {
        if (world->alive[i] && world->doomed[i]) {
            end(world, i, true, SIGKILL, 0);
            i = UINT32_MAX;
        }
    }
}

static void tick(struct world *world, uint64_t ns) {
    struct nnc_actions actions = {.count = 0};
    world->now += ns;
    nnc_group_tick(&world->group, world->now, &actions);
    perform(world, &actions);
}

static void make_ready(struct world *world, uint32_t child) {
    message(world, child, NNC_MSG_HELLO);
    message(world, child, NNC_MSG_ATTACHED);
    message(world, child, NNC_MSG_READY);
}

/* A group with `empty` places for further loaders. */
static struct world *begin_with_places(uint32_t trainers, uint32_t loaders, uint32_t empty) {
    nnc_log_init("test", NNC_LOG_ERROR);
    struct world *world = calloc(1, sizeof(*world));
    const struct nnc_group_params params = {.trainers = trainers,
                                            .loaders = loaders,
                                            .loaders_max = loaders + empty,
                                            .max_restarts = 2,
                                            .grace_ns = 25 * SECOND};
    struct nnc_actions actions = {.count = 0};
    world->now = 1000 * SECOND;
    nnc_group_begin(&world->group, &params, world->now, &actions);
    perform(world, &actions);
    return world;
}

static struct world *begin(uint32_t trainers, uint32_t loaders) {
    return begin_with_places(trainers, loaders, 0);
}

static struct world *begin_running_with_places(uint32_t trainers, uint32_t loaders,
                                               uint32_t empty) {
    struct world *world = begin_with_places(trainers, loaders, empty);
    for (uint32_t i = 0; i < trainers + loaders; i++) {
        make_ready(world, i);
    }
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    return world;
}

static struct world *begin_running(uint32_t trainers, uint32_t loaders) {
    return begin_running_with_places(trainers, loaders, 0);
}

static int add_loader(struct world *world) {
    struct nnc_actions actions = {.count = 0};
    int added = nnc_group_add_loader(&world->group, world->now, &actions);
    perform(world, &actions);
    return added;
}

static int retire_loader(struct world *world) {
    struct nnc_actions actions = {.count = 0};
    int retired = nnc_group_retire_loader(&world->group, world->now, &actions);
    perform(world, &actions);
    return retired;
}

Test(group, nobody_starts_before_all_are_ready) {
    struct world *world = begin(2, 2);
    for (uint32_t i = 0; i < 3; i++) {
        make_ready(world, i);
    }
    cr_assert_eq(world->starts, 0);
    make_ready(world, 3);
    cr_assert_eq(world->starts, 4);
    free(world);
}

Test(group, a_child_that_dies_before_it_is_ready_ends_the_run_with_its_words) {
    struct world *world = begin(1, 2);
    message(world, 1, NNC_MSG_HELLO);
    end(world, 1, true, SIGSEGV, 0);
    reap_doomed(world);
    cr_assert(world->finished);
    cr_assert_eq(world->group.code, -NNC_E_CHILD);
    cr_assert(strstr(world->group.verdict, "loader 0 ended so") != NULL);
    free(world);
}

Test(group, a_dead_loader_is_swept_after_it_was_reaped_and_comes_back) {
    struct world *world = begin_running(1, 2);
    uint32_t before = world->incarnation[1];
    end(world, 1, true, SIGKILL, 0);
    cr_assert_eq(world->sweeps, 1);
    tick(world, 1);
    cr_assert(world->alive[1]);
    cr_assert_neq(world->incarnation[1], before);
    make_ready(world, 1);
    cr_assert_eq(world->starts, 4, "a loader that comes back is started by itself");
    cr_assert_eq(world->group.code, 0);
    free(world);
}

Test(group, a_loader_that_keeps_dying_ends_the_run) {
    struct world *world = begin_running(1, 1);
    for (int i = 0; i < 20 && !world->finished; i++) {
        end(world, 1, true, SIGSEGV, 0);
        reap_doomed(world);
        if (!world->finished) {
            tick(world, 6 * SECOND);
            make_ready(world, 1);
        }
    }
    cr_assert(world->finished);
    cr_assert_eq(world->group.code, -NNC_E_HARDWARE);
    free(world);
}

Test(group, deaths_of_a_loader_end_the_run_however_far_apart_they_are) {
    struct world *world = begin_running(1, 1);
    for (int i = 0; i < 9; i++) {
        cr_assert(!world->finished, "%d deaths", i);
        end(world, 1, true, SIGKILL, 0);
        reap_doomed(world);
        if (!world->finished) {
            tick(world, 60 * SECOND);
            make_ready(world, 1);
        }
    }
    cr_assert(world->finished);
    cr_assert_eq(world->group.code, -NNC_E_HARDWARE);
    free(world);
}

Test(group, a_loader_that_makes_samples_between_its_deaths_always_comes_back) {
    struct world *world = begin_running(1, 1);
    for (int i = 0; i < 100; i++) {
        struct nnc_actions actions = {.count = 0};
        const struct nnc_exit_event event = {
            .signalled = true, .status = SIGSEGV, .words = "ended so", .progress = i % 8 == 7};
        world->alive[1] = false;
        nnc_group_exit(&world->group, 1, &event, world->now, &actions);
        perform(world, &actions);
        cr_assert(!world->finished, "death %d", i);
        tick(world, 6 * SECOND);
        make_ready(world, 1);
    }
    free(world);
}

Test(group, a_dead_trainer_restarts_the_whole_group) {
    struct world *world = begin_running(2, 2);
    end(world, 0, true, SIGKILL, 0);
    reap_doomed(world);
    cr_assert_eq(world->generations, 1);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert(world->alive[i]);
        make_ready(world, i);
    }
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    cr_assert_eq(world->group.generation, 2);
    free(world);
}

Test(group, the_restart_budget_ends) {
    struct world *world = begin_running(1, 1);
    for (int i = 0; i < 3; i++) {
        end(world, 0, true, SIGKILL, 0);
        reap_doomed(world);
        for (uint32_t j = 0; j < 2 && !world->finished; j++) {
            make_ready(world, j);
        }
    }
    cr_assert(world->finished);
    cr_assert_eq(world->group.code, -NNC_E_HARDWARE);
    free(world);
}

Test(group, an_error_that_a_trainer_explains_is_final) {
    struct world *world = begin_running(2, 1);
    end(world, 1, false, NNC_EXIT_NUMERIC, -NNC_E_NUMERIC);
    reap_doomed(world);
    cr_assert(world->finished);
    cr_assert_eq(world->group.code, -NNC_E_NUMERIC);
    free(world);
}

Test(group, done_trainers_end_the_run_when_the_loaders_are_gone) {
    struct world *world = begin_running(2, 2);
    message(world, 0, NNC_MSG_DONE);
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    message(world, 1, NNC_MSG_DONE);
    cr_assert_eq(world->group.phase, NNC_GROUP_DRAINING);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert(!world->finished);
        end(world, i, false, 0, 0);
    }
    cr_assert(world->finished);
    cr_assert_eq(world->group.code, 0);
    free(world);
}

/* It was on its way when the group failed, or began to start again. */
Test(group, a_last_word_of_a_doomed_trainer_changes_nothing) {
    struct world *world = begin_running(1, 2);
    struct nnc_actions actions = {.count = 0};
    nnc_group_abort(&world->group, -NNC_E_DATA_BUDGET, "too many", world->now, &actions);
    perform(world, &actions);
    message(world, 0, NNC_MSG_DONE);
    reap_doomed(world);
    cr_expect(world->finished);
    cr_expect_eq(world->group.code, -NNC_E_DATA_BUDGET);
    cr_expect_str_eq(world->group.verdict, "too many");
    free(world);
    world = begin_running(2, 1);
    message(world, 0, NNC_MSG_DONE);
    actions.count = 0;
    nnc_group_restart_with(&world->group, "another machine's", world->now, &actions);
    perform(world, &actions);
    message(world, 1, NNC_MSG_DONE);
    cr_expect_eq(world->group.phase, NNC_GROUP_RESTARTING);
    reap_doomed(world);
    cr_expect_eq(world->group.generation, 2);
    free(world);
}

Test(group, a_signal_stops_once_and_the_second_stops_now) {
    struct world *world = begin_running(2, 1);
    struct nnc_actions actions = {.count = 0};
    nnc_group_stop_signal(&world->group, SIGTERM, world->now, &actions);
    perform(world, &actions);
    cr_assert_eq(world->stops, 2);
    cr_assert(!world->finished);
    actions.count = 0;
    nnc_group_stop_signal(&world->group, SIGINT, world->now, &actions);
    perform(world, &actions);
    reap_doomed(world);
    cr_assert(world->finished);
    cr_assert_lt(world->group.code, 0);
    free(world);
}

Test(group, a_stop_without_checkpoint_ends_after_the_grace) {
    struct world *world = begin_running(1, 1);
    struct nnc_actions actions = {.count = 0};
    nnc_group_stop_signal(&world->group, SIGTERM, world->now, &actions);
    perform(world, &actions);
    tick(world, 26 * SECOND);
    reap_doomed(world);
    cr_assert(world->finished);
    cr_assert_lt(world->group.code, 0);
    free(world);
}

Test(group, a_child_that_stays_silent_is_killed_at_its_deadline) {
    struct world *world = begin(1, 1);
    make_ready(world, 0);
    tick(world, 6 * SECOND);
    cr_assert(world->doomed[1]);
    reap_doomed(world);
    cr_assert(world->finished);
    free(world);
}

Test(group, an_added_loader_starts_by_itself_and_counts_as_one_of_the_group) {
    struct world *world = begin_running_with_places(1, 1, 2);
    cr_assert_eq(nnc_group_loaders(&world->group), 1);
    cr_assert_eq(add_loader(world), 1);
    cr_assert(world->alive[2]);
    cr_assert_eq(nnc_group_loaders(&world->group), 2);
    make_ready(world, 2);
    cr_assert_eq(world->group.child[2].state, NNC_CHILD_RUNNING);
    cr_assert_eq(add_loader(world), 1);
    make_ready(world, 3);
    cr_assert_eq(add_loader(world), 0, "all places are taken");
    end(world, 2, true, SIGKILL, 0);
    tick(world, 1);
    cr_assert(world->alive[2], "it comes back as any loader");
    free(world);
}

Test(group, a_retired_loader_is_told_once_ends_by_itself_and_stays_away) {
    struct world *world = begin_running(1, 2);
    cr_assert_eq(retire_loader(world), 1);
    cr_assert_eq(world->stops, 1);
    cr_assert_eq(world->group.child[2].state, NNC_CHILD_DRAINING);
    cr_assert_eq(world->group.child[1].state, NNC_CHILD_RUNNING);
    cr_assert_eq(retire_loader(world), 0, "the last one stays");
    end(world, 2, false, 0, 0);
    cr_assert_eq(world->group.child[2].state, NNC_CHILD_EXITED);
    cr_assert_eq(world->sweeps, 1);
    cr_assert_eq(world->group.loader_deaths, 0);
    tick(world, 100 * SECOND);
    cr_assert(!world->alive[2]);
    cr_assert_eq(add_loader(world), 1, "its place can be filled again");
    make_ready(world, 2);
    cr_assert_eq(nnc_group_loaders(&world->group), 2);
    free(world);
}

Test(group, a_retired_loader_that_is_killed_on_its_way_out_is_swept_and_stays_away) {
    struct world *world = begin_running(1, 2);
    retire_loader(world);
    end(world, 2, true, SIGKILL, 0);
    cr_assert_eq(world->sweeps, 1);
    tick(world, 100 * SECOND);
    cr_assert(!world->alive[2]);
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    free(world);
}

Test(group, a_retired_loader_that_does_not_leave_is_killed_after_the_grace) {
    struct world *world = begin_running(1, 2);
    retire_loader(world);
    tick(world, 24 * SECOND);
    cr_assert(!world->doomed[2]);
    tick(world, 2 * SECOND);
    cr_assert(world->doomed[2]);
    reap_doomed(world);
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    free(world);
}

Test(group, a_loader_that_waits_for_its_respawn_is_retired_by_not_coming_back) {
    struct world *world = begin_running(1, 2);
    for (int i = 0; i < 2; i++) { /* the second death has a pause behind it */
        end(world, 2, true, SIGKILL, 0);
        if (i == 0) {
            tick(world, 1);
            make_ready(world, 2);
        }
    }
    cr_assert_eq(retire_loader(world), 1);
    tick(world, 10 * SECOND);
    cr_assert(!world->alive[2]);
    cr_assert_eq(nnc_group_loaders(&world->group), 1);
    free(world);
}

Test(group, an_added_loader_that_cannot_start_does_not_end_the_run) {
    struct world *world = begin_running_with_places(1, 1, 1);
    add_loader(world);
    cr_assert_eq(retire_loader(world), 0, "it is just starting");
    message(world, 2, NNC_MSG_HELLO);
    end(world, 2, false, 1, -NNC_E_FORMAT);
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    cr_assert_eq(world->group.extra_failures, 1);
    cr_assert_eq(nnc_group_loaders(&world->group), 1);
    struct nnc_actions actions = {.count = 0};
    cr_assert_eq(nnc_group_add_loader(&world->group, world->now, &actions), 1);
    actions.count = 0;
    nnc_group_spawn_failed(&world->group, 2, "is missing", world->now, &actions);
    perform(world, &actions);
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    cr_assert_eq(world->group.extra_failures, 2);
    free(world);
}

Test(group, a_restart_starts_as_many_loaders_as_there_were) {
    struct world *world = begin_running_with_places(1, 2, 2);
    add_loader(world);
    make_ready(world, 3);
    add_loader(world); /* not READY yet when the trainer dies */
    message(world, 4, NNC_MSG_HELLO);
    end(world, 0, true, SIGKILL, 0);
    reap_doomed(world);
    cr_assert_eq(world->generations, 1);
    for (uint32_t i = 0; i < 5; i++) {
        cr_assert(world->alive[i], "child %u", i);
        make_ready(world, i);
    }
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING);
    retire_loader(world);
    end(world, 0, true, SIGKILL, 0);
    reap_doomed(world);
    cr_assert(!world->alive[4], "the retired one does not come back");
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert(world->alive[i], "child %u", i);
        make_ready(world, i);
    }
    cr_assert_eq(world->group.phase, NNC_GROUP_RUNNING, "nobody waits for the retired one");
    free(world);
}

Test(group, a_run_ends_while_a_retired_loader_is_on_its_way_out) {
    struct world *world = begin_running(1, 2);
    retire_loader(world);
    message(world, 0, NNC_MSG_DONE);
    cr_assert(!world->doomed[2], "it ends by itself");
    cr_assert_eq(add_loader(world), 0, "nobody is added to an ending run");
    for (uint32_t i = 0; i < 3; i++) {
        end(world, i, false, 0, 0);
    }
    cr_assert(world->finished);
    cr_assert_eq(world->group.code, 0);
    free(world);
}

/* In some steps of a history the number of loaders is changed. */
static void change_loaders(struct world *world, struct nnc_rng *rng) {
    uint32_t draw = nnc_rng_below(rng, 20);
    uint32_t before = nnc_group_loaders(&world->group);
    int done = draw == 0 ? add_loader(world) : draw == 1 ? -retire_loader(world) : 0;
    cr_assert_eq((int)nnc_group_loaders(&world->group), (int)before + done);
    cr_assert(done >= 0 || before > 1, "the last loader was retired");
}

/* Random deaths, messages, ticks, additions and retirements: whatever happens, the rules checked in
 * perform() hold, and once deaths stop the run comes to an end. */
Test(group, random_histories_end_and_break_no_rule, .timeout = 60) {
    for (uint64_t seed = 0; seed < 3000; seed++) {
        struct nnc_rng rng = nnc_rng_make(seed, NNC_RNG_SYNTHETIC, 0, 0);
        uint32_t trainers = 1 + nnc_rng_below(&rng, 3);
        struct world *world = begin_with_places(trainers, nnc_rng_below(&rng, 4), seed % 3);
        for (int step = 0; step < 4000 && !world->finished; step++) {
            uint32_t child = nnc_rng_below(&rng, world->group.children);
            if (world->doomed[child]) {
                end(world, child, true, SIGKILL, 0);
            } else if (world->alive[child] && step < 300 && nnc_rng_below(&rng, 40) == 0) {
                end(world, child, true, SIGKILL, 0);
            } else if (world->alive[child]) {
                enum nnc_child_state state = world->group.child[child].state;
                if (state < NNC_CHILD_READY) {
                    message(world, child, (enum nnc_message_type)state);
                } else if (state == NNC_CHILD_RUNNING && child < trainers && step > 200) {
                    message(world, child, NNC_MSG_DONE);
                } else if (state == NNC_CHILD_DRAINING) {
                    end(world, child, false, 0, 0);
                }
            }
            change_loaders(world, &rng);
            tick(world, 20000000);
        }
        cr_assert(world->finished, "seed %lu did not end, phase %d", (unsigned long)seed,
                  (int)world->group.phase);
        for (uint32_t i = 0; i < world->group.children; i++) {
            cr_assert(!world->alive[i], "seed %lu left child %u", (unsigned long)seed, i);
        }
        free(world);
    }
}

Test(group, a_run_of_which_no_child_can_be_started_ends) {
    nnc_log_init("test", NNC_LOG_ERROR);
    struct nnc_group *group = calloc(1, sizeof(*group));
    const struct nnc_group_params params = {.trainers = 2, .loaders = 2, .grace_ns = SECOND};
    struct nnc_actions spawns = {.count = 0}, actions = {.count = 0};
    nnc_group_begin(group, &params, SECOND, &spawns);
    for (uint32_t i = 0; i < spawns.count; i++) {
        cr_assert_neq(group->phase, NNC_GROUP_FINISHED);
        nnc_group_spawn_failed(group, spawns.item[i].child, "is missing", SECOND, &actions);
    }
    cr_assert_eq(group->phase, NNC_GROUP_FINISHED);
    cr_assert_not_null(strstr(group->verdict, "trainer 0 is missing"), "%s", group->verdict);
    free(group);
}

Test(group, a_signal_after_the_last_step_does_not_count_as_a_stop) {
    struct world *world = begin_running(1, 1);
    struct nnc_actions actions = {.count = 0};
    message(world, 0, NNC_MSG_DONE);
    nnc_group_stop_signal(&world->group, SIGTERM, world->now, &actions);
    cr_assert_eq(world->group.stop_signals, 0);
    cr_assert_eq(actions.count, 0);
    free(world);
}
