/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of several ranks: devices with their own communicator, or CPU backends over shared
 * memory. A rank is a thread here; in a training it is a process, but what is checked is below.
 *
 *   sums    all ranks make one step on samples of their own; the gradients that each then has are
 *           the same bits on all, and equal the sum that the host makes of what each rank computes
 *           alone
 *   drill   one rank makes no step and leaves; the others must notice within the deadline, leave
 * the communicator and close
 *
 * The drill ends what waits through the callback `alive`, as the coordinator's word does. */
#include "base/clock.h"
#include "base/err.h"
#include "workers/comm.h"
#include "workers/selftest_private.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATIENCE_MS = 2000,  /* of a rank in the drill */
    DEADLINE_MS = 30000, /* of everything else */
    LEAVING_MS = 10000,  /* from then on until the communicator is left */
};

static const char case_name[] = "residual bottlenecks with projection";

/* What the threads of one check share. */
struct world {
    const struct nnc_selftest_params *params;
    bool drill;
    uint8_t id[NNC_COMM_ID_BYTES]; /* of a communicator of devices */
    void *memory;                  /* of one in shared memory */
    atomic_uint joined, noticed;   /* ranks; drill */
};

struct rank {
    struct world *world;
    uint32_t number;
    pthread_t thread;
    uint64_t give_up_ns; /* drill: when alive() says no; 0: never */
    struct nnc_case_model model;
    struct nnc_comm *comm;
    struct nnc_case_result result; /* its gradients */
    double left_seconds;           /* drill: from giving up to having left */
    int code;
    char text[NNC_ERROR_TEXT_MAX];
};

static int alive(void *context) {
    const struct rank *rank = context;
    if (rank->give_up_ns == 0 || nnc_clock_ns() < rank->give_up_ns) {
        return 0;
    }
    return nnc_fail(-NNC_E_COMM, "a rank is gone");
}

/* ---- a rank ---- */

static int open_rank(struct rank *rank, uint32_t ranks) {
    const struct nnc_selftest_params *from = rank->world->params;
    struct nnc_case_params params = selftest_case_params(from);
    params.device = from->device[rank->number];
    params.device.deterministic = true; /* of every rank's device */
    params.threads = 1;
    params.rank = rank->number;
    params.ranks = ranks;
    params.whole_only = true;
    params.alive = alive;
    params.context = rank;
    return nnc_case_open(&params, selftest_case(case_name), &rank->model);
}

static int join(struct rank *rank) {
    const struct nnc_selftest_params *params = rank->world->params;
    if (params->ops->device != NULL) {
        return params->ops->device->comm_open(rank->model.backend, rank->world->id);
    }
    const struct nnc_comm_params comm = {.rank = rank->number,
                                         .ranks = params->ranks,
                                         .fd = -1,
                                         .memory = rank->world->memory,
                                         .deadline_ms = DEADLINE_MS,
                                         .alive = alive,
                                         .context = rank};
    return nnc_comm_create(&comm, &rank->comm);
}

/* A device has summed already. */
static int reduce(struct rank *rank) {
    const struct nnc_case_model *model = &rank->model;
    uint32_t buckets = rank->comm != NULL ? model->program[NNC_CASE_WHOLE]->bucket_count : 0;
    int code = 0;
    for (uint32_t bucket = 0; code >= 0 && bucket < buckets; bucket++) {
        float *values;
        size_t count;
        code = model->ops->bucket(model->backend, bucket, &values, &count);
        code = code < 0 ? code : nnc_comm_allreduce(rank->comm, values, count);
    }
    return code;
}

static int record_gradients(struct rank *rank) {
    const struct nnc_graph *graph = rank->model.graph;
    int code = 0;
    for (uint32_t param = 0; code >= 0 && param < graph->param_count; param++) {
        const struct nnc_param *about = &graph->params[param];
        float *values = nnc_case_record(&rank->result, 0, about->count, "gradient", about->name);
        code = values == NULL ? -ENOMEM
                              : nnc_case_get(&rank->model, NNC_STATE_GRADIENT, param, values);
        if (values != NULL) {
            rank->result.vectors[rank->result.count - 1].kind = NNC_CASE_VALUE;
        }
    }
    return code;
}

static int step_together(struct rank *rank) {
    struct nnc_metrics metrics;
    int code = nnc_case_step(&rank->model, NNC_CASE_WHOLE, 1, &metrics);
    code = code < 0 ? code : reduce(rank);
    return code < 0 ? code : record_gradients(rank);
}

