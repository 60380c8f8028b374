/* SPDX-License-Identifier: Apache-2.0 */
/* The walk over one folder, breadth first.
 *
 *   1. queue of folders, the given one first; each is read once and its subfolders join the queue;
 *   2. folders sorted by path, files by (folder, name), both bytewise;
 *   3. names appended to the result in that order.
 *
 * A folder has two names: the one it was reached by, which decides the order as in torchvision, and
 * the real one without links, which is stored, so that a reader beneath the root needs to follow
 * none.
 *
 * Invariants: every stored name is beneath the root; a folder is never entered from inside itself
 * (its device and inode are compared with those of the folders above); depth and number are
 * bounded, since links can multiply folders without being a cycle.
 *
 * Source: torchvision.datasets.folder.make_dataset, IMG_EXTENSIONS. Unlike there, hidden and empty
 * names have no special meaning but links out of the data set do: they are left out and counted. */
#include "coordinator/dataset_walk.h"

#include "base/err.h"
#include "base/log.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX   64u
#define FOLDERS_MAX 100000u

/* Room for a name reached over links: longer than what the kernel takes, but bounded by the depth.
 */
#define REACHED_MAX (PATH_MAX + (DEPTH_MAX + 2) * (NAME_MAX + 1))

struct folder {
    size_t reached; /* in the scratch pool: name it was reached by */
    size_t real;    /* name without links */
    size_t parent;  /* in the queue; the first is its own */
    uint32_t depth;
    dev_t device;
    ino_t inode;
    int64_t mtime_ns;
};

struct file {
    size_t folder;
    size_t name; /* inside the folder */
    size_t real; /* full name of a link's target; NO_LINK for plain files */
};

#define NO_LINK SIZE_MAX

/* State of one walk. */
struct walker {
    const struct nnc_walk_root *root;
    struct nnc_walk_notes *notes;
    struct nnc_pool pool;
    struct folder *folders;
    size_t folder_count, folder_capacity;
    struct file *files;
    size_t file_count, file_capacity;
    bool no_memory;
};

enum entry_type {
    ENTRY_FILE,
    ENTRY_FOLDER,
    ENTRY_LINK,
    ENTRY_OTHER,
};

static int read_folder(struct walker *walker, size_t number);
static int emit_sorted(struct walker *walker, struct nnc_walk *walk);

static const struct {
    const char *ending;
    bool decodable;
} image_endings[] = {
    {".jpg", true}, {".jpeg", true}, {".png", true},   {".ppm", true},   {".bmp", true},
    {".pgm", true}, {".tif", false}, {".tiff", false}, {".webp", false},
};

#define ENDING_COUNT (sizeof(image_endings) / sizeof(image_endings[0]))

/* Row of the ending table, or ENDING_COUNT. */
static size_t ending_of(const char *name) {
    size_t length = strlen(name);
    for (size_t i = 0; i < ENDING_COUNT; i++) {
        size_t ending = strlen(image_endings[i].ending);
        if (length >= ending && strcasecmp(name + length - ending, image_endings[i].ending) == 0) {
            return i;
        }
    }
    return ENDING_COUNT;
}

bool nnc_walk_is_image(const char *name) {
    return ending_of(name) < ENDING_COUNT;
}

static void note(uint64_t *count, char first[128], const char *folder, const char *name) {
    if ((*count)++ == 0) {
        snprintf(first, 128, "%.60s/%.60s", folder, name);
    }
}

