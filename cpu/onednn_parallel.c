/* SPDX-License-Identifier: Apache-2.0 */
/* The door to libgomp; see onednn_parallel.h for why it is called by name. */
#include "cpu/onednn_parallel.h"

#include <assert.h>

/* libgomp's ABI; declared here because <omp.h> of another compiler would bring another runtime. */
extern void GOMP_parallel(void (*function)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);
extern void omp_set_num_threads(int threads);

struct team {
    void (*work)(void *context, uint32_t thread, uint32_t threads);
    void *context;
    uint32_t threads;
};

static void run_member(void *data) {
    const struct team *team = data;
    team->work(team->context, (uint32_t)omp_get_thread_num(), team->threads);
}

void nnc_parallel_init(uint32_t threads) {
    assert(threads >= 1);
    omp_set_num_threads((int)threads);
}

void nnc_parallel(uint32_t threads, void (*work)(void *context, uint32_t thread, uint32_t threads),
                  void *context) {
    if (threads == 1) {
        work(context, 0, 1);
        return;
    }
    struct team team = {.work = work, .context = context, .threads = threads};
    GOMP_parallel(run_member, &team, threads, 0);
}
