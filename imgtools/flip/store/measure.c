/* How much there is in a store. Complete objects are counted as they come and go; after a crash they are counted anew,
 * folder by folder. The rest is measured when it is asked for. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/store_internal.h"

struct counting {
	struct flip_store *store;
	struct object_count sum;
	char folder[3];
};

static int count_file(void *arg, const char *file)
{
	struct counting *c = arg;
	uint8_t digest[FLIP_DIGEST_SIZE];
	char name[STORE_NAME_SIZE];
	struct stat st;

	if (!flip_object_parse_name(c->folder, file, digest))
		return 0;
	flip_object_name(digest, name);
	if (fstatat(c->store->objects_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
		c->sum.n++;
		c->sum.bytes += (int64_t)st.st_size;
		c->sum.disk += ((int64_t)st.st_size + 4095) / 4096 * 4096;
	}
	return 0;
}

static int count_folder(struct flip_store *s, unsigned i)
{
	struct counting c = { .store = s };
	int r;

	(void)snprintf(c.folder, sizeof(c.folder), "%02x", i);
	pthread_mutex_lock(&s->shards[i].lock); /* nothing comes or goes there */
	r = flip_store_each(s->objects_fd, c.folder, count_file, &c);
	pthread_mutex_lock(&s->count_lock);
	s->recount.n += c.sum.n;
	s->recount.bytes += c.sum.bytes;
	s->recount.disk += c.sum.disk;
	s->n_recounted = i + 1;
	pthread_mutex_unlock(&s->count_lock);
	pthread_mutex_unlock(&s->shards[i].lock);
	return r;
}

int flip_store_recount(struct flip_store *s, struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&s->recount_lock);
	for (unsigned i = 0; r == 0 && i < STORE_N_SHARDS && !atomic_load(&s->is_counted); i++)
		r = count_folder(s, i);
	pthread_mutex_lock(&s->count_lock);
	if (s->n_recounted == STORE_N_SHARDS && r == 0) {
		atomic_store(&s->n_objects, s->recount.n);
		atomic_store(&s->object_bytes, s->recount.bytes);
		atomic_store(&s->object_disk, s->recount.disk);
		atomic_store(&s->is_counted, true);
	}
	s->recount = (struct object_count){ 0 };
	s->n_recounted = 0;
	pthread_mutex_unlock(&s->count_lock);
	pthread_mutex_unlock(&s->recount_lock);
	return r < 0 ? err_set(err, r, "%s: counting: %s", s->dir, strerror(-r)) : 0;
}

struct measure {
	struct flip_store *store;
	struct flip_store_stat *stat;
	int dir_fd;
	char folder[3];
};

static int measure_partial(void *arg, const char *file)
{
	struct measure *m = arg;
	char name[300];
	struct stat st;

	(void)snprintf(name, sizeof(name), "%s/%s", m->folder, file);
	if (fstatat(m->store->partial_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	m->stat->disk_bytes += (uint64_t)st.st_blocks * 512;
	if (strlen(file) == 2 * (FLIP_DIGEST_SIZE - 1)) {
		m->stat->n_partials++;
		m->stat->partial_bytes += (uint64_t)st.st_blocks * 512;
	}
	return 0;
}

static int measure_file(void *arg, const char *name)
{
	struct measure *m = arg;
	struct stat st;

	if (fstatat(m->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		m->stat->disk_bytes += (uint64_t)st.st_blocks * 512;
	return 0;
}

static int measure_layer(const struct flip_layer_row *row, void *arg)
{
	struct measure *m = arg;
	CLEANUP(close_fdp) int fd = -1;

	m->stat->n_layers++;
	fd = openat(m->store->layers_fd, flip_layer_hex(row->digest), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	m->dir_fd = fd;
	if (fd >= 0)
		(void)flip_store_each(fd, ".", measure_file, m);
	return 0;
}

static int measure_snapshot(const struct flip_snapshot *snapshot, void *arg)
{
	struct measure *m = arg;

	m->stat->n_snapshots++;
	return 0;
}

int flip_store_stat(struct flip_store *s, struct flip_store_stat *ret_stat, struct err *err)
{
	struct flip_store_stat stat = { 0 };
	struct measure m = { .store = s, .stat = &stat };
	int r = atomic_load(&s->is_counted) ? 0 : flip_store_recount(s, err);

	if (r < 0)
		return r;
	stat.n_objects = (uint64_t)atomic_load(&s->n_objects);
	stat.object_bytes = (uint64_t)atomic_load(&s->object_bytes);
	stat.disk_bytes = (uint64_t)atomic_load(&s->object_disk);
	stat.free_bytes = flip_store_free_bytes(s);
	for (unsigned i = 0; r == 0 && i < STORE_N_SHARDS; i++) {
		(void)snprintf(m.folder, sizeof(m.folder), "%02x", i);
		r = flip_store_each(s->partial_fd, m.folder, measure_partial, &m);
	}
	if (r < 0)
		return err_set(err, r, "%s/partial: %s", s->dir, strerror(-r));
	m.dir_fd = s->dir_fd;
	(void)flip_store_each(s->dir_fd, ".", measure_file, &m);
	r = flip_store_layers(s, measure_layer, &m, err);
	if (r == 0)
		r = flip_store_snapshots(s, measure_snapshot, &m, err);
	if (r < 0)
		return r;
	*ret_stat = stat;
	return 0;
}
