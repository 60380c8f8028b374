/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a run: pure numbers in, numbers out. */
#include "coordinator/plan.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <string.h>

static struct nnc_machine machine_of(uint32_t cpus) {
    return (struct nnc_machine){.cpus = cpus,
                                .memory = 8ull << 30,
                                .memory_available = 8ull << 30,
                                .memory_cgroup = UINT64_MAX};
}

static struct nnc_config config_of(void) {
    return (struct nnc_config){.batch_size = 32,
                               .epochs = 2,
                               .ring_depth = 4,
                               .train_crop_size = 24,
                               .val_crop_size = 32,
                               .eval_every = 1};
}

static int plan_for(const struct nnc_config *config, uint32_t cpus, enum nnc_mode mode,
                    struct nnc_plan *ret_plan) {
    struct nnc_machine machine = machine_of(cpus);
    const struct nnc_plan_input input = {.config = config,
                                         .machine = &machine,
                                         .mode = mode,
                                         .nodes = 1,
                                         .samples = {1000, 100},
                                         .channels = 3};
    return nnc_plan_make(&input, ret_plan);
}

Test(plan, trainers_get_all_cpus_and_loaders_one_process_per_four) {
    static const struct {
        uint32_t cpus, ranks, threads, loaders;
    } rows[] = {{1, 1, 1, 1}, {2, 1, 2, 1},    {2, 2, 1, 1},
                {8, 2, 4, 2}, {64, 4, 16, 16}, {2, 4, 1, 1}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_config config = config_of();
        struct nnc_plan plan;
        config.cpu_ranks = rows[i].ranks;
        cr_assert_eq(plan_for(&config, rows[i].cpus, NNC_MODE_TRAIN, &plan), 0, "row %zu", i);
        cr_assert_eq(plan.ranks, rows[i].ranks, "row %zu", i);
        cr_assert_eq(plan.threads, rows[i].threads, "row %zu", i);
        cr_assert_eq(plan.loaders, rows[i].loaders, "row %zu", i);
    }
}

Test(plan, machines_have_equal_shares_of_the_ranks_and_of_the_global_batch) {
    struct nnc_config config = config_of();
    struct nnc_machine machine = machine_of(8);
    config.cpu_ranks = 2;
    config.global_batch = 48;
    for (uint32_t node = 0; node < 3; node++) {
        struct nnc_plan plan;
        const struct nnc_plan_input input = {.config = &config,
                                             .machine = &machine,
                                             .mode = NNC_MODE_TRAIN,
                                             .nodes = 3,
                                             .node = node,
                                             .samples = {1000, 100},
                                             .channels = 3};
        cr_assert_eq(nnc_plan_make(&input, &plan), 0, "%s", nnc_error_text());
        cr_expect(plan.ranks == 2 && plan.first_rank == 2 * node);
        cr_expect(plan.schedule.ranks == 6 && plan.schedule.batch == 8);
    }
}

Test(plan, the_ring_holds_the_larger_crop) {
    struct nnc_config config = config_of();
    struct nnc_plan plan;
    cr_assert_eq(plan_for(&config, 2, NNC_MODE_TRAIN, &plan), 0);
    cr_assert_eq(plan.geometry.height, 32);
    cr_assert_eq(plan.geometry.batch, 32);
    cr_assert_eq(plan.geometry.slots, 4);
    cr_assert_eq(plan_for(&config, 2, NNC_MODE_BENCH_INPUT, &plan), 0);
    cr_assert_eq(plan.geometry.height, 24, "only training images are loaded there");
}

Test(plan, a_global_batch_divides_over_the_ranks_or_is_refused) {
    struct nnc_config config = config_of();
    struct nnc_plan plan;
    config.global_batch = 64;
    config.cpu_ranks = 2;
    cr_assert_eq(plan_for(&config, 2, NNC_MODE_TRAIN, &plan), 0);
    cr_assert_eq(plan.schedule.batch, 32);
    config.cpu_ranks = 3;
    cr_assert_eq(plan_for(&config, 2, NNC_MODE_TRAIN, &plan), -NNC_E_USAGE);
    cr_assert_not_null(strstr(nnc_error_text(), "64"));
}

static struct nnc_devices devices_of(uint32_t count) {
    struct nnc_devices devices = {.count = count};
    for (uint32_t i = 0; i < count; i++) {
        devices.item[i].ordinal = i;
    }
    strcpy(devices.why, count == 0 ? "no NVIDIA driver is installed here (CUDA says: ...)" : "");
    return devices;
}

