/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/descriptors.h"

#include <criterion/criterion.h>
#include <dirent.h>

int count_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;
    cr_assert_not_null(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}
