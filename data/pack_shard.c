/* SPDX-License-Identifier: Apache-2.0 */
/* Making and verifying one shard.
 *
 *   for each sample: read -> make the member -> append -> tell
 *   verifying: walk over the archive's members; an image's number says which sample it was made of;
 *   each sample must have come once, or its source be bad; walk again beside the index, whose every
 *   line must name the members that follow
 *
 * 1. All is done on the calling thread, with a source, a reader and a packer of its own, so shards
 *    can be made side by side without a lock.
 * 2. Verifying reads the file back through the tar reader that a data set is scanned with.
 * 3. What an earlier run left out of a finished shard counts as bad again, so that going on ends as
 *    an undisturbed run does.
 * 4. A shard got its name when it was whole. If it is no longer as long as its index says,
 * something else changed it; it is not ours to delete, so it is refused with the remedy.
 * 5. Bad is what does not decode, or lies outside the data set. What the system refuses to read
 * ends the run: it may be there tomorrow, and a finished shard is not made again.
 *
 * Does not: decide where shards lie or which samples they have (pack.c). */
#include "data/pack_shard.h"

#include "base/err.h"
#include "base/log.h"
#include "base/regular.h"
#include "base/text.h"
#include "coordinator/dataset_tar_reader.h"
#include "data/shard_write.h"
#include "data/stop.h"
#include "ipc/memfd.h"
#include "loader/image.h"
#include "loader/reader.h"
#include "loader/source.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    KEY_BYTES = 90,
    NUMBER_DIGITS = 9,
};

/* What of a sample was met in a shard. */
enum {
    SEEN_IMAGE = 1,
    SEEN_LABEL = 2,
};

struct work {
    const struct nnc_pack_shard *shard;
    int index_fd;
    struct nnc_source *source;
    struct nnc_reader *reader;
    struct nnc_packer *packer;
    uint8_t *member; /* read back; followed by slack */
    size_t member_room;
    uint8_t *seen; /* of each sample of the shard; while verifying */
};

static int open_work(struct work *work) {
    const struct nnc_dataset_part *part = work->shard->part;
    struct nnc_setup_data data = {.samples = part->samples, .raw_fd = part->raw_fd};
    snprintf(data.root, sizeof(data.root), "%s", part->root);
    int code = nnc_memfd_create("index", part->size, NNC_MEMFD_READONLY, part->bytes,
                                work->shard->shm_dir, &work->index_fd);
    data.index_fd = work->index_fd;
    code = code < 0 ? code : nnc_source_open(&data, false, &work->source);
    if (code < 0) {
        return code;
    }
    const struct nnc_reader_params params = {.sources = {work->source, NULL}, .depth = 1};
    char note[128];
    code = nnc_reader_open(&params, NNC_IO_PREAD, note, sizeof(note), &work->reader);
    return code < 0 ? code : nnc_packer_create(work->shard->recipe, &work->packer);
}

static void close_work(struct work *work) {
    nnc_packer_destroy(work->packer);
    nnc_reader_close(work->reader);
    nnc_source_close(work->source);
    if (work->index_fd >= 0) {
        close(work->index_fd);
    }
    free(work->member);
    free(work->seen);
}

/* Bytes of a sample; they stay until the next call. Negative: the sample is bad. */
static int read_source(struct work *work, uint64_t sample, struct nnc_pack_source *ret_source) {
    const struct nnc_read read = {.phase = NNC_PHASE_TRAIN, .sample = sample};
    struct nnc_read_done done;
    nnc_reader_submit(work->reader, &read);
    int code = nnc_reader_wait(work->reader, &done);
    assert(code != 0);
    code = code < 0 ? code : done.code;
    if (code >= 0) {
        *ret_source = (struct nnc_pack_source){
            .header = work->shard->part->index.header, .bytes = done.bytes, .size = done.size};
    }
    return code;
}

/* Is the sample bad for good? Otherwise reading it failed for a reason that may pass. */
static bool is_bad(int code) {
    return code == -NNC_E_FORMAT || code == -EXDEV || code == -ELOOP;
}

/* End the run for a sample that could not be had. */
static int fail_sample(const struct work *work, uint64_t sample, int code) {
    char path[NNC_PATH_MAX], fault[512];
    nnc_dataset_sample_path(work->shard->part, sample, path, sizeof(path));
    snprintf(fault, sizeof(fault), "%s", nnc_error_text());
    return nnc_fail(code,
                    "%s cannot be read (%s), which does not make it a bad image; make it readable, "
                    "or take it out of the data set and give --reindex, then pack again",
                    path, fault);
}

static void tell_bad(const struct work *work, uint64_t sample) {
    char path[NNC_PATH_MAX];
    nnc_dataset_sample_path(work->shard->part, sample, path, sizeof(path));
    nnc_log(NNC_LOG_WARN, "%s is left out: %s", path, nnc_error_text());
}

