/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever call of CUDA fails, and whichever time: the error says what, nothing crashes, nothing is
 * left behind. */
#include "tests/gpu/cuda_case.h"

#include "base/config.h"
#include "base/err.h"
#include "gpu/driver.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <cudnn_version.h>
#include <errno.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A whole small run, each part of which may fail. */
struct run {
    struct nnc_graph *graph;
    struct nnc_program *program;
    struct nnc_backend *backend;
    struct nnc_executable *exe;
    uint8_t *images;
    int32_t labels[3];
};

static int looks; /* at the device after each step */

static int train(struct run *run, uint32_t steps) {
    const struct nnc_backend_ops *ops = &nnc_backend_cuda;
    const struct nnc_feed feed = {run->images, 3 * 7 * 7, run->labels};
    const struct nnc_sgd sgd = {.lr = 0.01f};
    struct nnc_metrics metrics;
    int rc = 0;
    for (uint32_t step = 0; rc == 0 && step < steps; step++) {
        const struct nnc_step_params params = {.step = step, .global_count = 3};
        rc = ops->feed(run->exe, &feed);
        if (rc == 0) {
            rc = ops->step(run->exe, &params);
        }
        if (rc == 0) {
            rc = ops->update(run->backend, &sgd);
        }
        for (int look = 0; rc == 0 && look < looks; look++) {
            rc = ops->device->look(run->backend);
        }
        if (rc == 0) {
            rc = ops->poll(run->backend, &metrics);
        }
    }
    return rc < 0 ? rc : ops->device->finish(run->backend);
}

static int run_all(struct run *run) {
    const struct nnc_backend_ops *ops = &nnc_backend_cuda;
    const struct nnc_backend_params params = {
        .graph = run->graph, .ranks = 1, .std = {1, 1, 1}, .device = case_device};
    int rc = ops->open(&params, &run->backend);
    if (rc == 0) {
        rc = ops->compile(run->backend, run->program, &run->exe);
    }
    if (rc == 0) {
        rc = train(run, 3);
    }
    return rc;
}

