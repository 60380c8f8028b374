/* SPDX-License-Identifier: Apache-2.0 */
/* Saving a checkpoint so that a kill or a power cut at any instruction leaves either the new one,
 * whole, or the old ones, whole.
 *
 *   1. mkdir ckpt-N.tmp.GEN.PID
 *   2. each file: create, reserve, write while hashing, sync, close
 *   3. confirm: what was written is the snapshot that was announced, not one overwritten meanwhile
 *   4. MANIFEST: write, sync; sync the temporary directory
 *   5. read everything back and compare with the manifest
 *   6. rename to ckpt-N (never replacing), sync the run directory          <- durable from here on
 *   7. LATEST and best: write aside, sync, rename, sync the run directory
 *   8. delete old ones (checkpoint_gc.c)
 *
 * Invariants:
 *   1. A file that had an error is never synced again: the whole temporary directory goes and a
 * second attempt writes new files.
 *   2. Steps 7 and 8 are conveniences: their failure does not make the checkpoint less durable, and
 * is not reported as a failure to save.
 *
 * It does not run while another save runs: one saver at a time is the coordinator's rule.
 *
 * Source: Pillai et al., "All file systems are not created equal", OSDI 2014; the fsync rules
 * follow PostgreSQL's conclusion that a failed fsync must not be repeated on the same file. */
#include "workers/checkpoint.h"

#include "base/sha256.h"
#include "workers/checkpoint_tensors.h"
#include "workers/manifest.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    REVISIONS_MAX = 1000,
};

/* One attempt. */
struct save {
    const struct nnc_checkpoint_save_params *params;
    struct nnc_vfs *vfs;
    char temp[NNC_CHECKPOINT_PATH_MAX];
    char name[64], path[NNC_CHECKPOINT_PATH_MAX]; /* of the committed directory */
    struct nnc_manifest manifest;
    uint64_t manifest_hash;
    XXH3_state_t *tensor_hash;
    struct nnc_sha256 *weights; /* running over names and values */
    char weights_sha256[65];
    int refused; /* confirm said no: a second attempt is pointless */
};

/* ---- files ---- */

/* A tensor file on its way: nnc_safetensors_write() asks for an item's data, then hands out its
 * bytes. */
struct tensor_stream {
    struct save *save;
    struct nnc_manifest_file *file;
    const struct nnc_tensor_list *list;
    const float *next; /* tensor asked for next */
    int32_t item;      /* whose bytes are coming; -1: the header */
    bool is_model;
    uint64_t steps; /* the counters' value, little endian */
};

static const void *stream_data(void *context, uint32_t number) {
    struct tensor_stream *stream = context;
    stream->item = (int32_t)number;
    if (number < stream->list->counters) {
        return &stream->steps;
    }
    const struct nnc_param *param =
        &stream->save->params->graph->params[stream->list->params[number]];
    if (stream->is_model &&
        nnc_sha256_update(stream->save->weights, param->name, strlen(param->name) + 1) < 0) {
        return NULL;
    }
    const float *tensor = stream->next;
    stream->next += param->count;
    return tensor;
}

/* Hash the private copy of a tensor's bytes. */
static int hash_piece(const struct tensor_stream *stream, const void *piece, size_t bytes) {
    if (stream->item < (int32_t)stream->list->counters) {
        return 0;
    }
    XXH3_64bits_update(stream->save->tensor_hash, piece, bytes);
    return stream->is_model ? nnc_sha256_update(stream->save->weights, piece, bytes) : 0;
}

static int stream_write(void *context, const void *data, size_t bytes) {
    struct tensor_stream *stream = context;
    const uint8_t *from = data;
    while (bytes > 0) {
        void *space;
        size_t room;
        nnc_manifest_file_space(stream->file, &space, &room);
        size_t piece = bytes < room ? bytes : room;
        memcpy(space, from, piece);
        int code = stream->item >= 0 ? hash_piece(stream, space, piece) : 0;
        code = code < 0 ? code : nnc_manifest_file_advance(stream->file, piece);
        if (code < 0) {
            return code;
        }
        from += piece;
        bytes -= piece;
    }
    return 0;
}

