/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA's language for g++ and clang++: what gpu/launch.h includes instead of nvcc's built-ins.
 * See cuhost.h for the interface to programs; cuhost.cc holds the scheduler. */
#ifndef NNC_TESTS_GPU_CUHOST_DEVICE_H
#define NNC_TESTS_GPU_CUHOST_DEVICE_H

#include "tests/gpu/cuhost.h"

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <tuple>
#include <type_traits>

#undef __launch_bounds__
#define __launch_bounds__(...)

namespace cuhost {

/* The built-in variables of the thread that runs. */
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;

/* Run a whole grid; body(context) is one thread. */
void run_grid(const char *name, dim3 grid, dim3 block, void (*body)(void *), void *context);

/* Park at a barrier, or at a shuffle, whose result is `source` lane's bits. */
void barrier(const char *file, int line);
uint64_t shuffle(unsigned mask, uint64_t bits, unsigned source_lane);
unsigned lane();

/* Called by each thread that reaches a shared array: NaN at its first in each block. */
void shared(void *start, size_t bytes, uint64_t *filled_for);

/* Ranges of the launch to come. */
void declare(const void *start, size_t bytes, bool write);
void submit(void *stream, void (*run)(void *), void *closure);

template <typename T> T translated(T value) {
    if constexpr (std::is_pointer_v<T>) {
        return value ? static_cast<T>(cuhost_translate(value)) : value;
    } else {
        return value;
    }
}

/* A launch that waits: plain data, so that free() ends it. The name comes first (cuhost_name). */
template <typename... Params> struct closure {
    const char *name;
    void (*kernel)(Params...);
    dim3 grid, block;
    std::tuple<Params...> arguments;

    static void body(void *context) {
        auto *call = static_cast<closure *>(context);
        std::apply(call->kernel, call->arguments);
    }

    static void run(void *context) {
        closure call = *static_cast<closure *>(context);
        call.arguments = std::apply(
            [](auto... argument) { return std::tuple<Params...>(translated(argument)...); },
            call.arguments);
        run_grid(call.name, call.grid, call.block, body, &call);
    }
};

template <typename... Params, typename... Arguments>
int launch(const char *name, void (*kernel)(Params...), dim3 grid, dim3 block, void *stream,
           Arguments... arguments) {
    using call = closure<Params...>;
    static_assert(std::is_trivially_destructible_v<call>);
    void *memory = malloc(sizeof(call));
    if (!memory) {
        abort();
    }
    new (memory) call{name, kernel, grid, block, std::tuple<Params...>(arguments...)};
    submit(stream, call::run, memory);
    return 0;
}

} // namespace cuhost

using std::max;
using std::min;

#define threadIdx              cuhost::thread_index
#define blockIdx               cuhost::block_index
#define blockDim               cuhost::block_size
#define gridDim                cuhost::grid_size
#define __syncthreads()        cuhost::barrier(__FILE__, __LINE__)
#define __threadfence_system() ((void)0) /* one thread runs at a time */

template <typename T> T __shfl_xor_sync(unsigned mask, T value, unsigned lane_mask) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(value));
    bits = cuhost::shuffle(mask, bits, cuhost::lane() ^ lane_mask);
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#endif
