/* SPDX-License-Identifier: Apache-2.0 */
/* Proof that the host build notices what it is for: faults of made-up kernels, and each barrier of
 * the real ones, taken away in turn. */
#include "tests/gpu/cuhost.h"
#include "tests/gpu/device.h"
#include "tests/gpu/faulty_kernels.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    THREADS = 64,
    TEXT_MAX = 4096,
};

typedef int faulty_kernel(float *out);

static int launch_faulty(const void *context) {
    float *out = ((float *const *)context)[0];
    faulty_kernel *const *kernel = ((void *const *)context)[1];
    return (*kernel)(out);
}

static float *run_faulty(faulty_kernel *kernel) {
    float *out = floats_empty(THREADS);
    device_run(launch_faulty, (const void *const[]){out, &kernel});
    return out;
}

/* What a child process writes to its standard error, and that it aborts. */
static void words_of_abort(faulty_kernel *kernel, char *ret_text) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        run_faulty(kernel);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t got = 1; got > 0 && length < TEXT_MAX - 1; length += (size_t)got) {
        got = read(ends[0], ret_text + length, TEXT_MAX - 1 - length);
        cr_assert_geq(got, 0);
    }
    ret_text[length] = '\0';
    close(ends[0]);
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "no abort: %s", ret_text);
}

static void expect_abort(faulty_kernel *kernel, const char *words) {
    char text[TEXT_MAX];
    words_of_abort(kernel, text);
    cr_assert_not_null(strstr(text, words), "said \"%s\" instead of \"%s\"", text, words);
}

Test(cuhost, a_barrier_lets_threads_read_each_other) {
    float *out = run_faulty(faulty_none);
    for (int thread = 0; thread < THREADS; thread++) {
        cr_assert_eq(out[thread], (float)(thread ^ 1));
    }
}

Test(cuhost, a_missing_barrier_shows_as_a_difference_between_orders) {
    device_count_differences();
    run_faulty(faulty_missing_barrier);
    cr_assert_gt(device_differences(), 0);
}

Test(cuhost, threads_at_two_barriers_abort) {
    expect_abort(faulty_two_barriers, "different __syncthreads()");
}

Test(cuhost, a_thread_that_exits_before_the_barrier_aborts) {
    expect_abort(faulty_early_exit, "never reaches");
}

Test(cuhost, a_lane_that_exits_before_the_shuffle_aborts) {
    expect_abort(faulty_lane_gone, "has exited");
}

Test(cuhost, a_shuffle_from_outside_its_mask_aborts) {
    expect_abort(faulty_narrow_mask, "outside its mask");
}

Test(cuhost, shared_memory_begins_as_not_a_number) {
    float *out = run_faulty(faulty_fresh_shared);
    for (int thread = 0; thread < THREADS; thread++) {
        cr_assert(isnan(out[thread]));
    }
}

/* ---- each barrier of the kernels ---- */

struct scene {
    struct nnc_gpu_norm norm;
    struct nnc_gpu_arena arena;
    struct nnc_gpu_scaler *scaler;
    const void *x, *dy;
    float *dweight, *dbias, *db, *sums;
};

static int launch_all(const void *context) {
    const struct scene *scene = context;
    int codes[] = {
        nnc_gpu_norm_statistics(NULL, &scene->norm, scene->x),
        nnc_gpu_norm_backward_sums(NULL, &scene->norm, NNC_GPU_NONE, scene->x, scene->dy,
                                   scene->dweight, scene->dbias),
        nnc_gpu_bias_gradient(NULL, &scene->norm.shape, scene->dy, scene->norm.scratch, scene->db),
        nnc_gpu_gradient_sums(NULL, &scene->arena, scene->scaler, scene->sums),
    };
    return codes[0] | codes[1] | codes[2] | codes[3];
}

/* Memory for every kernel that has a barrier. */
static struct scene make_scene(void) {
    struct nnc_gpu_tensor shape = tensor_shape(NNC_GPU_BF16, 2, 17, 19, 40);
    struct nnc_gpu_chunk *chunk = device_alloc(sizeof(*chunk));
    *chunk = (struct nnc_gpu_chunk){.count = 5000};
    struct scene scene = {.norm = {.shape = shape, .eps = 1e-5f},
                          .arena = {.chunks = chunk,
                                    .chunk_count = 1,
                                    .gradients = floats_noise(5000, 1, 0),
                                    .values = floats_noise(5000, 2, 0),
                                    .value_count = 5000}};
    scene.norm.mean = floats_empty(shape.stride);
    scene.norm.scale = floats_empty(shape.stride);
    scene.norm.scratch = floats_empty(nnc_gpu_reduce_floats(&shape));
    scene.scaler = device_alloc(sizeof(*scene.scaler));
    scene.scaler->scale = 1;
    scene.x = tensor_noise(&shape, 1, 0);
    scene.dy = tensor_noise(&shape, 2, 0);
    scene.dweight = floats_empty(shape.stride);
    scene.dbias = floats_empty(shape.stride);
    scene.db = floats_empty(shape.stride);
    scene.sums = floats_empty(2);
    return scene;
}

/* Whether orders differ, or a fault is reported, when barrier `number` is taken away. */
static bool notices_without(size_t number) {
    pid_t child = fork();
    if (child == 0) {
        struct scene scene = make_scene();
        cuhost_drop_barrier((long)number);
        device_count_differences();
        device_run(launch_all, &scene);
        _exit(device_differences() > 0);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

Test(cuhost, every_barrier_of_the_kernels_is_missed_when_it_is_taken_away) {
    struct scene scene = make_scene();
    device_run(launch_all, &scene);
    device_clear();
    cr_assert_not(notices_without((size_t)-1), "a run with all barriers must differ in nothing");
    /* statistics, norm_sums, bias_sums, gradient_sums and the finishes of the first three */
    cr_assert_eq(cuhost_barrier_count(), 7);
    for (size_t number = 0; number < cuhost_barrier_count(); number++) {
        struct cuhost_barrier barrier = cuhost_barrier_at(number);
        cr_assert(notices_without(number), "%s passes without the barrier of %s:%d", barrier.kernel,
                  barrier.file, barrier.line);
    }
}
