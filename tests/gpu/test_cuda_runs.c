/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs on GPUs that are not there: coordinator, loaders and one to four trainers train as on
 * CPUs, whatever the order in which streams run, and survive what can happen to a GPU. */
#include "tests/gpu/run_case.h"

#include "base/clock.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MLP "--model", NNC_TEST_SOURCE_DIR "/models/mlp.nn", "--model-args", "hidden=64"
#define RESNET                                                                                     \
    "--model", NNC_TEST_SOURCE_DIR "/models/resnet20.nn", "--model-args",                          \
        "width=8,blocks=1,in_channels=1"
#define SHORT "--limit-train-batches", "6", "--limit-val-batches", "2"

static char *scratch;

static void set_up(void) {
    scratch = run_case_start();
}

static void tear_down(void) {
    run_case_finish(scratch);
}

/* Returns the validation loss after the run. */
static double train_loss(const char *out, const char *const *options) {
    struct command command = run_case_finished(scratch, out, 0, options);
    double loss = json_number(command.out, "loss");
    command_free(&command);
    return loss;
}

static void train(const char *out, const char *const *options) {
    (void)train_loss(out, options);
}

/* ---- as on CPUs ---- */

/* Relative rounding errors: half a unit in the last place. */
static const struct {
    const char *amp;
    double unit;
} floats[] = {{"off", 0x1p-24}, {"fp16", 0x1p-12}, {"bf16", 0x1p-9}};

enum {
    OPERATIONS = 20
}; /* of the deeper model, forward */

#define ROW(...)                                                                                   \
    (const char *const[]) {                                                                        \
        __VA_ARGS__, NULL                                                                          \
    }

struct follow {
    const char *name;
    const char *const *cpu, *const *gpu[3]; /* by floats */
};

#define FOLLOW(name, model, ranks)                                                                 \
    {                                                                                              \
        name, ROW(model, SHORT, "--cpu-ranks", ranks), {                                           \
            ROW(model, SHORT, "--gpus", ranks, "--amp", "off"),                                    \
                ROW(model, SHORT, "--gpus", ranks, "--amp", "fp16"),                               \
                ROW(model, SHORT, "--gpus", ranks, "--amp", "bf16")                                \
        }                                                                                          \
    }

/* The loss after the run. Each operation rounds its result and the copy of its weights, relatively
 * by u and independently: logits are off by u times the root of twice their number. Twice that is
 * allowed. (Weights say less: a gradient's mean over a batch is far smaller than its terms, and a
 * ReLU near 0 switches them on or off.) */
static void follow(const struct follow *row) {
    char cpu[32];
    snprintf(cpu, sizeof(cpu), "%s-cpu", row->name);
    double wanted = train_loss(cpu, row->cpu);
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++) {
        char out[32];
        snprintf(out, sizeof(out), "%s-%s", row->name, floats[i].amp);
        double off = fabs(train_loss(out, row->gpu[i]) - wanted) / wanted;
        double bound = 2 * sqrt(2.0 * OPERATIONS) * floats[i].unit;
        cr_log_info("%s: loss off by %.3g, bound %.3g", out, off, bound);
        cr_expect_leq(off, bound, "%s: loss off by %g, bound %g", out, off, bound);
    }
}

Test(cuda_runs, one_gpu_follows_the_cpu, .init = set_up, .fini = tear_down, .timeout = 300) {
    const struct follow rows[] = {FOLLOW("mlp", MLP, "1"), FOLLOW("resnet", RESNET, "1")};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        follow(&rows[i]);
    }
}

Test(cuda_runs, two_gpus_follow_two_cpu_ranks, .init = set_up, .fini = tear_down, .timeout = 300) {
    const struct follow rows[] = {FOLLOW("mlp", MLP, "2"), FOLLOW("resnet", RESNET, "2")};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        follow(&rows[i]);
    }
}

Test(cuda_runs, four_gpus_follow_four_cpu_ranks, .init = set_up, .fini = tear_down,
     .timeout = 300) {
    const struct follow rows[] = {FOLLOW("mlp", MLP, "4"), FOLLOW("resnet", RESNET, "4")};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        follow(&rows[i]);
    }
}

/* Weights in fp32, where rounding moves them by little: as on the CPU to a ten-thousandth of the
 * way they have gone. */
