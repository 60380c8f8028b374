/* SPDX-License-Identifier: Apache-2.0 */
/* What kind of data set lies at a path, from names alone.
 *
 *   PATH is a file x.tar or has braces        shards
 *   PATH/...images-idx3-ubyte[.gz]            IDX: train- and t10k- or test-
 *   PATH/x.tar                                shards: train and val in their names, or plain
 *   PATH/{train,val,...}/x.tar                shards
 *   PATH/{train,val,...}/CLASS/               class folders
 *   PATH/CLASS/                               class folders, plain
 *
 * in this order, "val,..." being val, valid, validation, test; the format option leaves only its
 * own rows. A folder called "train" that has no folders and no shards in it is a class of that
 * name, not a split.
 *
 * Invariant: root is free of links and names are relative to it. A split that is a link out of PATH
 * becomes a root of its own, since its owner named it; links further inside may not leave the root.
 *
 * It does not look into files, nor into class folders. */
#include "coordinator/dataset_source.h"

#include "base/err.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* The names in one directory, sorted bytewise. */
struct listing {
    struct nnc_pool names;
    struct listed {
        size_t name;
        bool is_folder;
    } * entries;
    size_t count, capacity;
    size_t folders, shards;
};

enum split {
    SPLIT_TRAIN,
    SPLIT_VAL,
    SPLIT_TEST, /* used for validation when there is no val */
    SPLIT_NONE,
};

static const struct {
    const char *name;
    enum split split;
} split_words[] = {
    {"train", SPLIT_TRAIN},  {"training", SPLIT_TRAIN}, {"val", SPLIT_VAL},
    {"valid", SPLIT_VAL},    {"validation", SPLIT_VAL}, {"test", SPLIT_TEST},
    {"testing", SPLIT_TEST},
};

const char *const nnc_layout_val_folders[] = {"val", "valid", "validation", "test", NULL};

static int list_directory(const char *path, struct listing *ret_listing);
static void listing_finish(struct listing *listing);
static int find_idx(const char *root, const struct listing *listing, struct nnc_layout *layout);
static int find_shards(const char *root, const struct listing *listing, struct nnc_layout *layout);
static int find_split_folders(const char *root, enum nnc_data_format format,
                              const struct listing *listing, struct nnc_layout *layout);
static int find_pattern(const char *pattern, struct nnc_layout *layout);
static int find_one_shard(const char *path, struct nnc_layout *layout);
static int fail_nothing_fits(const char *path, enum nnc_data_format format,
                             const struct listing *listing);

static bool has_ending(const char *name, const char *ending) {
    size_t length = strlen(name);
    size_t wanted = strlen(ending);
    return length > wanted && strcasecmp(name + length - wanted, ending) == 0;
}

/* Make the source a present one of this kind and root. */
static int source_begin(struct nnc_data_source *source, enum nnc_index_kind kind,
                        const char *root) {
    if (strlen(root) >= sizeof(source->root)) {
        return nnc_fail(-ENAMETOOLONG, "%s: paths are limited to %zu bytes", root,
                        sizeof(source->root) - 1);
    }
    source->kind = kind;
    memcpy(source->root, root, strlen(root) + 1);
    return 0;
}

static bool layout_is_empty(const struct nnc_layout *layout) {
    return layout->train.kind == 0 && layout->val.kind == 0 && layout->plain.kind == 0;
}

static int find_in_directory(const char *root, enum nnc_data_format format,
                             const struct listing *listing, struct nnc_layout *layout) {
    bool any = format == NNC_FORMAT_AUTO;
    int code = 0;
    if (any || format == NNC_FORMAT_IDX) {
        code = find_idx(root, listing, layout);
    }
    if (code >= 0 && (any || format == NNC_FORMAT_TAR) && layout_is_empty(layout)) {
        code = find_shards(root, listing, layout);
    }
    if (code >= 0 && format != NNC_FORMAT_IDX && layout_is_empty(layout)) {
        code = find_split_folders(root, format, listing, layout);
    }
    if (code >= 0 && (any || format == NNC_FORMAT_FOLDER) && layout_is_empty(layout) &&
        listing->folders > 0) {
        code = source_begin(&layout->plain, NNC_INDEX_FOLDER, root);
    }
    return code;
}

