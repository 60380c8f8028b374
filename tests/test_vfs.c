/* SPDX-License-Identifier: Apache-2.0 */
/* File operations: the real ones, the failing ones, and the model of a power cut. */
#include "base/vfs.h"

#include "base/err.h"
#include "tests/support/vfs_fault.h"
#include "tests/support/vfs_sim.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Both implementations must pass the same cases. */
struct world {
    const char *name;
    struct nnc_vfs *vfs;
    struct vfs_sim *sim; /* NULL: the real one */
    char root[64];
};

static struct world make_world(int number) {
    struct world world = {.name = "real", .vfs = nnc_vfs_real(), .root = "/tmp/nnc-vfs-XXXXXX"};
    if (number == 1) {
        world = (struct world){.name = "sim", .sim = vfs_sim_create(), .root = "/root"};
        world.vfs = vfs_sim_vfs(world.sim);
        cr_assert_eq(world.vfs->ops->mkdir(world.vfs, world.root, 0700), 0);
    } else {
        cr_assert_not_null(mkdtemp(world.root));
    }
    return world;
}

static void finish_world(struct world *world) {
    cr_expect_eq(nnc_vfs_remove_tree(world->vfs, world->root), 0, "%s: %s", world->name,
                 nnc_error_text());
    if (world->sim != NULL) {
        cr_expect_eq(vfs_sim_open_count(world->sim), 0);
    }
    vfs_sim_destroy(world->sim);
}

/* A path in one of a few static buffers. */
static const char *in(const struct world *world, const char *name) {
    static char paths[4][PATH_MAX];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof(paths[next]), "%s/%s", world->root, name);
    return paths[next];
}