Test(cuda_runs, weights_of_a_run_in_fp32_are_those_of_the_cpu, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    train("start", ROW(RESNET, SHORT, "--lr", "1e-30", "--limit-train-batches", "2"));
    train("cpu", ROW(RESNET, SHORT, "--limit-train-batches", "2"));
    train("gpu", ROW(RESNET, SHORT, "--gpus", "1", "--amp", "off", "--limit-train-batches", "2"));
    cr_expect_leq(run_case_distance(scratch, "gpu", "cpu", "start"), 1e-4);
    train("mlp-start", ROW(MLP, SHORT, "--lr", "1e-30"));
    train("mlp-cpu", ROW(MLP, SHORT, "--cpu-ranks", "2"));
    train("mlp-gpu", ROW(MLP, SHORT, "--gpus", "2", "--amp", "off"));
    cr_expect_leq(run_case_distance(scratch, "mlp-gpu", "mlp-cpu", "mlp-start"), 1e-4);
}

/* Batch normalisation sees a rank's share of the batch; a model without it does not know the number
 * of ranks at all. */
Test(cuda_runs, two_and_four_gpus_go_the_way_of_one_at_equal_global_batch, .init = set_up,
     .fini = tear_down, .timeout = 300) {
    double bound = 2 * sqrt(2.0 * OPERATIONS) * 0x1p-9;
    double one = train_loss("one", ROW(MLP, SHORT, "--gpus", "1", "--amp", "bf16"));
    double two = train_loss("two", ROW(MLP, SHORT, "--gpus", "2", "--amp", "bf16"));
    double four = train_loss("four", ROW(MLP, SHORT, "--gpus", "4", "--amp", "bf16"));
    cr_expect_leq(fabs(two - one) / one, bound);
    cr_expect_leq(fabs(four - one) / one, bound);
}

/* The stand-in holds up every reduction for longer than a step can take or vary by: none of it
 * hides, and none is in a step alone. */
Test(cuda_runs, bench_comm_measures_steps_alone_and_steps_together, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    run_case_fake("devices=2,faults=ncclAllReduce:0:slow=200");
    struct command command =
        command_run(scratch, "bench", "comm", "--gpus", "2", RESNET, "--input", "1x28x28",
                    "--batch-size", "8", "--bench-steps", "3", "--json", NULL);
    cr_expect_eq(command.status, 0, "exit %d: %s", command.status, command.err);
    cr_expect_not_null(strstr(command.err, "all gradients"), "%s", command.err);
    cr_expect_not_null(strstr(command.err, "overlap: "), "%s", command.err);
    cr_expect_gt(json_number(command.out, "step_seconds"), 0.2, "%s", command.out);
    cr_expect_lt(json_number(command.out, "step_alone_seconds"),
                 json_number(command.out, "step_seconds"), "%s", command.out);
    command_free(&command);
}

/* ---- the same bits ---- */

Test(cuda_runs, bits_do_not_depend_on_the_order_in_which_streams_run, .init = set_up,
     .fini = tear_down, .timeout = 300) {
    static const char *const fakes[] = {
        "devices=2,schedule=eager", "devices=2,schedule=lazy", "devices=2,schedule=random,seed=1",
        "devices=2,schedule=random,seed=2", "devices=2,faults=cudaMalloc:0:slow=20@1"};
    for (size_t i = 0; i < sizeof(fakes) / sizeof(fakes[0]); i++) {
        char out[16];
        snprintf(out, sizeof(out), "order-%zu", i);
        run_case_fake(fakes[i]);
        train(out, ROW(RESNET, SHORT, "--gpus", "2", "--amp", "bf16"));
        cr_expect(i == 0 || run_case_same(scratch, out, "order-0"), "%s", fakes[i]);
    }
}

Test(cuda_runs, a_recorded_step_gives_the_bits_of_a_queued_one, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    train("queued", ROW(RESNET, SHORT, "--gpus", "1", "--amp", "fp16"));
    train("recorded", ROW(RESNET, SHORT, "--gpus", "1", "--amp", "fp16", "--cuda-graphs"));
    cr_expect(run_case_same(scratch, "recorded", "queued"));
}

#define UNEVEN                                                                                     \
    RESNET, "--amp", "fp16", "--epochs", "2", "--limit-val-batches", "1", "--global-batch"