static int plan_on(const char *gpus, int32_t backend, uint32_t count, struct nnc_plan *ret_plan) {
    struct nnc_config config = config_of();
    struct nnc_machine machine = machine_of(8);
    struct nnc_devices devices = devices_of(count);
    strcpy(config.gpus, gpus);
    config.backend = backend;
    config.cpu_ranks = 1;
    const struct nnc_plan_input input = {.config = &config,
                                         .machine = &machine,
                                         .devices = &devices,
                                         .mode = NNC_MODE_TRAIN,
                                         .nodes = 1,
                                         .samples = {1000, 100},
                                         .channels = 3};
    return nnc_plan_make(&input, ret_plan);
}

Test(plan, gpus_that_cannot_be_had_are_refused_with_the_reason_and_the_line_that_works) {
    static const struct {
        const char *gpus;
        int32_t backend;
        uint32_t count;
        const char *says[2];
    } rows[] = {
        {"1",
         NNC_BACKEND_AUTO,
         0,
         {"--gpus 1: no GPU can be used: no NVIDIA driver", "`--gpus 0`"}},
        {"all", NNC_BACKEND_AUTO, 0, {"--gpus all", "`--gpus 0`"}},
        {"", NNC_BACKEND_CUDA, 0, {"--backend cuda", "`--backend auto`"}},
        {"0", NNC_BACKEND_CUDA, 1, {"--backend cuda", "--gpus 0"}},
        {"1", NNC_BACKEND_ONEDNN, 1, {"--gpus 1", "leave --backend out"}},
        {"3", NNC_BACKEND_AUTO, 2, {"--gpus 3", "`--gpus all`"}},
        {"0,2", NNC_BACKEND_AUTO, 2, {"no GPU 2", "0 to 1"}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_plan plan;
        cr_assert_eq(plan_on(rows[i].gpus, rows[i].backend, rows[i].count, &plan), -NNC_E_USAGE,
                     "row %zu", i);
        for (int word = 0; word < 2; word++) {
            cr_assert_not_null(strstr(nnc_error_text(), rows[i].says[word]), "row %zu: %s", i,
                               nnc_error_text());
        }
    }
}

Test(plan, each_gpu_gets_a_rank_and_loaders_get_the_cpus) {
    static const struct {
        const char *gpus;
        int32_t backend;
        uint32_t ranks;
        int32_t device[3]; /* the last one: of the rank behind the last */
    } rows[] = {
        {"1", NNC_BACKEND_AUTO, 1, {0, -1, -1}},  {"2", NNC_BACKEND_AUTO, 2, {0, 1, -1}},
        {"2,0", NNC_BACKEND_AUTO, 2, {2, 0, -1}}, {"1,", NNC_BACKEND_AUTO, 1, {1, -1, -1}},
        {"", NNC_BACKEND_CUDA, 1, {0, -1, -1}},
    };
    struct nnc_plan plan;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_assert_eq(plan_on(rows[i].gpus, rows[i].backend, 3, &plan), 0, "row %zu: %s", i,
                     nnc_error_text());
        cr_assert_eq(plan.ranks, rows[i].ranks, "row %zu", i);
        cr_assert_arr_eq(plan.device, rows[i].device, sizeof(rows[i].device), "row %zu", i);
        cr_assert_eq(plan.threads, 1, "row %zu", i);
        cr_assert_eq(plan.loaders, 8, "row %zu", i);
    }
    cr_assert_eq(plan_on("all", NNC_BACKEND_AUTO, 3, &plan), 0);
    cr_assert_eq(plan.ranks, 3);
    cr_assert_eq(plan_on("0", NNC_BACKEND_AUTO, 3, &plan), 0);
    cr_assert_eq(plan.device[0], -1);
    cr_assert_eq(plan.threads, 8);
}

Test(plan, memory_is_compared_with_every_part_in_the_text) {
    struct nnc_machine machine = machine_of(2);
    struct nnc_memory_need need = {
        .rings = 1ull << 30, .trainers = 6ull << 30, .snapshot = 1ull << 30};
    cr_assert_eq(nnc_plan_check_memory(&need, &machine), 0, "exactly all of it still fits");
    need.comm = 1ull << 20;
    cr_assert_eq(nnc_plan_check_memory(&need, &machine), -NNC_E_USAGE);
    static const char *const said[] = {"need 8193 MiB", "rings 1024",   "trainers 6144",
                                       "snapshot 1024", "all-reduce 1", "have 8192 MiB"};
    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        cr_assert_not_null(strstr(nnc_error_text(), said[i]), "%s: %s", said[i], nnc_error_text());
    }
}

