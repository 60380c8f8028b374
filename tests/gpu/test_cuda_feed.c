/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/cuda_case.h"
#include <criterion/criterion.h>
