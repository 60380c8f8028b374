/* SPDX-License-Identifier: Apache-2.0 */
/* The oneDNN backend's table of functions: what a trainer calls, checked and handed on.
 *
 *   open      engine, stream, plain state            onednn_state.c
 *   compile   layouts, primitives, memory            onednn_compile.c, onednn_build.c, and by
 * operation feed      bytes to the first source              onednn_input.c onednn_product.c,
 * _norm.c, step      stages in order                        onednn_compile.c      _pool.c,
 * _pointwise.c, _loss.c update    one pass over the arenas               onednn_state.c,
 * onednn_kernels.c
 *
 * Invariants: (1) results are the same bits in every run with the same number of threads, whatever
 * the shared memory held before; (2) nothing is allocated in feed, step, evaluate and update,
 * except once after the first training program moved the parameters. */
#include "cpu/onednn.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cpu/onednn_executable.h"
#include "cpu/onednn_parallel.h"

static void onednn_close(struct nnc_backend *backend) {
    if (backend == NULL) {
        return;
    }
    nnc_dnn_state_finish(&backend->state);
    nnc_pages_free(backend->arena, backend->arena_bytes);
    nnc_pages_free(backend->temp, backend->temp_bytes);
    nnc_pages_free(backend->scratch, backend->scratch_bytes);
    if (backend->attr != NULL) {
        dnnl_primitive_attr_destroy(backend->attr);
    }
    if (backend->stream != NULL) {
        dnnl_stream_destroy(backend->stream);
    }
    if (backend->engine != NULL) {
        dnnl_engine_destroy(backend->engine);
    }
    free(backend);
}

static int onednn_open(const struct nnc_backend_params *params, struct nnc_backend **ret_backend) {
    assert(params->graph != NULL && params->threads >= 1);
    struct nnc_backend *backend = calloc(1, sizeof(*backend));
    if (backend == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the oneDNN backend");
    }
    backend->params = *params;
    backend->kernels = nnc_kernels_best();
    backend->addresses = 1;
    nnc_parallel_init(params->threads);
    int rc = nnc_dnnl_check(dnnl_engine_create(&backend->engine, dnnl_cpu, 0), "engine");
    if (rc == 0) {
        rc = nnc_dnnl_check(
            dnnl_stream_create(&backend->stream, backend->engine, dnnl_stream_default_flags),
            "stream");
    }
    if (rc == 0) {
        rc = nnc_attr_create(dnnl_alg_kind_undef, &backend->attr);
    }
    if (rc == 0) {
        rc = nnc_dnn_state_init(&backend->state, params->graph, backend->engine, backend->stream);
    }
    if (rc < 0) {
        onednn_close(backend);
        return rc;
    }
    *ret_backend = backend;
    return 0;
}

static void onednn_release(struct nnc_executable *executable) {
    if (executable == NULL) {
        return;
    }
    nnc_executable_finish(executable);
    free(executable);
}

static int onednn_compile(struct nnc_backend *backend, const struct nnc_program *program,
                          struct nnc_executable **ret_executable) {
    assert(program->graph->param_count == backend->params.graph->param_count);
    struct nnc_executable *executable = malloc(sizeof(*executable));
    if (executable == NULL) {
        return nnc_fail(-ENOMEM, "no memory for an executable");
    }
    int rc = nnc_executable_compile(backend, program, executable);
    if (rc < 0) {
        onednn_release(executable);
        return rc;
    }
    *ret_executable = executable;
    return 0;
}

static int onednn_feed(struct nnc_executable *executable, const struct nnc_feed *feed) {
    uint32_t classes = executable->program->graph->classes;
    uint32_t batch = executable->program->batch;
    for (uint32_t n = 0; n < batch; n++) {
        int32_t label = feed->labels[n];
        if (label < -1 || label >= (int64_t)classes) {
            return nnc_fail(-NNC_E_FORMAT,
                            "label %" PRId32 " of sample %u of the batch lies outside 0..%u; the "
                            "model has %u classes",
                            label, n, classes - 1, classes);
        }
    }
    int rc = nnc_executable_refresh(executable);
    if (rc < 0) {
        return rc;
    }
    nnc_input_feed(executable, feed);
    memcpy(nnc_place_address(executable, executable->labels), feed->labels,
           batch * sizeof(*feed->labels));
    executable->fed = true;
    return 0;
}

