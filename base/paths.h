/* SPDX-License-Identifier: Apache-2.0 */
/* Where the files lie that come with the program: model texts, recipes, the other programs. */
#ifndef NNC_BASE_PATHS_H
#define NNC_BASE_PATHS_H

#include <stddef.h>

/* The directory `name` ("models", "models/recipes") among the program's data: in the source tree
 * for an executable that runs from its build directory, else in the installed data directory. It
 * need not exist. ret_path is zero-ended. Errors: -ENAMETOOLONG; errors of reading /proc/self/exe.
 */
int nnc_path_data(const char *name, char *ret_path, size_t path_bytes);

/* The directory of the running executable, where its siblings and its plug-ins are. Errors: as
 * nnc_path_data(). */
int nnc_path_programs(char *ret_path, size_t path_bytes);

/* The folder `name` for files that cost time when they are lost and nothing else:
 * $XDG_CACHE_HOME/nncoord/NAME or ~/.cache/nncoord/NAME. It need not exist. Returns 0, or -ENOENT
 * without text when no folder is known. */
int nnc_path_cache(const char *name, char *ret_path, size_t path_bytes);

/* As nnc_path_data() for an executable with the absolute path `exe`; pure, for tests. */
int nnc_path_data_for(const char *exe, const char *name, char *ret_path, size_t path_bytes);

#endif
