/* SPDX-License-Identifier: Apache-2.0 */
/* Memory-bound loops over planes; see onednn_kernels.h. This file is compiled once per instruction
 * set with NNC_KERNELS naming the table (cpu/meson.build).
 *
 * Everything is written for vectors of eight floats with the vector extension of gcc and clang,
 * which the compiler maps to whatever the instruction set has. A plane with one channel per row
 * (inner 1) is looked at as rows of eight positions with the channel's constants repeated; what is
 * left at its end goes through a padded copy of one row.
 *
 * Invariants: (1) norm() and the NNC_MASK_X mode compute x * scale + shift in the same translation
 * unit from the same expression, so that the mask is the forward pass's; (2) no result depends on
 * how planes are spread over threads; (3) lanes of padded channels stay zero when their scale and
 * shift (a, b, c) are zero; (4) a ReLU passes NaN on. */
#include "cpu/onednn_kernels_own.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    CHUNK = 4096, /* floats of one tensor per chunk: 16 KiB, two of them fit the L1 cache */
};

static size_t chunk_rows(uint32_t inner) {
    return inner >= CHUNK ? 1 : CHUNK / inner;
}

/* Sums of rows of one group of eight channels: of x, or of (x - mean)^2. */
INLINE void sum_rows(const float *x, size_t rows, size_t stride, const vec *mean, vec *ret_sum) {
    vec sum[4] = {{0}};
    size_t s = 0;
    for (; s + 4 <= rows; s += 4) {
        for (size_t k = 0; k < 4; k++) {
            vec value = *(const vec *)(x + (s + k) * stride);
            if (mean != NULL) {
                value -= *mean;
                value *= value;
            }
            sum[k] += value;
        }
    }
    for (; s < rows; s++) {
        vec value = *(const vec *)(x + s * stride);
        if (mean != NULL) {
            value -= *mean;
            value *= value;
        }
        sum[0] += value;
    }
    *ret_sum = (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Merge a set of `more` values (mean, m2) into one of `count` values. */
INLINE void merge_stats(double count, double more, double more_mean, double more_m2, double *mean,
                        double *m2) {
    double delta = more_mean - *mean;
    double total = count + more;
    *mean += delta * (more / total);
    *m2 += more_m2 + delta * delta * (count * more / total);
}

static void stats_rows(const float *x, size_t rows, uint32_t inner, double *mean, double *m2) {
    memset(mean, 0, inner * sizeof(*mean));
    memset(m2, 0, inner * sizeof(*m2));
    size_t step = chunk_rows(inner);
    for (size_t s = 0; s < rows; s += step) {
        size_t count = rows - s < step ? rows - s : step;
        for (uint32_t j = 0; j < inner; j += WIDTH) {
            const float *at = x + s * inner + j;
            vec average;
            vec deviation;
            sum_rows(at, count, inner, NULL, &average);
            average *= 1.0f / (float)count;
            sum_rows(at, count, inner, &average, &deviation);
            for (uint32_t k = 0; k < WIDTH; k++) {
                merge_stats((double)s, (double)count, (double)average[k], (double)deviation[k],
                            &mean[j + k], &m2[j + k]);
            }
        }
    }
}

static void stats_one_channel(const float *x, size_t positions, double *ret_mean, double *ret_m2) {
    double mean[WIDTH];
    double m2[WIDTH];
    size_t rows = positions / WIDTH;
    stats_rows(x, rows, WIDTH, mean, m2);
    double all_mean = 0;
    double all_m2 = 0;
    for (uint32_t k = 0; rows > 0 && k < WIDTH; k++) {
        merge_stats((double)(k * rows), (double)rows, mean[k], m2[k], &all_mean, &all_m2);
    }
    for (size_t s = rows * WIDTH; s < positions; s++) {
        merge_stats((double)s, 1, (double)x[s], 0, &all_mean, &all_m2);
    }
    *ret_mean = all_mean;
    *ret_m2 = all_m2;
}

static void stats(const float *x, size_t positions, uint32_t inner, double *ret_mean,
                  double *ret_m2) {
    assert(inner == 1 || inner % WIDTH == 0);
    if (inner == 1) {
        stats_one_channel(x, positions, ret_mean, ret_m2);
    } else {
        stats_rows(x, positions, inner, ret_mean, ret_m2);
    }
}

INLINE void norm_rows(const struct nnc_norm_plane *p, uint32_t inner, bool residual, bool relu) {
    for (size_t s = 0; s < p->positions; s++) {
        for (uint32_t j = 0; j < inner; j += WIDTH) {
            size_t i = s * inner + j;
            vec value = *(const vec *)(p->x + i) * *(const vec *)(p->scale + j) +
                        *(const vec *)(p->shift + j);
            if (residual) {
                value += *(const vec *)(p->z + i);
            }
            if (relu) {
                value = (vec)((mask)value & ~(value <= 0));
            }
            *(vec *)(p->y + i) = value;
        }
    }
}

INLINE void norm_any(const struct nnc_norm_plane *p, uint32_t inner) {
    if (p->z != NULL) {
        if (p->relu) {
            norm_rows(p, inner, true, true);
        } else {
            norm_rows(p, inner, true, false);
        }
    } else if (p->relu) {
        norm_rows(p, inner, false, true);
    } else {
        norm_rows(p, inner, false, false);
    }
}

static void fill_row(float row[WIDTH], float value) {
    for (uint32_t k = 0; k < WIDTH; k++) {
        row[k] = value;
    }
}

/* Rows of eight positions, then the rest in a padded row. */
static void norm_one_channel(const struct nnc_norm_plane *p) {
    float scale[WIDTH];
    float shift[WIDTH];
    fill_row(scale, p->scale[0]);
    fill_row(shift, p->shift[0]);
    struct nnc_norm_plane rows = *p;
    rows.positions = p->positions / WIDTH;
    rows.inner = WIDTH;
    rows.scale = scale;
    rows.shift = shift;
    norm_any(&rows, WIDTH);
    size_t done = rows.positions * WIDTH;
    size_t left = p->positions - done;
    if (left == 0) {
        return;
    }
    float x[WIDTH] = {0};
    float z[WIDTH] = {0};
    float y[WIDTH];
    memcpy(x, p->x + done, left * sizeof(*x));
    if (p->z != NULL) {
        memcpy(z, p->z + done, left * sizeof(*z));
        rows.z = z;
    }
    rows.positions = 1;
    rows.x = x;
    rows.y = y;
    norm_any(&rows, WIDTH);
    memcpy(p->y + done, y, left * sizeof(*y));
}

static void norm(const struct nnc_norm_plane *plane) {
    assert(plane->inner == 1 || plane->inner % WIDTH == 0);
    if (plane->inner == 1) {
        norm_one_channel(plane);
    } else if (plane->inner == 16) {
        norm_any(plane, 16); /* the usual block: a constant that the loops are unrolled for */
    } else {
        norm_any(plane, plane->inner);
    }
}

/* dy where the mask lets it through. Vectors go in and out by address: passing them by value has
 * another ABI in each instruction set. */
INLINE void masked(const struct nnc_norm_grad_plane *p, enum nnc_mask kind, size_t i, uint32_t j,
                   vec *ret_g) {
    vec g = *(const vec *)(p->dy + i);
    if (kind == NNC_MASK_Y) {
        vec y = *(const vec *)(p->y + i);
        g = (vec)((mask)g & ~(y <= 0));
    } else if (kind == NNC_MASK_X) {
        vec y =
            *(const vec *)(p->x + i) * *(const vec *)(p->scale + j) + *(const vec *)(p->shift + j);
        g = (vec)((mask)g & ~(y <= 0));
    }
    *ret_g = g;
}

enum residual {
    RESIDUAL_NONE,
    RESIDUAL_STORE,
    RESIDUAL_ADD,
};

INLINE void sums_rows(const struct nnc_norm_grad_plane *p, enum nnc_mask kind,
                      enum residual residual) {
    uint32_t inner = p->inner;
    size_t step = chunk_rows(inner);
    memset(p->sum_g, 0, inner * sizeof(*p->sum_g));
    memset(p->sum_gx, 0, inner * sizeof(*p->sum_gx));
    for (size_t s = 0; s < p->positions; s += step) {
        size_t end = s + step < p->positions ? s + step : p->positions;
        for (uint32_t j = 0; j < inner; j += WIDTH) {
            vec sum_g[2] = {{0}};
            vec sum_gx[2] = {{0}};
            vec mean = *(const vec *)(p->mean + j);
            for (size_t t = s; t < end; t++) {
                size_t i = t * inner + j;
                vec g;
                masked(p, kind, i, j, &g);
                sum_g[t % 2] += g;
                sum_gx[t % 2] += g * (*(const vec *)(p->x + i) - mean);
                if (residual == RESIDUAL_STORE) {
                    *(vec *)(p->dz + i) = g;
                } else if (residual == RESIDUAL_ADD) {
                    *(vec *)(p->dz + i) += g;
                }
            }
            sum_g[0] += sum_g[1];
            sum_gx[0] += sum_gx[1];
            for (uint32_t k = 0; k < WIDTH; k++) {
                p->sum_g[j + k] += (double)sum_g[0][k];
                p->sum_gx[j + k] += (double)sum_gx[0][k];
            }
        }
    }
}

static void sums_any(const struct nnc_norm_grad_plane *p) {
    if (p->mask == NNC_MASK_X) {
        assert(p->dz == NULL);
        sums_rows(p, NNC_MASK_X, RESIDUAL_NONE);
    } else if (p->mask == NNC_MASK_Y) {
        if (p->dz == NULL) {
            sums_rows(p, NNC_MASK_Y, RESIDUAL_NONE);
        } else if (p->dz_accumulate) {
            sums_rows(p, NNC_MASK_Y, RESIDUAL_ADD);
        } else {
            sums_rows(p, NNC_MASK_Y, RESIDUAL_STORE);
        }
    } else if (p->dz == NULL) {
        sums_rows(p, NNC_MASK_NONE, RESIDUAL_NONE);
    } else if (p->dz_accumulate) {
        sums_rows(p, NNC_MASK_NONE, RESIDUAL_ADD);
    } else {
        sums_rows(p, NNC_MASK_NONE, RESIDUAL_STORE);
    }
}

INLINE void grad_rows(const struct nnc_norm_grad_plane *p, enum nnc_mask kind, bool accumulate) {
    uint32_t inner = p->inner;
    for (size_t s = 0; s < p->positions; s++) {
        for (uint32_t j = 0; j < inner; j += WIDTH) {
            size_t i = s * inner + j;
            vec centred = *(const vec *)(p->x + i) - *(const vec *)(p->mean + j);
            vec value;
            masked(p, kind, i, j, &value);
            value = value * *(const vec *)(p->a + j) +
                    (centred * *(const vec *)(p->b + j) + *(const vec *)(p->c + j));
            if (accumulate) {
                value += *(const vec *)(p->dx + i);
            }
            *(vec *)(p->dx + i) = value;
        }
    }
}

static void grad_any(const struct nnc_norm_grad_plane *p) {
    if (p->mask == NNC_MASK_X) {
        if (p->dx_accumulate) {
            grad_rows(p, NNC_MASK_X, true);
        } else {
            grad_rows(p, NNC_MASK_X, false);
        }
    } else if (p->mask == NNC_MASK_Y) {
        if (p->dx_accumulate) {
            grad_rows(p, NNC_MASK_Y, true);
        } else {
            grad_rows(p, NNC_MASK_Y, false);
        }
    } else if (p->dx_accumulate) {
        grad_rows(p, NNC_MASK_NONE, true);
    } else {
        grad_rows(p, NNC_MASK_NONE, false);
    }
}

/* One row of eight positions of a plane with one channel, and the constants repeated. */
struct grad_row {
    float x[WIDTH], y[WIDTH], dy[WIDTH], dz[WIDTH], dx[WIDTH];
    float scale[WIDTH], shift[WIDTH], mean[WIDTH], a[WIDTH], b[WIDTH], c[WIDTH];
    double sum_g[WIDTH], sum_gx[WIDTH];
};

static void repeat_constants(const struct nnc_norm_grad_plane *p, struct grad_row *row,
                             struct nnc_norm_grad_plane *ret_rows) {
    struct nnc_norm_grad_plane rows = *p;
    rows.inner = WIDTH;
    rows.positions = p->positions / WIDTH;
    fill_row(row->mean, p->mean[0]);
    rows.mean = row->mean;
    if (p->mask == NNC_MASK_X) {
        fill_row(row->scale, p->scale[0]);
        fill_row(row->shift, p->shift[0]);
        rows.scale = row->scale;
        rows.shift = row->shift;
    }
    if (p->dx != NULL) {
        fill_row(row->a, p->a[0]);
        fill_row(row->b, p->b[0]);
        fill_row(row->c, p->c[0]);
        rows.a = row->a;
        rows.b = row->b;
        rows.c = row->c;
    }
    rows.sum_g = row->sum_g;
    rows.sum_gx = row->sum_gx;
    *ret_rows = rows;
}

/* Point `rows` at a padded copy of the last `left` positions: dy = 0 and x = mean add nothing. */
static void load_rest(const struct nnc_norm_grad_plane *p, size_t done, size_t left,
                      struct grad_row *row, struct nnc_norm_grad_plane *rows) {
    rows->positions = 1;
    memcpy(row->x, row->mean, sizeof(row->x));
    memcpy(row->x, p->x + done, left * sizeof(float));
    rows->x = row->x;
    memset(row->dy, 0, sizeof(row->dy));
    memcpy(row->dy, p->dy + done, left * sizeof(float));
    rows->dy = row->dy;
    if (p->mask == NNC_MASK_Y) {
        memset(row->y, 0, sizeof(row->y));
        memcpy(row->y, p->y + done, left * sizeof(float));
        rows->y = row->y;
    }
}

static void sums_one_channel(const struct nnc_norm_grad_plane *p) {
    struct grad_row row;
    struct nnc_norm_grad_plane rows;
    repeat_constants(p, &row, &rows);
    sums_any(&rows);
    double sum_g = 0;
    double sum_gx = 0;
    for (uint32_t k = 0; k < WIDTH; k++) {
        sum_g += row.sum_g[k];
        sum_gx += row.sum_gx[k];
    }
    size_t done = rows.positions * WIDTH;
    size_t left = p->positions - done;
    if (left > 0) {
        load_rest(p, done, left, &row, &rows);
        if (p->dz != NULL) {
            memset(row.dz, 0, sizeof(row.dz));
            memcpy(row.dz, p->dz + done, left * sizeof(float));
            rows.dz = row.dz;
        }
        sums_any(&rows);
        for (uint32_t k = 0; k < left; k++) {
            sum_g += row.sum_g[k];
            sum_gx += row.sum_gx[k];
        }
        if (p->dz != NULL) {
            memcpy(p->dz + done, row.dz, left * sizeof(float));
        }
    }
    p->sum_g[0] = sum_g;
    p->sum_gx[0] = sum_gx;
}

static void norm_sums(const struct nnc_norm_grad_plane *plane) {
    assert(plane->inner == 1 || plane->inner % WIDTH == 0);
    if (plane->inner == 1) {
        sums_one_channel(plane);
    } else {
        sums_any(plane);
    }
}

static void grad_one_channel(const struct nnc_norm_grad_plane *p) {
    struct grad_row row;
    struct nnc_norm_grad_plane rows;
    repeat_constants(p, &row, &rows);
    grad_any(&rows);
    size_t done = rows.positions * WIDTH;
    size_t left = p->positions - done;
    if (left > 0) {
        load_rest(p, done, left, &row, &rows);
        memset(row.dx, 0, sizeof(row.dx));
        memcpy(row.dx, p->dx + done, left * sizeof(float));
        rows.dx = row.dx;
        grad_any(&rows);
        memcpy(p->dx + done, row.dx, left * sizeof(float));
    }
}

static void norm_grad(const struct nnc_norm_grad_plane *plane) {
    assert(plane->inner == 1 || plane->inner % WIDTH == 0);
    if (plane->inner == 1) {
        grad_one_channel(plane);
    } else {
        grad_any(plane);
    }
}

INLINE void act_grad_eight(enum nnc_act act, const vec *y, const vec *dy, vec *dx) {
    vec value = *y;
    vec g = *dy;
    if (act == NNC_ACT_RELU) {
        g = (vec)((mask)g & ~(value <= 0));
    } else if (act == NNC_ACT_SIGMOID) {
        g *= value * (1.0f - value);
    } else if (act == NNC_ACT_TANH) {
        g *= 1.0f - value * value;
    }
    *dx = g;
}

INLINE void act_grad_loop(enum nnc_act act, const float *y, const float *dy, float *dx,
                          size_t count) {
    size_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        act_grad_eight(act, (const vec *)(y + i), (const vec *)(dy + i), (vec *)(dx + i));
    }
    if (i < count) {
        vec rest_y = {0};
        vec rest = {0};
        memcpy(&rest_y, y + i, (count - i) * sizeof(*y));
        memcpy(&rest, dy + i, (count - i) * sizeof(*dy));
        act_grad_eight(act, &rest_y, &rest, &rest);
        memcpy(dx + i, &rest, (count - i) * sizeof(*dx));
    }
}

static void act_grad(enum nnc_act act, const float *y, const float *dy, float *dx, size_t count) {
    switch (act) {
    case NNC_ACT_NONE:
        act_grad_loop(NNC_ACT_NONE, y, dy, dx, count);
        break;
    case NNC_ACT_RELU:
        act_grad_loop(NNC_ACT_RELU, y, dy, dx, count);
        break;
    case NNC_ACT_SIGMOID:
        act_grad_loop(NNC_ACT_SIGMOID, y, dy, dx, count);
        break;
    case NNC_ACT_TANH:
        act_grad_loop(NNC_ACT_TANH, y, dy, dx, count);
        break;
    }
}

INLINE void add_loop(const float *left, const float *right, bool relu, float *out, size_t count) {
    size_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        vec sum = *(const vec *)(left + i) + *(const vec *)(right + i);
        if (relu) {
            sum = (vec)((mask)sum & ~(sum <= 0));
        }
        *(vec *)(out + i) = sum;
    }
    for (; i < count; i++) {
        float sum = left[i] + right[i];
        out[i] = relu && sum <= 0 ? 0 : sum;
    }
}