int nnc_walk_resolve(const struct nnc_walk_root *root, const char *name, char *real) {
    char path[2 * PATH_MAX];
    char resolved[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", root->path, name);
    if (realpath(path, resolved) == NULL) {
        return nnc_fail(-ENOENT, "%s: the link leads nowhere: %s", path, strerror(errno));
    }
    size_t length = strlen(root->path);
    if (length == 1) {
        length = 0; /* the root "/" */
    }
    if (strncmp(resolved, root->path, length) != 0 ||
        (resolved[length] != '/' && resolved[length] != '\0')) {
        return nnc_fail(-EXDEV, "%s: the link leads out of %s", path, root->path);
    }
    const char *rest = resolved + length;
    rest += rest[0] == '/';
    memmove(real, rest, strlen(rest) + 1);
    return 0;
}

/* "folder/name" as a new string of the pool; folder "" is the root. */
static size_t add_joined(struct nnc_pool *pool, const char *folder, const char *name) {
    char path[REACHED_MAX];
    int length = snprintf(path, sizeof(path), "%s%s%s", folder, folder[0] != '\0' ? "/" : "", name);
    assert(length >= 0 && (size_t)length < sizeof(path));
    return nnc_pool_add(pool, path, (size_t)length);
}

static int queue_folder(struct walker *walker, size_t reached, size_t real, size_t parent) {
    uint32_t depth = walker->folder_count > 0 ? walker->folders[parent].depth + 1 : 0;
    const char *name = nnc_pool_at(&walker->pool, reached);
    if (depth > DEPTH_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s: folders deeper than %u levels", walker->root->path,
                        name, DEPTH_MAX);
    }
    if (walker->folder_count >= FOLDERS_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s: more than %u folders in one class",
                        walker->root->path, name, FOLDERS_MAX);
    }
    void *rows = walker->folders;
    if (!nnc_array_grow(&rows, walker->folder_count, &walker->folder_capacity,
                        sizeof(*walker->folders))) {
        walker->no_memory = true;
        return 0;
    }
    walker->folders = rows;
    walker->folders[walker->folder_count++] =
        (struct folder){.reached = reached, .real = real, .parent = parent, .depth = depth};
    return 0;
}

static void add_file(struct walker *walker, size_t folder, const char *name, size_t real) {
    void *rows = walker->files;
    if (!nnc_array_grow(&rows, walker->file_count, &walker->file_capacity,
                        sizeof(*walker->files))) {
        walker->no_memory = true;
        return;
    }
    walker->files = rows;
    walker->files[walker->file_count++] = (struct file){
        .folder = folder, .name = nnc_pool_add(&walker->pool, name, strlen(name)), .real = real};
    size_t ending = ending_of(name);
    if (ending < ENDING_COUNT && !image_endings[ending].decodable) {
        note(&walker->notes->undecodable, walker->notes->first_undecodable,
             nnc_pool_at(&walker->pool, walker->folders[folder].reached), name);
    }
}

static void walker_finish(struct walker *walker) {
    nnc_pool_finish(&walker->pool);
    free(walker->folders);
    free(walker->files);
}

int nnc_walk_folder(const struct nnc_walk_root *root, const char *name, struct nnc_walk *walk) {
    struct walker walker = {.root = root, .notes = &walk->notes};
    size_t first = nnc_pool_add(&walker.pool, name, strlen(name));
    int code = queue_folder(&walker, first, first, 0);
    for (size_t i = 0; code >= 0 && i < walker.folder_count; i++) {
        code = read_folder(&walker, i);
    }
    if (code >= 0 && (walker.no_memory || walker.pool.failed)) {
        code = nnc_fail(-ENOMEM, "%s/%s: no memory for its file names", root->path, name);
    }
    if (code >= 0) {
        code = emit_sorted(&walker, walk);
    }
    walker_finish(&walker);
    return code;
}

static enum entry_type type_of_mode(mode_t mode) {
    return S_ISREG(mode)   ? ENTRY_FILE
           : S_ISDIR(mode) ? ENTRY_FOLDER
           : S_ISLNK(mode) ? ENTRY_LINK
                           : ENTRY_OTHER;
}

static enum entry_type type_of_entry(int fd, const struct dirent *entry) {
    switch (entry->d_type) {
    case DT_REG:
        return ENTRY_FILE;
    case DT_DIR:
        return ENTRY_FOLDER;
    case DT_LNK:
        return ENTRY_LINK;
    case DT_UNKNOWN: {
        /* Some file systems do not say. */
        struct stat status;
        if (fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
            return ENTRY_OTHER;
        }
        return type_of_mode(status.st_mode);
    }
    default:
        return ENTRY_OTHER;
    }
}