static int wait_until(const struct rank *rank, const atomic_uint *counter, uint32_t wanted) {
    uint64_t until_ns = nnc_clock_ns() + (uint64_t)(DEADLINE_MS + LEAVING_MS) * 1000000;
    /* Relaxed: only the number counts. */
    while (atomic_load_explicit(counter, memory_order_relaxed) < wanted) {
        if (nnc_clock_ns() > until_ns) {
            return nnc_fail(-NNC_E_COMM, "rank %u waited too long for the others", rank->number);
        }
        nnc_clock_sleep_ns(1000000);
    }
    return 0;
}

static void leave(struct rank *rank) {
    if (rank->comm != NULL) {
        nnc_comm_stop(rank->comm);
    } else {
        rank->model.ops->device->comm_abort(rank->model.backend);
    }
}

/* The last rank only joins. The others step, notice, and leave. */
static int rehearse(struct rank *rank) {
    struct world *world = rank->world;
    uint32_t ranks = world->params->ranks;
    struct nnc_metrics metrics;
    atomic_fetch_add_explicit(&world->joined, 1, memory_order_relaxed);
    int code = wait_until(rank, &world->joined, ranks);
    if (code >= 0 && rank->number == ranks - 1) {
        code = wait_until(rank, &world->noticed, ranks - 1);
        leave(rank);
        return code;
    }
    rank->give_up_ns = nnc_clock_ns() + (uint64_t)PATIENCE_MS * 1000000;
    int stepped = code < 0 ? code : nnc_case_step(&rank->model, NNC_CASE_WHOLE, 1, &metrics);
    stepped = stepped < 0 ? stepped : reduce(rank);
    leave(rank);
    rank->left_seconds = (double)(int64_t)(nnc_clock_ns() - rank->give_up_ns) * 1e-9;
    atomic_fetch_add_explicit(&world->noticed, 1, memory_order_relaxed);
    if (code < 0 || stepped < 0) {
        return code;
    }
    return nnc_fail(-EPROTO, "rank %u got a sum though a rank gave nothing", rank->number);
}

static void *run_rank(void *context) {
    struct rank *rank = context;
    rank->code = open_rank(rank, rank->world->params->ranks);
    rank->code = rank->code < 0 ? rank->code : join(rank);
    if (rank->code >= 0) {
        rank->code = rank->world->drill ? rehearse(rank) : step_together(rank);
    }
    if (rank->code < 0) {
        snprintf(rank->text, sizeof(rank->text), "%s", nnc_error_text());
        rank->give_up_ns = 1;
    }
    if (rank->code < 0 && rank->comm != NULL) {
        nnc_comm_stop(rank->comm); /* nobody waits for this one */
    }
    nnc_case_close(&rank->model);
    nnc_comm_destroy(rank->comm);
    return NULL;
}

/* ---- all ranks ---- */

static int open_world(const struct nnc_selftest_params *params, struct world *ret_world) {
    *ret_world = (struct world){.params = params};
    if (params->ops->device != NULL) {
        return params->ops->device->comm_id(ret_world->id);
    }
    ret_world->memory =
        aligned_alloc(4096, (nnc_comm_shm_bytes(params->ranks) + 4095) / 4096 * 4096);
    if (ret_world->memory == NULL) {
        return nnc_fail(-ENOMEM, "no memory for sums");
    }
    memset(ret_world->memory, 0, nnc_comm_shm_bytes(params->ranks));
    return 0;
}

/* Run all ranks to their ends. The code of the first that failed, with its text. */
static int run_world(struct world *world, struct rank *ranks) {
    uint32_t count = world->params->ranks, started = 0;
    int code = 0;
    for (; code >= 0 && started < count; started++) {
        ranks[started].world = world;
        ranks[started].number = started;
        int error = pthread_create(&ranks[started].thread, NULL, run_rank, &ranks[started]);
        if (error != 0) {
            code = nnc_fail(-error, "a thread for rank %u: %s", started, strerror(error));
            break;
        }
    }
    for (uint32_t number = 0; number < started; number++) {
        pthread_join(ranks[number].thread, NULL);
        if (code >= 0 && ranks[number].code < 0) {
            code = nnc_fail(ranks[number].code, "rank %u: %.900s", number, ranks[number].text);
        }
    }
    return code;
}

