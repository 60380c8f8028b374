/* SPDX-License-Identifier: Apache-2.0 */
/* A packed set is complete when all its shards are there.
 *
 *   pack.json (data/pack_dir.c): samples of each part, samples of a shard -> number of shards
 *   the directory's names        train-000000.tar (data-000000.tar), val-000000.tar -> which
 *
 * A shard has its name only once it is whole, so names are enough. The samples in it cannot be
 * counted against pack.json: bad ones were left out.
 *
 * It does not look into shards. */
#include "coordinator/dataset_packed.h"

#include "base/config.h"
#include "base/err.h"
#include "coordinator/dataset.h"
#include "coordinator/dataset_record.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES_MAX ((json_int_t)1 << 48)

/* What a part must have, and what of it is there. */
struct packed_part {
    uint64_t samples, shards; /* 0: there is no such part */
    uint64_t samples_there, shards_there;
};

struct packed {
    uint64_t shard_samples;
    struct packed_part parts[2]; /* by enum nnc_phase */
};

static int64_t positive_integer(const json_t *value) {
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : 0;
    return number > 0 && number < SAMPLES_MAX ? (int64_t)number : 0;
}

/* False: pack has not written it. */
static bool read_record(const char *path, struct packed *ret_packed) {
    static const char *const names[] = {[NNC_PHASE_TRAIN] = "train", [NNC_PHASE_VAL] = "val"};
    char name[NNC_PATH_MAX + 16];
    snprintf(name, sizeof(name), "%s/pack.json", path);
    json_t *record = NULL;
    if (nnc_record_load(name, &record) < 0) {
        nnc_error_clear();
        return false;
    }
    struct packed packed = {
        .shard_samples = (uint64_t)positive_integer(json_object_get(record, "shard_samples"))};
    bool known = packed.shard_samples != 0 && json_object_get(record, "format") != NULL;
    for (int phase = 0; known && phase < 2; phase++) {
        const json_t *part = json_object_get(record, names[phase]);
        uint64_t samples = (uint64_t)positive_integer(json_object_get(part, "samples"));
        packed.parts[phase].samples = samples;
        packed.parts[phase].shards = (samples + packed.shard_samples - 1) / packed.shard_samples;
    }
    json_decref(record);
    *ret_packed = packed;
    return known;
}

/* Count the name if it is that of a shard which must be there. */
static void take_name(struct packed *packed, const char *name) {
    static const char *const prefixes[] = {"train-", "data-", "val-"};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        size_t length = strlen(prefixes[i]);
        const char *digits = name + length;
        if (strncmp(name, prefixes[i], length) != 0) {
            continue;
        }
        size_t count = strspn(digits, "0123456789");
        if (count < 6 || count > 18 || strcmp(digits + count, ".tar") != 0) {
            return;
        }
        struct packed_part *part = &packed->parts[i == 2 ? NNC_PHASE_VAL : NNC_PHASE_TRAIN];
        uint64_t number = strtoull(digits, NULL, 10);
        if (number < part->shards) {
            uint64_t rest = part->samples - number * packed->shard_samples;
            part->shards_there++;
            part->samples_there += rest < packed->shard_samples ? rest : packed->shard_samples;
        }
    }
}

int nnc_packed_check(const char *path, unsigned phases) {
    struct packed packed;
    if (strlen(path) >= NNC_PATH_MAX || !read_record(path, &packed)) {
        return 0;
    }
    DIR *stream = opendir(path);
    if (stream == NULL) {
        return nnc_fail_errno("%s", path);
    }
    const struct dirent *entry;
    while ((entry = readdir(stream)) != NULL) {
        take_name(&packed, entry->d_name);
    }
    closedir(stream);
    for (int phase = 0; phase < 2; phase++) {
        const struct packed_part *part = &packed.parts[phase];
        if ((phases & (1u << phase)) == 0 || part->shards_there >= part->shards) {
            continue;
        }
        return nnc_fail(-NNC_E_USAGE,
                        "%s: %" PRIu64 " of %" PRIu64 " %s samples are there, in %" PRIu64
                        " of %" PRIu64 " shards, as pack.json tells: run the same `nncoord pack` "
                        "again, or remove pack.json to take what is there",
                        path, part->samples_there, part->samples,
                        phase == NNC_PHASE_TRAIN ? "training" : "validation", part->shards_there,
                        part->shards);
    }
    return 0;
}
