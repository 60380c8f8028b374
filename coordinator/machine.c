/* SPDX-License-Identifier: Apache-2.0 */
/* Reads /proc, the cgroup tree (v2) and the limits of this process.
 *
 * A cgroup limit counts at every level above us: the tightest one wins, since an ancestor's quota
 * binds its whole subtree. Source: Documentation/admin-guide/cgroup-v2.rst of the kernel. */
#include "coordinator/machine.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

/* First line of a small file without its newline; 0 or -1. */
static int read_line(const char *path, char *ret_line, size_t bytes) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return -1;
    }
    char *line = fgets(ret_line, (int)bytes, file);
    fclose(file);
    if (line == NULL) {
        return -1;
    }
    line[strcspn(line, "\n")] = '\0';
    return 0;
}

/* Value in KiB of a "Name:  123 kB" line of /proc/meminfo, in bytes; UINT64_MAX when absent. */
static uint64_t meminfo_bytes(const char *name) {
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL) {
        return UINT64_MAX;
    }
    char line[256];
    uint64_t bytes = UINT64_MAX;
    size_t length = strlen(name);
    while (bytes == UINT64_MAX && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            bytes = strtoull(line + length + 1, NULL, 10) * 1024;
        }
    }
    fclose(file);
    return bytes;
}

/* Our cgroup v2 directory below CGROUP_ROOT; "" when there is none. */
static void own_cgroup(char *ret_path, size_t bytes) {
    FILE *file = fopen("/proc/self/cgroup", "re");
    ret_path[0] = '\0';
    if (file == NULL) {
        return;
    }
    char line[PATH_MAX];
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(ret_path, bytes, "%s", line + 3);
        }
    }
    fclose(file);
}

static uint64_t cgroup_number(const char *group, const char *name) {
    char path[2 * PATH_MAX];
    char line[128];
    snprintf(path, sizeof(path), CGROUP_ROOT "%s/%s", group, name);
    if (read_line(path, line, sizeof(line)) < 0 || !isdigit((unsigned char)line[0])) {
        return UINT64_MAX;
    }
    return strtoull(line, NULL, 10);
}

static void apply_cpu_quota(const char *group, struct nnc_machine *machine) {
    char path[2 * PATH_MAX];
    char line[128];
    unsigned long long quota, period;
    snprintf(path, sizeof(path), CGROUP_ROOT "%s/cpu.max", group);
    if (read_line(path, line, sizeof(line)) < 0 ||
        sscanf(line, "%llu %llu", &quota, &period) != 2 || period == 0) {
        return;
    }
    uint32_t cpus = (uint32_t)((quota + period - 1) / period);
    cpus = cpus == 0 ? 1 : cpus;
    if (machine->cpus_quota == 0 || cpus < machine->cpus_quota) {
        machine->cpus_quota = cpus;
    }
}

static void apply_memory_limit(const char *group, struct nnc_machine *machine) {
    uint64_t limit = cgroup_number(group, "memory.max");
    uint64_t used = cgroup_number(group, "memory.current");
    if (limit == UINT64_MAX || used == UINT64_MAX) {
        return;
    }
    uint64_t left = limit > used ? limit - used : 0;
    if (left < machine->memory_cgroup) {
        machine->memory_cgroup = left;
    }
}

static void probe_cgroups(struct nnc_machine *machine) {
    char group[PATH_MAX];
    own_cgroup(group, sizeof(group));
    for (;;) {
        apply_cpu_quota(group, machine);
        apply_memory_limit(group, machine);
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

static void probe_cpus(struct nnc_machine *machine) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    machine->cpus_online = online > 0 ? (uint32_t)online : 1;
    cpu_set_t set;
    machine->cpus_affinity = machine->cpus_online;
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) {
        machine->cpus_affinity = (uint32_t)CPU_COUNT(&set);
    }
    machine->cpus = machine->cpus_online;
    machine->cpus_limit = "CPUs online";
    if (machine->cpus_affinity < machine->cpus) {
        machine->cpus = machine->cpus_affinity;
        machine->cpus_limit = "affinity";
    }
    if (machine->cpus_quota != 0 && machine->cpus_quota < machine->cpus) {
        machine->cpus = machine->cpus_quota;
        machine->cpus_limit = "cgroup quota";
    }
}

static void probe_names(struct nnc_machine *machine) {
    struct utsname name;
    if (uname(&name) == 0) {
        snprintf(machine->kernel, sizeof(machine->kernel), "%.60s", name.release);
    }
    snprintf(machine->cpu_name, sizeof(machine->cpu_name), "unknown CPU");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL) {
        return;
    }
    char line[512];
    while (fgets(line, sizeof(line), file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            colon[strcspn(colon, "\n")] = '\0';
            snprintf(machine->cpu_name, sizeof(machine->cpu_name), "%.60s", colon + 2);
            break;
        }
    }
    fclose(file);
}

static void probe_limits(struct nnc_machine *machine) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        machine->nofile_soft = limit.rlim_cur;
        machine->nofile_hard = limit.rlim_max;
    }
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        machine->memlock_soft = limit.rlim_cur;
    }
}

static int32_t probe_uring(void) {
    struct io_uring_params params;
    memset(&params, 0, sizeof(params));
    long fd = syscall(SYS_io_uring_setup, 4u, &params);
    if (fd < 0) {
        return errno;
    }
    close((int)fd);
    return 0;
}

void nnc_machine_probe(struct nnc_machine *ret_machine) {
    struct nnc_machine machine = {.memory_cgroup = UINT64_MAX};
    probe_cgroups(&machine);
    probe_cpus(&machine);
    probe_names(&machine);
    probe_limits(&machine);
    machine.memory_available = meminfo_bytes("MemAvailable");
    machine.memory = machine.memory_available < machine.memory_cgroup ? machine.memory_available
                                                                      : machine.memory_cgroup;
    machine.uring_errno = probe_uring();
    *ret_machine = machine;
}

const char *nnc_machine_uring_reason(int error) {
    switch (error) {
    case 0:
        return "works";
    case EPERM:
        return "EPERM (seccomp profile or kernel.io_uring_disabled)";
    case ENOSYS:
        return "ENOSYS (kernel or sandbox without io_uring)";
    case ENOMEM:
        return "ENOMEM (locked-memory limit, ulimit -l)";
    default:
        return strerror(error);
    }
}
