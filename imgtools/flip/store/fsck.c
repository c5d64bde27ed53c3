/* The whole store read and compared with itself. Objects by their digests, partial ones by their maps, folders and rows
 * by each other. May run beside everything else: an object is judged again under its shard's lock before it is moved,
 * and what this process is making right now is known by its names. A reader beside a living daemon (read_only) leaves
 * young files alone: they may be halfway to where they belong. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "store/store_internal.h"

enum { YOUNG_S = 60 };

struct fsck {
	struct flip_store *store;
	bool dry_run;
	bool is_foreign; /* another process works on it */
	void (*report)(void *arg, const char *line);
	void *report_arg;
	struct flip_fsck_result result;
	char folder[3];
	int r;
};

static void tell(struct fsck *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void tell(struct fsck *f, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!f->report)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (char *p = line; *p; p++) { /* names of files that are not ours may hold anything */
		if ((unsigned char)*p < 32 || *p == 127)
			*p = '?';
	}
	f->report(f->report_arg, line);
}

static bool is_young(const struct fsck *f, int dir_fd, const char *name)
{
	struct stat st;

	if (!f->is_foreign)
		return false;
	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	       flip_store_now_s() - (int64_t)st.st_ctim.tv_sec < YOUNG_S;
}

static void leftover(struct fsck *f, int dir_fd, const char *where, const char *name, const char *why)
{
	if (is_young(f, dir_fd, name))
		return;
	f->result.n_leftover++;
	tell(f, "%s/%s: %s%s", where, name, why, f->dry_run ? "" : "; removed");
	if (!f->dry_run)
		(void)flip_store_discard(f->store, dir_fd, name);
}

/* ---- Objects -------------------------------------------------------------------------------------------------- */

/* Out of objects/, into bad/ for somebody to look at. Who has it open keeps it, who opens it now gets a new one. */
static int move_bad(struct fsck *f, const uint8_t digest[FLIP_DIGEST_SIZE], const char *name, uint64_t size)
{
	struct flip_store *s = f->store;
	struct shard *sh = shard_of(s, digest);
	struct flip_object *o;
	char to[STORE_NAME_SIZE + 8];
	int r = 0;

	if (mkdirat(s->dir_fd, "bad", 0700) < 0 && errno != EEXIST)
		return -errno;
	(void)snprintf(to, sizeof(to), "bad/%.2s%s", name, name + 3);
	pthread_mutex_lock(&sh->lock);
	if (renameat(s->objects_fd, name, s->dir_fd, to) < 0)
		r = errno == ENOENT ? 0 : -errno;
	else
		flip_store_count(s, digest, -1, -(int64_t)size);
	o = flip_shard_find(sh, digest);
	if (r == 0 && o && flip_object_is_complete(o))
		flip_shard_unlist(sh, o);
	pthread_mutex_unlock(&sh->lock);
	return r;
}

static int check_object(struct fsck *f, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	CLEANUP(close_fdp) int fd = -1;
	uint8_t found[FLIP_DIGEST_SIZE];
	char name[STORE_NAME_SIZE];
	uint64_t size = 0;
	const char *what;
	int r;

	flip_object_name(digest, name);
	fd = openat(f->store->objects_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT) /* gc was faster */
		return 0;
	r = fd < 0 ? -errno : flip_store_hash_fd(fd, found, &size);
	if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
		return r;
	f->result.n_checked++;
	if (r == 0 && memcmp(found, digest, FLIP_DIGEST_SIZE) == 0)
		return 0;
	f->result.n_bad++;
	what = r < 0 ? strerror(-r) : "its content has another digest";
	if (f->dry_run) {
		tell(f, "objects/%s: %s", name, what);
		return 0;
	}
	r = move_bad(f, digest, name, size);
	tell(f, "objects/%s: %s; %s", name, what, r < 0 ? "could not be moved" : "moved to bad/");
	return 0;
}