/* Bytes of a sample's file, whether or not they can be read. */
static uint64_t source_bytes(const struct nnc_pack_shard *shard, uint64_t sample) {
    uint32_t size = shard->part->index.samples[sample].size;
    return size == NNC_INDEX_SIZE_HUGE ? 0 : size;
}

/* ---- making ---- */

/* "000000123_n01440764_x": the number, then the path without its ending, in letters that mean
 * nothing to WebDataset or a shell. */
static void make_key(const struct work *work, uint64_t sample, char ret_key[KEY_BYTES + 1]) {
    const struct nnc_index *index = &work->shard->part->index;
    const char *name = index->strings + index->samples[sample].name;
    const char *slash = strrchr(name, '/');
    const char *dot = strrchr(slash != NULL ? slash : name, '.');
    size_t length = dot != NULL ? (size_t)(dot - name) : strlen(name);
    size_t at = (size_t)snprintf(ret_key, KEY_BYTES + 1, "%0*" PRIu64, NUMBER_DIGITS, sample);
    if (index->header->kind == NNC_INDEX_IDX) {
        return; /* all samples have the file's name */
    }
    ret_key[at++] = '_';
    for (size_t i = 0; i < length && at < KEY_BYTES; i++) {
        char c = name[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        ret_key[at++] = plain || c == '-' ? c : '_';
    }
    ret_key[at] = '\0';
}

static int add_sample(struct work *work, struct nnc_shard_writer *writer, uint64_t sample) {
    struct nnc_pack_source source = {.bytes = NULL};
    struct nnc_pack_member member;
    char key[KEY_BYTES + 1];
    struct nnc_pack_step step = {.samples = 1, .bytes_before = source_bytes(work->shard, sample)};
    int code = nnc_stop_check();
    if (code < 0) {
        return code;
    }
    code = read_source(work, sample, &source);
    code = code < 0 ? code : nnc_packer_make(work->packer, &source, &member);
    if (code < 0 && !is_bad(code)) {
        return fail_sample(work, sample, code);
    }
    if (code < 0) {
        tell_bad(work, sample);
        step.bad = 1;
    } else {
        make_key(work, sample, key);
        int32_t label = work->shard->part->index.samples[sample].label;
        code = nnc_shard_writer_add(writer, key, &member, label);
        step.bytes_after = member.size;
        if (code < 0) {
            return code;
        }
    }
    work->shard->on_step(work->shard->context, &step);
    return 0;
}

/* ---- verifying ---- */

/* The archive being read back. */
struct archive {
    int fd;
    struct nnc_tar_reader *reader;
};

static ssize_t read_archive(void *context, void *data, size_t bytes, uint64_t offset) {
    const struct archive *archive = context;
    return pread(archive->fd, data, bytes, (off_t)offset);
}

/* The sample that a member belongs to; false for members that pack does not make. */
static bool parse_number(const char *name, uint64_t *ret_sample) {
    uint64_t number = 0;
    for (int i = 0; i < NUMBER_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return false;
        }
        number = number * 10 + (uint64_t)(name[i] - '0');
    }
    *ret_sample = number;
    return true;
}

static bool is_label(const struct nnc_tar_member *member) {
    const char *dot = strrchr(member->name, '.');
    return dot != NULL && strcmp(dot, ".cls") == 0;
}

static int read_member(struct work *work, const struct archive *archive,
                       const struct nnc_tar_member *member) {
    size_t size = (size_t)member->size;
    int code = nnc_image_reserve(&work->member, &work->member_room, size);
    for (size_t at = 0; code >= 0 && at < size;) {
        ssize_t got =
            pread(archive->fd, work->member + at, size - at, (off_t)(member->offset + at));
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return nnc_fail(-EIO, "cannot be read back");
        }
        at += got > 0 ? (size_t)got : 0;
    }
    return code;
}

/* The member that was read is KEY.cls: it must say what the source's folder or file says. */
static int compare_label(const struct work *work, const struct nnc_tar_member *member,
                         uint64_t sample) {
    char wanted[16];
    int32_t label = work->shard->part->index.samples[sample].label;
    int length = snprintf(wanted, sizeof(wanted), "%" PRId32, label);
    bool same =
        member->size == (uint64_t)length && memcmp(work->member, wanted, (size_t)length) == 0;
    return same ? 0 : nnc_fail(-NNC_E_FORMAT, "is not the label %s of the original", wanted);
}

static int compare_image(struct work *work, const struct nnc_tar_member *member, uint64_t sample) {
    struct nnc_pack_source source;
    int code = read_source(work, sample, &source);
    if (code < 0) {
        return is_bad(code) ? code : fail_sample(work, sample, code);
    }
    const struct nnc_pack_source packed = {.bytes = work->member, .size = (size_t)member->size};
    return nnc_packer_verify(work->packer, &source, &packed, sample);
}