/* 640 samples in batches of 66: the last one has 33 and 13. */
Test(cuda_runs, recorded_steps_of_two_gpus_give_the_bits_of_queued_ones_in_every_order,
     .init = set_up, .fini = tear_down, .timeout = 300) {
    static const char *const fakes[] = {"devices=2,schedule=eager", "devices=2,schedule=lazy",
                                        "devices=2,schedule=random,seed=1"};
    train("queued", ROW(UNEVEN, "66", "--gpus", "2"));
    for (size_t i = 0; i < sizeof(fakes) / sizeof(fakes[0]); i++) {
        char out[16];
        snprintf(out, sizeof(out), "recorded-%zu", i);
        run_case_fake(fakes[i]);
        train(out, ROW(UNEVEN, "66", "--gpus", "2", "--cuda-graphs"));
        cr_expect(run_case_same(scratch, out, "queued"), "%s", fakes[i]);
    }
}

/* 640 samples in batches of 48: the last one has 12, 4, none and none. So rank 0 sees a full batch,
 * and rank 1 one that is a quarter of all. */
Test(cuda_runs, a_short_batch_is_recorded_by_no_rank_whatever_its_share, .init = set_up,
     .fini = tear_down, .timeout = 300) {
    train("queued", ROW(UNEVEN, "48", "--gpus", "4"));
    train("recorded", ROW(UNEVEN, "48", "--gpus", "4", "--cuda-graphs"));
    cr_expect(run_case_same(scratch, "recorded", "queued"));
}

Test(cuda_runs, a_resumed_run_with_loss_scaling_has_the_bits_of_an_uninterrupted_one,
     .init = set_up, .fini = tear_down, .timeout = 120) {
    train("whole", ROW(RESNET, SHORT, "--gpus", "2", "--amp", "fp16", "--epochs", "2"));
    train("parts", ROW(RESNET, SHORT, "--gpus", "2", "--amp", "fp16"));
    train("parts",
          ROW(RESNET, SHORT, "--gpus", "2", "--amp", "fp16", "--epochs", "2", "--resume", "auto"));
    cr_expect(run_case_same(scratch, "parts", "whole"));
}

/* An engine that does not run on rank 0 alone is run by no rank: rank 1 would have taken it, and
 * its sums have other bits. */
Test(cuda_runs, all_ranks_run_the_algorithms_that_rank_0_chose, .init = set_up, .fini = tear_down,
     .timeout = 300) {
    static const char *const fakes[] = {"devices=2", "devices=2,faults=engine 3:0:fail@0",
                                        "devices=2,faults=engine 3:0:fail"};
    for (int i = 0; i < 3; i++) {
        char out[16];
        snprintf(out, sizeof(out), "choice-%d", i);
        run_case_fake(fakes[i]);
        train(out, ROW(RESNET, SHORT, "--gpus", "2", "--amp", "off"));
    }
    cr_expect(run_case_same(scratch, "choice-1", "choice-2"));
    cr_expect_not(run_case_same(scratch, "choice-1", "choice-0"));
}

/* ---- faults ---- */

struct fault {
    const char *fake;
    int status;
    const char *says[3];
    const char *option; /* NULL: none */
};

/* A fault comes again in each process, so a restart does not help for long. */
static const struct fault faults[] = {
    {"driver=0", 2, {"--gpus 2: no GPU can be used: no NVIDIA driver", "CUDA says", "--gpus 0"}},
    {"driver=11080", 2, {"--gpus 2", "too old: it supports CUDA 11.8", "--gpus 0"}},
    {"faults=cudaGetDeviceCount:0:nodevice", 2, {"--gpus 2", "no CUDA-capable device"}},
    {"devices=1", 2, {"--gpus 2", "this machine has 1", "--gpus all"}},
    {"devices=2,faults=cudaHostRegister:0:refuse", 0, {"cannot be pinned", "copied once more"}},
    {"devices=2,faults=cudaMalloc:4:oom@1", 1, {"trainer 1", "no room on GPU 1", "--batch-size"}},
    {"devices=2,faults=cudaMalloc:4:oom@0", 1, {"trainer 0", "no room on GPU 0", "--batch-size"}},
    {"devices=2,faults=ncclCommInitRank:1:fail", 5, {"trainer ", "NCCL"}},
    {"devices=2,faults=ncclCommGetAsyncError:20:remote@0", 5, {"trainer ", "NCCL", "(1 of 1)"}},
    {"devices=2,faults=(norm_backward<T>):20:late@1", 4, {"trainer 1", "CUDA", "(1 of 1)"}},
    {"devices=2,faults=cudaMemcpyAsync:150:error@0", 4, {"trainer 0", "CUDA says", "(1 of 1)"}},
    {"devices=2,faults=ncclAllReduce:9:kill@1", 4, {"trainer 1", "signal 9", "(1 of 1)"}},
    {"devices=2,faults=(norm_backward<T>):20:hang@1",
     4,
     {"trainer 1", "waits for its GPU", "(1 of 1)"}},
    {"devices=2,faults=cudaGraphLaunch:3:kill@1",
     4,
     {"trainer 1", "signal 9", "(1 of 1)"},
     "--cuda-graphs"},
    {"devices=2,faults=cudaGraphLaunch:3:hang@1",
     4,
     {"trainer 1", "waits for its GPU", "(1 of 1)"},
     "--cuda-graphs"},
};