static void write_file(struct nnc_vfs *vfs, const char *path, const void *data, size_t bytes,
                       int sync) {
    int fd = vfs->ops->open(vfs, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    cr_assert_geq(fd, 0, "%s: %d", path, fd);
    cr_assert_eq(nnc_vfs_write_all(vfs, fd, data, bytes, 0), 0, "%s", nnc_error_text());
    cr_assert_eq(sync ? vfs->ops->sync(vfs, fd) : 0, 0);
    cr_assert_eq(vfs->ops->close(vfs, fd), 0);
}

/* Size of the file, its first bytes in ret_data; negative: the error of open. */
static int64_t read_file(struct nnc_vfs *vfs, const char *path, void *ret_data, size_t room) {
    int fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
    if (fd < 0) {
        return fd;
    }
    int64_t size = vfs->ops->size(vfs, fd);
    size_t bytes = (size_t)size < room ? (size_t)size : room;
    cr_assert_eq(nnc_vfs_read_all(vfs, fd, ret_data, bytes, 0), 0, "%s", nnc_error_text());
    cr_assert_eq(vfs->ops->close(vfs, fd), 0);
    return size;
}

static int count_name(void *context, const char *name) {
    (void)name;
    ++*(int *)context;
    return 0;
}

static int stop_at_first(void *context, const char *name) {
    (void)name;
    ++*(int *)context;
    return 7;
}

Test(vfs, what_is_written_is_read_back) {
    for (int number = 0; number < 2; number++) {
        struct world world = make_world(number);
        struct nnc_vfs *vfs = world.vfs;
        char data[10000], back[10000] = "";
        memset(data, 'x', sizeof(data));
        write_file(vfs, in(&world, "a"), data, sizeof(data), 1);
        cr_assert_eq(read_file(vfs, in(&world, "a"), back, sizeof(back)), sizeof(data));
        cr_assert_arr_eq(back, data, sizeof(data));
        int fd = vfs->ops->open(vfs, in(&world, "a"), O_RDWR, 0);
        cr_assert_eq(vfs->ops->allocate(vfs, fd, 0), 0);
        cr_assert_eq(vfs->ops->allocate(vfs, fd, 20000), 0);
        cr_assert_eq(vfs->ops->size(vfs, fd), 20000);
        cr_assert_eq(nnc_vfs_read_all(vfs, fd, back, 10, 19995), -NNC_E_FORMAT);
        cr_assert(strstr(nnc_error_text(), "ends at 20000") != NULL, "%s", nnc_error_text());
        cr_assert_eq(vfs->ops->close(vfs, fd), 0);
        cr_assert_eq(vfs->ops->close(vfs, fd), -EBADF, "%s", world.name);
        cr_assert_gt(vfs->ops->free_bytes(vfs, world.root), 0);
        finish_world(&world);
    }
}

Test(vfs, each_misuse_gives_the_same_error_in_both) {
    for (int number = 0; number < 2; number++) {
        struct world world = make_world(number);
        struct nnc_vfs *vfs = world.vfs;
        const struct nnc_vfs_ops *ops = vfs->ops;
        write_file(vfs, in(&world, "file"), "1", 1, 0);
        cr_assert_eq(ops->mkdir(vfs, in(&world, "dir"), 0700), 0);
        write_file(vfs, in(&world, "dir/inner"), "2", 1, 0);
        cr_expect_eq(ops->open(vfs, in(&world, "none"), O_RDONLY, 0), -ENOENT);
        cr_expect_eq(ops->open(vfs, in(&world, "none/none"), O_RDONLY, 0), -ENOENT);
        cr_expect_eq(ops->open(vfs, in(&world, "file/x"), O_RDONLY, 0), -ENOTDIR);
        cr_expect_eq(ops->open(vfs, in(&world, "file"), O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
        cr_expect_eq(ops->open(vfs, in(&world, "dir"), O_RDWR, 0), -EISDIR);
        cr_expect_eq(ops->open(vfs, in(&world, "file"), O_RDONLY | O_DIRECTORY, 0), -ENOTDIR);
        cr_expect_eq(ops->mkdir(vfs, in(&world, "dir"), 0700), -EEXIST);
        cr_expect_eq(ops->unlink(vfs, in(&world, "none")), -ENOENT);
        cr_expect_eq(ops->unlink(vfs, in(&world, "dir")), -ENOTEMPTY);
        cr_expect_eq(ops->rename(vfs, in(&world, "file"), in(&world, "dir"), 1), -EEXIST);
        cr_expect_eq(ops->rename(vfs, in(&world, "file"), in(&world, "dir"), 0), -EISDIR);
        cr_expect_eq(ops->rename(vfs, in(&world, "dir"), in(&world, "file"), 0), -ENOTDIR);
        cr_expect_eq(ops->rename(vfs, in(&world, "none"), in(&world, "new"), 1), -ENOENT);
        int visits = 0;
        cr_expect_eq(ops->list(vfs, in(&world, "none"), count_name, &visits), -ENOENT);
        cr_expect_eq(ops->list(vfs, world.root, stop_at_first, &visits), 7);
        cr_expect_eq(visits, 1);
        int fd = ops->open(vfs, in(&world, "file"), O_RDONLY, 0);
        cr_expect_eq(ops->pwrite(vfs, fd, "x", 1, 0), -EBADF);
        ops->close(vfs, fd);
        cr_assert_eq(nnc_vfs_remove_tree(vfs, in(&world, "dir")), 0);
        finish_world(&world);
    }
}

Test(vfs, a_rename_moves_a_directory_and_never_replaces_unasked) {
    for (int number = 0; number < 2; number++) {
        struct world world = make_world(number);
        struct nnc_vfs *vfs = world.vfs;
        char back[8] = "";
        cr_assert_eq(vfs->ops->mkdir(vfs, in(&world, "tmp"), 0700), 0);
        write_file(vfs, in(&world, "tmp/f"), "data", 5, 1);
        cr_assert_eq(vfs->ops->rename(vfs, in(&world, "tmp"), in(&world, "final"), 1), 0);
        cr_assert_eq(read_file(vfs, in(&world, "final/f"), back, sizeof(back)), 5);
        cr_assert_str_eq(back, "data");
        cr_assert_eq(read_file(vfs, in(&world, "tmp/f"), back, sizeof(back)), -ENOENT);
        write_file(vfs, in(&world, "new"), "2nd", 4, 1);
        write_file(vfs, in(&world, "old"), "1st", 4, 1);
        cr_assert_eq(vfs->ops->rename(vfs, in(&world, "new"), in(&world, "old"), 0), 0);
        cr_assert_eq(read_file(vfs, in(&world, "old"), back, sizeof(back)), 4);
        cr_assert_str_eq(back, "2nd");
        cr_assert_eq(nnc_vfs_sync_path(vfs, world.root), 0);
        cr_assert_eq(nnc_vfs_remove_tree(vfs, in(&world, "final")), 0);
        finish_world(&world);
    }
}

Test(vfs, directories_are_made_with_their_parents) {
    for (int number = 0; number < 2; number++) {
        struct world world = make_world(number);
        struct nnc_vfs *vfs = world.vfs;
        cr_assert_eq(nnc_vfs_make_dirs(vfs, in(&world, "a//b/c/"), 0700), 0, "%s",
                     nnc_error_text());
        cr_assert_eq(nnc_vfs_make_dirs(vfs, in(&world, "a/b/c"), 0700), 0);
        write_file(vfs, in(&world, "a/b/c/f"), "", 0, 0);
        cr_assert_eq(nnc_vfs_make_dirs(vfs, in(&world, "a/b/c/f"), 0700), -ENOTDIR);
        cr_assert_eq(nnc_vfs_make_dirs(vfs, in(&world, "a/b/c/f/g"), 0700), -ENOTDIR);
        cr_assert_eq(nnc_vfs_make_dirs(vfs, "", 0700), -ENOENT);
        cr_assert_eq(nnc_vfs_remove_tree(vfs, in(&world, "a")), -ENOTEMPTY);
        cr_assert_eq(nnc_vfs_remove_tree(vfs, in(&world, "none")), 0);
        cr_assert_eq(nnc_vfs_remove_tree(vfs, in(&world, "a/b/c")), 0);
        cr_assert_eq(nnc_vfs_remove_tree(vfs, in(&world, "a/b")), 0);
        cr_assert_eq(nnc_vfs_remove_tree(vfs, in(&world, "a")), 0);
        finish_world(&world);
    }
}

/* Writes a file and renames it over the old one; what a small writer does. */
static int replace_file(struct nnc_vfs *vfs, const char *path, const char *text) {
    char temporary[PATH_MAX];
    snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    int fd = vfs->ops->open(vfs, temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) {
        return fd;
    }
    int code = nnc_vfs_write_all(vfs, fd, text, strlen(text), 0);
    code = code < 0 ? code : vfs->ops->sync(vfs, fd);
    int closed = vfs->ops->close(vfs, fd);
    code = code < 0 ? code : closed;
    code = code < 0 ? code : vfs->ops->rename(vfs, temporary, path, 0);
    return code < 0 ? code : nnc_vfs_sync_path(vfs, "/");
}

Test(vfs_fault, the_nth_call_fails_and_all_others_pass) {
    struct vfs_sim *sim = vfs_sim_create();
    struct vfs_fault fault;
    vfs_fault_init(&fault, vfs_sim_vfs(sim));
    cr_assert_eq(replace_file(&fault.base, "/f", "golden"), 0);
    uint64_t calls = fault.calls;
    cr_assert_eq(calls, 8); /* open, write, sync, close, rename; open, sync, close */
    for (uint64_t call = 1; call <= calls; call++) {
        vfs_fault_arm(&fault, VFS_FAULT_ALL, call, EIO);
        cr_assert_eq(replace_file(&fault.base, "/f", "golden"), -EIO, "call %d", (int)call);
        cr_assert_eq(fault.faults, 1);
        cr_assert_eq(vfs_sim_open_count(sim), 0, "call %d leaks", (int)call);
    }
    vfs_fault_arm(&fault, VFS_FAULT_ALL, calls + 1, EIO);
    cr_assert_eq(replace_file(&fault.base, "/f", "golden"), 0);
    cr_assert_eq(fault.faults, 0);
    vfs_fault_arm(&fault, VFS_FAULT_ONLY(VFS_FAULT_SYNC), 2, ENOSPC);
    cr_assert_eq(replace_file(&fault.base, "/f", "golden"), -ENOSPC);
    cr_assert_eq(fault.calls, 2);
    vfs_sim_destroy(sim);
}

Test(vfs_fault, short_transfers_and_interruptions_lose_nothing) {
    static const int errors[] = {0, EINTR};
    for (int row = 0; row < 2; row++) {
        struct vfs_sim *sim = vfs_sim_create();
        struct vfs_fault fault;
        vfs_fault_init(&fault, vfs_sim_vfs(sim));
        char data[5000], back[5000];
        for (size_t place = 0; place < sizeof(data); place++) {
            data[place] = (char)(place * 7);
        }
        vfs_fault_arm(&fault, VFS_FAULT_ONLY(VFS_FAULT_PWRITE), 1, errors[row]);
        fault.fail_count = 5;
        write_file(&fault.base, "/f", data, sizeof(data), 0);
        cr_assert_eq(fault.faults, 5);
        vfs_fault_arm(&fault, VFS_FAULT_ONLY(VFS_FAULT_PREAD), 1, errors[row]);
        cr_assert_eq(read_file(&fault.base, "/f", back, sizeof(back)), sizeof(data));
        cr_assert_eq(fault.faults, 5);
        cr_assert_arr_eq(back, data, sizeof(data));
        vfs_sim_destroy(sim);
    }
}

/* What a file holds after a cut: "-" where it is missing. */
static void expect_after(const struct vfs_sim *sim, size_t length, enum vfs_sim_cut cut,
                         const char *path, const char *want) {
    struct vfs_sim *after = vfs_sim_power_cut(sim, length, cut, 1);
    char back[64] = "";
    int64_t size = read_file(vfs_sim_vfs(after), path, back, sizeof(back) - 1);
    cr_expect_str_eq(size < 0 ? "-" : back, want, "%s, length %zu, cut %d: got %s, want %s", path,
                     length, (int)cut, size < 0 ? "-" : back, want);
    vfs_sim_destroy(after);
}

Test(vfs_sim, unsynced_data_and_names_are_lost_or_kept_as_asked) {
    struct vfs_sim *sim = vfs_sim_create();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    write_file(vfs, "/f", "one", 3, 0);
    size_t written = vfs_sim_trace_length(sim);
    expect_after(sim, written, VFS_SIM_KEEP_ALL, "/f", "one");
    expect_after(sim, written, VFS_SIM_KEEP_NONE, "/f", "-");
    cr_assert_eq(nnc_vfs_sync_path(vfs, "/"), 0);
    size_t named = vfs_sim_trace_length(sim);
    expect_after(sim, named, VFS_SIM_KEEP_NONE, "/f", ""); /* the name is safe, the data is not */
    expect_after(sim, named - 1, VFS_SIM_KEEP_NONE, "/f", "-");
    cr_assert_eq(nnc_vfs_sync_path(vfs, "/f"), 0);
    size_t synced = vfs_sim_trace_length(sim);
    expect_after(sim, synced, VFS_SIM_KEEP_NONE, "/f", "one");
    int fd = vfs->ops->open(vfs, "/f", O_RDWR, 0);
    cr_assert_eq(nnc_vfs_write_all(vfs, fd, "1234", 4, 0), 0);
    vfs->ops->close(vfs, fd);
    expect_after(sim, synced + 1, VFS_SIM_KEEP_NONE, "/f", "one");
    expect_after(sim, synced + 1, VFS_SIM_KEEP_ALL, "/f", "1234");
    vfs_sim_destroy(sim);
}

Test(vfs_sim, a_synced_file_in_an_unsynced_directory_is_lost) {
    struct vfs_sim *sim = vfs_sim_create();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    cr_assert_eq(vfs->ops->mkdir(vfs, "/d", 0700), 0);
    write_file(vfs, "/d/f", "one", 3, 1);
    cr_assert_eq(nnc_vfs_sync_path(vfs, "/d"), 0);
    expect_after(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_NONE, "/d/f", "-");
    cr_assert_eq(vfs->ops->rename(vfs, "/d", "/e", 1), 0);
    cr_assert_eq(nnc_vfs_sync_path(vfs, "/"), 0);
    expect_after(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_NONE, "/e/f", "one");
    expect_after(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_NONE, "/d/f", "-");
    cr_assert_eq(vfs->ops->unlink(vfs, "/e/f"), 0);
    expect_after(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_NONE, "/e/f", "one");
    expect_after(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_ALL, "/e/f", "-");
    vfs_sim_destroy(sim);
}

Test(vfs_sim, random_cuts_tear_files_in_whole_blocks) {
    enum {
        BLOCKS = 64,
        BYTES = BLOCKS * 4096
    };
    struct vfs_sim *sim = vfs_sim_create();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    char *data = malloc(BYTES), *back = malloc(BYTES);
    memset(data, 'a', BYTES);
    write_file(vfs, "/f", data, BYTES, 1);
    cr_assert_eq(nnc_vfs_sync_path(vfs, "/"), 0);
    memset(data, 'b', BYTES);
    int fd = vfs->ops->open(vfs, "/f", O_WRONLY, 0);
    cr_assert_eq(nnc_vfs_write_all(vfs, fd, data, BYTES, 0), 0);
    vfs->ops->close(vfs, fd);
    int kept = 0;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct vfs_sim *after =
            vfs_sim_power_cut(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_RANDOM, seed);
        cr_assert_eq(read_file(vfs_sim_vfs(after), "/f", back, BYTES), BYTES);
        for (int block = 0; block < BLOCKS; block++) {
            char first = back[block * 4096];
            for (int place = 0; place < 4096; place++) {
                cr_assert_eq(back[block * 4096 + place], first, "block %d is torn", block);
            }
            kept += first == 'b';
        }
        vfs_sim_destroy(after);
    }
    cr_assert(kept > 250 && kept < 390, "%d of 640", kept);
    free(data);
    free(back);
    vfs_sim_destroy(sim);
}

/* The reason for all this: a replacement is the old or the new text at every cut; a careless one is
 * not. Returns how many states show neither. */
static int count_broken_states(bool sync_data) {
    struct vfs_sim *sim = vfs_sim_create();
    struct vfs_fault fault;
    vfs_fault_init(&fault, vfs_sim_vfs(sim));
    cr_assert_eq(replace_file(&fault.base, "/f", "old"), 0);
    size_t start = vfs_sim_trace_length(sim);
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    write_file(vfs, "/f.tmp", "new", 3, sync_data);
    cr_assert_eq(vfs->ops->rename(vfs, "/f.tmp", "/f", 0), 0);
    cr_assert_eq(nnc_vfs_sync_path(vfs, "/"), 0);
    int broken = 0;
    for (size_t length = start; length <= vfs_sim_trace_length(sim); length++) {
        for (uint64_t row = 0; row < 18; row++) {
            enum vfs_sim_cut cut = row < 2 ? (enum vfs_sim_cut)row : VFS_SIM_KEEP_RANDOM;
            struct vfs_sim *after = vfs_sim_power_cut(sim, length, cut, row);
            char back[8] = "";
            int64_t size = read_file(vfs_sim_vfs(after), "/f", back, sizeof(back) - 1);
            bool is_last = length == vfs_sim_trace_length(sim);
            broken += size != 3 || (strcmp(back, "new") != 0 && (is_last || strcmp(back, "old")));
            vfs_sim_destroy(after);
        }
    }
    vfs_sim_destroy(sim);
    return broken;
}

Test(vfs_sim, a_careful_replacement_survives_every_cut_and_a_careless_one_does_not) {
    cr_assert_eq(count_broken_states(true), 0);
    cr_assert_gt(count_broken_states(false), 3);
}

Test(vfs_sim, a_second_cut_starts_from_the_first) {
    struct vfs_sim *sim = vfs_sim_create();
    write_file(vfs_sim_vfs(sim), "/a", "1", 1, 0);
    struct vfs_sim *after = vfs_sim_power_cut(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_ALL, 0);
    vfs_sim_destroy(sim);
    cr_assert_eq(vfs_sim_trace_length(after), 0);
    write_file(vfs_sim_vfs(after), "/b", "2", 1, 0);
    expect_after(after, vfs_sim_trace_length(after), VFS_SIM_KEEP_NONE, "/a", "1");
    expect_after(after, vfs_sim_trace_length(after), VFS_SIM_KEEP_NONE, "/b", "-");
    vfs_sim_destroy(after);
}

Test(vfs_sim, a_full_disk_takes_what_fits_and_then_refuses) {
    struct vfs_sim *sim = vfs_sim_create();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    vfs_sim_set_capacity(sim, 100);
    char data[80] = {0};
    write_file(vfs, "/a", data, sizeof(data), 0);
    cr_assert_eq(vfs->ops->free_bytes(vfs, "/"), 20);
    int fd = vfs->ops->open(vfs, "/b", O_WRONLY | O_CREAT, 0600);
    cr_assert_eq(vfs->ops->allocate(vfs, fd, 21), -ENOSPC);
    cr_assert_eq(vfs->ops->pwrite(vfs, fd, data, sizeof(data), 0), 20);
    cr_assert_eq(nnc_vfs_write_all(vfs, fd, data, 1, 20), -ENOSPC);
    cr_assert_eq(vfs->ops->unlink(vfs, "/a"), 0);
    cr_assert_eq(nnc_vfs_write_all(vfs, fd, data, sizeof(data), 20), 0);
    vfs_sim_destroy(sim);
}
