/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of nncoord-data, one function each; the table is in main.c. */
#ifndef NNC_DATA_VERBS_H
#define NNC_DATA_VERBS_H

#include "base/config.h"

#include <jansson.h>

/* `show`: samples as a contact sheet, as their bytes, or both.
 * Owner:  *ret_result is the caller's, what --json prints; untouched on failure.
 * Errors: -NNC_E_USAGE a file that cannot be made, no data; -NNC_E_CHECKPOINT a full device;
 * -NNC_E_STOPPED. No file is left then that was not there before. */
int nnc_data_show(const struct nnc_command *command, json_t **ret_result);

/* `pack SRC DST`: a data set as shards. Owner and errors as nnc_data_show(); -NNC_E_DATA_BUDGET too
 * many bad images; -NNC_E_FORMAT --verify found a difference. */
int nnc_data_pack(const struct nnc_command *command, json_t **ret_result);

/* `bench synth`: a data set of photo-like images. Owner as nnc_data_show().
 * Errors: -NNC_E_USAGE a directory that holds something else or cannot be made; -NNC_E_CHECKPOINT a
 * full device; -NNC_E_STOPPED. Images that are finished stay, and the same command goes on. */
int nnc_data_synth(const struct nnc_command *command, json_t **ret_result);

#endif