static void suffer(const struct fault *row, const char *out) {
    run_case_fake(row->fake);
    struct command command = run_case_train(
        scratch, out,
        ROW(RESNET, "--limit-train-batches", "12", "--limit-val-batches", "2", "--gpus", "2",
            "--amp", "bf16", "--max-restarts", "1", "--step-timeout", "2", row->option));
    command_wait(&command);
    cr_expect_eq(command.status, row->status, "%s: exit %d: %s", row->fake, command.status,
                 command.err);
    for (int i = 0; i < 3 && row->says[i] != NULL; i++) {
        cr_expect_not_null(strstr(command.err, row->says[i]), "%s: \"%s\" is not in: %s", row->fake,
                           row->says[i], command.err);
    }
    command_free(&command);
    cr_expect_eq(count_our_processes(scratch), 0, "%s: processes are left", row->fake);
}

Test(cuda_runs, every_fault_of_a_gpu_is_named_with_its_trainer, .init = set_up, .fini = tear_down,
     .timeout = 400) {
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        char out[16];
        snprintf(out, sizeof(out), "fault-%zu", i);
        suffer(&faults[i], out);
    }
}

/* In work that is waited for, in a call that does not return, and in the first one of all. */
static const struct {
    const char *fake, *hung, *table; /* what of it was printed */
} hanging[] = {
    {"faults=cudaMemcpyAsync:1:hang", ": linear", "GPU 0: Stand-in A100"},
    {"faults=cudaMalloc:2:hang", ": linear", "GPU 0: Stand-in A100"},
    {"faults=cudaGetDeviceCount:1:hang", "opening the devices", ""},
};

Test(cuda_runs, selftest_names_the_case_in_which_a_gpu_hangs_and_ends, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    for (size_t i = 0; i < sizeof(hanging) / sizeof(hanging[0]); i++) {
        run_case_fake(hanging[i].fake);
        struct command command =
            command_run(scratch, "selftest", "--gpus", "1", "--step-timeout", "5", NULL);
        cr_expect_eq(command.status, 1, "%s: exit %d", hanging[i].fake, command.status);
        cr_expect_not_null(strstr(command.err, hanging[i].hung), "%s", command.err);
        cr_expect_not_null(strstr(command.err, ": has not ended within 5 s"), "%s", command.err);
        cr_expect_not_null(strstr(command.out, hanging[i].table), "%s", command.out);
        command_free(&command);
        cr_expect_eq(count_our_processes(scratch), 0, "%s: processes are left", hanging[i].fake);
    }
}

Test(cuda_runs, selftest_that_hangs_says_so_in_json_too, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    for (size_t i = 0; i < sizeof(hanging) / sizeof(hanging[0]); i++) {
        char hung[300];
        run_case_fake(hanging[i].fake);
        struct command command =
            command_run(scratch, "selftest", "--gpus", "1", "--step-timeout", "5", "--json", NULL);
        cr_expect_eq(command.status, 1, "%s: exit %d", hanging[i].fake, command.status);
        cr_expect_not_null(
            strstr(json_text(command.out, "hung", hung, sizeof(hung)), hanging[i].hung), "%s",
            command.out);
        cr_expect_eq(json_number(command.out, "failed"), 0, "%s", command.out);
        command_free(&command);
    }
}

/* ---- kills and hangs ---- */

enum {
    DIAGNOSIS_MS = 5000
};

/* Milliseconds until what the command wrote to stderr holds the text, behind the first `from`
 * bytes; -1: not within `limit_ms`. */
