/* SPDX-License-Identifier: Apache-2.0 */
/* Every convolution that the models of models/ need of cuDNN, each once, and the devices that are
 * described in tests/devices/. */
#ifndef NNC_TESTS_GPU_DNN_CASES_H
#define NNC_TESTS_GPU_DNN_CASES_H

#include "gpu/dnn.h"

#define DNN_CASES_MAX 512

struct dnn_cases {
    uint32_t count;
    struct nnc_dnn_key rows[DNN_CASES_MAX]; /* n and type 0: the caller's choice */
};

struct dnn_device {
    const char *name;    /* tests/devices/NAME.json */
    uint32_t capability; /* compute capability, 75 for 7.5 */
};

/* In order of capability; ends with a name NULL. */
extern const struct dnn_device dnn_devices[];

/* The convolutions of all models' training programs at the image sizes of their texts, channels
 * padded to multiples of 8. Errors: of the model texts; -EOVERFLOW: more than DNN_CASES_MAX. */
int dnn_cases_load(struct dnn_cases *ret_cases);

/* The description of a device. Owner: nnc_dnn_close().
 * Errors: errors of reading the file; of nnc_dnn_describe(). */
int dnn_device_load(const struct dnn_device *device, struct nnc_dnn_device **ret_device);

#endif
