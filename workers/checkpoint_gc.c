/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting and setting aside checkpoints.
 *
 * Invariants:
 *   1. The newest and the best one are never deleted; others only after something newer is durable
 * and was read back (the caller saw to that).
 *   2. A directory gets a temporary name before anything in it is unlinked, so that a half-deleted
 * one is never taken for a damaged one.
 *
 * It does not decide when (checkpoint_save.c). */
#include "workers/checkpoint.h"

#include "workers/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Name in RUN/best, or "" when there is none. */
static void read_best(struct nnc_vfs *vfs, const char *run_dir, char ret_name[64]) {
    char path[NNC_CHECKPOINT_PATH_MAX], text[65] = "";
    ret_name[0] = '\0';
    if (nnc_path_join(run_dir, "best", path, sizeof(path)) < 0) {
        return;
    }
    int fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
    if (fd < 0) {
        return;
    }
    ssize_t got = vfs->ops->pread(vfs, fd, text, sizeof(text) - 1, 0);
    vfs->ops->close(vfs, fd);
    if (got <= 0 || sscanf(text, "%63s", ret_name) != 1) {
        ret_name[0] = '\0';
    }
}

static int delete_one(struct nnc_vfs *vfs, const char *run_dir, const char *name) {
    char path[NNC_CHECKPOINT_PATH_MAX], doomed[NNC_CHECKPOINT_PATH_MAX + 16];
    int code = nnc_path_join(run_dir, name, path, sizeof(path));
    if (code < 0) {
        return code;
    }
    snprintf(doomed, sizeof(doomed), "%s.tmp.gc", path);
    code = nnc_vfs_remove_tree(vfs, doomed);
    code = code < 0 ? code : vfs->ops->rename(vfs, path, doomed, 1);
    return code < 0 ? code : nnc_vfs_remove_tree(vfs, doomed);
}

int nnc_checkpoint_delete_old(struct nnc_vfs *vfs, const char *run_dir, uint32_t keep) {
    struct nnc_checkpoint_entry *entries;
    size_t count;
    int code = nnc_checkpoint_list(vfs, run_dir, &entries, &count);
    if (code < 0) {
        return code;
    }
    char best[64];
    read_best(vfs, run_dir, best);
    for (size_t number = keep > 0 ? keep : 1; code == 0 && number < count; number++) {
        if (strcmp(entries[number].name, best) != 0) {
            code = delete_one(vfs, run_dir, entries[number].name);
        }
    }
    free(entries);
    return code;
}

void nnc_checkpoint_make_room(struct nnc_vfs *vfs, const char *run_dir) {
    struct nnc_checkpoint newest;
    if (nnc_checkpoint_find(vfs, run_dir, &newest) == 1 && newest.skipped == 0) {
        nnc_checkpoint_delete_old(vfs, run_dir, 1);
    }
}

struct leftovers {
    char (*names)[128];
    size_t count, room;
};

static int visit_leftover(void *context, const char *name) {
    struct leftovers *leftovers = context;
    if (strncmp(name, "ckpt-", 5) != 0 || strstr(name, ".tmp.") == NULL ||
        strlen(name) >= sizeof(leftovers->names[0])) {
        return 0;
    }
    if (leftovers->count == leftovers->room) {
        size_t room = leftovers->room * 2 + 16;
        void *names = realloc(leftovers->names, room * sizeof(leftovers->names[0]));
        if (names == NULL) {
            return nnc_fail(-ENOMEM, "no memory for a list of names");
        }
        leftovers->names = names;
        leftovers->room = room;
    }
    memcpy(leftovers->names[leftovers->count++], name, strlen(name) + 1);
    return 0;
}

int nnc_checkpoint_clean(struct nnc_vfs *vfs, const char *run_dir) {
    struct leftovers leftovers = {0};
    int code = vfs->ops->list(vfs, run_dir, visit_leftover, &leftovers);
    if (code == -ENOENT) {
        code = 0;
    } else if (code < 0 && code != -ENOMEM) {
        nnc_fail(code, "list %s: %s", run_dir, strerror(-code));
    }
    for (size_t number = 0; code == 0 && number < leftovers.count; number++) {
        char path[NNC_CHECKPOINT_PATH_MAX];
        code = nnc_path_join(run_dir, leftovers.names[number], path, sizeof(path));
        code = code < 0 ? code : nnc_vfs_remove_tree(vfs, path);
    }
    free(leftovers.names);
    return code;
}

static int discard_one(struct nnc_vfs *vfs, const char *run_dir, const char *name) {
    char from[NNC_CHECKPOINT_PATH_MAX], to[NNC_CHECKPOINT_PATH_MAX], aside[80];
    snprintf(aside, sizeof(aside), "discarded-%.63s", name);
    int code = nnc_path_join(run_dir, name, from, sizeof(from));
    code = code < 0 ? code : nnc_path_join(run_dir, aside, to, sizeof(to));
    code = code < 0 ? code : nnc_vfs_remove_tree(vfs, to);
    if (code < 0) {
        return code;
    }
    code = vfs->ops->rename(vfs, from, to, 1);
    return code < 0 ? nnc_fail(code, "rename %s to %s: %s", from, to, strerror(-code)) : 0;
}

static int remove_marker(struct nnc_vfs *vfs, const char *run_dir, const char *name) {
    char path[NNC_CHECKPOINT_PATH_MAX];
    int code = nnc_path_join(run_dir, name, path, sizeof(path));
    if (code < 0) {
        return code;
    }
    code = vfs->ops->unlink(vfs, path);
    return code < 0 && code != -ENOENT ? nnc_fail(code, "remove %s: %s", path, strerror(-code)) : 0;
}

int nnc_checkpoint_discard(struct nnc_vfs *vfs, const char *run_dir) {
    struct nnc_checkpoint_entry *entries;
    size_t count;
    int code = nnc_checkpoint_list(vfs, run_dir, &entries, &count);
    if (code < 0) {
        return code == -ENOENT ? 0 : code;
    }
    for (size_t number = 0; code == 0 && number < count; number++) {
        code = discard_one(vfs, run_dir, entries[number].name);
    }
    if (code == 0 && count > 0) {
        code = remove_marker(vfs, run_dir, "LATEST");
        code = code < 0 ? code : remove_marker(vfs, run_dir, "best");
    }
    free(entries);
    return code;
}