static int write_list(struct save *save, enum nnc_tensor_file_kind kind,
                      const struct nnc_tensor_list *list) {
    bool is_model = kind == NNC_TENSOR_FILE_MODEL;
    const float *tensors = save->params->tensors;
    struct tensor_stream stream = {
        .save = save,
        .list = list,
        .next = is_model ? tensors : tensors + nnc_state_value_floats(save->params->graph),
        .item = -1,
        .is_model = is_model,
        .steps = htole64(nnc_state_global_step(save->params->state))};
    const struct nnc_safetensors_params params = {.items = list->items,
                                                  .count = list->count,
                                                  .data = stream_data,
                                                  .data_context = &stream,
                                                  .write = stream_write,
                                                  .write_context = &stream};
    uint64_t bytes = 0;
    int code = nnc_safetensors_size(&params, &bytes);
    if (code == 0) {
        code = nnc_manifest_file_create(
            save->vfs, save->temp, is_model ? NNC_CHECKPOINT_MODEL_FILE : NNC_CHECKPOINT_STATE_FILE,
            bytes, &stream.file);
    }
    code = code < 0 ? code : nnc_safetensors_write(&params);
    if (code < 0) {
        nnc_manifest_file_abort(stream.file);
        return code;
    }
    return nnc_manifest_file_commit(stream.file, &save->manifest);
}

static int write_tensors(struct save *save, enum nnc_tensor_file_kind kind) {
    struct nnc_tensor_list list = {0};
    int code = nnc_tensor_list_make(save->params->graph, kind, &list);
    code = code < 0 ? code : write_list(save, kind, &list);
    nnc_tensor_list_finish(&list);
    return code;
}

static int write_text(struct save *save, const char *name, const char *text, size_t bytes,
                      struct nnc_manifest *manifest) {
    struct nnc_manifest_file *file;
    int code = nnc_manifest_file_create(save->vfs, save->temp, name, bytes, &file);
    if (code < 0) {
        return code;
    }
    code = nnc_manifest_file_append(file, text, bytes);
    if (code < 0) {
        nnc_manifest_file_abort(file);
        return code;
    }
    return nnc_manifest_file_commit(file, manifest);
}

static int write_run_json(struct save *save) {
    char *text;
    int code = nnc_checkpoint_state_text(save->params->state, save->params->graph->name, &text);
    if (code == 0) {
        code = write_text(save, "run.json", text, strlen(text), &save->manifest);
        free(text);
    }
    return code;
}

static int write_manifest(struct save *save) {
    int code = nnc_manifest_close(&save->manifest, &save->manifest_hash);
    if (code == 0) {
        struct nnc_manifest of_itself = {0};
        code = write_text(save, NNC_MANIFEST_NAME, save->manifest.text, save->manifest.bytes,
                          &of_itself);
        nnc_manifest_finish(&of_itself);
    }
    return code < 0 ? code : nnc_vfs_sync_path(save->vfs, save->temp);
}

static int ask_confirm(struct save *save) {
    if (save->params->confirm == NULL) {
        return 0;
    }
    int code = save->params->confirm(save->params->context, XXH3_64bits_digest(save->tensor_hash));
    save->refused = code < 0;
    return code;
}

static int write_files(struct save *save) {
    int code = save->vfs->ops->mkdir(save->vfs, save->temp, 0700);
    if (code < 0) {
        return nnc_fail(code, "create %s: %s", save->temp, strerror(-code));
    }
    code = write_tensors(save, NNC_TENSOR_FILE_MODEL);
    code = code < 0 ? code : nnc_sha256_hex(save->weights, save->weights_sha256);
    code = code < 0 ? code : write_tensors(save, NNC_TENSOR_FILE_STATE);
    code = code < 0 ? code : ask_confirm(save);
    code = code < 0 ? code : write_run_json(save);
    code = code < 0 ? code : write_manifest(save);
    uint64_t hash = 0;
    code = code < 0 ? code : nnc_manifest_verify(save->vfs, save->temp, &hash);
    if (code == 0 && hash != save->manifest_hash) {
        code = nnc_fail(-EIO, "%s reads back another manifest", save->temp);
    }
    return code;
}

/* ---- commit ---- */

static int commit_name(struct save *save) {
    uint64_t step = nnc_state_global_step(save->params->state);
    for (uint32_t revision = 0; revision < REVISIONS_MAX; revision++) {
        int used = snprintf(save->name, sizeof(save->name), "ckpt-%012" PRIu64, step);
        if (revision > 0) {
            snprintf(save->name + used, sizeof(save->name) - (size_t)used, "-%u", revision);
        }
        int code = nnc_path_join(save->params->run_dir, save->name, save->path, sizeof(save->path));
        if (code < 0) {
            return code;
        }
        code = save->vfs->ops->rename(save->vfs, save->temp, save->path, 1);
        if (code == 0) {
            return 0;
        }
        if (code != -EEXIST && code != -ENOTEMPTY) {
            return nnc_fail(code, "rename %s to %s: %s", save->temp, save->path, strerror(-code));
        }
    }
    return nnc_fail(-EEXIST, "step %" PRIu64 " was saved %d times", step, REVISIONS_MAX);
}

