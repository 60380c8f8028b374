/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in of the CUDA runtime catches what is undefined on a device, and lets what is legal
 * give the same results under every schedule. */
#include "tests/gpu/cuhost_hook.h"
#include "tests/gpu/fakecuda/testing.h"

#include <criterion/criterion.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    COUNT = 1000,
    BYTES = COUNT * sizeof(int32_t),
};

/* The fault of a host dereference is for the test, not for the sanitizer. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);

const char *__asan_default_options(void) {
    return "handle_segv=0";
}

#define OK(call) cr_assert_eq(call, cudaSuccess, "%s: %s", #call, cudaGetErrorString(call))

static const char *const schedules[] = {"schedule=eager", "schedule=lazy", "schedule=random,seed=1",
                                        "schedule=random,seed=2"};

/* A kernel: to[i] = 2 * from[i] + 1, count of them. */
struct twice {
    const int32_t *from;
    int32_t *to;
    size_t count;
};

static void run_twice(void *closure) {
    const struct twice *twice = closure;
    const int32_t *from = fakecuda_translate(twice->from);
    int32_t *to = fakecuda_translate(twice->to);
    for (size_t i = 0; i < twice->count; i++) {
        to[i] = 2 * from[i] + 1;
    }
}

static void launch(cudaStream_t stream, const int32_t *from, int32_t *to, const char *name) {
    struct twice *twice = malloc(sizeof *twice);
    *twice = (struct twice){from, to, COUNT};
    struct fakecuda_range ranges[] = {{from, BYTES, 0, name}, {to, BYTES, 1, name}};
    fakecuda_submit(stream, ranges, 2, run_twice, free, twice);
}

struct world {
    cudaStream_t copy, compute;
    cudaEvent_t copied, done;
    int32_t *host, *a, *b;
};

static void open_world(const char *settings, struct world *world) {
    fakecuda_configure(settings);
    OK(cudaStreamCreateWithFlags(&world->copy, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&world->compute, cudaStreamNonBlocking));
    OK(cudaEventCreateWithFlags(&world->copied, cudaEventDisableTiming));
    OK(cudaEventCreateWithFlags(&world->done, cudaEventDisableTiming));
    OK(cudaMallocHost((void **)&world->host, BYTES));
    OK(cudaMalloc((void **)&world->a, BYTES));
    OK(cudaMalloc((void **)&world->b, BYTES));
    for (size_t i = 0; i < COUNT; i++) {
        world->host[i] = (int32_t)i;
    }
}

static void close_world(struct world *world) {
    OK(cudaDeviceSynchronize());
    OK(cudaFree(world->a));
    OK(cudaFree(world->b));
    OK(cudaFreeHost(world->host));
    OK(cudaEventDestroy(world->copied));
    OK(cudaEventDestroy(world->done));
    OK(cudaStreamDestroy(world->copy));
    OK(cudaStreamDestroy(world->compute));
    cr_assert_eq(fakecuda_live_blocks(), 0);
}

/* What is left to do where nothing works any more. */
static void abandon_world(struct world *world) {
    cudaEventDestroy(world->copied);
    cudaEventDestroy(world->done);
}

static void copy_in(struct world *world) {
    OK(cudaMemcpyAsync(world->a, world->host, BYTES, cudaMemcpyHostToDevice, world->copy));
}

static void assert_violation(const char *first, const char *second) {
    const char *text = fakecuda_violation();
    cr_assert(text && strstr(text, first) && strstr(text, second), "'%s' should name '%s', '%s'",
              text ? text : "nothing", first, second);
}

Test(fakecuda, dereference_by_the_host_faults, .signal = SIGSEGV) {
    struct world world;
    open_world("schedule=eager", &world);
    *(volatile int32_t *)world.a = 1;
}

Test(fakecuda, legal_program_gives_equal_results_under_every_schedule) {
    for (size_t i = 0; i < sizeof schedules / sizeof schedules[0]; i++) {
        struct world world;
        open_world(schedules[i], &world);
        copy_in(&world);
        OK(cudaEventRecord(world.copied, world.copy));
        OK(cudaStreamWaitEvent(world.compute, world.copied, 0));
        launch(world.compute, world.a, world.b, "first");
        launch(world.compute, world.b, world.a, "second");
        OK(cudaMemcpyAsync(world.host, world.a, BYTES, cudaMemcpyDeviceToHost, world.compute));
        OK(cudaEventRecord(world.done, world.compute));
        while (cudaEventQuery(world.done) == cudaErrorNotReady) {
            cudaGetLastError();
        }
        fakecuda_host_access(world.host, BYTES, false);
        for (int32_t k = 0; k < COUNT; k++) {
            cr_assert_eq(world.host[k], 4 * k + 3);
        }
        close_world(&world);
    }
}

