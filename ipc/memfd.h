/* SPDX-License-Identifier: Apache-2.0 */
/* Anonymous shared memory of fixed size: created, filled up with pages and sealed before any child
 * starts, never named in a file system, gone with its last holder.
 *
 * Source: memfd_create(2), F_ADD_SEALS in fcntl(2). */
#ifndef NNC_IPC_MEMFD_H
#define NNC_IPC_MEMFD_H

#include <stddef.h>
#include <stdint.h>

enum nnc_memfd_access {
    NNC_MEMFD_SHARED,   /* every holder may map it for writing */
    NNC_MEMFD_READONLY, /* sealed against writing after `fill` was copied in */
};

/* Create a close-on-exec memfd of exactly `bytes`, all pages allocated, sealed against shrinking,
 * growing and further seals. READONLY copies fill (bytes long) first and seals writing too; SHARED
 * copies fill when it is not NULL. `role` names it in /proc. Ladder: MFD_NOEXEC_SEAL, then without,
 * then an unlinked O_TMPFILE in fallback_dir (NULL: none), which has no seals.
 * Errors: -ENOMEM and friends, text says role and bytes. */
int nnc_memfd_create(const char *role, size_t bytes, enum nnc_memfd_access access, const void *fill,
                     const char *fallback_dir, int *ret_fd);

/* Map all of fd after checking that it has exactly `bytes` and cannot shrink. writable 0 maps
 * PROT_READ. Errors: -NNC_E_FORMAT wrong size or missing seal. Unmap with munmap(). */
int nnc_memfd_map(int fd, size_t bytes, int writable, void **ret_address);

/* Size of the memfd behind fd, for those whose size is data (config, index). */
int nnc_memfd_size(int fd, size_t *ret_bytes);

#endif
