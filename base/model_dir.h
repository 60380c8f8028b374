/* SPDX-License-Identifier: Apache-2.0 */
/* Model texts by name: NAME stands for NAME.nn in the program's folder of models. */
#ifndef NNC_BASE_MODEL_DIR_H
#define NNC_BASE_MODEL_DIR_H

#include <stddef.h>

/* The file of a model. What contains "/" or ends with ".nn" is a file already and only copied;
 * anything else is a name in models_dir (NULL: the program's own models). Errors: -NNC_E_USAGE with
 * the names there are; -ENAMETOOLONG. */
int nnc_model_resolve(const char *name_or_file, const char *models_dir, char *ret_path,
                      size_t path_bytes);

/* Names (without .nn) of the texts in models_dir (NULL: the program's own), sorted bytewise.
 * Owner: free the array with nnc_model_names_free(). Errors: as opendir(); -ENOMEM. */
int nnc_model_names(const char *models_dir, char ***ret_names, size_t *ret_count);

/* Takes NULL. */
void nnc_model_names_free(char **names, size_t count);

#endif
