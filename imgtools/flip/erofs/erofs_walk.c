/* Every path of an image. The one part of the reader that allocates: its place in each directory above. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "erofs/erofs_internal.h"

/* One directory on the way down. */
struct level {
	uint64_t nid, pos;
	size_t path_len;
};

struct walk {
	const struct flip_erofs *fs;
	struct level *levels; /* a path has fewer components than bytes */
	size_t depth;
	char path[IMG_PATH_MAX];
	uint64_t left; /* names that the file can still hold: directories that contain themselves end there */
	int (*fn)(void *arg, const char *path, uint64_t nid, const struct stat *st);
	void *arg;
};

/* The next entry of the directory at hand. */
struct found {
	char name[EROFS_NAME_MAX + 1];
	size_t len;
	uint64_t nid, next_pos;
	bool has_one;
};

static int take_one(void *arg, const char *name, size_t len, uint64_t nid, unsigned dtype, uint64_t next_pos)
{
	struct found *f = arg;

	(void)dtype;
	if (f->has_one)
		return 1;
	f->next_pos = next_pos;
	if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return 0;
	memcpy(f->name, name, len);
	f->name[len] = '\0';
	f->len = len;
	f->nid = nid;
	f->has_one = true;
	return 1;
}

/* Names of what is not a file below "/" are those of its parent with "/NAME" behind. */
static int append_name(struct walk *w, size_t path_len, const struct found *f)
{
	size_t at = path_len > 1 ? path_len : 0;

	if (at + 1 + f->len >= sizeof(w->path))
		return -EBADMSG;
	w->path[at] = '/';
	memcpy(w->path + at + 1, f->name, f->len + 1);
	return 0;
}

static int step(struct walk *w)
{
	struct level *l = &w->levels[w->depth - 1];
	struct found f = { .has_one = false };
	struct stat st;
	int r = flip_erofs_readdir(w->fs, l->nid, l->pos, take_one, &f);

	if (r < 0)
		return r;
	if (!f.has_one) {
		w->depth--;
		return 0;
	}
	l->pos = f.next_pos;
	if (w->left-- == 0)
		return -EBADMSG;
	r = append_name(w, l->path_len, &f);
	if (r == 0)
		r = flip_erofs_stat(w->fs, f.nid, &st);
	if (r == 0)
		r = w->fn(w->arg, w->path, f.nid, &st);
	if (r == 0 && S_ISDIR(st.st_mode))
		w->levels[w->depth++] = (struct level){ .nid = f.nid, .path_len = strlen(w->path) };
	return r;
}

int flip_erofs_walk(const struct flip_erofs *fs,
                    int (*fn)(void *arg, const char *path, uint64_t nid, const struct stat *st), void *arg,
                    struct err *err)
{
	CLEANUP(freep) struct level *levels = calloc(IMG_PATH_MAX, sizeof(*levels));
	struct walk w = { .fs = fs, .levels = levels, .depth = 1, .path = "/", .fn = fn, .arg = arg };
	struct stat st;
	int r;

	if (!levels)
		return err_set(err, -ENOMEM, "out of memory");
	levels[0] = (struct level){ .nid = fs->root, .path_len = 1 };
	w.left = fs->size / (sizeof(struct erofs_dirent) + 1);
	r = flip_erofs_stat(fs, fs->root, &st);
	if (r == 0)
		r = fn(arg, "/", fs->root, &st);
	while (r == 0 && w.depth)
		r = step(&w);
	if (r == -EBADMSG)
		return err_set(err, r, "%s: the directories of this image are damaged here", w.path);
	return r;
}
