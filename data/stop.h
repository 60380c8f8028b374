/* SPDX-License-Identifier: Apache-2.0 */
/* Ctrl-C and SIGTERM: remembered, so that a verb can clean up before it ends. */
#ifndef NNC_DATA_STOP_H
#define NNC_DATA_STOP_H

#include <stdbool.h>

/* From now on the first SIGINT or SIGTERM is remembered and the second ends the process at once. */
void nnc_stop_install(void);

/* 0, or -NNC_E_STOPPED with a text after such a signal. For loops to ask each round. */
int nnc_stop_check(void);

/* End as the remembered signal would have ended us; returns when there was none. */
void nnc_stop_finish(void);

#endif