Test(fakecuda, lazy_runs_nothing_before_somebody_waits) {
    struct world world;
    open_world("schedule=lazy", &world);
    launch(world.compute, world.a, world.b, "first");
    OK(cudaEventRecord(world.done, world.compute));
    OK(cudaMemsetAsync(world.a, 0, BYTES, world.compute));
    cr_assert_eq(*(int32_t *)fakecuda_peek(world.b), -1, "new memory is all ones");
    OK(cudaEventSynchronize(world.done));
    cr_assert_eq(*(int32_t *)fakecuda_peek(world.a), -1, "what follows the event did not run");
    OK(cudaStreamSynchronize(world.compute));
    cr_assert_eq(*(int32_t *)fakecuda_peek(world.a), 0);
    close_world(&world);
}

Test(fakecuda, random_runs_some_before_anybody_waits) {
    struct world world;
    int count;
    open_world("schedule=random,seed=5", &world);
    launch(world.compute, world.a, world.b, "first");
    for (int i = 0; i < 50; i++) {
        OK(cudaGetDeviceCount(&count));
    }
    cr_assert_eq(*(int32_t *)fakecuda_peek(world.b), 2 * -1 + 1);
    close_world(&world);
}

Test(fakecuda, missing_wait_for_an_event_names_both_operations) {
    for (size_t i = 0; i < 2; i++) {
        struct world world;
        open_world(schedules[0], &world);
        fakecuda_record_violations(true);
        copy_in(&world);
        OK(cudaEventRecord(world.copied, world.copy));
        if (i == 1) {
            OK(cudaStreamWaitEvent(world.compute, world.copied, 0));
        }
        launch(world.compute, world.a, world.b, "scale");
        if (i == 0) {
            assert_violation("race: scale reads", "cudaMemcpyAsync, which writes");
        }
        cr_assert_null(fakecuda_violation());
        close_world(&world);
    }
}

Test(fakecuda, reader_that_waited_does_not_vouch_for_one_that_did_not) {
    struct world world;
    cudaStream_t third;
    open_world("schedule=lazy", &world);
    OK(cudaStreamCreateWithFlags(&third, cudaStreamNonBlocking));
    fakecuda_record_violations(true);
    copy_in(&world);
    OK(cudaEventRecord(world.copied, world.copy));
    OK(cudaStreamWaitEvent(world.compute, world.copied, 0));
    launch(world.compute, world.a, world.b, "orderly");
    cr_assert_null(fakecuda_violation());
    OK(cudaMemcpyAsync(world.host, world.a, BYTES, cudaMemcpyDeviceToHost, third));
    assert_violation("cudaMemcpyAsync reads", "cudaMemcpyAsync, which writes");
    OK(cudaStreamSynchronize(third));
    OK(cudaStreamDestroy(third));
    close_world(&world);
}

Test(fakecuda, violation_aborts, .signal = SIGABRT) {
    struct world world;
    open_world("schedule=lazy", &world);
    copy_in(&world);
    launch(world.compute, world.a, world.b, "scale");
}

Test(fakecuda, wait_for_an_event_that_was_never_recorded_orders_nothing) {
    struct world world;
    open_world("schedule=lazy", &world);
    fakecuda_record_violations(true);
    OK(cudaStreamWaitEvent(world.compute, world.copied, 0));
    copy_in(&world);
    launch(world.compute, world.a, world.b, "scale");
    assert_violation("scale", "cudaMemcpyAsync");
    close_world(&world);
}

Test(fakecuda, host_write_to_a_slot_whose_copy_is_pending_is_named) {
    struct world world;
    open_world("schedule=eager", &world);
    fakecuda_record_violations(true);
    copy_in(&world);
    fakecuda_host_access(world.host, BYTES, false);
    cr_assert_null(fakecuda_violation(), "both read");
    fakecuda_host_access(world.host + 10, 4, true);
    assert_violation("the host writes", "cudaMemcpyAsync");
    OK(cudaStreamSynchronize(world.copy));
    fakecuda_host_access(world.host, BYTES, true);
    cr_assert_null(fakecuda_violation());
    close_world(&world);
}

