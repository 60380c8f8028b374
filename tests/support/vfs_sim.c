/* SPDX-License-Identifier: Apache-2.0 */
/* A file system in memory with a trace of its changes; see vfs_sim.h for the model.
 *
 *   operation ──▶ struct change ──▶ trace (appended)
 *                              └──▶ live disk (applied at once: what the running program sees)
 *   power cut: start disk + the first changes of the trace, each applied if safe or kept
 *
 * 1. Inodes are numbered in the order of their creation and never reused, so that a change can name
 *    them in the live disk and in every rebuilt one; a file without a name is merely unreachable.
 * 2. A change is recorded before it is applied and never altered.
 * 3. Change i is safe when its subject (the file for data, the directory of the name for names) was
 *    synced later than i and before the cut. */
#include "tests/support/vfs_sim.h"

#include "base/rng.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_BYTES = 4096,
    FD_BASE = 1000, /* apart from real descriptors: a mix-up fails with EBADF */
    FD_COUNT = 64,
    NAME_BYTES = 256,
    ROOT = 0,
};

struct entry {
    char name[NAME_BYTES];
    int inode;
};

struct inode {
    bool directory;
    bool linked; /* has a name (the root counts) */
    uint8_t *data;
    uint64_t size, capacity;
    struct entry *entries;
    int entry_count;
};

struct disk {
    struct inode *inodes;
    int count;
};

enum change_kind {
    CHANGE_CREATE, /* new inode and its name */
    CHANGE_RENAME,
    CHANGE_UNLINK,
    CHANGE_WRITE,
    CHANGE_RESIZE,
    CHANGE_SYNC,
};

struct change {
    enum change_kind kind;
    bool directory;        /* create: of a directory */
    int inode;             /* what was created, renamed, removed, written, synced */
    int parent;            /* directory of name */
    int from_parent;       /* rename: directory of from_name */
    char name[NAME_BYTES]; /* create, rename (the new one), unlink */
    char from_name[NAME_BYTES];
    uint64_t offset, bytes; /* write; resize: bytes is the new size */
    uint8_t *data;
};

struct descriptor {
    bool open;
    int inode, flags;
};

struct vfs_sim {
    struct nnc_vfs base;
    struct disk start, live;
    struct change *trace;
    size_t trace_length, trace_capacity;
    struct descriptor descriptors[FD_COUNT];
    uint64_t capacity_bytes;
};

/* Memory: a test that runs out of it stops. */

static void *grow(void *memory, size_t count, size_t item_bytes) {
    void *grown = reallocarray(memory, count > 0 ? count : 1, item_bytes);
    if (grown == NULL) {
        abort();
    }
    return grown;
}

static void *duplicate(const void *data, size_t bytes) {
    void *copy = grow(NULL, bytes, 1);
    if (bytes > 0) {
        memcpy(copy, data, bytes);
    }
    return copy;
}

/* Disks */

static int disk_add(struct disk *disk, bool directory) {
    disk->inodes = grow(disk->inodes, (size_t)disk->count + 1, sizeof(struct inode));
    disk->inodes[disk->count] = (struct inode){.directory = directory};
    return disk->count++;
}

static void disk_finish(struct disk *disk) {
    for (int number = 0; number < disk->count; number++) {
        free(disk->inodes[number].data);
        free(disk->inodes[number].entries);
    }
    free(disk->inodes);
    *disk = (struct disk){0};
}

static struct disk disk_copy(const struct disk *disk) {
    struct disk copy = {
        .inodes = duplicate(disk->inodes, (size_t)disk->count * sizeof(struct inode)),
        .count = disk->count,
    };
    for (int number = 0; number < copy.count; number++) {
        struct inode *inode = &copy.inodes[number];
        inode->data = duplicate(inode->data, inode->capacity);
        inode->entries =
            duplicate(inode->entries, (size_t)inode->entry_count * sizeof(struct entry));
    }
    return copy;
}

static int find_entry(const struct inode *directory, const char *name) {
    for (int place = 0; place < directory->entry_count; place++) {
        if (strcmp(directory->entries[place].name, name) == 0) {
            return place;
        }
    }
    return -1;
}