static void add(const float *left, const float *right, bool relu, float *out, size_t count) {
    if (relu) {
        add_loop(left, right, true, out, count);
    } else {
        add_loop(left, right, false, out, count);
    }
}

/* One vector of the update; lanes of *bad are set where the value is not finite afterwards. */
INLINE void sgd_eight(const struct nnc_sgd_run *run, bool nesterov, const vec *gradient, vec *value,
                      vec *buffer, mask *bad) {
    vec d = run->ratio * (*gradient + run->weight_decay * *value);
    vec m = run->momentum * *buffer + d;
    vec step = m;
    if (nesterov) {
        step = d + run->momentum * m;
    }
    vec moved = *value - run->lr * step;
    *buffer = m;
    *value = moved;
    *bad |= (moved - moved) != 0; /* inf - inf and NaN are not 0 */
}

INLINE bool sgd_loop(const struct nnc_sgd_run *run, bool nesterov) {
    float *value = run->value;
    float *buffer = run->momentum_buffer;
    const float *gradient = run->gradient;
    mask bad = {0};
    size_t i = 0;
    for (; i + WIDTH <= run->count; i += WIDTH) {
        sgd_eight(run, nesterov, (const vec *)(gradient + i), (vec *)(value + i),
                  (vec *)(buffer + i), &bad);
    }
    if (i < run->count) {
        size_t left_bytes = (run->count - i) * sizeof(float);
        vec rest[3] = {{0}};
        memcpy(&rest[0], gradient + i, left_bytes);
        memcpy(&rest[1], value + i, left_bytes);
        memcpy(&rest[2], buffer + i, left_bytes);
        sgd_eight(run, nesterov, &rest[0], &rest[1], &rest[2], &bad);
        memcpy(value + i, &rest[1], left_bytes);
        memcpy(buffer + i, &rest[2], left_bytes);
    }
    int32_t any = 0;
    for (uint32_t k = 0; k < WIDTH; k++) {
        any |= bad[k];
    }
    return any == 0;
}

static bool sgd(const struct nnc_sgd_run *run) {
    return run->nesterov ? sgd_loop(run, true) : sgd_loop(run, false);
}

extern const struct nnc_kernels NNC_KERNELS;
const struct nnc_kernels NNC_KERNELS = {
    .name = NNC_KERNELS_NAME,
    .stats = stats,
    .norm = norm,
    .norm_sums = norm_sums,
    .norm_grad = norm_grad,
    .act_grad = act_grad,
    .add = add,
    .pool = NNC_OWN(pool),
    .pool_grad = NNC_OWN(pool_grad),
    .dropout = NNC_OWN(dropout),
    .sgd = sgd,
};
