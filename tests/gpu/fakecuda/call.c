/* SPDX-License-Identifier: Apache-2.0 */
/* What every call of every stand-in library begins and ends with: the lock, the scheduler's turn,
 * faults, the sticky error, the last error; and how violations are said. */
#include "tests/gpu/fakecuda/fakecuda.h"
#include "tests/gpu/fakecuda/testing.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cudaError_t sticky;
static _Thread_local int chosen_device;
static _Thread_local cudaError_t last_error;
static _Thread_local enum fake_action pending;
static _Thread_local int64_t pending_ms;
static bool recording;
static char violation[1024], taken[1024];

void fake_lock(void) {
    pthread_mutex_lock(&lock);
}

void fake_unlock(void) {
    pthread_mutex_unlock(&lock);
}

void fake_nap(void) {
    fake_unlock();
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    fake_lock();
}

/* Errors that the call itself returns; what concerns the operation it queues waits in `pending`. */
static cudaError_t apply(enum fake_action action) {
    switch (action) {
    case FAKE_OOM:
        return cudaErrorMemoryAllocation;
    case FAKE_ERROR:
        fake_break(cudaErrorECCUncorrectable);
        return sticky;
    case FAKE_KILL:
        kill(getpid(), SIGKILL);
        return cudaErrorUnknown;
    case FAKE_REFUSE:
        return cudaErrorNotSupported;
    case FAKE_NO_DEVICE:
        return cudaErrorNoDevice;
    case FAKE_FAIL:
        return cudaErrorUnknown;
    case FAKE_NONE:
    case FAKE_LATE:
    case FAKE_HANG:
    case FAKE_REMOTE:
    case FAKE_SLOW:
    case FAKE_ACTION_COUNT:
        break;
    }
    pending = action;
    return cudaSuccess;
}

cudaError_t fake_enter(const char *function) {
    fake_lock();
    cudaError_t code = apply(fake_fault(function, chosen_device, &pending_ms));
    if (code == cudaSuccess && !sticky) {
        fake_schedule();
    }
    return sticky ? sticky : code;
}

enum fake_action fake_take_fault(int64_t *ret_ms) {
    enum fake_action action = pending;
    pending = FAKE_NONE;
    *ret_ms = pending_ms;
    return action;
}

void fake_put_fault(enum fake_action action, int64_t ms) {
    pending = action;
    pending_ms = ms;
}

cudaError_t fake_leave(cudaError_t code) {
    int64_t ms = 0;
    enum fake_action left = fake_take_fault(&ms);
    if (code != cudaSuccess) {
        last_error = code;
    }
    fake_unlock();
    /* A fault that no operation took is the call's own. */
    while (left == FAKE_HANG) {
        pause();
    }
    if (left == FAKE_SLOW) {
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
    }
    return code;
}

void fake_break(cudaError_t code) {
    sticky = sticky ? sticky : code;
}

cudaError_t fake_broken(void) {
    return sticky;
}

int fake_device(void) {
    return chosen_device;
}

void fake_device_choose(int device) {
    chosen_device = device;
}

void fake_violation(const char *format, ...) {
    char text[sizeof violation];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!recording) {
        fprintf(stderr, "fakecuda: %s\n", text);
        abort();
    }
    if (violation[0] == 0) {
        snprintf(violation, sizeof violation, "%s", text);
    }
}

void fakecuda_record_violations(bool record) {
    fake_lock();
    recording = record;
    fake_unlock();
}

const char *fakecuda_violation(void) {
    fake_lock();
    snprintf(taken, sizeof taken, "%s", violation);
    violation[0] = 0;
    fake_unlock();
    return taken[0] ? taken : NULL;
}

void fakecuda_host_access(const void *memory, size_t bytes, bool write) {
    struct fake_range range = {.memory = memory, .bytes = bytes, .write = write};
    fake_lock();
    const char *user = fake_order_conflict(fake_host_clock(), &range);
    if (user) {
        fake_violation("the host %s %p + %zu, which is in use by %s", write ? "writes" : "reads",
                       memory, bytes, user);
    }
    fake_unlock();
}

void fake_check_launch(const char *kernel) {
    if (!sticky && last_error) {
        fake_violation("%s: launched while the last error is number %d, which it takes for its own",
                       kernel, (int)last_error);
    }
}

cudaError_t fake_last_error(bool clear) {
    cudaError_t code = sticky ? sticky : last_error;
    if (clear) {
        last_error = cudaSuccess;
    }
    return code;
}