/* Note that the member was met; each is there once. */
static int mark_seen(struct work *work, const struct nnc_tar_member *member, uint64_t sample) {
    const struct nnc_pack_shard *shard = work->shard;
    if (sample < shard->first || sample - shard->first >= shard->count) {
        return nnc_fail(-NNC_E_FORMAT, "is a sample of another shard");
    }
    uint8_t kind = is_label(member) ? SEEN_LABEL : SEEN_IMAGE;
    uint8_t *seen = &work->seen[sample - shard->first];
    if ((*seen & kind) != 0) {
        return nnc_fail(-NNC_E_FORMAT, "is a sample that came before");
    }
    *seen |= kind;
    return 0;
}

static int verify_member(struct work *work, const struct archive *archive,
                         const struct nnc_tar_member *member) {
    uint64_t sample;
    if (!member->is_regular || !parse_number(member->name, &sample)) {
        return 0;
    }
    int code = nnc_stop_check();
    if (code < 0) {
        return code;
    }
    code = mark_seen(work, member, sample);
    code = code < 0 ? code : read_member(work, archive, member);
    if (code >= 0) {
        code = is_label(member) ? compare_label(work, member, sample)
                                : compare_image(work, member, sample);
    }
    return code < 0 ? nnc_fail_in(code, "%s.tar/%s", work->shard->path, member->name) : 0;
}

/* A sample without a member must be a bad one, and that can be tried. */
static int verify_left_out(struct work *work, uint64_t sample) {
    struct nnc_pack_source source;
    struct nnc_pack_member member;
    int code = nnc_stop_check();
    if (code < 0) {
        return code;
    }
    code = read_source(work, sample, &source);
    code = code < 0 ? code : nnc_packer_make(work->packer, &source, &member);
    if (code < 0) {
        return is_bad(code) ? 0 : fail_sample(work, sample, code);
    }
    char path[NNC_PATH_MAX];
    nnc_dataset_sample_path(work->shard->part, sample, path, sizeof(path));
    return nnc_fail(-NNC_E_FORMAT, "%s.tar lacks the image %s", work->shard->path, path);
}

