/* SPDX-License-Identifier: Apache-2.0 */
/* Where measuring begins and ends, and the time line of a simulated device.
 *
 * 1. The measured part begins when the last batch of the warm-up was taken, while the loaders work
 *    on the next ones, and ends with a batch behind which they go on: at both ends as much is
 *    half done, so rate and cost are those of the steady state.
 * 2. The device's times are absolute: each batch begins where the one before it ended, or when it
 *    came, if the device had to wait. A sleep that ends late makes no following one late.
 * Does not read clocks or sleep.
 * Source: MLPerf Storage benchmark rules, "accelerator utilization". */
#include "workers/bench_meter.h"

#include <assert.h>

#define SECOND_NS  1000000000ull
#define ENOUGH_NS  (2 * SECOND_NS)  /* whole passes are measured until then */
#define LONGEST_NS (10 * SECOND_NS) /* and parts of passes from then on */

struct nnc_meter nnc_meter_start(const struct nnc_meter_params *params, uint64_t now_ns) {
    assert(params->pass_batches >= 1);
    return (struct nnc_meter){.params = *params, .began_ns = now_ns, .measuring = !params->warm};
}

static bool is_enough(const struct nnc_meter *meter, uint64_t elapsed_ns) {
    const struct nnc_meter_params *params = &meter->params;
    if (params->steps != 0 && meter->batches >= params->steps) {
        return true;
    }
    if (params->epochs != 0) {
        return meter->batches / params->pass_batches >= params->epochs;
    }
    bool whole = meter->batches % params->pass_batches == 0;
    return params->steps == 0 && (elapsed_ns >= LONGEST_NS || (whole && elapsed_ns >= ENOUGH_NS));
}

enum nnc_meter_verdict nnc_meter_count(struct nnc_meter *meter, uint64_t now_ns) {
    uint64_t elapsed_ns = now_ns - meter->began_ns;
    meter->batches++;
    if (meter->measuring) {
        return is_enough(meter, elapsed_ns) ? NNC_METER_END : NNC_METER_GO_ON;
    }
    bool is_cut = meter->params.epochs == 0 && elapsed_ns >= LONGEST_NS;
    if (meter->batches < meter->params.pass_batches && !is_cut) {
        return NNC_METER_GO_ON;
    }
    meter->measuring = true;
    meter->began_ns = now_ns;
    meter->batches = 0;
    return NNC_METER_BEGIN;
}

uint64_t nnc_device_feed(struct nnc_device *device, uint64_t now_ns, bool was_ready,
                         uint32_t images) {
    assert(device->images_per_s > 0.0);
    bool is_first = device->began_ns == 0;
    double ns = (double)images / device->images_per_s * 1e9;
    uint64_t from_ns = is_first || !was_ready ? now_ns : device->free_ns;
    device->began_ns = is_first ? now_ns : device->began_ns;
    device->busy_ns += ns;
    device->free_ns = from_ns + (uint64_t)ns;
    return device->free_ns;
}

double nnc_device_utilisation(const struct nnc_device *device, uint64_t now_ns) {
    uint64_t end_ns = device->free_ns > now_ns ? device->free_ns : now_ns;
    double total_ns = (double)(end_ns - device->began_ns);
    double share = total_ns > 0.0 ? device->busy_ns / total_ns : 0.0;
    return share < 1.0 ? share : 1.0;
}