int nnc_layout_find(const char *path, enum nnc_data_format format, struct nnc_layout *ret_layout) {
    *ret_layout = (struct nnc_layout){0};
    bool may_be_tar = format == NNC_FORMAT_AUTO || format == NNC_FORMAT_TAR;
    char root[PATH_MAX];
    struct stat status;
    if (realpath(path, root) == NULL || stat(root, &status) != 0) {
        bool is_pattern = may_be_tar && errno == ENOENT && strchr(path, '{') != NULL;
        return is_pattern ? find_pattern(path, ret_layout) : nnc_fail_errno("%s", path);
    }
    if (!S_ISDIR(status.st_mode)) {
        if (may_be_tar && S_ISREG(status.st_mode) && has_ending(path, ".tar")) {
            return find_one_shard(root, ret_layout);
        }
        return nnc_fail(-NNC_E_USAGE, "%s: neither a directory nor a .tar file", path);
    }
    struct listing listing = {0};
    int code = list_directory(root, &listing);
    if (code >= 0) {
        code = find_in_directory(root, format, &listing, ret_layout);
    }
    if (code >= 0 && layout_is_empty(ret_layout)) {
        code = fail_nothing_fits(path, format, &listing);
    }
    listing_finish(&listing);
    return code;
}

void nnc_layout_finish(struct nnc_layout *layout) {
    nnc_data_source_finish(&layout->train);
    nnc_data_source_finish(&layout->val);
    nnc_data_source_finish(&layout->plain);
}

bool nnc_data_source_add(struct nnc_data_source *source, const char *name) {
    void *rows = source->name_at;
    if (!nnc_array_grow(&rows, source->name_count, &source->name_capacity,
                        sizeof(*source->name_at))) {
        return false;
    }
    source->name_at = rows;
    source->name_at[source->name_count++] = nnc_pool_add(&source->names, name, strlen(name));
    return !source->names.failed;
}

const char *nnc_data_source_name(const struct nnc_data_source *source, size_t i) {
    return nnc_pool_at(&source->names, source->name_at[i]);
}

void nnc_data_source_finish(struct nnc_data_source *source) {
    nnc_pool_finish(&source->names);
    free(source->name_at);
    *source = (struct nnc_data_source){0};
}

/* --- directories ---------------------------------------------------------------------------------
 */

static int compare_listed(const void *left, const void *right, void *context) {
    const struct listing *listing = context;
    const struct listed *a = left;
    const struct listed *b = right;
    return strcmp(nnc_pool_at(&listing->names, a->name), nnc_pool_at(&listing->names, b->name));
}

static const char *listed_name(const struct listing *listing, size_t i) {
    return nnc_pool_at(&listing->names, listing->entries[i].name);
}

static bool listing_add(struct listing *listing, int fd, const struct dirent *entry) {
    struct stat status;
    bool is_folder = entry->d_type == DT_DIR;
    if (entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN) {
        is_folder = fstatat(fd, entry->d_name, &status, 0) == 0 && S_ISDIR(status.st_mode);
    }
    void *rows = listing->entries;
    if (!nnc_array_grow(&rows, listing->count, &listing->capacity, sizeof(*listing->entries))) {
        return false;
    }
    listing->entries = rows;
    listing->entries[listing->count++] = (struct listed){
        .name = nnc_pool_add(&listing->names, entry->d_name, strlen(entry->d_name)),
        .is_folder = is_folder,
    };
    listing->folders += is_folder;
    listing->shards += !is_folder && has_ending(entry->d_name, ".tar");
    return !listing->names.failed;
}

static int list_directory(const char *path, struct listing *ret_listing) {
    DIR *stream = opendir(path);
    if (stream == NULL) {
        return nnc_fail_errno("%s", path);
    }
    bool fits = true;
    const struct dirent *entry;
    while (fits && (entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            fits = listing_add(ret_listing, dirfd(stream), entry);
        }
    }
    closedir(stream);
    if (!fits) {
        return nnc_fail(-ENOMEM, "%s: no memory for its names", path);
    }
    if (ret_listing->count > 0) {
        qsort_r(ret_listing->entries, ret_listing->count, sizeof(*ret_listing->entries),
                compare_listed, ret_listing);
    }
    return 0;
}

static void listing_finish(struct listing *listing) {
    nnc_pool_finish(&listing->names);
    free(listing->entries);
}

/* The first of the words in name (runs of letters) that names a split: "imagenet1k-train-0001". */
static enum split split_of_name(const char *name) {
    while (*name != '\0') {
        char word[16];
        size_t length = 0;
        for (; (*name | 0x20) >= 'a' && (*name | 0x20) <= 'z'; name++) {
            word[length < sizeof(word) - 1 ? length++ : length] = (char)(*name | 0x20);
        }
        word[length] = '\0';
        for (size_t i = 0; i < sizeof(split_words) / sizeof(split_words[0]); i++) {
            if (strcmp(word, split_words[i].name) == 0) {
                return split_words[i].split;
            }
        }
        name += *name != '\0';
    }
    return SPLIT_NONE;
}

