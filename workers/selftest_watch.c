/* SPDX-License-Identifier: Apache-2.0 */
/* See selftest_watch.h. The thread sleeps until the limit of the case that goes on, or until
 * another one begins.
 *
 * Does not clean up: whatever would be freed may be in use by the device that hangs. */
#include "workers/selftest_watch.h"

#include "base/err.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct nnc_selftest_watch {
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    uint32_t limit_s;
    struct timespec until; /* on the monotonic clock */
    bool watches;          /* a case goes on */
    bool stops;
    char what[300];
    void (*on_hang)(void *context, const char *what);
    void *context;
};

static void *watch_cases(void *context) {
    struct nnc_selftest_watch *watch = context;
    pthread_mutex_lock(&watch->lock);
    while (!watch->stops) {
        struct timespec until = watch->until;
        int error = watch->watches ? pthread_cond_timedwait(&watch->changed, &watch->lock, &until)
                                   : pthread_cond_wait(&watch->changed, &watch->lock);
        bool same = until.tv_sec == watch->until.tv_sec && until.tv_nsec == watch->until.tv_nsec;
        if (error == ETIMEDOUT && same && !watch->stops) {
            fprintf(stderr,
                    "nncoord: %s: has not ended within %" PRIu32 " s: the device hangs, or is very "
                    "slow (--step-timeout); the system's log may say why\n",
                    watch->what, watch->limit_s);
            watch->on_hang(watch->context, watch->what);
            _exit(NNC_EXIT_INTERNAL);
        }
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

int nnc_selftest_watch_start(uint32_t limit_s, void (*on_hang)(void *context, const char *what),
                             void *context, struct nnc_selftest_watch **ret_watch) {
    struct nnc_selftest_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a watch");
    }
    watch->limit_s = limit_s;
    watch->on_hang = on_hang;
    watch->context = context;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&watch->lock, NULL);
    int error = pthread_create(&watch->thread, NULL, watch_cases, watch);
    if (error != 0) {
        free(watch);
        return nnc_fail(-error, "a thread that watches the cases: %s", strerror(error));
    }
    *ret_watch = watch;
    return 0;
}

void nnc_selftest_watch_case(struct nnc_selftest_watch *watch, const char *what) {
    pthread_mutex_lock(&watch->lock);
    clock_gettime(CLOCK_MONOTONIC, &watch->until);
    watch->until.tv_sec += watch->limit_s;
    watch->watches = true;
    snprintf(watch->what, sizeof(watch->what), "%s", what);
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

void nnc_selftest_watch_stop(struct nnc_selftest_watch *watch) {
    if (watch == NULL) {
        return;
    }
    pthread_mutex_lock(&watch->lock);
    watch->stops = true;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->changed);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}