Test(plan, the_number_of_loaders_follows_a_training_unless_the_user_gave_one) {
    static const struct {
        const char *name;
        enum nnc_mode mode;
        uint32_t workers;
        double interval;
        uint32_t cpus, loaders, most;
        bool adapts;
    } rows[] = {
        {"a training", NNC_MODE_TRAIN, 0, 5, 8, 2, 8, true},
        {"a number was given", NNC_MODE_TRAIN, 3, 5, 8, 3, 3, false},
        {"no interval", NNC_MODE_TRAIN, 0, 0, 8, 2, 2, false},
        {"one CPU", NNC_MODE_TRAIN, 0, 5, 1, 1, 1, true},
        {"more CPUs than places", NNC_MODE_TRAIN, 0, 5, 500, 125, 128, true},
        {"an evaluation", NNC_MODE_EVAL, 0, 5, 8, 2, 2, false},
        {"a benchmark", NNC_MODE_BENCH_INPUT, 0, 5, 8, 8, 8, false},
        {"no loaders", NNC_MODE_BENCH_TRAIN, 0, 5, 8, 0, 0, false},
        {"nor here", NNC_MODE_BENCH_COMM, 0, 5, 8, 0, 0, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_config config = config_of();
        struct nnc_plan plan;
        config.workers = rows[i].workers;
        config.workers_interval = rows[i].interval;
        cr_assert_eq(plan_for(&config, rows[i].cpus, rows[i].mode, &plan), 0, "%s", rows[i].name);
        cr_expect_eq(plan.loaders, rows[i].loaders, "%s: %u", rows[i].name, plan.loaders);
        cr_expect_eq(plan.loaders_max, rows[i].most, "%s: %u", rows[i].name, plan.loaders_max);
        cr_expect_eq(plan.loaders_adapt, rows[i].adapts, "%s", rows[i].name);
    }
}

Test(plan, as_many_loaders_may_come_as_memory_has_room_for) {
    struct nnc_machine machine = machine_of(16);
    struct nnc_plan plan = {.loaders = 4, .loaders_max = 16};
    struct nnc_memory_need need = {.trainers = machine.memory - 7 * NNC_PLAN_LOADER_BYTES,
                                   .loaders = 4 * NNC_PLAN_LOADER_BYTES};
    nnc_plan_limit_loaders(&need, &machine, &plan);
    cr_assert_eq(plan.loaders_max, 4 + 3);
    need.trainers = machine.memory;
    nnc_plan_limit_loaders(&need, &machine, &plan);
    cr_assert_eq(plan.loaders_max, 4, "what runs already is not taken away");
}

Test(plan, a_warm_benchmark_has_always_more_to_load_and_a_cold_one_one_pass) {
    struct nnc_config config = config_of();
    struct nnc_plan plan;
    cr_assert_eq(plan_for(&config, 2, NNC_MODE_BENCH_INPUT, &plan), 0);
    cr_assert_gt(plan.schedule.epochs, 1000);
    config.split = NNC_SPLIT_VAL;
    cr_assert_eq(plan_for(&config, 2, NNC_MODE_BENCH_INPUT, &plan), 0);
    cr_assert_gt(nnc_schedule_total(&plan.schedule), 1000 * 4, "validation images too");
    config.cache = NNC_CACHE_COLD;
    cr_assert_eq(plan_for(&config, 2, NNC_MODE_BENCH_INPUT, &plan), 0);
    cr_assert_eq(nnc_schedule_total(&plan.schedule), 4);
}

Test(plan, loaders_are_never_more_than_a_group_holds) {
    struct nnc_plan plan;
    struct nnc_config config = config_of();
    cr_assert_eq(plan_for(&config, 512, NNC_MODE_CHECK, &plan), 0, "%s", nnc_error_text());
    cr_assert_eq(plan.loaders, 128);
    config.workers = 129;
    cr_assert_eq(plan_for(&config, 8, NNC_MODE_TRAIN, &plan), -NNC_E_USAGE);
    cr_assert_not_null(strstr(nnc_error_text(), "--workers 129"), "%s", nnc_error_text());
}