Test(fakecuda, memory_in_use_cannot_be_freed_or_unregistered) {
    static int32_t registered[COUNT];
    struct world world;
    open_world("schedule=lazy", &world);
    fakecuda_record_violations(true);
    OK(cudaHostRegister(registered, BYTES, cudaHostRegisterPortable));
    OK(cudaMemcpyAsync(world.b, registered, BYTES, cudaMemcpyHostToDevice, world.copy));
    OK(cudaHostUnregister(registered));
    assert_violation("cudaHostUnregister", "in use by cudaMemcpyAsync");
    int32_t *fresh;
    OK(cudaMalloc((void **)&fresh, BYTES));
    OK(cudaMemsetAsync(fresh, 0, BYTES, world.compute));
    OK(cudaFree(fresh));
    assert_violation("cudaFree", "in use by cudaMemsetAsync");
    _Exit(0); /* what is queued must not run */
}

Test(fakecuda, use_after_free_is_named) {
    struct world world;
    open_world("schedule=random,seed=3", &world);
    fakecuda_record_violations(true);
    int32_t *gone;
    OK(cudaMalloc((void **)&gone, BYTES));
    OK(cudaFree(gone));
    launch(world.compute, gone, world.b, "scale");
    cr_assert_eq(cudaGetLastError(), cudaErrorIllegalAddress);
    assert_violation("scale", "not inside a live block");
    cr_assert_eq(cudaMemsetAsync(world.a, 0, BYTES + 1, world.compute), cudaErrorIllegalAddress);
    assert_violation("cudaMemsetAsync", "not inside a live block");
    close_world(&world);
}

static void run_overrun(void *closure) {
    unsigned char *memory = fakecuda_translate(closure);
    memory[BYTES + 3] = 0;
}

static void keep(void *closure) {
    (void)closure;
}

Test(fakecuda, write_into_a_red_zone_is_named) {
    struct world world;
    open_world("schedule=lazy", &world);
    fakecuda_record_violations(true);
    struct fakecuda_range range = {world.a, BYTES, 1, "overrun"};
    fakecuda_submit(world.compute, &range, 1, run_overrun, keep, world.a);
    OK(cudaStreamSynchronize(world.compute));
    assert_violation("overrun: byte 3 behind", "was written");
    close_world(&world);
}

Test(fakecuda, freed_memory_is_poisoned_and_its_red_zones_checked) {
    struct world world;
    unsigned char *small, *large;
    size_t bytes = (size_t)3 << 20;
    open_world("schedule=eager", &world);
    OK(cudaMalloc((void **)&small, 100));
    OK(cudaMalloc((void **)&large, bytes));
    const unsigned char *alias = fakecuda_peek(small), *big = fakecuda_peek(large);
    ((unsigned char *)fakecuda_peek(large))[-1] = 1;
    fakecuda_record_violations(true);
    OK(cudaFree(small));
    cr_assert_null(fakecuda_violation());
    OK(cudaFree(large));
    assert_violation("cudaFree: byte 1 before", "was written");
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(alias[i], 0xfb);
    }
    cr_assert_eq(big[0], 0xfb);
    cr_assert_eq(big[bytes - 1], 0xfb);
    cr_assert_eq(big[bytes / 2], 0, "pages in the middle are given back");
    close_world(&world);
}

Test(fakecuda, pageable_source_is_read_before_the_call_returns) {
    static int32_t pageable[COUNT];
    struct world world;
    open_world("schedule=lazy", &world);
    pageable[7] = 70;
    OK(cudaMemcpyAsync(world.a, pageable, BYTES, cudaMemcpyHostToDevice, world.copy));
    pageable[7] = 0;
    OK(cudaMemcpyAsync(pageable, world.a, BYTES, cudaMemcpyDeviceToHost, world.copy));
    cr_assert_eq(pageable[7], 70, "and a copy to pageable memory is complete");
    close_world(&world);
}

