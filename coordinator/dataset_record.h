/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON records that lie beside data sets: pack.json, synth.json. */
#ifndef NNC_COORDINATOR_DATASET_RECORD_H
#define NNC_COORDINATOR_DATASET_RECORD_H

#include <jansson.h>

/* Read the record. Something else than a file in its place is not waited for.
 * Owner:  json_decref(*ret_record), which is NULL when the file holds no JSON.
 * Errors: of nnc_regular_open(). */
int nnc_record_load(const char *path, json_t **ret_record);

#endif
