/* SPDX-License-Identifier: Apache-2.0 */
/* The build id: project version and a hash over the layout of everything that processes share, so
 * that two programs of different builds refuse each other instead of misreading memory.
 *
 * It is made of sizes and offsets, not of a commit or a date: a tarball has no commit, and equal
 * sources must give equal programs. A field that changes its meaning but not its place needs a new
 * version number of its struct. */
#include "ipc/child.h"
#include "ipc/device.h"
#include "ipc/index.h"
#include "ipc/ring_private.h"
#include "ipc/setup.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <xxhash.h>

static const size_t layout[] = {
    NNC_SETUP_VERSION,
    RING_VERSION,
    NNC_INDEX_VERSION,
    sizeof(struct nnc_setup),
    offsetof(struct nnc_setup, config),
    offsetof(struct nnc_setup, schedule),
    offsetof(struct nnc_setup, geometry),
    offsetof(struct nnc_setup, data),
    offsetof(struct nnc_setup, ring_ctl_fd),
    offsetof(struct nnc_setup, comm_fd),
    offsetof(struct nnc_setup, start),
    offsetof(struct nnc_setup, model_path),
    sizeof(struct nnc_config),
    offsetof(struct nnc_config, workers),
    offsetof(struct nnc_config, gpus),
    offsetof(struct nnc_config, model),
    offsetof(struct nnc_config, epochs),
    offsetof(struct nnc_config, output_dir),
    offsetof(struct nnc_config, grace),
    offsetof(struct nnc_config, topk),
    sizeof(struct nnc_schedule),
    sizeof(struct nnc_ring_geometry),
    sizeof(struct nnc_setup_data),
    sizeof(struct nnc_plan_answer),
    sizeof(struct nnc_devices),
    sizeof(struct nnc_message_header),
    sizeof(struct nnc_msg_hello),
    sizeof(struct nnc_msg_ready),
    sizeof(struct nnc_msg_bad),
    sizeof(struct nnc_msg_eval),
    sizeof(struct nnc_msg_snapshot),
    sizeof(struct nnc_msg_saved),
    sizeof(struct nnc_msg_comm),
    sizeof(struct nnc_msg_logits),
    sizeof(struct nnc_msg_done),
    sizeof(struct nnc_child_page),
    offsetof(struct nnc_child_page, hand),
    offsetof(struct nnc_child_page, counter),
    offsetof(struct nnc_child_page, error_code),
    sizeof(struct ring_header),
    sizeof(struct ring_slot),
    sizeof(struct nnc_index_header),
    sizeof(struct nnc_index_sample),
    sizeof(struct nnc_index_file),
    NNC_ROLE_SAVER,
    NNC_MODE_CHECK,
    NNC_DOING_COUNT,
    NNC_COUNT_READY,
    NNC_MSG_DONE,
    NNC_MSG_STOP,
};

static char build_id[sizeof(((struct nnc_setup *)NULL)->build_id)];
static pthread_once_t build_once = PTHREAD_ONCE_INIT;

static void make_build_id(void) {
    snprintf(build_id, sizeof(build_id), "%s-%016" PRIx64, NNC_VERSION,
             (uint64_t)XXH3_64bits(layout, sizeof(layout)));
}

const char *nnc_build_id(void) {
    pthread_once(&build_once, make_build_id);
    return build_id;
}