static int verify_complete(struct work *work) {
    const struct nnc_pack_shard *shard = work->shard;
    for (uint64_t i = 0; i < shard->count; i++) {
        bool has_label = shard->part->index.samples[shard->first + i].label >= 0;
        int code = 0;
        if ((work->seen[i] & SEEN_IMAGE) == 0) {
            code = verify_left_out(work, shard->first + i);
        } else if (has_label && (work->seen[i] & SEEN_LABEL) == 0) {
            code = nnc_fail(-NNC_E_FORMAT, "%s.tar lacks the label of sample %" PRIu64, shard->path,
                            shard->first + i);
        }
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

/* Open the archive's file; the caller closes archive->fd. */
static int open_archive(const char *path, struct archive *archive, uint64_t *ret_size) {
    struct stat status;
    int code = nnc_regular_open(path, &archive->fd);
    if (code >= 0 && fstat(archive->fd, &status) < 0) {
        code = nnc_fail_errno("%s", path);
    }
    if (code < 0) {
        return code;
    }
    *ret_size = (uint64_t)status.st_size;
    return 0;
}

/* The archive's members in their order, each with its bytes and label. */
static int verify_members(struct work *work, struct archive *archive,
                          const struct nnc_tar_source *source) {
    struct nnc_tar_member member;
    int code = nnc_tar_open(source, &archive->reader);
    while (code >= 0 && (code = nnc_tar_next(archive->reader, &member)) > 0) {
        code = verify_member(work, archive, &member);
    }
    nnc_tar_close(archive->reader);
    return code < 0 ? code : verify_complete(work);
}

/* The next member is the one that the index names here. */
static int compare_place(struct archive *archive, const struct nnc_shard_place *place,
                         const char *index) {
    struct nnc_tar_member member;
    int code = nnc_tar_next(archive->reader, &member);
    if (code > 0 && strcmp(member.name, place->name) == 0 && member.offset == place->offset &&
        member.size == place->size) {
        return 0;
    }
    return code < 0 ? code
                    : nnc_fail(-NNC_E_FORMAT, "%s does not tell where %s lies", index,
                               code > 0 ? member.name : place->name);
}

/* The index names the archive's members, all and nothing else. */
static int verify_index(struct archive *archive, const struct nnc_tar_source *source,
                        const char *name) {
    struct nnc_shard_index index = {.file = NULL};
    struct nnc_shard_line line = {.places = 0};
    struct nnc_tar_member rest;
    archive->reader = NULL;
    int code = nnc_tar_open(source, &archive->reader);
    code = code < 0 ? code : nnc_shard_index_open(name, &index);
    while (code >= 0 && (code = nnc_shard_index_next(&index, &line)) > 0) {
        for (uint32_t i = 0; i < line.places && code >= 0; i++) {
            code = compare_place(archive, &line.place[i], name);
        }
    }
    if (code >= 0 && (code = nnc_tar_next(archive->reader, &rest)) > 0) {
        code = nnc_fail(-NNC_E_FORMAT, "%s lacks the member %s", name, rest.name);
    }
    nnc_shard_index_close(&index);
    nnc_tar_close(archive->reader);
    return code;
}

static int verify(struct work *work, const char *path, const char *index) {
    work->seen = calloc(work->shard->count, 1);
    if (work->seen == NULL) {
        return nnc_fail(-ENOMEM, "%s: no memory to verify it", path);
    }
    struct archive archive = {.fd = -1};
    struct nnc_tar_source source = {.name = path, .read = read_archive, .context = &archive};
    int code = open_archive(path, &archive, &source.size);
    code = code < 0 ? code : verify_members(work, &archive, &source);
    code = code < 0 ? code : verify_index(&archive, &source, index);
    if (archive.fd >= 0) {
        close(archive.fd);
    }
    return code;
}

/* ---- the shard ---- */

static int make(struct work *work) {
    const struct nnc_pack_shard *shard = work->shard;
    struct nnc_shard_writer writer;
    int code = nnc_shard_writer_open(shard->path, &writer);
    for (uint64_t i = 0; code >= 0 && i < shard->count; i++) {
        code = add_sample(work, &writer, shard->first + i);
    }
    code = code < 0 ? code : nnc_shard_writer_finish(&writer);
    if (code >= 0 && shard->verify) {
        code = verify(work, writer.tar.temp, writer.idx.temp);
    }
    code = code < 0 ? code : nnc_shard_writer_commit(&writer);
    nnc_shard_writer_abandon(&writer);
    return code;
}

/* A finished shard against what its index says, which was written with it. */
static int check_there(const struct nnc_pack_shard *shard, uint64_t size,
                       struct nnc_shard_summary *ret_summary) {
    int code = nnc_shard_index_read(shard->path, ret_summary);
    if (code >= 0 && (ret_summary->tar_bytes != size || ret_summary->samples > shard->count)) {
        code = nnc_fail(-NNC_E_FORMAT,
                        "it has %" PRIu64 " bytes, by its index %" PRIu64 " images in %" PRIu64
                        " bytes",
                        size, ret_summary->samples, ret_summary->tar_bytes);
    }
    if (code >= 0) {
        return 0;
    }
    char fault[512];
    snprintf(fault, sizeof(fault), "%s", nnc_error_text());
    return nnc_fail(-NNC_E_FORMAT,
                    "%s.tar is damaged (%s); `rm %s.tar`, then the same command makes it again",
                    shard->path, fault, shard->path);
}

/* Verify a shard that was there. What is wrong with it, making it again mends. */
static int verify_there(struct work *work, const char *path) {
    char index[NNC_PATH_MAX + 8], fault[NNC_ERROR_TEXT_MAX - 128];
    snprintf(index, sizeof(index), "%s.idx", work->shard->path);
    int code = verify(work, path, index);
    if (code != -NNC_E_FORMAT) {
        return code;
    }
    snprintf(fault, sizeof(fault), "%s", nnc_error_text());
    return nnc_fail(code, "%s; `rm %s`, then pack again", fault, path);
}

static int go_over(struct work *work, const char *path, uint64_t size) {
    const struct nnc_pack_shard *shard = work->shard;
    struct nnc_shard_summary summary;
    int code = check_there(shard, size, &summary);
    code = code >= 0 && shard->verify ? verify_there(work, path) : code;
    if (code < 0) {
        return code;
    }
    struct nnc_pack_step step = {.samples = shard->count,
                                 .bad = shard->count - summary.samples,
                                 .bytes_after = summary.image_bytes,
                                 .was_there = true};
    for (uint64_t i = 0; i < shard->count; i++) {
        step.bytes_before += source_bytes(shard, shard->first + i);
    }
    shard->on_step(shard->context, &step);
    return 0;
}

int nnc_pack_shard_make(const struct nnc_pack_shard *shard) {
    struct work work = {.shard = shard, .index_fd = -1};
    char path[NNC_PATH_MAX + 8];
    struct stat status;
    snprintf(path, sizeof(path), "%s.tar", shard->path);
    bool is_there = stat(path, &status) == 0;
    int code = is_there && !shard->verify ? 0 : open_work(&work);
    if (code >= 0) {
        code = is_there ? go_over(&work, path, (uint64_t)status.st_size) : make(&work);
    }
    close_work(&work);
    return code;
}
