/* SPDX-License-Identifier: Apache-2.0 */
/* A file that is there whole or not at all: written under another name, renamed at the end.
 *
 *     struct nnc_output output = {0};
 *     code = nnc_output_open(nnc_vfs_real(), "show.png", &output);
 *     code = code < 0 ? code : nnc_output_write(&output, bytes, size);
 *     code = code < 0 ? code : nnc_output_commit(&output, true);
 *     nnc_output_abandon(&output); */
#ifndef NNC_BASE_OUTPUT_H
#define NNC_BASE_OUTPUT_H

#include "base/config.h"
#include "base/vfs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* All zero: closed. */
struct nnc_output {
    struct nnc_vfs *vfs;
    bool is_open;
    int fd;
    uint64_t bytes;               /* written so far */
    char path[NNC_PATH_MAX];      /* no link */
    char temp[NNC_PATH_MAX + 32]; /* PATH.PID.tmp */
};

/* Begin the file. An older one of that name stays as it is until the commit; a link stays for good,
 * the file is made where it leads.
 * Errors: -NNC_E_USAGE: nothing can be made there, with the reason, or a directory, device, pipe or
 * socket is there; *ret_output is closed then. */
int nnc_output_open(struct nnc_vfs *vfs, const char *path, struct nnc_output *ret_output);

/* Remove what killed processes left half-written of the file at path. What a living one writes,
 * here or on another machine, stays: it holds a lock. Does what can be done, fails never. */
void nnc_output_sweep(const char *path);

/* True when both are open and write the same file, by whatever names. */
bool nnc_output_is_same(const struct nnc_output *left, const struct nnc_output *right);

/* Append. Errors: -NNC_E_CHECKPOINT: the device is full or broken. */
int nnc_output_write(struct nnc_output *output, const void *data, size_t bytes);

/* Close and rename; durable syncs file and name, so that a power cut after it takes nothing. The
 * output is closed afterwards, also on failure. Errors: -NNC_E_CHECKPOINT. */
int nnc_output_commit(struct nnc_output *output, bool durable);

/* Close and remove what was written. Does nothing to a closed one. */
void nnc_output_abandon(struct nnc_output *output);

/* Write out what a stream holds back; an earlier write that failed counts too. name: for the text.
 * Errors: -NNC_E_CHECKPOINT. */
int nnc_output_flush(FILE *stream, const char *name);

/* A whole durable file in one call. Errors: of the calls above. */
int nnc_output_save(struct nnc_vfs *vfs, const char *path, const void *data, size_t bytes);

#endif