/* Make the name stand for inode; inode < 0 removes the name. */
static void set_name(struct disk *disk, int parent, const char *name, int inode) {
    struct inode *directory = &disk->inodes[parent];
    int place = find_entry(directory, name);
    if (place >= 0) {
        disk->inodes[directory->entries[place].inode].linked = false;
        directory->entries[place] = directory->entries[--directory->entry_count];
    }
    if (inode < 0) {
        return;
    }
    directory->entries =
        grow(directory->entries, (size_t)directory->entry_count + 1, sizeof(struct entry));
    struct entry *entry = &directory->entries[directory->entry_count++];
    strcpy(entry->name, name);
    entry->inode = inode;
    disk->inodes[inode].linked = true;
}

static void apply_name(struct disk *disk, const struct change *change) {
    switch (change->kind) {
    case CHANGE_RENAME:
        set_name(disk, change->from_parent, change->from_name, -1);
        set_name(disk, change->parent, change->name, change->inode);
        break;
    case CHANGE_UNLINK:
        set_name(disk, change->parent, change->name, -1);
        break;
    default:
        set_name(disk, change->parent, change->name, change->inode);
        break;
    }
}

/* Room for bytes; what is beyond the old capacity is zero. The size does not change. */
static void reserve(struct inode *inode, uint64_t bytes) {
    if (bytes > inode->capacity) {
        inode->data = grow(inode->data, bytes, 1);
        memset(inode->data + inode->capacity, 0, bytes - inode->capacity);
        inode->capacity = bytes;
    }
}

static void set_size(struct inode *inode, uint64_t bytes) {
    reserve(inode, bytes);
    if (inode->capacity > bytes) {
        memset(inode->data + bytes, 0, inode->capacity - bytes);
    }
    inode->size = bytes;
}

/* Size of the file after the change. */
static uint64_t size_after(const struct change *change, uint64_t size) {
    if (change->kind == CHANGE_RESIZE) {
        return change->bytes;
    }
    uint64_t end = change->offset + change->bytes;
    return change->kind == CHANGE_WRITE && end > size ? end : size;
}

static void apply_live(struct disk *disk, const struct change *change) {
    switch (change->kind) {
    case CHANGE_CREATE:
    case CHANGE_RENAME:
    case CHANGE_UNLINK:
        apply_name(disk, change);
        break;
    case CHANGE_WRITE: {
        struct inode *inode = &disk->inodes[change->inode];
        reserve(inode, change->offset + change->bytes);
        memcpy(inode->data + change->offset, change->data, change->bytes);
        inode->size = size_after(change, inode->size);
        break;
    }
    case CHANGE_RESIZE:
        set_size(&disk->inodes[change->inode], change->bytes);
        break;
    case CHANGE_SYNC:
        break;
    }
}

/* Append to the trace (which takes over change->data) and apply. */
static void record(struct vfs_sim *sim, const struct change *change) {
    if (sim->trace_length == sim->trace_capacity) {
        sim->trace_capacity = sim->trace_capacity > 0 ? 2 * sim->trace_capacity : 64;
        sim->trace = grow(sim->trace, sim->trace_capacity, sizeof(*sim->trace));
    }
    sim->trace[sim->trace_length++] = *change;
    apply_live(&sim->live, change);
}

/* Paths */

struct place {
    int parent; /* -1: the root itself */
    int inode;  /* -1: the name is free */
    char name[NAME_BYTES];
};

/* Find where path ends. All components but the last must be directories that exist. */
static int resolve(const struct vfs_sim *sim, const char *path, struct place *ret_place) {
    struct place place = {.parent = -1, .inode = ROOT};
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length > 0 && !(length == 1 && path[0] == '.')) {
            if (length >= NAME_BYTES) {
                return -ENAMETOOLONG;
            }
            if (length == 2 && path[0] == '.' && path[1] == '.') {
                return -EINVAL;
            }
            if (place.inode < 0) {
                return -ENOENT;
            }
            const struct inode *directory = &sim->live.inodes[place.inode];
            if (!directory->directory) {
                return -ENOTDIR;
            }
            place.parent = place.inode;
            memcpy(place.name, path, length);
            place.name[length] = '\0';
            int entry = find_entry(directory, place.name);
            place.inode = entry < 0 ? -1 : directory->entries[entry].inode;
        }
        path += length;
        path += *path == '/';
    }
    *ret_place = place;
    return 0;
}