static int add_link(struct walker *walker, size_t number, const char *name) {
    struct nnc_walk_notes *notes = walker->notes;
    const char *folder = nnc_pool_at(&walker->pool, walker->folders[number].real);
    char path[2 * PATH_MAX];
    char real[PATH_MAX];
    snprintf(path, sizeof(path), "%s%s%s", folder, folder[0] != '\0' ? "/" : "", name);
    int code = nnc_walk_resolve(walker->root, path, real);
    struct stat status;
    bool found = code >= 0 && fstatat(walker->root->fd, real[0] != '\0' ? real : ".", &status,
                                      AT_SYMLINK_NOFOLLOW) == 0;
    enum entry_type type = found ? type_of_mode(status.st_mode) : ENTRY_OTHER;
    if (type == ENTRY_FOLDER) {
        size_t reached = add_joined(
            &walker->pool, nnc_pool_at(&walker->pool, walker->folders[number].reached), name);
        return queue_folder(walker, reached, nnc_pool_add(&walker->pool, real, strlen(real)),
                            number);
    }
    if (type == ENTRY_FILE && nnc_walk_is_image(name)) {
        add_file(walker, number, name, nnc_pool_add(&walker->pool, real, strlen(real)));
    } else if (code == -EXDEV) {
        note(&notes->outside, notes->first_outside, folder, name);
    } else if (type == ENTRY_OTHER && nnc_walk_is_image(name)) {
        note(&notes->broken, notes->first_broken, folder, name);
    }
    return 0;
}

static int add_entry(struct walker *walker, size_t number, int fd, const struct dirent *entry) {
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return 0;
    }
    const struct folder folder = walker->folders[number];
    switch (type_of_entry(fd, entry)) {
    case ENTRY_FILE:
        if (nnc_walk_is_image(name)) {
            add_file(walker, number, name, NO_LINK);
        }
        return 0;
    case ENTRY_FOLDER: {
        size_t reached =
            add_joined(&walker->pool, nnc_pool_at(&walker->pool, folder.reached), name);
        size_t real =
            folder.reached == folder.real
                ? reached
                : add_joined(&walker->pool, nnc_pool_at(&walker->pool, folder.real), name);
        return queue_folder(walker, reached, real, number);
    }
    case ENTRY_LINK:
        return add_link(walker, number, name);
    case ENTRY_OTHER:
        if (nnc_walk_is_image(name)) {
            note(&walker->notes->special, walker->notes->first_special,
                 nnc_pool_at(&walker->pool, folder.reached), name);
        }
        return 0;
    }
    return 0;
}

/* True when one of the folders above is the same directory. */
static bool is_enclosed_by_itself(const struct walker *walker, size_t number) {
    const struct folder *folder = &walker->folders[number];
    for (size_t i = number; walker->folders[i].parent != i;) {
        i = walker->folders[i].parent;
        if (walker->folders[i].inode == folder->inode &&
            walker->folders[i].device == folder->device) {
            return true;
        }
    }
    return false;
}

static int read_entries(struct walker *walker, size_t number, DIR *stream) {
    int code = 0;
    while (code >= 0) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            return errno == 0
                       ? 0
                       : nnc_fail_errno("%s/%s", walker->root->path,
                                        nnc_pool_at(&walker->pool, walker->folders[number].real));
        }
        code = add_entry(walker, number, dirfd(stream), entry);
    }
    return code;
}

static int read_folder(struct walker *walker, size_t number) {
    if (walker->pool.failed) {
        return 0;
    }
    const char *name = nnc_pool_at(&walker->pool, walker->folders[number].real);
    int fd = openat(walker->root->fd, name[0] != '\0' ? name : ".",
                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        int code = nnc_fail_errno("%s/%s", walker->root->path, name);
        if (fd >= 0) {
            close(fd);
        }
        return code;
    }
    struct folder *folder = &walker->folders[number];
    folder->device = status.st_dev;
    folder->inode = status.st_ino;
    folder->mtime_ns = status.st_mtim.tv_sec * 1000000000ll + status.st_mtim.tv_nsec;
    if (is_enclosed_by_itself(walker, number)) {
        note(&walker->notes->broken, walker->notes->first_broken,
             nnc_pool_at(&walker->pool, folder->reached), "(a link to a folder around it)");
        close(fd);
        return 0;
    }
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        close(fd);
        return nnc_fail(-ENOMEM, "%s/%s: no memory to read it", walker->root->path, name);
    }
    int code = read_entries(walker, number, stream);
    closedir(stream);
    return code;
}

static int compare_files(const void *left, const void *right, void *context) {
    const struct walker *walker = context;
    const struct file *a = left;
    const struct file *b = right;
    if (a->folder != b->folder) {
        return strcmp(nnc_pool_at(&walker->pool, walker->folders[a->folder].reached),
                      nnc_pool_at(&walker->pool, walker->folders[b->folder].reached));
    }
    return strcmp(nnc_pool_at(&walker->pool, a->name), nnc_pool_at(&walker->pool, b->name));
}