/* --- IDX -----------------------------------------------------------------------------------------
 */

/* The parts of "PREFIXimages-idx3-ubyte[.gz]". */
struct idx_name {
    size_t prefix_length;
    char separator; /* before "idx": '-' as published, '.' as some tools unpack it */
    enum split split;
};

static bool parse_idx_name(const char *name, struct idx_name *ret_parts) {
    static const char *const endings[] = {"images-idx3-ubyte", "images.idx3-ubyte",
                                          "images-idx4-ubyte", "images.idx4-ubyte"};
    size_t length = strlen(name);
    length -= has_ending(name, ".gz") ? strlen(".gz") : 0;
    size_t ending = strlen(endings[0]);
    if (length <= ending) {
        return false;
    }
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        if (strncmp(name + length - ending, endings[i], ending) == 0) {
            size_t prefix = length - ending;
            bool is_test = (prefix >= 5 && strncmp(name + prefix - 5, "t10k", 4) == 0) ||
                           (prefix >= 5 && strncmp(name + prefix - 5, "test", 4) == 0);
            bool is_train = prefix >= 6 && strncmp(name + prefix - 6, "train", 5) == 0;
            *ret_parts = (struct idx_name){
                .prefix_length = prefix,
                .separator = endings[i][strlen("images")],
                .split = is_train  ? SPLIT_TRAIN
                         : is_test ? SPLIT_TEST
                                   : SPLIT_NONE,
            };
            return ret_parts->split != SPLIT_NONE;
        }
    }
    return false;
}

static bool listing_has(const struct listing *listing, const char *name) {
    for (size_t i = 0; i < listing->count; i++) {
        if (strcmp(listed_name(listing, i), name) == 0) {
            return true;
        }
    }
    return false;
}

/* Add the images file and the labels file that belongs to it, zipped or not. */
static int add_idx_pair(const char *root, const struct listing *listing, const char *images,
                        const struct idx_name *parts, struct nnc_data_source *source) {
    char labels[NAME_MAX + 16];
    int length = snprintf(labels, sizeof(labels), "%.*slabels%cidx1-ubyte",
                          (int)parts->prefix_length, images, parts->separator);
    if (!listing_has(listing, labels)) {
        snprintf(labels + length, sizeof(labels) - (size_t)length, ".gz");
    }
    if (!listing_has(listing, labels)) {
        labels[length] = '\0';
        return nnc_fail(-NNC_E_USAGE, "%s/%s: its labels %s[.gz] are missing", root, images,
                        labels);
    }
    int code = source_begin(source, NNC_INDEX_IDX, root);
    if (code >= 0 &&
        (!nnc_data_source_add(source, images) || !nnc_data_source_add(source, labels))) {
        code = nnc_fail(-ENOMEM, "%s: no memory for its names", root);
    }
    return code;
}

static int find_idx(const char *root, const struct listing *listing, struct nnc_layout *layout) {
    for (size_t i = 0; i < listing->count; i++) {
        const char *name = listed_name(listing, i);
        struct idx_name parts;
        if (listing->entries[i].is_folder || !parse_idx_name(name, &parts)) {
            continue;
        }
        struct nnc_data_source *source = parts.split == SPLIT_TRAIN ? &layout->train : &layout->val;
        if (source->kind == 0) {
            int code = add_idx_pair(root, listing, name, &parts, source);
            if (code < 0) {
                return code;
            }
            continue;
        }
        /* "x" sorts before "x.gz": the unpacked one of a pair was taken already. */
        const char *taken = nnc_data_source_name(source, 0);
        if (strncmp(taken, name, parts.prefix_length + strlen("images")) != 0) {
            return nnc_fail(-NNC_E_USAGE,
                            "%s: both %s and %s are there; put one data set into a directory", root,
                            taken, name);
        }
    }
    return 0;
}

/* --- shards --------------------------------------------------------------------------------------
 */

/* Names of source are absolute; make them relative to the deepest directory that holds root and all
 * of them. That is root unless shards are links to elsewhere, as download caches make them. */
static int rebase(struct nnc_data_source *source, const char *root) {
    char base[PATH_MAX];
    snprintf(base, sizeof(base), "%s", root);
    size_t length = strcmp(base, "/") == 0 ? 0 : strlen(base);
    for (size_t i = 0; i < source->name_count; i++) {
        const char *name = nnc_data_source_name(source, i);
        while (strncmp(name, base, length) != 0 || name[length] != '/') {
            do {
                length--;
            } while (base[length] != '/');
        }
    }
    base[length] = '\0';
    for (size_t i = 0; i < source->name_count; i++) {
        source->name_at[i] += length + 1; /* a string's tail is a string */
    }
    return source_begin(source, NNC_INDEX_TAR, length == 0 ? "/" : base);
}