static struct change name_change(enum change_kind kind, const struct place *place) {
    struct change change = {.kind = kind, .inode = place->inode, .parent = place->parent};
    strcpy(change.name, place->name);
    return change;
}

/* Operations */

static void create_inode(struct vfs_sim *sim, struct place *place, bool directory) {
    place->inode = disk_add(&sim->live, directory);
    struct change change = name_change(CHANGE_CREATE, place);
    change.directory = directory;
    record(sim, &change);
}

/* Check flags against what is at the place, create and truncate. */
static int open_inode(struct vfs_sim *sim, struct place *place, int flags) {
    if (place->inode < 0) {
        if (!(flags & O_CREAT)) {
            return -ENOENT;
        }
        create_inode(sim, place, false);
        return 0;
    }
    if ((flags & O_CREAT) && (flags & O_EXCL)) {
        return -EEXIST;
    }
    const struct inode *inode = &sim->live.inodes[place->inode];
    if (inode->directory && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT))) {
        return -EISDIR;
    }
    if (!inode->directory && (flags & O_DIRECTORY)) {
        return -ENOTDIR;
    }
    if ((flags & O_TRUNC) && inode->size > 0) {
        record(sim, &(struct change){.kind = CHANGE_RESIZE, .inode = place->inode});
    }
    return 0;
}

static int sim_open(struct nnc_vfs *vfs, const char *path, int flags, unsigned mode) {
    (void)mode;
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    int slot = 0;
    while (slot < FD_COUNT && sim->descriptors[slot].open) {
        slot++;
    }
    if (slot == FD_COUNT) {
        return -EMFILE;
    }
    struct place place;
    int code = resolve(sim, path, &place);
    if (code == 0) {
        code = open_inode(sim, &place, flags);
    }
    if (code < 0) {
        return code;
    }
    sim->descriptors[slot] =
        (struct descriptor){.open = true, .inode = place.inode, .flags = flags};
    return FD_BASE + slot;
}

/* NULL when fd is not open. */
static struct descriptor *find_descriptor(struct vfs_sim *sim, int fd) {
    if (fd < FD_BASE || fd >= FD_BASE + FD_COUNT || !sim->descriptors[fd - FD_BASE].open) {
        return NULL;
    }
    return &sim->descriptors[fd - FD_BASE];
}

static int sim_close(struct nnc_vfs *vfs, int fd) {
    struct descriptor *descriptor = find_descriptor((struct vfs_sim *)vfs, fd);
    if (descriptor == NULL) {
        return -EBADF;
    }
    descriptor->open = false;
    return 0;
}

static ssize_t sim_pread(struct nnc_vfs *vfs, int fd, void *data, size_t bytes, uint64_t offset) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    const struct descriptor *descriptor = find_descriptor(sim, fd);
    if (descriptor == NULL || (descriptor->flags & O_ACCMODE) == O_WRONLY) {
        return -EBADF;
    }
    const struct inode *inode = &sim->live.inodes[descriptor->inode];
    if (inode->directory) {
        return -EISDIR;
    }
    if (offset >= inode->size) {
        return 0;
    }
    uint64_t left = inode->size - offset;
    size_t got = bytes < left ? bytes : (size_t)left;
    memcpy(data, inode->data + offset, got);
    return (ssize_t)got;
}

static uint64_t used_bytes(const struct vfs_sim *sim) {
    uint64_t used = 0;
    for (int number = 0; number < sim->live.count; number++) {
        used += sim->live.inodes[number].linked ? sim->live.inodes[number].size : 0;
    }
    return used;
}

/* Largest size that the file may have. */
static uint64_t size_limit(const struct vfs_sim *sim, const struct inode *inode) {
    uint64_t used = used_bytes(sim);
    return inode->size + (used < sim->capacity_bytes ? sim->capacity_bytes - used : 0);
}