static int attempt(struct save *save) {
    const struct nnc_checkpoint_save_params *params = save->params;
    char name[128];
    snprintf(name, sizeof(name), "ckpt-%012" PRIu64 ".tmp.%u.%u",
             nnc_state_global_step(params->state), params->generation, params->pid);
    int code = nnc_path_join(params->run_dir, name, save->temp, sizeof(save->temp));
    code = code < 0 ? code : nnc_sha256_create(&save->weights);
    if (code < 0) {
        return code;
    }
    save->tensor_hash = XXH3_createState();
    if (save->tensor_hash == NULL) {
        return nnc_fail(-ENOMEM, "no memory to save");
    }
    XXH3_64bits_reset(save->tensor_hash);
    code = write_files(save);
    code = code < 0 ? code : commit_name(save);
    return code < 0 ? code : nnc_vfs_sync_path(save->vfs, params->run_dir);
}

static void save_finish(struct save *save) {
    nnc_manifest_finish(&save->manifest);
    XXH3_freeState(save->tensor_hash);
    nnc_sha256_destroy(save->weights);
}

/* RUN/marker = "name hash\n", replaced atomically. */
static int write_marker(const struct save *save, const char *marker) {
    char path[NNC_CHECKPOINT_PATH_MAX], temp[NNC_CHECKPOINT_PATH_MAX + 8], text[128];
    int code = nnc_path_join(save->params->run_dir, marker, path, sizeof(path));
    if (code < 0) {
        return code;
    }
    snprintf(temp, sizeof(temp), "%s.tmp", path);
    snprintf(text, sizeof(text), "%s %016" PRIx64 "\n", save->name, save->manifest_hash);
    struct nnc_vfs *vfs = save->vfs;
    int fd = vfs->ops->open(vfs, temp, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0) {
        return nnc_fail(fd, "create %s: %s", temp, strerror(-fd));
    }
    code = nnc_vfs_write_all(vfs, fd, text, strlen(text), 0);
    code = code < 0 ? code : vfs->ops->sync(vfs, fd);
    int closed = vfs->ops->close(vfs, fd);
    code = code < 0 ? code : closed;
    code = code < 0 ? code : vfs->ops->rename(vfs, temp, path, 0);
    return code < 0 ? nnc_fail(code, "write %s: %s", path, strerror(-code))
                    : nnc_vfs_sync_path(vfs, save->params->run_dir);
}

/* Undo a failed attempt; the error text survives. */
static void clear_attempt(struct save *save, int code, int may_retry) {
    char text[NNC_ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", nnc_error_text());
    save_finish(save);
    nnc_vfs_remove_tree(save->vfs, save->temp);
    if (code == -ENOSPC && may_retry) {
        nnc_checkpoint_make_room(save->vfs, save->params->run_dir);
    }
    nnc_fail(code, "%s", text);
}

int nnc_checkpoint_save(const struct nnc_checkpoint_save_params *params,
                        struct nnc_checkpoint_saved *ret_saved) {
    assert(params->graph != NULL && params->state != NULL && params->tensors != NULL);
    nnc_checkpoint_clean(params->vfs, params->run_dir);
    struct save save;
    int code = -EIO;
    for (int number = 0; code < 0 && number < 2; number++) {
        save = (struct save){.params = params, .vfs = params->vfs};
        code = attempt(&save);
        if (code < 0) {
            clear_attempt(&save, code, number == 0 && !save.refused);
        }
        if (save.refused) {
            return code;
        }
    }
    if (code < 0) {
        return nnc_fail_in(-NNC_E_CHECKPOINT, "checkpoint not saved");
    }
    write_marker(&save, "LATEST");
    if (params->is_best) {
        write_marker(&save, "best");
    }
    nnc_checkpoint_delete_old(params->vfs, params->run_dir, params->keep);
    memcpy(ret_saved->path, save.path, sizeof(save.path));
    memcpy(ret_saved->weights_sha256, save.weights_sha256, sizeof(save.weights_sha256));
    save_finish(&save);
    return 0;
}