/* Run the fed batch. */
static int run(struct nnc_executable *executable) {
    int rc = nnc_executable_refresh(executable);
    if (rc < 0) {
        return rc;
    }
    if (!executable->fed) {
        return nnc_fail(-EINVAL, "no batch was fed since the program was compiled");
    }
    return nnc_executable_run(executable);
}

static int onednn_step(struct nnc_executable *executable, const struct nnc_step_params *params) {
    assert(executable->program->training && params->global_count >= 1);
    executable->step = *params;
    return run(executable);
}

static int onednn_evaluate(struct nnc_executable *executable) {
    assert(!executable->program->training);
    return run(executable);
}

static int onednn_logits(struct nnc_executable *executable, float *ret_logits) {
    size_t count = (size_t)executable->program->batch * executable->program->graph->classes;
    memcpy(ret_logits, nnc_place_address(executable, executable->logits),
           count * sizeof(*ret_logits));
    return 0;
}

static int onednn_poll(struct nnc_backend *backend, struct nnc_metrics *ret_metrics) {
    *ret_metrics = backend->metrics;
    backend->metrics = (struct nnc_metrics){0};
    return 0;
}

static int onednn_update(struct nnc_backend *backend, const struct nnc_sgd *sgd) {
    return nnc_dnn_state_update(&backend->state, backend->kernels, backend->params.threads, sgd);
}

static int onednn_zero_gradients(struct nnc_backend *backend) {
    if (backend->state.gradient != NULL) {
        memset(backend->state.gradient, 0, backend->state.trained_count * sizeof(float));
    }
    return 0;
}

static int onednn_get(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                      float *ret_values) {
    return nnc_dnn_state_get(&backend->state, state, param, ret_values);
}

static int onednn_set(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                      const float *values) {
    return nnc_dnn_state_set(&backend->state, state, param, values);
}

static int onednn_bucket(struct nnc_backend *backend, uint32_t bucket, float **ret_values,
                         size_t *ret_count) {
    return nnc_dnn_state_bucket(&backend->state, bucket, ret_values, ret_count);
}

static size_t onednn_memory(const struct nnc_backend *backend) {
    return nnc_dnn_state_bytes(&backend->state) + backend->arena_bytes + backend->temp_bytes +
           backend->scratch_bytes + backend->private_bytes;
}

int nnc_onednn_report(const struct nnc_executable *executable, FILE *out) {
    return nnc_executable_report(executable, out);
}

void nnc_onednn_scribble(struct nnc_backend *backend, int byte) {
    const struct {
        void *memory;
        size_t bytes;
    } shared[] = {{backend->arena, backend->arena_bytes},
                  {backend->temp, backend->temp_bytes},
                  {backend->scratch, backend->scratch_bytes}};
    for (size_t k = 0; k < sizeof(shared) / sizeof(shared[0]); k++) {
        if (shared[k].memory != NULL) {
            memset(shared[k].memory, byte, shared[k].bytes);
        }
    }
}

const struct nnc_backend_ops nnc_backend_onednn = {
    .name = "onednn",
    .description = "oneDNN for matrix work, blocked layouts, loops of ours for the rest",
    .open = onednn_open,
    .close = onednn_close,
    .compile = onednn_compile,
    .release = onednn_release,
    .feed = onednn_feed,
    .step = onednn_step,
    .evaluate = onednn_evaluate,
    .logits = onednn_logits,
    .poll = onednn_poll,
    .update = onednn_update,
    .zero_gradients = onednn_zero_gradients,
    .get = onednn_get,
    .set = onednn_set,
    .bucket = onednn_bucket,
    .memory = onednn_memory,
};
