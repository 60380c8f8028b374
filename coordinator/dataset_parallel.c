/* SPDX-License-Identifier: Apache-2.0 */
/* A parallel loop over an atomic counter.
 *
 * Invariant: turns are claimed in order, so when turn i fails, all turns before i were claimed and
 * end; the smallest failed turn is thus the one a sequential loop would have reported.
 *
 * It keeps no threads between loops and falls back to fewer threads when none can be made. */
#include "coordinator/dataset_parallel.h"

#include "base/err.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define THREADS_MAX 64u

struct loop {
    size_t count;
    int (*run)(void *context, size_t i);
    void *context;
    atomic_size_t next;
    atomic_bool stop;
    pthread_mutex_t lock; /* guards the three below */
    size_t failed_turn;
    int code;
    char text[NNC_ERROR_TEXT_MAX];
};

uint32_t nnc_scan_threads(uint32_t wanted) {
    if (wanted > 0) {
        return wanted < THREADS_MAX ? wanted : THREADS_MAX;
    }
    cpu_set_t cpus;
    int usable = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    return usable < 1 ? 1 : usable > 8 ? 8 : (uint32_t)usable;
}

/* Keep the error of the smallest failed turn; the text is per thread and would die with it. */
static void note_failure(struct loop *loop, size_t turn, int code) {
    pthread_mutex_lock(&loop->lock);
    if (loop->code >= 0 || turn < loop->failed_turn) {
        loop->failed_turn = turn;
        loop->code = code;
        snprintf(loop->text, sizeof(loop->text), "%s", nnc_error_text());
    }
    pthread_mutex_unlock(&loop->lock);
    /* Only a hint to stop early; results travel through the lock and pthread_join. */
    atomic_store_explicit(&loop->stop, true, memory_order_relaxed);
}

static void *work(void *argument) {
    struct loop *loop = argument;
    while (!atomic_load_explicit(&loop->stop, memory_order_relaxed)) {
        size_t turn = atomic_fetch_add_explicit(&loop->next, 1, memory_order_relaxed);
        if (turn >= loop->count) {
            break;
        }
        int code = loop->run(loop->context, turn);
        if (code < 0) {
            note_failure(loop, turn, code);
        }
    }
    return NULL;
}

int nnc_parallel_for(size_t count, uint32_t threads, int (*run)(void *context, size_t i),
                     void *context) {
    struct loop loop = {.count = count, .run = run, .context = context};
    pthread_t helpers[THREADS_MAX];
    size_t wanted = threads < count ? threads : count;
    size_t started = 0;
    pthread_mutex_init(&loop.lock, NULL);
    while (started + 1 < wanted && started + 1 < THREADS_MAX &&
           pthread_create(&helpers[started], NULL, work, &loop) == 0) {
        started++;
    }
    work(&loop);
    for (size_t i = 0; i < started; i++) {
        pthread_join(helpers[i], NULL);
    }
    pthread_mutex_destroy(&loop.lock);
    return loop.code < 0 ? nnc_fail(loop.code, "%s", loop.text) : 0;
}
