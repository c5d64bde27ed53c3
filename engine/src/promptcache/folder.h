/* The cache folder on disk: names, sizes, what may be removed. */
#ifndef ENG_PC_FOLDER_H
#define ENG_PC_FOLDER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "promptcache/index.h"

enum { ENG_PC_FILE_NAME = 2 * 2 * ENG_PC_NAME_BYTES + 5 /* '-', ".kv", NUL */ };

#define ENG_PC_SPEED_NAME "speed" /* promptcache/speed.h */

/* Makes dir and the model's folder in it, and takes its lock. The folder's descriptor and that of the lock. */
int eng_pc_folder_open(const char *dir, const struct eng_pc_key *identity, int *ret_fd, int *ret_lock, struct err *err);
/* Bytes of other models' folders; removes the oldest of them, unless in use, until at most max_bytes are left. */
uint64_t eng_pc_folder_trim_others(const char *dir, const struct eng_pc_key *identity, uint64_t max_bytes);
/* Adds the pages to the index, the latest used last. Removes files of another size, pages whose beginning is gone,
 * and what a process that was killed left half-written; what has no name of ours stays. */
int eng_pc_folder_scan(int fd, uint64_t file_bytes, struct eng_pc_index *ix);

void eng_pc_file_name(const struct eng_pc_name *name, const struct eng_pc_name *parent,
                      char ret_name[ENG_PC_FILE_NAME]);
/* Writes the whole file under its name or not at all. */
int eng_pc_file_write(int dir_fd, const char *name, const uint8_t *bytes, size_t size);
/* Reads a file of exactly this size in two parts, of which the second may be none; -EBADMSG when it has another. Marks
 * it as used now. */
int eng_pc_file_read(int dir_fd, const char *name, uint8_t *bytes, size_t size, uint8_t *rest, size_t rest_size);

#endif
