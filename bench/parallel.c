/* SPDX-License-Identifier: Apache-2.0 */
/* The same work in several processes at once, timed.
 *
 *   fork -> open, warm up -> ready | all ready: go | sample, sample, ... until the deadline
 *
 * The processes share one anonymous page: numbers of samples, the signal, and each one's results,
 * which the parent reads after it has reaped all of them. A process that dies before it is ready
 * would leave the others waiting, so they watch for the death of their siblings through `failed`,
 * which every early exit sets, and the kernel kills them with their parent. */
#include "bench/parallel.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PROCESSES_MAX = 64,
    POLL_NS = 200000
};

struct page {
    _Atomic uint64_t next;     /* number of the next sample */
    _Atomic uint32_t ready;    /* processes that have warmed up; the parent waits for all */
    _Atomic uint64_t begin_ns; /* the start signal, 0 before; released by the parent */
    _Atomic uint32_t failed;
    struct {
        uint64_t samples, end_ns;
        double cpu_seconds;
    } result[PROCESSES_MAX];
};

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* What one process does. 0 or negative. */
static int run_process(const struct bench_work *work, struct page *page, uint32_t number,
                       uint64_t duration_ns) {
    void *own = work->open(work->shared);
    if (own == NULL) {
        return -1;
    }
    for (uint64_t i = 0; i < work->warmup; i++) {
        if (work->sample(own, i) < 0) {
            return -1;
        }
    }
    atomic_fetch_add(&page->ready, 1);
    uint64_t begin_ns;
    while ((begin_ns = atomic_load(&page->begin_ns)) == 0) {
        if (atomic_load(&page->failed) != 0) {
            return -1;
        }
        nnc_clock_sleep_ns(POLL_NS);
    }
    double began = cpu_seconds();
    uint64_t samples = 0;
    while (nnc_clock_ns() - begin_ns < duration_ns) {
        if (work->sample(own, atomic_fetch_add(&page->next, 1)) < 0) {
            return -1;
        }
        samples++;
    }
    page->result[number].end_ns = nnc_clock_ns();
    page->result[number].samples = samples;
    page->result[number].cpu_seconds = cpu_seconds() - began;
    return 0;
}

static int start(const struct bench_work *work, struct page *page, uint32_t number,
                 uint64_t duration_ns) {
    pid_t pid = fork();
    if (pid != 0) {
        return pid < 0 ? -errno : 0;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int code = run_process(work, page, number, duration_ns);
    if (code < 0) {
        atomic_store(&page->failed, 1);
    }
    _exit(code < 0 ? 1 : 0);
}

/* Give the start signal once all are ready, unless one has failed or died. */
static void give_signal(struct page *page, uint32_t processes) {
    while (atomic_load(&page->ready) < processes && atomic_load(&page->failed) == 0) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
            atomic_store(&page->failed, 1);
        }
        nnc_clock_sleep_ns(POLL_NS);
    }
    atomic_store(&page->begin_ns, nnc_clock_ns());
}

static int reap(uint32_t processes) {
    int code = 0;
    for (uint32_t i = 0; i < processes; i++) {
        int status;
        if (wait(&status) < 0 || status != 0) {
            code = -1;
        }
    }
    return code;
}

int bench_parallel(const struct bench_work *work, uint32_t processes, double seconds,
                   struct bench_total *ret_total) {
    if (processes < 1 || processes > PROCESSES_MAX || !(seconds > 0.0)) {
        fprintf(stderr, "bench: 1 to %d processes and a positive time are expected\n",
                PROCESSES_MAX);
        return -EINVAL;
    }
    struct page *page =
        mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        fprintf(stderr, "bench: no shared page\n");
        return -ENOMEM;
    }
    int code = 0;
    uint32_t started = 0;
    while (started < processes && code == 0) {
        code = start(work, page, started, (uint64_t)(seconds * 1e9));
        started += code == 0;
    }
    if (code < 0) {
        atomic_store(&page->failed, 1);
    }
    give_signal(page, processes);
    if (reap(started) < 0 || code < 0 || atomic_load(&page->failed) != 0) {
        fprintf(stderr, "bench: a process failed\n");
        code = -ECHILD;
        goto out;
    }
    struct bench_total total = {.samples = 0};
    uint64_t end_ns = 0;
    for (uint32_t i = 0; i < processes; i++) {
        total.samples += page->result[i].samples;
        total.cpu_seconds += page->result[i].cpu_seconds;
        end_ns = page->result[i].end_ns > end_ns ? page->result[i].end_ns : end_ns;
    }
    total.seconds = (double)(end_ns - atomic_load(&page->begin_ns)) * 1e-9;
    *ret_total = total;
out:
    munmap(page, sizeof(*page));
    return code;
}

void bench_print(const struct bench_total *total) {
    double samples = total->samples > 0 ? (double)total->samples : 1.0;
    printf("{\"images_per_s\": %.3f, \"cpu_s_per_1000\": %.6f, \"images\": %llu, "
           "\"seconds\": %.6f}\n",
           (double)total->samples / total->seconds, 1000.0 * total->cpu_seconds / samples,
           (unsigned long long)total->samples, total->seconds);
}