Test(fakecuda, rows_are_copied_by_their_pitches) {
    struct world world;
    int32_t got[6] = {0};
    open_world("schedule=random,seed=9", &world);
    OK(cudaMemcpy2DAsync(world.a, 40, world.host, 400, 8, 3, cudaMemcpyHostToDevice, world.copy));
    OK(cudaMemcpy2DAsync(got, 8, world.a, 40, 8, 3, cudaMemcpyDeviceToHost, world.copy));
    const int32_t want[6] = {0, 1, 100, 101, 200, 201};
    cr_assert_eq(memcmp(got, want, sizeof want), 0);
    close_world(&world);
}

Test(fakecuda, memory_of_another_device_is_named) {
    struct world world;
    int32_t *other;
    open_world("devices=2", &world);
    fakecuda_record_violations(true);
    OK(cudaSetDevice(1));
    OK(cudaMalloc((void **)&other, BYTES));
    cr_assert_eq(cudaMemsetAsync(other, 0, BYTES, world.compute), cudaErrorIllegalAddress);
    assert_violation("memory of device 1", "of device 0");
    cr_assert_eq(cudaSetDevice(2), cudaErrorInvalidDevice);
    OK(cudaFree(other));
    close_world(&world);
}

Test(fakecuda, wrong_direction_of_a_copy_is_refused) {
    struct world world;
    open_world("schedule=lazy", &world);
    cr_assert_eq(cudaMemcpyAsync(world.a, world.host, BYTES, cudaMemcpyDeviceToHost, world.copy),
                 cudaErrorInvalidMemcpyDirection);
    close_world(&world);
}

/* ---- captures ---- */

static void begin(struct world *world) {
    OK(cudaStreamBeginCapture(world->compute, cudaStreamCaptureModeGlobal));
}

Test(fakecuda, replay_of_a_graph_repeats_work_of_two_streams) {
    for (size_t i = 0; i < sizeof schedules / sizeof schedules[0]; i++) {
        struct world world;
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        open_world(schedules[i], &world);
        begin(&world);
        OK(cudaEventRecord(world.done, world.compute));
        OK(cudaStreamWaitEvent(world.copy, world.done, 0));
        copy_in(&world);
        OK(cudaEventRecord(world.copied, world.copy));
        OK(cudaStreamWaitEvent(world.compute, world.copied, 0));
        launch(world.compute, world.a, world.b, "first");
        OK(cudaStreamEndCapture(world.compute, &graph));
        cr_assert_eq(*(int32_t *)fakecuda_peek(world.b), -1, "a capture runs nothing");
        OK(cudaGraphInstantiate(&exec, graph, 0));
        OK(cudaGraphDestroy(graph));
        for (int32_t round = 0; round < 3; round++) {
            world.host[5] = 100 * round;
            OK(cudaGraphLaunch(exec, world.compute));
            OK(cudaStreamSynchronize(world.compute));
            cr_assert_eq(((int32_t *)fakecuda_peek(world.b))[5], 200 * round + 1);
        }
        OK(cudaGraphExecDestroy(exec));
        close_world(&world);
    }
}