static bool emit_file(const struct walker *walker, const struct file *file, struct nnc_walk *walk) {
    const struct nnc_pool *pool = &walker->pool;
    const char *folder = nnc_pool_at(pool, walker->folders[file->folder].real);
    const char *base = nnc_pool_at(pool, file->name);
    if (file->real == NO_LINK && strlen(folder) + 1 + strlen(base) >= PATH_MAX) {
        note(&walker->notes->broken, walker->notes->first_broken, "(a name too long)", base);
        return true;
    }
    void *rows = walk->files;
    if (!nnc_array_grow(&rows, walk->file_count, &walk->file_capacity, sizeof(*walk->files))) {
        return false;
    }
    walk->files = rows;
    size_t name = file->real == NO_LINK
                      ? add_joined(&walk->names, folder, base)
                      : add_joined(&walk->names, "", nnc_pool_at(pool, file->real));
    walk->files[walk->file_count++] = (struct nnc_walk_file){.name = name};
    return !walk->names.failed;
}

static bool emit_dir(const struct walker *walker, const struct folder *folder,
                     struct nnc_walk *walk) {
    void *rows = walk->dirs;
    if (!nnc_array_grow(&rows, walk->dir_count, &walk->dir_capacity, sizeof(*walk->dirs))) {
        return false;
    }
    walk->dirs = rows;
    const char *name = nnc_pool_at(&walker->pool, folder->real);
    walk->dirs[walk->dir_count++] = (struct nnc_walk_dir){
        .name = nnc_pool_add(&walk->names, name, strlen(name)), .mtime_ns = folder->mtime_ns};
    return !walk->names.failed;
}

static int emit_sorted(struct walker *walker, struct nnc_walk *walk) {
    if (walker->file_count > 0) {
        qsort_r(walker->files, walker->file_count, sizeof(*walker->files), compare_files, walker);
    }
    bool fits = true;
    for (size_t i = 0; fits && i < walker->file_count; i++) {
        fits = emit_file(walker, &walker->files[i], walk);
    }
    for (size_t i = 0; fits && i < walker->folder_count; i++) {
        fits = emit_dir(walker, &walker->folders[i], walk);
    }
    return fits ? 0 : nnc_fail(-ENOMEM, "%s: no memory for its file names", walker->root->path);
}

void nnc_walk_measure(const struct nnc_walk_root *root, struct nnc_walk *walk, size_t first,
                      size_t count) {
    assert(first + count <= walk->file_count);
    for (size_t i = first; i < first + count; i++) {
        struct statx status;
        const char *name = nnc_pool_at(&walk->names, walk->files[i].name);
        bool is_file = statx(root->fd, name, AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC,
                             STATX_TYPE | STATX_SIZE, &status) == 0 &&
                       S_ISREG(status.stx_mode);
        walk->files[i].size = is_file ? status.stx_size : 0;
    }
}

static void warn(uint64_t count, const char *place, const char *what, const char *first) {
    if (count > 0) {
        nnc_log(NNC_LOG_WARN, "%s: %" PRIu64 " %s, the first is %s", place, count, what, first);
    }
}

void nnc_walk_warn(const struct nnc_walk_notes *notes, const char *place) {
    warn(notes->outside, place, "links lead out of the data set and are left out",
         notes->first_outside);
    warn(notes->broken, place, "names lead nowhere or in a circle and are left out",
         notes->first_broken);
    warn(notes->special, place, "devices, pipes or sockets are left out", notes->first_special);
    warn(notes->undecodable, place,
         "images are TIFF or WebP, which is not decoded: they will count as bad",
         notes->first_undecodable);
}

static void add_note(uint64_t *count, char *first, uint64_t from_count, const char *from_first) {
    if (*count == 0) {
        memcpy(first, from_first, 128);
    }
    *count += from_count;
}

void nnc_walk_notes_add(struct nnc_walk_notes *notes, const struct nnc_walk_notes *from) {
    add_note(&notes->outside, notes->first_outside, from->outside, from->first_outside);
    add_note(&notes->broken, notes->first_broken, from->broken, from->first_broken);
    add_note(&notes->special, notes->first_special, from->special, from->first_special);
    add_note(&notes->undecodable, notes->first_undecodable, from->undecodable,
             from->first_undecodable);
}

void nnc_walk_finish(struct nnc_walk *walk) {
    nnc_pool_finish(&walk->names);
    free(walk->files);
    free(walk->dirs);
    *walk = (struct nnc_walk){0};
}
