/* SPDX-License-Identifier: Apache-2.0 */
/* A pretended device for tests of kernels: memory whose ends AddressSanitizer watches, values of
 * all types as doubles, launches that run at once, in several orders of threads, and are held to
 * what they declare.
 *
 * Above a megabyte two orders are tried, some of the rows compared, and no declarations checked.
 * Below, every launch runs twice: the second time whatever it does not declare to read is garbage.
 * It must give the same result, and change nothing that it does not declare to write. */
#ifndef NNC_TESTS_GPU_DEVICE_H
#define NNC_TESTS_GPU_DEVICE_H

#include "gpu/kernels.h"

/* Zeroed memory of exactly so many bytes, for device_clear() to free. */
void *device_alloc(size_t bytes);
/* Free all of it. */
void device_clear(void);

/* Queue kernels by launch(context), once in each order of threads from the same memory; all results
 * must be the same to the bit, or the test fails, or device_differences() counts. Memory is then as
 * a forward run left it. */
void device_run(int (*launch)(const void *context), const void *context);

/* For tests that expect differences: count them from now on, and how many there were. */
void device_count_differences(void);
unsigned device_differences(void);

/* Value `index` of an array of a type, and how the nearest value of the type is written. */
double device_get(enum nnc_gpu_type type, const void *values, size_t index);
void device_set(enum nnc_gpu_type type, void *values, size_t index, double value);
/* The value of the type that is nearest, ties to even. */
double device_round(enum nnc_gpu_type type, double value);

/* ---- tensors ---- */

/* Values with padding. */
size_t tensor_count(const struct nnc_gpu_tensor *shape);
/* N*H*W. */
size_t tensor_rows(const struct nnc_gpu_tensor *shape);
/* Shape of a type with the stride that belongs to its channels. */
struct nnc_gpu_tensor tensor_shape(enum nnc_gpu_type type, uint32_t n, uint32_t h, uint32_t w,
                                   uint32_t channels);
/* Bytes 0xff, which are NaN: padding too has to be written. */
void *tensor_empty(const struct nnc_gpu_tensor *shape);
/* mean + noise; another `stream`, other noise. Padding is 0. */
void *tensor_noise(const struct nnc_gpu_tensor *shape, uint32_t stream, double mean);
/* The value of a row and a channel. */
double tensor_get(const struct nnc_gpu_tensor *shape, const void *values, size_t row,
                  size_t channel);

/* `count` floats of mean + noise, and as many NaN. */
float *floats_noise(size_t count, uint32_t stream, double mean);
float *floats_empty(size_t count);

/* ---- bounds ---- */

/* What a result may be off by: it is rounded once to its type, after `operations` in fp32, each of
 * which rounds something no larger than `magnitude`. */
struct expected {
    double value, magnitude;
    double operations;
};

/* got is a result of `type`; NaN expects NaN. */
void expect_value(enum nnc_gpu_type type, double got, struct expected wanted, const char *what);

/* Every value of a tensor by of(context, row, channel); padding must be 0. */
void expect_tensor(const struct nnc_gpu_tensor *shape, const void *got,
                   struct expected (*of)(const void *context, size_t row, size_t channel),
                   const void *context, const char *what);

/* Padding of an array per channel. */
void expect_zero_tail(const float *values, const struct nnc_gpu_tensor *shape, const char *what);

/* Shapes with odd sizes: one value, whole and broken groups, several columns and slabs of blocks.
 * number < SHAPE_COUNT. */
enum {
    SHAPE_COUNT = 9
};
struct nnc_gpu_tensor shape_number(enum nnc_gpu_type type, unsigned number);
/* So many rows that each thread of the largest grid takes several. */
struct nnc_gpu_tensor shape_large(enum nnc_gpu_type type);

#endif