/* Run with the fault; what the backend said is the error's text. */
static int run_with(const char *fake, int32_t amp, bool graphs) {
    const struct nnc_case *row = cuda_case_row("residual block");
    struct run run = {.graph = nnc_graph_of_rows(row->input, row->rows),
                      .images = calloc(3, 3 * 7 * 7)};
    const struct nnc_program_params params = {run.graph, 3, true, 64};
    cr_assert_eq(nnc_program_create(&params, &run.program), 0);
    cuda_case_configure(fake, amp);
    case_device.graphs = graphs;
    nnc_error_clear();
    int rc = run_all(&run);
    char text[NNC_ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", nnc_error_text());
    nnc_backend_cuda.release(run.exe);
    nnc_backend_cuda.close(run.backend);
    nnc_program_destroy(run.program);
    nnc_graph_of_rows_free(run.graph);
    free(run.images);
    return rc < 0 ? nnc_fail(rc, "%s", text) : rc;
}

/* Let the n-th call fail for every n there is; `codes` are the errors that may come of it. */
static void fail_each(const char *call, const char *action, int code, const char *words) {
    int n = 1;
    for (;; n++) {
        char fake[128];
        snprintf(fake, sizeof(fake), "schedule=lazy,faults=%s:%d:%s", call, n, action);
        int rc = run_with(fake, NNC_AMP_BF16, true);
        if (rc == 0) {
            break;
        }
        cr_expect_eq(rc, code, "%s call %d: %d, %s", call, n, rc, nnc_error_text());
        cr_expect(strstr(nnc_error_text(), words), "%s call %d: '%s'", call, n, nnc_error_text());
        cuda_case_expect_no_leak();
        cr_assert_lt(n, 2000);
    }
    cr_expect_gt(n, 1, "%s is called", call);
}

Test(cuda_faults, device_memory_may_be_out_at_any_allocation, .timeout = 120) {
    fail_each("cudaMalloc", "oom", -ENOMEM, "--batch-size");
}

Test(cuda_faults, host_memory_may_be_out_at_any_allocation, .timeout = 120) {
    fail_each("cudaHostAlloc", "oom", -ENOMEM, "host memory");
}

Test(cuda_faults, every_call_that_queues_may_fail, .timeout = 240) {
    static const char *const calls[] = {
        "cudaStreamCreate",    "cudaEventCreate",      "cudaEventRecord",
        "cudaStreamWaitEvent", "cudaMemcpyAsync",      "cudaMemsetAsync",
        "cudaGraphLaunch",     "cudaGraphInstantiate", "cublasLtCreate",
    };
    for (size_t number = 0; number < sizeof(calls) / sizeof(calls[0]); number++) {
        fail_each(calls[number], "fail", -NNC_E_HARDWARE, " says ");
    }
}

ParameterizedTestParameters(cuda_faults, a_broken_device_ends_the_run_wherever_it_shows) {
    static int calls[40];
    for (int number = 0; number < 40; number++) {
        calls[number] = 1 + 7 * number;
    }
    return cr_make_param_array(int, calls, 40);
}

ParameterizedTest(int *call, cuda_faults, a_broken_device_ends_the_run_wherever_it_shows,
                  .timeout = 60) {
    char fake[128];
    snprintf(fake, sizeof(fake), "schedule=lazy,faults=cudaEventRecord:%d:error", *call);
    int rc = run_with(fake, NNC_AMP_OFF, false);
    cr_expect(rc == 0 || rc == -NNC_E_HARDWARE, "call %d: %d", *call, rc);
    cr_expect(rc == 0 || strstr(nnc_error_text(), "ECC"), "%s", nnc_error_text());
}

Test(cuda_faults, what_a_kernel_does_wrong_is_told_by_a_later_call) {
    int rc = run_with("schedule=lazy,faults=scaler_update:2:late", NNC_AMP_FP16, false);
    cr_expect_eq(rc, -NNC_E_HARDWARE, "%d", rc);
    cr_expect(strstr(nnc_error_text(), "CUDA says"), "%s", nnc_error_text());
}

/* A caller that waits for something else calls nothing that would tell. */
Test(cuda_faults, a_look_tells_of_what_failed_and_leaves_no_error_of_its_own) {
    looks = 50;
    cr_expect_eq(run_with("schedule=lazy", NNC_AMP_FP16, false), 0, "%s", nnc_error_text());
    int rc = run_with("schedule=lazy,faults=scaler_update:2:late", NNC_AMP_FP16, false);
    cr_expect_eq(rc, -NNC_E_HARDWARE, "%d", rc);
}

static int alive_calls;

static int give_up(void *context) {
    (void)context;
    return ++alive_calls > 20 ? -NNC_E_STOPPED : 0;
}

Test(cuda_faults, a_device_that_hangs_is_left_when_the_caller_says_so, .timeout = 60) {
    const struct nnc_case *row = cuda_case_row("norm relu");
    struct run run = {.graph = nnc_graph_of_rows(row->input, row->rows)};
    cuda_case_configure("schedule=lazy,faults=cudaMemcpyAsync:3:hang", NNC_AMP_OFF);
    const struct nnc_backend_params params = {
        .graph = run.graph, .ranks = 1, .device = case_device, .alive = give_up};
    int rc = nnc_backend_cuda.open(&params, &run.backend);
    float values[1024] = {0};
    for (int round = 0; rc == 0 && round < 4; round++) {
        rc = nnc_backend_cuda.set(run.backend, NNC_STATE_VALUE, 0, values);
    }
    cr_expect_eq(rc, -NNC_E_STOPPED);
    nnc_backend_cuda.close(run.backend);
    nnc_graph_of_rows_free(run.graph);
}

Test(cuda_faults, without_a_driver_there_is_no_device_and_a_reason) {
    static struct nnc_devices devices;
    cuda_case_configure("driver=0", NNC_AMP_OFF);
    nnc_backend_cuda.device->list(&devices);
    cr_expect_eq(devices.count, 0);
    cr_expect_eq(devices.versions.driver, 0);
    cr_expect_eq(strstr(devices.why, "no NVIDIA driver is installed here (CUDA says: CUDA driver "
                                     "version is insufficient for CUDA runtime version)"),
                 devices.why, "%s", devices.why);
    cuda_case_configure("devices=3,device_json=" NNC_TEST_SOURCE_DIR "/tests/devices/a100.json",
                        NNC_AMP_OFF);
    nnc_backend_cuda.device->list(&devices);
    cr_assert_eq(devices.count, 3);
    cr_expect_float_eq(devices.item[1].peak_flops, 312e12, 1e12);
    cr_expect_eq(devices.item[1].capability, 80);
    cr_expect_eq(devices.item[2].ordinal, 2);
    cr_expect_neq(devices.item[0].name[0], 0);
    cr_expect_neq(devices.item[0].bus[0], 0);
    cr_expect_gt(devices.item[0].memory, 0);
}

Test(cuda_faults, an_old_driver_is_named_with_its_version_and_the_one_that_is_needed) {
    static struct nnc_devices devices;
    char needs[64];
    cuda_case_configure("driver=11080", NNC_AMP_OFF);
    nnc_backend_cuda.device->list(&devices);
    cr_expect_eq(devices.count, 0);
    cr_expect_eq(devices.versions.driver, 110800);
    cr_expect(strstr(devices.why, "too old: it supports CUDA 11.8"), "%s", devices.why);
    snprintf(needs, sizeof(needs), "needs one that supports %d.0", CUDART_VERSION / 1000);
    cr_expect(strstr(devices.why, needs), "%s", devices.why);
    cr_expect(strstr(devices.why, "CUDA driver version is insufficient"), "%s", devices.why);
}

Test(cuda_faults, versions_are_those_of_the_libraries_that_run) {
    static struct nnc_devices devices;
    cuda_case_configure("driver=13020", NNC_AMP_OFF);
    nnc_backend_cuda.device->list(&devices);
    cr_expect_eq(devices.versions.driver, 130200);
    cr_expect_eq(devices.versions.runtime,
                 CUDART_VERSION / 1000 * 10000 + CUDART_VERSION % 1000 * 10);
    cr_expect_eq(devices.versions.cudnn, CUDNN_VERSION);
    cr_expect_eq(devices.versions.nccl, NCCL_VERSION_CODE);
}

Test(cuda_faults, a_container_is_known_by_what_its_program_leaves_in_it) {
    static const struct {
        const char *make, *start;
    } rows[] = {{"true", NULL},
                {"touch .dockerenv", "docker run --gpus all"},
                {"mkdir run && touch run/.containerenv", "podman run"},
                {"mkdir .singularity.d", "apptainer run --nv"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char root[] = "/tmp/nncoord-test-XXXXXX";
        char text[128];
        cr_assert_not_null(mkdtemp(root));
        snprintf(text, sizeof(text), "cd %s && %s", root, rows[i].make);
        cr_assert_eq(system(text), 0, "%s", text);
        const char *start = nnc_driver_container(root);
        cr_expect(rows[i].start == NULL ? start == NULL : start && strstr(start, rows[i].start),
                  "%s: %s", rows[i].make, start == NULL ? "none" : start);
        snprintf(text, sizeof(text), "rm -r %s", root);
        cr_expect_eq(system(text), 0, "%s", text);
    }
}

Test(cuda_faults, a_gpu_that_is_not_there_is_a_usage_error) {
    const struct nnc_case *row = cuda_case_row("norm relu");
    struct nnc_graph *graph = nnc_graph_of_rows(row->input, row->rows);
    struct nnc_backend *backend = NULL;
    cuda_case_configure("devices=2", NNC_AMP_OFF);
    const struct nnc_backend_params params = {.graph = graph, .ranks = 1, .device = {.ordinal = 2}};
    cr_expect_eq(nnc_backend_cuda.open(&params, &backend), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "no GPU 2"), "%s", nnc_error_text());
    nnc_graph_of_rows_free(graph);
}