static ssize_t sim_pwrite(struct nnc_vfs *vfs, int fd, const void *data, size_t bytes,
                          uint64_t offset) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    const struct descriptor *descriptor = find_descriptor(sim, fd);
    if (descriptor == NULL || (descriptor->flags & O_ACCMODE) == O_RDONLY) {
        return -EBADF;
    }
    if (bytes == 0) {
        return 0;
    }
    uint64_t limit = size_limit(sim, &sim->live.inodes[descriptor->inode]);
    if (offset >= limit) {
        return -ENOSPC;
    }
    uint64_t room = limit - offset;
    size_t put = bytes < room ? bytes : (size_t)room;
    record(sim, &(struct change){.kind = CHANGE_WRITE,
                                 .inode = descriptor->inode,
                                 .offset = offset,
                                 .bytes = put,
                                 .data = duplicate(data, put)});
    return (ssize_t)put;
}

static int sim_allocate(struct nnc_vfs *vfs, int fd, uint64_t bytes) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    const struct descriptor *descriptor = find_descriptor(sim, fd);
    if (descriptor == NULL || (descriptor->flags & O_ACCMODE) == O_RDONLY) {
        return -EBADF;
    }
    const struct inode *inode = &sim->live.inodes[descriptor->inode];
    if (bytes > size_limit(sim, inode)) {
        return -ENOSPC;
    }
    if (bytes > inode->size) {
        record(sim,
               &(struct change){.kind = CHANGE_RESIZE, .inode = descriptor->inode, .bytes = bytes});
    }
    return 0;
}

static int sim_sync(struct nnc_vfs *vfs, int fd) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    const struct descriptor *descriptor = find_descriptor(sim, fd);
    if (descriptor == NULL) {
        return -EBADF;
    }
    record(sim, &(struct change){.kind = CHANGE_SYNC, .inode = descriptor->inode});
    return 0;
}

static int64_t sim_size(struct nnc_vfs *vfs, int fd) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    const struct descriptor *descriptor = find_descriptor(sim, fd);
    return descriptor == NULL ? -EBADF : (int64_t)sim->live.inodes[descriptor->inode].size;
}

static int sim_mkdir(struct nnc_vfs *vfs, const char *path, unsigned mode) {
    (void)mode;
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    struct place place;
    int code = resolve(sim, path, &place);
    if (code < 0 || place.inode >= 0) {
        return code < 0 ? code : -EEXIST;
    }
    create_inode(sim, &place, true);
    return 0;
}

/* May `from` take the place of what is at `to`? */
static int check_replace(const struct vfs_sim *sim, const struct place *from,
                         const struct place *to, int no_replace) {
    if (to->inode < 0) {
        return 0;
    }
    const struct inode *source = &sim->live.inodes[from->inode];
    const struct inode *target = &sim->live.inodes[to->inode];
    if (no_replace) {
        return -EEXIST;
    }
    if (target->directory != source->directory) {
        return target->directory ? -EISDIR : -ENOTDIR;
    }
    return target->entry_count > 0 ? -ENOTEMPTY : 0;
}

static int sim_rename(struct nnc_vfs *vfs, const char *from, const char *to, int no_replace) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    struct place source, target;
    int code = resolve(sim, from, &source);
    if (code == 0) {
        code = resolve(sim, to, &target);
    }
    if (code < 0) {
        return code;
    }
    if (source.inode < 0) {
        return -ENOENT;
    }
    if (source.parent < 0 || target.parent < 0) {
        return -EBUSY;
    }
    code = check_replace(sim, &source, &target, no_replace);
    if (code < 0 || source.inode == target.inode) {
        return code;
    }
    struct change change = name_change(CHANGE_RENAME, &target);
    change.inode = source.inode;
    change.from_parent = source.parent;
    strcpy(change.from_name, source.name);
    record(sim, &change);
    return 0;
}

static int sim_unlink(struct nnc_vfs *vfs, const char *path) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    struct place place;
    int code = resolve(sim, path, &place);
    if (code < 0) {
        return code;
    }
    if (place.inode < 0) {
        return -ENOENT;
    }
    if (place.parent < 0) {
        return -EBUSY;
    }
    if (sim->live.inodes[place.inode].entry_count > 0) {
        return -ENOTEMPTY;
    }
    struct change change = name_change(CHANGE_UNLINK, &place);
    record(sim, &change);
    return 0;
}

