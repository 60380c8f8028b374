/* SPDX-License-Identifier: Apache-2.0 */
/* Values of the model language: numbers, pairs, True and False, None, names of modules. Internal to
 * workers/model*.c. */
#ifndef NNC_WORKERS_MODEL_VALUE_H
#define NNC_WORKERS_MODEL_VALUE_H

#include "workers/model_text.h"

#define NNC_MODEL_STEPS_MAX 1000000u

enum nnc_value_kind {
    NNC_VALUE_NONE,
    NNC_VALUE_WHOLE,
    NNC_VALUE_NUMBER,
    NNC_VALUE_BOOL,   /* whole[0] is 0 or 1 */
    NNC_VALUE_PAIR,   /* of whole numbers */
    NNC_VALUE_MODULE, /* the name of a layer, container or definition */
};

struct nnc_value {
    enum nnc_value_kind kind;
    int64_t whole[2];
    double number; /* of WHOLE too */
    const char *module;
};

/* Parameters of the definition being expanded, bound from the first to the last. */
struct nnc_model_frame {
    const struct nnc_model_def *def;
    uint32_t bound;
    struct nnc_value values[NNC_MODEL_PARAMS_MAX];
};

struct nnc_value_context {
    const char *file;    /* named in errors */
    uint32_t steps_left; /* bounds the work a text can ask for */
    /* Is this the name of a module? */
    bool (*is_module)(const void *context, const char *name);
    const void *context;
};

/* The value of an expression; names are looked up in the frame (may be NULL), then among modules.
 * Errors: -NNC_E_USAGE with file:line:column. */
int nnc_value_eval(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                   const struct nnc_model_frame *frame, struct nnc_value *ret_value);

/* Count one step of work. Errors: -NNC_E_USAGE when NNC_MODEL_STEPS_MAX are used up. */
int nnc_value_step(struct nnc_value_context *context, const struct nnc_model_expr *expr);

/* The frame's value of that name, or NULL. */
const struct nnc_value *nnc_frame_find(const struct nnc_model_frame *frame, const char *name);

/* Value from a number of the program itself. */
struct nnc_value nnc_value_whole(int64_t whole);

/* Give the arguments of a call their places: positional ones in order, the others by keyword.
 * ret_matched[count] receives the argument's expression, NULL where none is given.
 * Errors: -NNC_E_USAGE for too many, unknown or repeated arguments. */
int nnc_value_match(const char *file, const struct nnc_model_expr *call, const char *const *names,
                    uint32_t count, const struct nnc_model_expr **ret_matched);

#endif