Test(fakecuda, graph_may_be_destroyed_while_it_runs) {
    struct world world;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    open_world("schedule=lazy", &world);
    begin(&world);
    OK(cudaMemsetAsync(world.b, 1, BYTES, world.compute));
    OK(cudaStreamEndCapture(world.compute, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphLaunch(exec, world.compute));
    OK(cudaGraphExecDestroy(exec));
    OK(cudaGraphDestroy(graph));
    OK(cudaStreamSynchronize(world.compute));
    cr_assert_eq(*(int32_t *)fakecuda_peek(world.b), 0x01010101);
    close_world(&world);
}

Test(fakecuda, replay_with_a_stale_pointer_is_named) {
    struct world world;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    open_world("schedule=lazy", &world);
    begin(&world);
    launch(world.compute, world.a, world.b, "stale");
    OK(cudaStreamEndCapture(world.compute, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaFree(world.b));
    fakecuda_record_violations(true);
    cr_assert_neq(cudaGraphLaunch(exec, world.compute), cudaSuccess);
    assert_violation("stale", "not inside a live block");
    OK(cudaGraphExecDestroy(exec));
    OK(cudaGraphDestroy(graph));
    abandon_world(&world);
}

static cudaError_t call_malloc(struct world *world) {
    void *memory;
    return cudaMalloc(&memory, world ? 16 : 0);
}

static cudaError_t call_synchronize(struct world *world) {
    return cudaStreamSynchronize(world->compute);
}

static cudaError_t call_query(struct world *world) {
    return cudaEventQuery(world->copied);
}

static cudaError_t call_device(struct world *world) {
    return world ? cudaDeviceSynchronize() : cudaSuccess;
}

static cudaError_t call_pageable(struct world *world) {
    static int32_t pageable[COUNT];
    return cudaMemcpyAsync(world->a, pageable, BYTES, cudaMemcpyHostToDevice, world->compute);
}

Test(fakecuda, call_that_a_capture_forbids_invalidates_it) {
    static cudaError_t (*const calls[])(struct world *) = {call_malloc, call_synchronize,
                                                           call_query, call_device};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct world world;
        cudaGraph_t graph;
        open_world("schedule=eager", &world);
        OK(cudaEventRecord(world.copied, world.copy));
        begin(&world);
        cr_assert_eq(calls[i](&world), cudaErrorStreamCaptureUnsupported, "call %zu", i);
        cr_assert_eq(cudaStreamEndCapture(world.compute, &graph),
                     cudaErrorStreamCaptureInvalidated);
        close_world(&world);
    }
}

Test(fakecuda, capture_refuses_pageable_memory_and_events_of_outside) {
    struct world world;
    cudaGraph_t graph;
    open_world("schedule=eager", &world);
    OK(cudaEventRecord(world.copied, world.copy));
    begin(&world);
    cr_assert_eq(call_pageable(&world), cudaErrorStreamCaptureUnsupported);
    cr_assert_eq(cudaStreamWaitEvent(world.compute, world.copied, 0),
                 cudaErrorStreamCaptureIsolation);
    cr_assert_neq(cudaStreamEndCapture(world.compute, &graph), cudaSuccess);
    close_world(&world);
}

Test(fakecuda, capture_with_a_stream_that_did_not_come_back_is_unjoined) {
    struct world world;
    cudaGraph_t graph;
    open_world("schedule=eager", &world);
    begin(&world);
    OK(cudaEventRecord(world.done, world.compute));
    OK(cudaStreamWaitEvent(world.copy, world.done, 0));
    copy_in(&world);
    cr_assert_eq(cudaStreamEndCapture(world.compute, &graph), cudaErrorStreamCaptureUnjoined);
    close_world(&world);
}

/* ---- faults ---- */

Test(fakecuda, faults_hit_the_call_they_name) {
    static int32_t registered[COUNT];
    void *memory = NULL;
    struct world world;
    open_world("faults=cudaMalloc:3:oom;cudaHostRegister:1:refuse", &world);
    cr_assert_eq(cudaMalloc(&memory, 16), cudaErrorMemoryAllocation);
    OK(cudaMalloc(&memory, 16));
    OK(cudaFree(memory));
    cr_assert_eq(cudaHostRegister(registered, BYTES, 0), cudaErrorNotSupported);
    OK(cudaHostRegister(registered, BYTES, 0));
    OK(cudaHostUnregister(registered));
    close_world(&world);
}

Test(fakecuda, sticky_error_fails_every_later_call) {
    struct world world;
    open_world("faults=cudaMemcpyAsync:1:error", &world);
    cr_assert_eq(cudaMemcpyAsync(world.a, world.host, BYTES, cudaMemcpyHostToDevice, world.copy),
                 cudaErrorECCUncorrectable);
    cr_assert_eq(cudaStreamSynchronize(world.copy), cudaErrorECCUncorrectable);
    cr_assert_eq(cudaGetLastError(), cudaErrorECCUncorrectable);
    cr_assert_eq(cudaFree(world.a), cudaErrorECCUncorrectable);
    abandon_world(&world);
}

Test(fakecuda, late_failure_shows_when_somebody_waits) {
    struct world world;
    open_world("schedule=lazy,faults=scale:2:late", &world);
    launch(world.compute, world.a, world.b, "scale");
    OK(cudaStreamSynchronize(world.compute));
    launch(world.compute, world.a, world.b, "scale");
    OK(cudaGetLastError());
    cr_assert_eq(cudaStreamSynchronize(world.compute), cudaErrorLaunchFailure);
    abandon_world(&world);
}

Test(fakecuda, hanging_operation_is_never_ready) {
    struct world world;
    open_world("schedule=eager,faults=scale:1:hang", &world);
    launch(world.compute, world.a, world.b, "scale");
    OK(cudaEventRecord(world.done, world.compute));
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(cudaEventQuery(world.done), cudaErrorNotReady);
    }
    abandon_world(&world);
}

