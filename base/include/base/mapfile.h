/* A file mapped read-only, whole small files read into memory and replaced, folders made and gone through. */
#ifndef BASE_MAPFILE_H
#define BASE_MAPFILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct base_mapfile {
	const uint8_t *data; /* NULL when the file is empty */
	size_t size_bytes;
	uint64_t dev, ino; /* of the file */
};

/* Maps a regular file. The mapping outlives the descriptor and is shared, read-only. */
int base_mapfile_open(const char *path, struct base_mapfile *ret_map, struct err *err);
void base_mapfile_close(struct base_mapfile *map);
/* Read through once and seldom from now on: its pages no longer count as this process's; the page cache keeps them. */
void base_mapfile_cool(const struct base_mapfile *map);
/* The same for the whole pages within [data, data + size) of it. */
void base_mapfile_cool_part(const struct base_mapfile *map, const void *data, size_t size);

/* Reads a whole file into buf (appending), within the buffer's ceiling: -EFBIG beyond it. */
int base_read_file(const char *path, struct base_buf *buf, struct err *err);

/* Writes beside the target and renames over it, fsync'd: readers see the old or the new, never half. */
int base_write_file_atomic(const char *path, const void *data, size_t len, unsigned mode, struct err *err);

/* Makes the folder and those above it, as far as they are missing, with this mode less the umask; allocates nothing. */
int base_make_folders(const char *path, unsigned mode, struct err *err);
/* Those above it only. */
int base_make_parents(const char *path, unsigned mode, struct err *err);

/* Calls fn with the path of each entry of a folder whose name ends in suffix (and is longer), by the order of the
 * names' bytes; a path that is no folder is the one that fn gets. The first error of fn ends it and is returned. */
int base_each_file(const char *path, const char *suffix, int (*fn)(void *arg, const char *path, struct err *err),
                   void *arg, struct err *err);

#endif
