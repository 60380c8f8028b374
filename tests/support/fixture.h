/* SPDX-License-Identifier: Apache-2.0 */
/* A temporary directory with files in it, and tar archives put together by hand. Tests that need
 * them run fixture_begin and fixture_end as Criterion's .init and .fini. */
#ifndef NNC_TESTS_SUPPORT_FIXTURE_H
#define NNC_TESTS_SUPPORT_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

/* Make the temporary directory of this test, and remove it with all that is in it. */
void fixture_begin(void);
void fixture_end(void);

/* Absolute path of a name in the directory. Valid until the eighth call after. */
const char *fixture_path(const char *name);

/* Write a file, making the folders it lies in. A failure ends the test. */
void fixture_file(const char *name, const void *bytes, size_t size);
void fixture_text(const char *name, const char *text);
void fixture_folder(const char *name);
void fixture_link(const char *target, const char *name);

/* Give everything in the directory a time of some minutes ago, as data sets have: the index cache
 * does not keep what changed just now. */
void fixture_age(void);

/* A tar archive in memory. */
struct tar_image {
    unsigned char *bytes;
    size_t size;
};

/* Append a header alone: name of up to 100 bytes, the size field as given, a right checksum. */
void tar_header(struct tar_image *tar, char type, const char *name, uint64_t size);

/* Append a header of this type with its padded body. */
void tar_entry(struct tar_image *tar, char type, const char *name, const void *body, size_t size);

/* Append a regular file with a text as body. */
void tar_text(struct tar_image *tar, const char *name, const char *text);

/* Append a pax header of one record KEY=VALUE. */
void tar_pax(struct tar_image *tar, const char *key, const char *value);

/* Append the two zero blocks at the end. */
void tar_end(struct tar_image *tar);

/* Make the checksum of the header at offset right again. */
void tar_fix_checksum(struct tar_image *tar, size_t offset);

/* Free the archive; it is empty again. */
void tar_free(struct tar_image *tar);

#endif