Test(fakecuda, not_ready_is_an_error_to_the_next_launch_until_it_is_read) {
    struct world world;
    open_world("schedule=eager,faults=scale:1:hang", &world);
    fakecuda_record_violations(true);
    launch(world.compute, world.a, world.b, "scale");
    cr_assert_eq(cudaStreamQuery(world.compute), cudaErrorNotReady);
    cr_expect_eq(cudaGetLastError(), cudaErrorNotReady);
    launch(world.compute, world.a, world.b, "scale");
    cr_assert_null(fakecuda_violation());
    cr_assert_eq(cudaStreamQuery(world.compute), cudaErrorNotReady);
    launch(world.compute, world.a, world.b, "scale");
    assert_violation("scale: launched", "the last error is number 600");
    abandon_world(&world);
}

Test(fakecuda, slow_operation_takes_its_time) {
    struct world world;
    struct timespec before, after;
    open_world("schedule=eager,faults=scale:1:slow=30", &world);
    clock_gettime(CLOCK_MONOTONIC, &before);
    launch(world.compute, world.a, world.b, "scale");
    cr_assert_eq(cudaStreamQuery(world.compute), cudaErrorNotReady);
    OK(cudaStreamSynchronize(world.compute));
    clock_gettime(CLOCK_MONOTONIC, &after);
    int64_t ns =
        (int64_t)(after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    cr_assert_geq(ns, 30000000);
    close_world(&world);
}

Test(fakecuda, fault_for_one_device_spares_the_others) {
    struct world world;
    void *memory;
    open_world("devices=2,faults=cudaMalloc:0:oom@1", &world);
    OK(cudaSetDevice(1));
    cr_assert_eq(cudaMalloc(&memory, 16), cudaErrorMemoryAllocation);
    OK(cudaSetDevice(0));
    close_world(&world);
}

Test(fakecuda, setting_that_does_not_exist_aborts, .signal = SIGABRT) {
    fakecuda_configure("schedule=eager,speed=fast");
}

Test(fakecuda, rank_can_be_killed, .signal = SIGKILL) {
    struct world world;
    open_world("faults=cudaMemsetAsync:2:kill@0", &world);
    OK(cudaMemsetAsync(world.a, 0, BYTES, world.copy));
    OK(cudaMemsetAsync(world.a, 0, BYTES, world.copy));
}

Test(fakecuda, a_missing_driver_an_old_one_and_no_device_are_told_apart) {
    int count = -1, version = -1;
    fakecuda_configure("driver=0");
    cr_assert_eq(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    OK(cudaDriverGetVersion(&version));
    cr_assert_eq(version, 0);
    fakecuda_configure("driver=11080");
    cr_assert_eq(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    OK(cudaDriverGetVersion(&version));
    cr_assert_eq(version, 11080);
    fakecuda_configure("faults=cudaGetDeviceCount:1:nodevice");
    cr_assert_eq(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    OK(cudaGetDeviceCount(&count));
    cr_assert_eq(count, 1);
}

/* ---- as a monitor sees it ---- */

Test(fakecuda, monitor_finds_the_device_by_its_bus) {
    char bus[32];
    void *device = NULL, *library = dlopen(NNC_TEST_FAKECUDA_DIR "/libnvidia-ml.so.1", RTLD_NOW);
    cr_assert(library, "%s", dlerror());
    int (*init)(void), (*by_bus)(const char *, void **), (*power)(void *, unsigned *);
    *(void **)&init = dlsym(library, "nvmlInit_v2");
    *(void **)&by_bus = dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)&power = dlsym(library, "nvmlDeviceGetPowerUsage");
    unsigned milliwatts = 0;
    fakecuda_configure("devices=2");
    OK(cudaDeviceGetPCIBusId(bus, sizeof bus, 1));
    cr_assert_neq(by_bus(bus, &device), 0, "not before it is opened");
    cr_assert_eq(init(), 0);
    cr_assert_eq(by_bus(bus, &device), 0);
    cr_assert_eq(power(device, &milliwatts), 0);
    cr_assert_eq(milliwatts, 250001);
}