static int wait_for_words(const struct command *command, const char *words, size_t from,
                          int limit_ms) {
    uint64_t began_ns = nnc_clock_ns();
    for (;;) {
        int waited_ms = (int)((nnc_clock_ns() - began_ns) / 1000000u);
        char text[1 << 16];
        FILE *file = fopen(command->err_path, "r");
        size_t bytes = file == NULL ? 0 : fread(text, 1, sizeof(text) - 1, file);
        text[bytes] = '\0';
        if (file != NULL) {
            fclose(file);
        }
        if (bytes > from && strstr(text + from, words) != NULL) {
            return waited_ms;
        }
        if (waited_ms > limit_ms) {
            return -1;
        }
        usleep(20000);
    }
}

static size_t length_of(const struct command *command) {
    FILE *file = fopen(command->err_path, "r");
    cr_assert_not_null(file);
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    fclose(file);
    return (size_t)length;
}

/* Kill or stop a trainer of a run and see it named, with its place, and the run go on. */
static void strike(const struct command *command, struct nnc_rng *rng, unsigned number) {
    pid_t pids[16];
    usleep(100000 + nnc_rng_below(rng, 400000));
    size_t from = length_of(command);
    size_t count = find_descendants(command->pid, "nncoord-trainer", pids, 16);
    cr_assert_eq(count, 2, "strike %u: %zu trainers, see %s", number, count, command->err_path);
    uint32_t rank = nnc_rng_below(rng, 2);
    bool hangs = nnc_rng_below(rng, 2) == 1;
    char words[64];
    snprintf(words, sizeof(words), hangs ? "(pid %d) has not moved for " : "trainer %d was killed",
             hangs ? (int)pids[rank] : (int)rank);
    cr_assert_eq(kill(pids[rank], hangs ? SIGSTOP : SIGKILL), 0);
    int waited_ms = wait_for_words(command, words, from, DIAGNOSIS_MS);
    cr_assert_geq(waited_ms, 0, "strike %u (%s of rank %u): nothing said within %d ms", number,
                  hangs ? "stop" : "kill", rank, DIAGNOSIS_MS);
    cr_assert_geq(wait_for_words(command, " all-reduces", from, DIAGNOSIS_MS), 0, "no place");
    cr_assert_geq(wait_for_words(command, "goes on from its snapshot", from, 20000), 0,
                  "strike %u: the run did not go on", number);
    /* Until both compute again. */
    for (int i = 0; i < 200 && find_descendants(command->pid, "nncoord-trainer", pids, 16) < 2;
         i++) {
        usleep(50000);
    }
    usleep(1500000); /* a snapshot of the new generation */
}

static unsigned strikes_wanted(void) {
    const char *text = getenv("NNC_TEST_STRIKES");
    return text == NULL ? 8 : (unsigned)atoi(text);
}

/* A long run with the option (NULL: none), struck so often. */
static void strike_often(const char *option, unsigned wanted) {
    struct nnc_rng rng = nnc_rng_make(3, NNC_RNG_SYNTHETIC, 7, 0);
    struct command command = run_case_train(
        scratch, "struck",
        ROW(RESNET, "--gpus", "2", "--amp", "bf16", "--epochs", "100000", "--max-restarts", "1000",
            "--step-timeout", "2", "--save-every", "100000", "--limit-val-batches", "1", option));
    pid_t pids[16];
    for (int i = 0; i < 200 && find_descendants(command.pid, "nncoord-trainer", pids, 16) < 2;
         i++) {
        usleep(50000);
    }
    usleep(2500000);
    for (unsigned number = 0; number < wanted; number++) {
        strike(&command, &rng, number);
    }
    kill(command.pid, SIGTERM);
    command_wait(&command);
    cr_expect_eq(command.status, 75, "exit %d: %s", command.status, command.err);
    cr_expect_eq(count_our_processes(scratch), 0, "processes are left");
    command_free(&command);
}

Test(cuda_runs, a_killed_or_stopped_trainer_is_named_within_five_seconds_and_the_run_goes_on,
     .init = set_up, .fini = tear_down, .timeout = 3600) {
    strike_often(NULL, strikes_wanted());
}

Test(cuda_runs, so_is_one_whose_steps_are_recorded, .init = set_up, .fini = tear_down,
     .timeout = 3600) {
    strike_often("--cuda-graphs", strikes_wanted() / 2);
}