/* A temporary name: of a put that runs, or left by one that was killed. Who holds the slot knows. */
static bool is_put_name(struct fsck *f, const char *name, const char *file)
{
	uint_fast64_t bit;
	unsigned slot;
	char tail;

	if (sscanf(file, ".put-%2x%c", &slot, &tail) != 1 || slot >= STORE_N_PUT_SLOTS)
		return false;
	if (f->is_foreign)
		return true;
	bit = UINT64_C(1) << slot;
	if (!f->store->opts.read_only && (atomic_fetch_or(&f->store->put_slots, bit) & bit))
		return true;
	if (faccessat(f->store->objects_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		leftover(f, f->store->objects_fd, "objects", name, "of a put that was cut off");
	if (!f->store->opts.read_only)
		flip_slot_give(f->store, slot);
	return true;
}

static int visit_object(void *arg, const char *file)
{
	struct fsck *f = arg;
	uint8_t digest[FLIP_DIGEST_SIZE];
	char name[300];

	if (flip_object_parse_name(f->folder, file, digest)) {
		f->r = check_object(f, digest);
		return f->r;
	}
	(void)snprintf(name, sizeof(name), "%s/%s", f->folder, file);
	if (is_put_name(f, name, file))
		return 0;
	leftover(f, f->store->objects_fd, "objects", name, "no object's name");
	return 0;
}

/* ---- Partial ones --------------------------------------------------------------------------------------------- */

static int visit_partial(void *arg, const char *file)
{
	struct fsck *f = arg;
	struct flip_store *s = f->store;
	char name[300], map_name[300], stem[256];
	size_t len = strlen(file);
	bool is_map = len > 4 && strcmp(file + len - 4, ".map") == 0;
	uint8_t digest[FLIP_DIGEST_SIZE];
	const char *why = NULL;
	struct shard *sh;

	(void)snprintf(stem, sizeof(stem), "%.*s", (int)(is_map ? len - 4 : len), file);
	(void)snprintf(name, sizeof(name), "%s/%s", f->folder, file);
	if (!flip_object_parse_name(f->folder, stem, digest)) {
		leftover(f, s->partial_fd, "partial", name, "no object's name");
		return 0;
	}
	(void)snprintf(name, sizeof(name), "%s/%s", f->folder, stem);
	(void)snprintf(map_name, sizeof(map_name), "%s/%s.map", f->folder, stem);
	sh = shard_of(s, digest);
	pthread_mutex_lock(&sh->lock);
	if (!flip_shard_find(sh, digest) && faccessat(s->partial_fd, is_map ? map_name : name, F_OK, 0) == 0)
		why = flip_partial_judge(s, digest);
	/* One finding for a pair. */
	if (why && (!is_map || faccessat(s->partial_fd, name, F_OK, 0) < 0)) {
		if (!f->dry_run)
			(void)unlinkat(s->partial_fd, map_name, 0);
		leftover(f, s->partial_fd, "partial", is_map ? map_name : name, why);
	}
	pthread_mutex_unlock(&sh->lock);
	return 0;
}

/* ---- Folders and rows ------------------------------------------------------------------------------------------ */

static int visit_tmp(void *arg, const char *name)
{
	struct fsck *f = arg;

	if (f->is_foreign || strncmp(name, f->store->instance, strlen(f->store->instance)) == 0)
		return 0;
	leftover(f, f->store->tmp_fd, "tmp", name, "of an earlier process");
	return 0;
}

static int visit_layer_folder(void *arg, const char *hex)
{
	struct fsck *f = arg;
	char digest[80];
	int r;

	(void)snprintf(digest, sizeof(digest), "sha256:%.72s", hex);
	r = flip_layer_hex(digest) ? flip_store_layer_get(f->store, digest, NULL, NULL, 0, NULL) : -ENOENT;
	if (r == -ENOENT)
		leftover(f, f->store->layers_fd, "layers", hex, "a folder without a row");
	return 0;
}

static int visit_layer_row(const struct flip_layer_row *row, void *arg)
{
	struct fsck *f = arg;

	if (faccessat(f->store->layers_fd, flip_layer_hex(row->digest), F_OK, 0) == 0 || errno != ENOENT)
		return 0;
	f->result.n_bad++;
	tell(f, "layer %s: its folder is missing%s", row->digest, f->dry_run ? "" : "; forgotten");
	if (!f->dry_run)
		(void)flip_layer_remove(f->store, row->digest, NULL);
	return 0;
}

static int visit_snapshot_folder(void *arg, const char *name)
{
	struct fsck *f = arg;
	uint64_t id;

	if (!flip_snapshot_parse_id(name, &id) || !flip_snapshot_has_row(f->store, id))
		leftover(f, f->store->snapshots_fd, "snapshots", name, "a folder without a row");
	return 0;
}

static int visit_snapshot_row(const struct flip_snapshot *row, void *arg)
{
	struct flip_snapshot parent = { 0 };
	struct fsck *f = arg;
	char folder[32];

	(void)snprintf(folder, sizeof(folder), "%" PRIu64, row->id);
	if (faccessat(f->store->snapshots_fd, folder, F_OK, 0) < 0 && errno == ENOENT) {
		f->result.n_bad++;
		tell(f, "snapshot %s: its folder snapshots/%s is missing%s", row->name, folder,
		     f->dry_run ? "" : "; an empty one was made");
		if (!f->dry_run)
			(void)mkdirat(f->store->snapshots_fd, folder, 0700);
	}
	if (row->parent && flip_store_snapshot_get(f->store, row->parent, &parent, NULL) == -ENOENT) {
		f->result.n_bad++;
		tell(f, "snapshot %s: its parent %s is missing", row->name, row->parent);
	}
	if (row->layer && flip_store_layer_get(f->store, row->layer, NULL, NULL, 0, NULL) == -ENOENT) {
		f->result.n_bad++;
		tell(f, "snapshot %s: its layer %s is missing", row->name, row->layer);
	}
	flip_snapshot_done(&parent);
	return 0;
}

static int check_rows(struct fsck *f, struct err *err)
{
	struct flip_store *s = f->store;
	int r = flip_store_each(s->tmp_fd, ".", visit_tmp, f);

	if (r == 0)
		r = flip_store_each(s->layers_fd, ".", visit_layer_folder, f);
	if (r == 0)
		r = flip_store_each(s->snapshots_fd, ".", visit_snapshot_folder, f);
	if (r < 0)
		return err_set(err, r, "%s: %s", s->dir, strerror(-r));
	r = flip_store_layers(s, visit_layer_row, f, err);
	return r == 0 ? flip_store_snapshots(s, visit_snapshot_row, f, err) : r;
}

static bool is_taken(struct flip_store *s)
{
	CLEANUP(close_fdp) int fd = openat(s->dir_fd, "lock", O_RDONLY | O_CLOEXEC);

	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0;
}

int flip_store_fsck(struct flip_store *s, bool dry_run, void (*report)(void *arg, const char *line), void *arg,
                    struct flip_fsck_result *ret_result, struct err *err)
{
	struct fsck f = { .store = s, .dry_run = dry_run, .report = report, .report_arg = arg };
	int r = 0;

	if (s->opts.read_only && !dry_run)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	f.is_foreign = s->opts.read_only && is_taken(s);
	pthread_mutex_lock(&s->gc_lock);
	for (unsigned i = 0; r == 0 && i < STORE_N_SHARDS; i++) {
		(void)snprintf(f.folder, sizeof(f.folder), "%02x", i);
		r = flip_store_each(s->objects_fd, f.folder, visit_object, &f);
		if (r == 0)
			r = flip_store_each(s->partial_fd, f.folder, visit_partial, &f);
	}
	if (r < 0)
		(void)err_set(err, r, "%s: checking: %s", s->dir, strerror(-r));
	else
		r = check_rows(&f, err);
	pthread_mutex_unlock(&s->gc_lock);
	if (ret_result)
		*ret_result = f.result;
	return r;
}
