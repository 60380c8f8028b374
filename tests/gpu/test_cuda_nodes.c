/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs on GPUs that are not there, of several machines that are all this one: the same bits
 * as one machine with as many GPUs, and the cause of a stop named on all. */
#include "tests/gpu/run_case.h"
#include "tests/support/meeting.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum {
    WORDS_MAX = 48,
};

static char *scratch;
static struct meeting meeting;

static void set_up(void) {
    scratch = run_case_start();
    meeting = meeting_make(scratch, "secret", '3');
}

static void tear_down(void) {
    run_case_finish(scratch);
}

#define RESNET                                                                                     \
    "--model", NNC_TEST_SOURCE_DIR "/models/resnet20.nn", "--model-args",                          \
        "width=8,blocks=1,in_channels=1", "--amp", "bf16"
#define T4    "device_json=" NNC_TEST_SOURCE_DIR "/tests/devices/t4.json"
#define SHORT "--limit-train-batches", "6", "--limit-val-batches", "2"

/* Machine `node` of two; what the stand-ins are told holds for it alone. */
static struct command start(const char *out, unsigned node, const char *fake,
                            const char *const *options) {
    const char *words[WORDS_MAX] = {"--nnodes",        "2",
                                    "--node-rank",     node == 0 ? "0" : "1",
                                    "--rdzv-endpoint", meeting.endpoint,
                                    "--rdzv-secret",   meeting.secret};
    for (int i = 0; options[i] != NULL; i++) {
        cr_assert_lt(8 + i, WORDS_MAX - 1);
        words[8 + i] = options[i];
    }
    run_case_fake(fake);
    return run_case_train(scratch, out, words);
}

static void finish(struct command *command, int status) {
    command_wait(command);
    cr_assert_eq(command->status, status, "exit %d: %s", command->status, command->err);
}

Test(cuda_nodes, two_machines_train_the_bits_of_one_with_as_many_gpus, .init = set_up,
     .fini = tear_down, .timeout = 300) {
    static const char *const ranks[][2] = {{"1", "2"}, {"2", "4"}};
    for (int i = 0; i < 2; i++) {
        const char *const alone[] = {RESNET, SHORT, "--gpus", ranks[i][1], NULL};
        const char *const together[] = {RESNET, SHORT, "--gpus", ranks[i][0], NULL};
        const char *out[] = {i == 0 ? "one-2" : "one-4", i == 0 ? "two-1" : "two-2"};
        run_case_fake("devices=4");
        struct command one = run_case_finished(scratch, out[0], 0, alone);
        struct command second = start(out[1], 1, "devices=4", together);
        struct command first = start(out[1], 0, "devices=4", together);
        finish(&second, 0);
        finish(&first, 0);
        cr_expect(run_case_same(scratch, out[1], out[0]), "%s GPUs each", ranks[i][0]);
        command_free(&one);
        command_free(&first);
        command_free(&second);
    }
}

/* The same on both machines, with what another machine's GPU did. */
static const struct {
    const char *fake;
    int status;
    const char *says;
} faults[] = {
    {"devices=1,faults=ncclAllReduce:9:kill", 4, "trainer 1 was killed by signal 9"},
    {"devices=1,faults=(norm_backward<T>):20:late", 4, "trainer 1"},
    {"devices=1,faults=(norm_backward<T>):20:hang", 4, "trainer 1"},
    {"devices=1,faults=cudaMalloc:4:oom", 1, "trainer 1"},
};

Test(cuda_nodes, a_fault_of_another_machines_gpu_is_named_on_both, .init = set_up,
     .fini = tear_down, .timeout = 300) {
    const char *const options[] = {
        RESNET, "--limit-train-batches", "12", "--limit-val-batches", "2", "--gpus",
        "1",    "--max-restarts",        "1",  "--step-timeout",      "2", NULL};
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct command second = start("fault", 1, faults[i].fake, options);
        struct command first = start("fault", 0, "devices=1", options);
        finish(&second, faults[i].status);
        finish(&first, faults[i].status);
        const char *told[] = {first.err, second.err};
        for (int node = 0; node < 2; node++) {
            cr_expect_not_null(strstr(told[node], faults[i].says), "%s, node %d: %s",
                               faults[i].fake, node, told[node]);
        }
        command_free(&first);
        command_free(&second);
    }
}

#define UNLIKE                                                                                     \
    "rank 1 (Tesla T4) computes in fp16 and rank 0 (Stand-in A100) in bf16: give all --amp fp16"

/* bf16 and fp16 gradients cannot be summed, and where `auto` leads each GPU says for itself. */
Test(cuda_nodes, unlike_gpus_take_one_type_or_none, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    static const char *const amps[] = {"auto", "fp16"};
    for (int i = 0; i < 2; i++) {
        const char *const options[] = {RESNET, SHORT, "--amp", amps[i], "--gpus", "1", NULL};
        int status = i == 0 ? 2 : 0;
        struct command second = start(amps[i], 1, "devices=1," T4, options);
        struct command first = start(amps[i], 0, "devices=1", options);
        finish(&second, status);
        finish(&first, status);
        cr_expect_eq(strstr(first.err, UNLIKE) != NULL, status != 0, "%s", first.err);
        cr_expect_eq(strstr(second.err, UNLIKE) != NULL, status != 0, "%s", second.err);
        command_free(&first);
        command_free(&second);
    }
}

Test(cuda_nodes, unlike_gpus_of_one_machine_take_one_type_or_none, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    static const char *const amps[] = {"auto", "fp16"};
    run_case_fake("devices=2," T4 "@1");
    for (int i = 0; i < 2; i++) {
        const char *const options[] = {RESNET, SHORT, "--amp", amps[i], "--gpus", "2", NULL};
        struct command command = run_case_finished(scratch, amps[i], i == 0 ? 2 : 0, options);
        cr_expect_eq(strstr(command.err, UNLIKE) != NULL, i == 0, "%s", command.err);
        command_free(&command);
    }
}
