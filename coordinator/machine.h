/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine gives us: CPUs (affinity and cgroup quota), memory (free and cgroup limit),
 * limits of the process, whether io_uring can be used. Facts only; plan.h decides. */
#ifndef NNC_COORDINATOR_MACHINE_H
#define NNC_COORDINATOR_MACHINE_H

#include <stdint.h>

struct nnc_machine {
    uint32_t cpus_online;
    uint32_t cpus_affinity;    /* CPUs this process may run on */
    uint32_t cpus_quota;       /* of the cgroup, rounded up; 0: none */
    uint32_t cpus;             /* the least of the above: the CPU budget */
    const char *cpus_limit;    /* which of them bound: "affinity", "cgroup quota", "CPUs online" */
    uint64_t memory_available; /* bytes: MemAvailable */
    uint64_t memory_cgroup;    /* bytes left under the tightest memory.max; UINT64_MAX: no limit */
    uint64_t memory;           /* the least of both */
    uint64_t nofile_soft, nofile_hard, memlock_soft;
    int32_t uring_errno; /* 0: io_uring_setup works; else why not */
    char cpu_name[64];
    char kernel[64];
};

/* Look at the machine. Never fails: what cannot be read counts as no limit. */
void nnc_machine_probe(struct nnc_machine *ret_machine);

/* Name of an errno that io_uring_setup gave, with its usual cause: "EPERM (seccomp profile or
 * kernel.io_uring_disabled)". */
const char *nnc_machine_uring_reason(int error);

#endif
