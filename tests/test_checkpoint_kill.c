/* SPDX-License-Identifier: Apache-2.0 */
/* Savers killed at random instants on a real file system: what was reported is still there, and the
 * next saver leaves no temporaries. */
#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/checkpoint_case.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    KILLS = 120,
    LONGEST_LIFE_US = 30000,
};

static int count_temporary(void *context, const char *name) {
    *(int *)context += strstr(name, ".tmp.") != NULL;
    return 0;
}

/* Save step after step until killed; tell the parent each one that is durable. */
static void save_for_ever(struct checkpoint_case *checkpoint, uint64_t step, int told_fd) {
    for (;; step++) {
        checkpoint_case_set(checkpoint, step);
        if (checkpoint_case_save(checkpoint, nnc_vfs_real(), 2, step % 3 == 0) < 0) {
            _exit(1);
        }
        if (write(told_fd, &step, sizeof(step)) != (ssize_t)sizeof(step)) {
            _exit(2);
        }
    }
}

/* Newest step that the saver reported before it was killed, or `newest`. */
static uint64_t kill_one_saver(struct checkpoint_case *checkpoint, uint64_t newest,
                               uint32_t life_us) {
    int told[2], status;
    cr_assert_eq(pipe(told), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        close(told[0]);
        save_for_ever(checkpoint, newest + 1, told[1]);
    }
    close(told[1]);
    nnc_clock_sleep_ns(life_us * 1000ull);
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status), "the saver ended by itself: %x", status);
    uint64_t step;
    while (read(told[0], &step, sizeof(step)) == (ssize_t)sizeof(step)) {
        newest = step;
    }
    close(told[0]);
    return newest;
}

Test(checkpoint_kill, a_killed_saver_never_costs_what_was_reported) {
    char directory[] = "/tmp/nncoord-test-XXXXXX";
    char before[1024];
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_not_null(getcwd(before, sizeof(before)));
    cr_assert_eq(chdir(directory), 0);
    struct nnc_vfs *vfs = nnc_vfs_real();
    cr_assert_eq(nnc_vfs_make_dirs(vfs, "run", 0700), 0);
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 400); /* half a megabyte: saving takes a while */
    struct nnc_rng rng = nnc_rng_make(77, NNC_RNG_SYNTHETIC, 0, 0);
    uint64_t newest = 0;
    unsigned in_the_middle = 0;
    for (int number = 0; number < KILLS; number++) {
        uint64_t reported =
            kill_one_saver(&checkpoint, newest, nnc_rng_below(&rng, LONGEST_LIFE_US));
        int64_t found = checkpoint_case_find(&checkpoint, vfs);
        cr_assert(found >= (int64_t)reported || (reported == 0 && found == -1),
                  "kill %d: reported %llu, found %lld: %s", number, (unsigned long long)reported,
                  (long long)found, nnc_error_text());
        int left = 0;
        cr_assert_eq(vfs->ops->list(vfs, "run", count_temporary, &left), 0);
        in_the_middle += left > 0;
        newest = found > 0 ? (uint64_t)found : 0;
    }
    cr_assert_gt(in_the_middle, KILLS / 10, "only %u kills hit a save", in_the_middle);
    checkpoint_case_set(&checkpoint, newest + 1);
    cr_assert_eq(checkpoint_case_save(&checkpoint, vfs, 1, false), 0);
    int left = 0;
    cr_assert_eq(vfs->ops->list(vfs, "run", count_temporary, &left), 0);
    cr_assert_eq(left, 0);
    checkpoint_case_finish(&checkpoint);
    cr_assert_eq(chdir(before), 0);
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    cr_assert_eq(system(command), 0);
}