static int sim_list(struct nnc_vfs *vfs, const char *path,
                    int (*visit)(void *context, const char *name), void *context) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    struct place place;
    int code = resolve(sim, path, &place);
    if (code < 0 || place.inode < 0) {
        return code < 0 ? code : -ENOENT;
    }
    const struct inode *directory = &sim->live.inodes[place.inode];
    if (!directory->directory) {
        return -ENOTDIR;
    }
    /* visit may create and remove names: walk over a copy. */
    int count = directory->entry_count;
    struct entry *entries = duplicate(directory->entries, (size_t)count * sizeof(struct entry));
    for (int number = 0; number < count && code == 0; number++) {
        code = visit(context, entries[number].name);
    }
    free(entries);
    return code;
}

static int64_t sim_free_bytes(struct nnc_vfs *vfs, const char *path) {
    struct vfs_sim *sim = (struct vfs_sim *)vfs;
    struct place place;
    int code = resolve(sim, path, &place);
    if (code < 0 || place.inode < 0) {
        return code < 0 ? code : -ENOENT;
    }
    uint64_t used = used_bytes(sim);
    return used < sim->capacity_bytes ? (int64_t)(sim->capacity_bytes - used) : 0;
}

static const struct nnc_vfs_ops sim_ops = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .pread = sim_pread,
    .pwrite = sim_pwrite,
    .allocate = sim_allocate,
    .sync = sim_sync,
    .size = sim_size,
    .mkdir = sim_mkdir,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .list = sim_list,
    .free_bytes = sim_free_bytes,
};

/* Power cuts */

/* One rebuild. Arrays are indexed by inode. */
struct rebuild {
    struct disk disk;
    enum vfs_sim_cut cut;
    uint64_t seed;
    size_t *synced;      /* trace entries before this one are safe */
    uint64_t *safe_size; /* after the safe changes */
    uint64_t *full_size; /* after all changes */
};

/* Is the unsynced thing named by the three words kept? */
static bool is_kept(const struct rebuild *rebuild, uint32_t kind, uint64_t what, uint32_t inode) {
    if (rebuild->cut != VFS_SIM_KEEP_RANDOM) {
        return rebuild->cut == VFS_SIM_KEEP_ALL;
    }
    const uint32_t counter[4] = {(uint32_t)what, (uint32_t)(what >> 32), inode, kind};
    const uint32_t key[2] = {(uint32_t)rebuild->seed, (uint32_t)(rebuild->seed >> 32)};
    return nnc_philox(counter, key).word[0] & 1;
}

enum {
    KEEP_NAME,
    KEEP_BLOCK,
    KEEP_SIZE,
};

static bool is_size_kept(const struct rebuild *rebuild, int inode) {
    return is_kept(rebuild, KEEP_SIZE, 0, (uint32_t)inode);
}

static void replay_write(struct rebuild *rebuild, const struct change *change, bool safe) {
    struct inode *inode = &rebuild->disk.inodes[change->inode];
    uint64_t end = change->offset + change->bytes;
    reserve(inode, end);
    for (uint64_t at = change->offset; at < end;) {
        uint64_t block = at / BLOCK_BYTES;
        uint64_t next = (block + 1) * BLOCK_BYTES < end ? (block + 1) * BLOCK_BYTES : end;
        if (safe || is_kept(rebuild, KEEP_BLOCK, block, (uint32_t)change->inode)) {
            memcpy(inode->data + at, change->data + (at - change->offset), next - at);
        }
        at = next;
    }
}

/* Truncation clears, and growth makes room for blocks. */
static void replay_resize(struct rebuild *rebuild, const struct change *change, bool safe) {
    struct inode *inode = &rebuild->disk.inodes[change->inode];
    reserve(inode, change->bytes);
    if (safe || is_size_kept(rebuild, change->inode)) {
        memset(inode->data + change->bytes, 0, inode->capacity - change->bytes);
    }
}

