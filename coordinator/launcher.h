/* SPDX-License-Identifier: Apache-2.0 */
/* Where a launcher of processes put us in a training over several machines: torchrun and Slurm's
 * srun tell each process by environment variables. One row a launcher; the first whose variables
 * are set counts, so that a torchrun within a Slurm step is asked before Slurm. */
#ifndef NNC_COORDINATOR_LAUNCHER_H
#define NNC_COORDINATOR_LAUNCHER_H

#include "base/config.h"

#include <stddef.h>

/* What a launcher says. */
enum nnc_launcher_word {
    NNC_LAUNCHER_STEP,       /* number of the step within the job */
    NNC_LAUNCHER_SIZE,       /* processes in all */
    NNC_LAUNCHER_RANK,       /* this one's number */
    NNC_LAUNCHER_LOCAL_SIZE, /* processes on this machine */
    NNC_LAUNCHER_LOCAL_RANK, /* this one's number among them */
    NNC_LAUNCHER_MACHINES,
    NNC_LAUNCHER_HOST, /* of the process of rank 0, or a list of all hosts */
    NNC_LAUNCHER_PORT,
    NNC_LAUNCHER_ID,
    NNC_LAUNCHER_AGENT, /* "True": the launcher itself listens on the port */
    NNC_LAUNCHER_WORDS,
};

struct nnc_launcher {
    const char *name;
    const char *variables[NNC_LAUNCHER_WORDS][2]; /* the first that is set counts; NULL: none */
    unsigned present; /* mask of the words without which we were not started by it */
    bool lists_hosts; /* the host is a list like "node[003-007,9],x", the port made of id and step
                         (launcher.c) */
};

/* Ended by a NULL name. */
extern const struct nnc_launcher nnc_launchers[];

/* Take the place of this process from the launcher that started it, where command is one of several
 * machines (train, bench comm) and its line and environment give neither --nnodes nor --node-rank:
 * nnodes, node_rank, endpoint, id, and of several processes on one machine that ask for GPUs, each
 * its own. An endpoint or id that is given stays. Then check what several machines need
 * (nnc_config_check_machines), and where no launcher counts, what it would have said
 * (nnc_config_check_place); one that started a single process may be given a secret all the same,
 * for scripts serve any number. Call it once, when the log is set up. Errors: -NNC_E_USAGE naming
 * the variable or the option. */
int nnc_launcher_apply(struct nnc_command *command);

/* The first host of a list as Slurm writes it: "node[003-007,9],x" is node003.
 * Errors: -NNC_E_FORMAT, without text: it is none, or longer than room. */
int nnc_launcher_first_host(const char *list, char *ret_host, size_t room);

#endif