/* What each rank computes alone, added up in ranks[0]. */
static int sum_on_host(const struct nnc_selftest_params *params, struct nnc_case_result *ret_sum) {
    struct world world = {.params = params};
    for (uint32_t number = 0; number < params->ranks; number++) {
        struct rank rank = {.world = &world, .number = number};
        struct nnc_metrics metrics;
        int code = open_rank(&rank, 1);
        code = code < 0 ? code : nnc_case_step(&rank.model, NNC_CASE_WHOLE, 1, &metrics);
        code = code < 0 ? code : record_gradients(&rank);
        for (size_t i = 0; code >= 0 && number > 0 && i < rank.result.count; i++) {
            for (size_t place = 0; place < rank.result.vectors[i].count; place++) {
                ret_sum->vectors[i].values[place] += rank.result.vectors[i].values[place];
            }
        }
        nnc_case_close(&rank.model);
        if (number == 0) {
            *ret_sum = rank.result;
        } else {
            nnc_case_result_free(&rank.result);
        }
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static void compare_sums(const struct nnc_selftest_params *params, const struct rank *ranks,
                         const struct nnc_case_result *sum, struct nnc_selftest_line *line) {
    struct nnc_graph *graph;
    struct nnc_program *program;
    struct nnc_case_limits limits;
    struct nnc_case_verdict verdict;
    if (nnc_case_lower(selftest_case(case_name), &graph, &program) < 0) {
        selftest_error(line, case_name);
        return;
    }
    nnc_case_limits(program, params->precision, &limits);
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
    nnc_case_compare(sum, &ranks[0].result, &limits, &verdict);
    selftest_measure(line, verdict.error, verdict.limit, verdict.text);
    for (uint32_t number = 1; number < params->ranks && line->status == NNC_SELFTEST_OK; number++) {
        const char *name = "";
        if (!nnc_case_equal(&ranks[0].result, &ranks[number].result, &name)) {
            line->status = NNC_SELFTEST_FAIL;
            snprintf(line->text, sizeof(line->text), "%s differs between rank 0 and rank %u", name,
                     number);
        }
    }
}

static uint32_t check_sums(const struct nnc_selftest_params *params, struct rank *ranks) {
    struct nnc_selftest_line line = selftest_line(params, "sums over ranks");
    struct nnc_case_result sum = {0};
    struct world world;
    selftest_begin(params, line.check);
    int code = open_world(params, &world);
    code = code < 0 ? code : run_world(&world, ranks);
    code = code < 0 ? code : sum_on_host(params, &sum);
    if (code < 0) {
        selftest_error(&line, case_name);
    } else {
        compare_sums(params, ranks, &sum, &line);
    }
    line.cases = params->ranks;
    nnc_case_result_free(&sum);
    for (uint32_t number = 0; number < params->ranks; number++) {
        nnc_case_result_free(&ranks[number].result);
    }
    free(world.memory);
    return selftest_tell(params, &line);
}

static uint32_t check_drill(const struct nnc_selftest_params *params, struct rank *ranks) {
    struct nnc_selftest_line line = selftest_line(params, "ranks leave when one gives nothing");
    struct world world;
    selftest_begin(params, line.check);
    int code = open_world(params, &world);
    world.drill = true;
    memset(ranks, 0, params->ranks * sizeof(*ranks));
    code = code < 0 ? code : run_world(&world, ranks);
    if (code < 0) {
        selftest_error(&line, "drill");
    }
    double slowest = 0;
    for (uint32_t number = 0; number < params->ranks; number++) {
        slowest = fmax(slowest, ranks[number].left_seconds);
    }
    if (code >= 0 && slowest > LEAVING_MS / 1000.0) {
        line.status = NNC_SELFTEST_FAIL;
        snprintf(line.text, sizeof(line.text), "the slowest took %.1f s to leave", slowest);
    }
    line.cases = params->ranks;
    free(world.memory);
    return selftest_tell(params, &line);
}

uint32_t nnc_selftest_ranks(const struct nnc_selftest_params *params) {
    assert(params->ranks >= 2);
    struct rank *ranks = calloc(params->ranks, sizeof(*ranks));
    if (ranks == NULL) {
        struct nnc_selftest_line line = selftest_line(params, "sums over ranks");
        nnc_fail(-ENOMEM, "no memory for ranks");
        selftest_error(&line, case_name);
        return selftest_tell(params, &line);
    }
    uint32_t failed = check_sums(params, ranks);
    failed += check_drill(params, ranks);
    free(ranks);
    return failed;
}