static void replay(struct rebuild *rebuild, const struct change *change, size_t number) {
    bool is_data = change->kind == CHANGE_WRITE || change->kind == CHANGE_RESIZE;
    int inode = change->inode;
    bool safe = number < rebuild->synced[is_data ? inode : change->parent];
    switch (change->kind) {
    case CHANGE_CREATE:
    case CHANGE_RENAME:
    case CHANGE_UNLINK:
        if (safe || is_kept(rebuild, KEEP_NAME, number, 0)) {
            apply_name(&rebuild->disk, change);
        }
        return;
    case CHANGE_WRITE:
        replay_write(rebuild, change, safe);
        break;
    case CHANGE_RESIZE:
        replay_resize(rebuild, change, safe);
        break;
    case CHANGE_SYNC:
        return;
    }
    rebuild->full_size[inode] = size_after(change, rebuild->full_size[inode]);
    if (safe) {
        rebuild->safe_size[inode] = size_after(change, rebuild->safe_size[inode]);
    }
}

/* All inodes of the live disk exist from the start, without names; see invariant 1. */
static void rebuild_init(struct rebuild *rebuild, const struct vfs_sim *sim, size_t length) {
    rebuild->disk = disk_copy(&sim->start);
    for (int number = sim->start.count; number < sim->live.count; number++) {
        disk_add(&rebuild->disk, sim->live.inodes[number].directory);
    }
    size_t count = (size_t)rebuild->disk.count;
    rebuild->synced = grow(NULL, count, sizeof(size_t));
    rebuild->safe_size = grow(NULL, count, sizeof(uint64_t));
    rebuild->full_size = grow(NULL, count, sizeof(uint64_t));
    for (size_t number = 0; number < count; number++) {
        rebuild->synced[number] = 0;
        rebuild->safe_size[number] = rebuild->disk.inodes[number].size;
        rebuild->full_size[number] = rebuild->disk.inodes[number].size;
    }
    for (size_t number = 0; number < length; number++) {
        if (sim->trace[number].kind == CHANGE_SYNC) {
            rebuild->synced[sim->trace[number].inode] = number;
        }
    }
}

struct vfs_sim *vfs_sim_power_cut(const struct vfs_sim *sim, size_t length, enum vfs_sim_cut cut,
                                  uint64_t seed) {
    assert(length <= sim->trace_length);
    struct rebuild rebuild = {.cut = cut, .seed = seed};
    rebuild_init(&rebuild, sim, length);
    for (size_t number = 0; number < length; number++) {
        replay(&rebuild, &sim->trace[number], number);
    }
    for (int number = 0; number < rebuild.disk.count; number++) {
        bool kept = is_size_kept(&rebuild, number);
        set_size(&rebuild.disk.inodes[number],
                 kept ? rebuild.full_size[number] : rebuild.safe_size[number]);
    }
    free(rebuild.synced);
    free(rebuild.safe_size);
    free(rebuild.full_size);
    struct vfs_sim *after = vfs_sim_create();
    disk_finish(&after->start);
    disk_finish(&after->live);
    after->start = rebuild.disk;
    after->live = disk_copy(&rebuild.disk);
    after->capacity_bytes = sim->capacity_bytes;
    return after;
}

/* Life */

struct vfs_sim *vfs_sim_create(void) {
    struct vfs_sim *sim = grow(NULL, 1, sizeof(*sim));
    *sim = (struct vfs_sim){.base = {.ops = &sim_ops}, .capacity_bytes = (uint64_t)1 << 40};
    disk_add(&sim->start, true);
    sim->start.inodes[ROOT].linked = true;
    sim->live = disk_copy(&sim->start);
    return sim;
}

void vfs_sim_destroy(struct vfs_sim *sim) {
    if (sim == NULL) {
        return;
    }
    for (size_t number = 0; number < sim->trace_length; number++) {
        free(sim->trace[number].data);
    }
    free(sim->trace);
    disk_finish(&sim->start);
    disk_finish(&sim->live);
    free(sim);
}

struct nnc_vfs *vfs_sim_vfs(struct vfs_sim *sim) {
    return &sim->base;
}

size_t vfs_sim_trace_length(const struct vfs_sim *sim) {
    return sim->trace_length;
}

void vfs_sim_set_capacity(struct vfs_sim *sim, uint64_t bytes) {
    sim->capacity_bytes = bytes;
}

int vfs_sim_open_count(const struct vfs_sim *sim) {
    int count = 0;
    for (int slot = 0; slot < FD_COUNT; slot++) {
        count += sim->descriptors[slot].open;
    }
    return count;
}