/* Add the shard directory/name under its real, absolute path. */
static int add_shard(struct nnc_data_source *source, const char *directory, const char *name) {
    char path[2 * PATH_MAX];
    char real[PATH_MAX];
    struct stat status;
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    if (realpath(path, real) == NULL || stat(real, &status) != 0) {
        return nnc_fail_errno("%s", path);
    }
    if (!S_ISREG(status.st_mode)) {
        return nnc_fail(-NNC_E_USAGE, "%s: a shard must be a regular file", path);
    }
    return nnc_data_source_add(source, real)
               ? 0
               : nnc_fail(-ENOMEM, "%s: no memory for the names of its shards", directory);
}

/* Add the shards of one split, or all that have none for SPLIT_NONE. */
static int add_shards(const char *root, const struct listing *listing, enum split split,
                      struct nnc_data_source *source) {
    int code = 0;
    for (size_t i = 0; code >= 0 && i < listing->count; i++) {
        const char *name = listed_name(listing, i);
        if (!listing->entries[i].is_folder && has_ending(name, ".tar") &&
            split_of_name(name) == split) {
            code = add_shard(source, root, name);
        }
    }
    if (code >= 0 && source->name_count > 0) {
        code = rebase(source, root);
    }
    return code;
}

static int find_shards(const char *root, const struct listing *listing, struct nnc_layout *layout) {
    if (listing->shards == 0) {
        return 0;
    }
    int code = add_shards(root, listing, SPLIT_TRAIN, &layout->train);
    if (code >= 0) {
        code = add_shards(root, listing, SPLIT_VAL, &layout->val);
    }
    if (code >= 0 && layout->val.kind == 0) {
        code = add_shards(root, listing, SPLIT_TEST, &layout->val);
    }
    if (code >= 0 && layout->train.kind == 0) {
        /* Beside val-*.tar, shards without a word in their names are for training. */
        code = add_shards(root, listing, SPLIT_NONE,
                          layout->val.kind == 0 ? &layout->plain : &layout->train);
    }
    return code;
}

static int find_one_shard(const char *path, struct nnc_layout *layout) {
    char root[PATH_MAX];
    snprintf(root, sizeof(root), "%s", path);
    char *slash = strrchr(root, '/');
    *slash = '\0';
    int code = add_shard(&layout->plain, root, slash + 1);
    return code < 0 ? code : rebase(&layout->plain, root[0] != '\0' ? root : "/");
}

/* Numbers of the first brace of a pattern: "{000000..000146}". */
struct range {
    const char *open;
    const char *close;
    unsigned long first, last;
    int width; /* digits of the first number */
};

static bool parse_range(const char *pattern, struct range *ret_range) {
    struct range range = {.open = strchr(pattern, '{')};
    range.close = range.open != NULL ? strchr(range.open, '}') : NULL;
    if (range.close == NULL) {
        return false;
    }
    int end = 0;
    int digits = 0;
    if (sscanf(range.open, "{%9lu%n..%9lu}%n", &range.first, &digits, &range.last, &end) != 2 ||
        range.open + end != range.close + 1 || range.last < range.first) {
        return false;
    }
    range.width = digits - 1;
    *ret_range = range;
    return true;
}

/* Add the shards of a pattern relative to root; braces from left to right, so names come sorted. */
static int expand_pattern(const char *root, const char *pattern, int depth,
                          struct nnc_data_source *source) {
    struct range range;
    if (strchr(pattern, '{') == NULL) {
        return add_shard(source, root, pattern);
    }
    if (depth == 0 || !parse_range(pattern, &range)) {
        return nnc_fail(-NNC_E_USAGE, "%s: not a pattern like name-{000000..000146}.tar", pattern);
    }
    int code = 0;
    for (unsigned long number = range.first; code >= 0 && number <= range.last; number++) {
        char name[PATH_MAX];
        int length = snprintf(name, sizeof(name), "%.*s%0*lu%s", (int)(range.open - pattern),
                              pattern, range.width, number, range.close + 1);
        code = length < 0 || (size_t)length >= sizeof(name)
                   ? nnc_fail(-ENAMETOOLONG, "%s", pattern)
                   : expand_pattern(root, name, depth - 1, source);
    }
    return code;
}

