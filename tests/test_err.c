/* SPDX-License-Identifier: Apache-2.0 */
/* Error texts and exit statuses. */
#include "base/err.h"

#include <criterion/criterion.h>
#include <errno.h>

Test(err, a_context_prefix_keeps_the_cause) {
    int code = nnc_fail(-NNC_E_FORMAT, "line %d is empty", 7);
    code = nnc_fail_in(code, "reading %s", "a.nn");
    cr_assert_eq(code, -NNC_E_FORMAT);
    cr_assert_str_eq(nnc_error_text(), "reading a.nn: line 7 is empty");
}

Test(err, errno_is_named_in_words) {
    errno = ENOENT;
    cr_assert_eq(nnc_fail_errno("open %s", "x"), -ENOENT);
    cr_assert_str_eq(nnc_error_text(), "open x: No such file or directory");
}

Test(err, each_kind_of_failure_has_its_exit_status) {
    cr_assert_eq(nnc_error_exit_status(0), NNC_EXIT_OK);
    cr_assert_eq(nnc_error_exit_status(-ENOMEM), NNC_EXIT_INTERNAL);
    cr_assert_eq(nnc_error_exit_status(-NNC_E_STOPPED), NNC_EXIT_STOPPED);
    cr_assert_eq(nnc_error_exit_status(-NNC_E_CHECKPOINT), NNC_EXIT_CHECKPOINT);
}

Test(err, a_signal_keeps_its_number_in_code_and_exit_status) {
    cr_assert_eq(nnc_error_exit_status(-(NNC_E_SIGNAL + 15)), 143);
    cr_assert_eq(nnc_error_signal(-(NNC_E_SIGNAL + 2)), 2);
    cr_assert_eq(nnc_error_signal(-NNC_E_SIGNAL), 0);
    cr_assert_eq(nnc_error_signal(-NNC_E_STOPPED), 0);
    cr_assert_eq(nnc_error_signal(0), 0);
}
