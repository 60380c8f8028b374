/* SPDX-License-Identifier: Apache-2.0 */
/* Finding checkpoints: list a run directory, newest first, and take the first whose files agree
 * with their manifest. LATEST is not needed for that: it is a hint for people and tools.
 *
 * Invariants:
 *   1. What is returned was read and hashed completely.
 *   2. Damaged directories are stepped over, counted and explained; when there is nothing else,
 * that is an error and not a fresh start.
 *   3. Temporary directories are never looked at.
 *
 * It does not read tensors (checkpoint_load.c) and changes nothing (checkpoint_gc.c). */
#include "workers/checkpoint.h"

#include "workers/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEP_DIGITS = 12,
    RUN_JSON_MAX = 1 << 20,
};

int nnc_checkpoint_parse_name(const char *name, uint64_t *ret_step, uint32_t *ret_revision) {
    uint64_t step = 0;
    uint32_t revision = 0;
    int used = 0;
    if (sscanf(name, "ckpt-%" SCNu64 "%n", &step, &used) != 1 ||
        used < (int)strlen("ckpt-") + STEP_DIGITS) {
        return 0;
    }
    if (name[used] == '-') {
        int more = 0;
        if (sscanf(name + used, "-%u%n", &revision, &more) != 1 || revision == 0) {
            return 0;
        }
        used += more;
    }
    if (name[used] != '\0') {
        return 0;
    }
    *ret_step = step;
    *ret_revision = revision;
    return 1;
}

struct listing {
    struct nnc_checkpoint_entry *entries;
    size_t count, room;
};

static int visit_name(void *context, const char *name) {
    struct listing *listing = context;
    struct nnc_checkpoint_entry entry = {0};
    if (strlen(name) >= sizeof(entry.name) ||
        !nnc_checkpoint_parse_name(name, &entry.step, &entry.revision)) {
        return 0;
    }
    memcpy(entry.name, name, strlen(name) + 1);
    if (listing->count == listing->room) {
        size_t room = listing->room * 2 + 16;
        struct nnc_checkpoint_entry *entries =
            realloc(listing->entries, room * sizeof(*listing->entries));
        if (entries == NULL) {
            return nnc_fail(-ENOMEM, "no memory for the list of checkpoints");
        }
        listing->entries = entries;
        listing->room = room;
    }
    listing->entries[listing->count++] = entry;
    return 0;
}

static int newest_first(const void *left, const void *right) {
    const struct nnc_checkpoint_entry *a = left, *b = right;
    if (a->step != b->step) {
        return a->step > b->step ? -1 : 1;
    }
    return a->revision > b->revision ? -1 : a->revision < b->revision;
}

int nnc_checkpoint_list(struct nnc_vfs *vfs, const char *run_dir,
                        struct nnc_checkpoint_entry **ret_entries, size_t *ret_count) {
    struct listing listing = {0};
    int code = vfs->ops->list(vfs, run_dir, visit_name, &listing);
    if (code < 0) {
        free(listing.entries);
        return code == -ENOMEM ? code : nnc_fail(code, "list %s: %s", run_dir, strerror(-code));
    }
    if (listing.count > 0) {
        qsort(listing.entries, listing.count, sizeof(*listing.entries), newest_first);
    }
    *ret_entries = listing.entries;
    *ret_count = listing.count;
    return 0;
}

static int read_state(struct nnc_vfs *vfs, const char *dir, struct nnc_train_state *ret_state) {
    char path[NNC_CHECKPOINT_PATH_MAX];
    int code = nnc_path_join(dir, "run.json", path, sizeof(path));
    if (code < 0) {
        return code;
    }
    int fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
    if (fd < 0) {
        return nnc_fail(fd, "open %s: %s", path, strerror(-fd));
    }
    char *text = NULL;
    int64_t size = vfs->ops->size(vfs, fd);
    if (size < 1 || size > RUN_JSON_MAX) {
        code = nnc_fail(-NNC_E_FORMAT, "%s has %" PRId64 " bytes", path, size);
        goto out;
    }
    text = malloc((size_t)size);
    code = text == NULL ? nnc_fail(-ENOMEM, "no memory for %s", path)
                        : nnc_vfs_read_all(vfs, fd, text, (size_t)size, 0);
    code = code < 0 ? code : nnc_checkpoint_state_parse(text, (size_t)size, ret_state);
out:
    free(text);
    vfs->ops->close(vfs, fd);
    return code;
}

int nnc_checkpoint_open(struct nnc_vfs *vfs, const char *path,
                        struct nnc_checkpoint *ret_checkpoint) {
    struct nnc_checkpoint checkpoint = {0};
    if (strlen(path) >= sizeof(checkpoint.path)) {
        return nnc_fail(-ENAMETOOLONG, "path %.200s... is too long", path);
    }
    memcpy(checkpoint.path, path, strlen(path) + 1);
    int code = nnc_manifest_verify(vfs, path, &checkpoint.hash);
    code = code < 0 ? code : read_state(vfs, path, &checkpoint.state);
    if (code < 0) {
        return nnc_fail_in(-NNC_E_CHECKPOINT, "checkpoint %s cannot be used", path);
    }
    *ret_checkpoint = checkpoint;
    return 0;
}

int nnc_checkpoint_is_one(struct nnc_vfs *vfs, const char *path) {
    char manifest[NNC_CHECKPOINT_PATH_MAX];
    if (nnc_path_join(path, NNC_MANIFEST_NAME, manifest, sizeof(manifest)) < 0) {
        return 0;
    }
    int fd = vfs->ops->open(vfs, manifest, O_RDONLY, 0);
    if (fd < 0) {
        return 0;
    }
    vfs->ops->close(vfs, fd);
    return 1;
}

static int find_in(struct nnc_vfs *vfs, const char *run_dir,
                   const struct nnc_checkpoint_entry *entries, size_t count,
                   struct nnc_checkpoint *ret_checkpoint) {
    uint32_t skipped = 0;
    char why[NNC_ERROR_TEXT_MAX] = "";
    for (size_t number = 0; number < count; number++) {
        char path[NNC_CHECKPOINT_PATH_MAX];
        int code = nnc_path_join(run_dir, entries[number].name, path, sizeof(path));
        code = code < 0 ? code : nnc_checkpoint_open(vfs, path, ret_checkpoint);
        if (code == 0) {
            ret_checkpoint->skipped = skipped;
            memcpy(ret_checkpoint->why, why, sizeof(why));
            return 1;
        }
        if (skipped++ == 0) {
            snprintf(why, sizeof(why), "%s", nnc_error_text());
        }
    }
    return nnc_fail(-NNC_E_CHECKPOINT,
                    "none of the %zu checkpoints in %s can be used; the newest: %s; --fresh starts "
                    "from zero",
                    count, run_dir, why);
}

int nnc_checkpoint_find(struct nnc_vfs *vfs, const char *run_dir,
                        struct nnc_checkpoint *ret_checkpoint) {
    struct nnc_checkpoint_entry *entries;
    size_t count;
    int code = nnc_checkpoint_list(vfs, run_dir, &entries, &count);
    if (code < 0) {
        return code == -ENOENT ? 0 : code;
    }
    if (count > 0) {
        code = find_in(vfs, run_dir, entries, count, ret_checkpoint);
    }
    free(entries);
    return code;
}