static int find_pattern(const char *pattern, struct nnc_layout *layout) {
    char directory[PATH_MAX];
    char root[PATH_MAX];
    size_t length = (size_t)(strchr(pattern, '{') - pattern);
    while (length > 0 && pattern[length - 1] != '/') {
        length--;
    }
    snprintf(directory, sizeof(directory), "%.*s", (int)length, pattern);
    if (realpath(length > 0 ? directory : ".", root) == NULL) {
        return nnc_fail_errno("%s", directory);
    }
    int code = expand_pattern(root, pattern + length, 3, &layout->plain);
    return code < 0 ? code : rebase(&layout->plain, root);
}

/* --- split folders -------------------------------------------------------------------------------
 */

/* Make source the class folders in root/name. */
static int set_class_root(const char *root, const char *name, struct nnc_data_source *source) {
    char path[2 * PATH_MAX];
    char real[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    if (realpath(path, real) == NULL) {
        return nnc_fail_errno("%s", path);
    }
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
    bool inside = strncmp(real, root, length) == 0 && real[length] == '/';
    int code = source_begin(source, NNC_INDEX_FOLDER, inside ? root : real);
    if (code >= 0 && inside) {
        const char *rest = real + length + 1;
        if (strlen(rest) >= sizeof(source->folder)) {
            return nnc_fail(-ENAMETOOLONG, "%s", path);
        }
        memcpy(source->folder, rest, strlen(rest) + 1);
    }
    return code;
}

/* All shards of a directory, whatever their names say. */
static int add_all_shards(const char *path, const struct listing *listing,
                          struct nnc_data_source *source) {
    int code = 0;
    for (size_t i = 0; code >= 0 && i < listing->count; i++) {
        const char *name = listed_name(listing, i);
        if (!listing->entries[i].is_folder && has_ending(name, ".tar")) {
            code = add_shard(source, path, name);
        }
    }
    return code < 0 ? code : rebase(source, path);
}

/* Take root/name as a split if it is one: it has shards or folders in it. */
static int try_split(const char *root, const char *name, enum nnc_data_format format,
                     struct nnc_data_source *source) {
    char path[2 * PATH_MAX];
    char real[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    if (realpath(path, real) == NULL) {
        return nnc_fail_errno("%s", path);
    }
    struct listing listing = {0};
    int code = list_directory(real, &listing);
    if (code >= 0 && listing.shards > 0 && format != NNC_FORMAT_FOLDER) {
        code = add_all_shards(real, &listing, source);
    } else if (code >= 0 && listing.folders > 0 && format != NNC_FORMAT_TAR) {
        code = set_class_root(root, name, source);
    }
    listing_finish(&listing);
    return code;
}

static int find_split_folders(const char *root, enum nnc_data_format format,
                              const struct listing *listing, struct nnc_layout *layout) {
    const char *const *val = nnc_layout_val_folders;
    int code = listing_has(listing, "train") ? try_split(root, "train", format, &layout->train) : 0;
    for (; code >= 0 && *val != NULL && layout->val.kind == 0; val++) {
        if (listing_has(listing, *val)) {
            code = try_split(root, *val, format, &layout->val);
        }
    }
    return code;
}

/* --- nothing -------------------------------------------------------------------------------------
 */

static int fail_nothing_fits(const char *path, enum nnc_data_format format,
                             const struct listing *listing) {
    static const char *const sought[] = {
        [NNC_FORMAT_AUTO] = "no class folders, no *.tar, no *-images-idx3-ubyte",
        [NNC_FORMAT_FOLDER] = "no class folders",
        [NNC_FORMAT_TAR] = "no *.tar",
        [NNC_FORMAT_IDX] = "no train-images-idx3-ubyte or t10k-images-idx3-ubyte, .gz or not",
    };
    char found[256] = "";
    size_t at = 0;
    for (size_t i = 0; i < listing->count && i < 4; i++) {
        at += (size_t)snprintf(found + at, sizeof(found) - at, "%s%.40s", i > 0 ? ", " : "",
                               listed_name(listing, i));
    }
    return nnc_fail(
        -NNC_E_USAGE,
        "%s: %s; expected one of %s/train/CLASS/image.jpg, %s/CLASS/image.jpg, "
        "%s/*.tar, %s/train-images-idx3-ubyte[.gz]; found %zu folders and %zu files%s%s%s",
        path, sought[format], path, path, path, path, listing->folders,
        listing->count - listing->folders, at > 0 ? " (" : "", found,
        at == 0              ? ""
        : listing->count > 4 ? ", ...)"
                             : ")");
}
