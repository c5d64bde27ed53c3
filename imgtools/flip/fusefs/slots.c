/* The table of open files, in a mapped file that outlives the process.
 *
 * The kernel keeps what is open when the daemon dies: which inodes are open by passthrough, under which backing id,
 * and which are cached. A next process that guessed it wrong would make an open fail with EIO, so every open file has a
 * slot here. The file belongs on a tmpfs: it is worth as much as the mount, and both end with the machine's run.
 *
 * A process can be killed between any two stores. A slot's generation is stored last (odd: in use), and both ends of a
 * file's life may happen twice: a request that the dead process had taken is asked for again. An open that it had
 * recorded and not answered is found by its request's number; a release names slot and generation, and a slot that is
 * free already is left alone. */
#include "fusefs/fusefs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static const char magic[8] = "flipfuse";
enum { STATE_VERSION = 1, STATE_SLOTS_AT = 4096, MOST_NAPS = 100 };

struct state_header {
	char magic[8];
	uint32_t version;
	uint32_t flags;
	uint32_t connection;
	_Atomic uint32_t is_set;
	_Atomic uint32_t n_top; /* no slot from here on was ever used */
	uint32_t padding;
	struct wire_init init;
};
static_assert(sizeof(struct state_header) == 96 && sizeof(struct slot) == 32, "layout of the state file");

#define STATE_SIZE (STATE_SLOTS_AT + (size_t)SLOTS_MAX * sizeof(struct slot))

/* Two processes at one table would be two at one session. One that was killed may leave a child which has not become
 * another program yet and holds the lock until then. */
static int lock_file(int fd)
{
	const struct timespec nap = { .tv_nsec = 20000000 };

	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (i == MOST_NAPS || (errno != EWOULDBLOCK && errno != EINTR))
			return -errno;
		(void)nanosleep(&nap, NULL);
	}
	return 0;
}

static int open_file(const char *path, bool fresh, int *ret_fd, struct err *err)
{
	CLEANUP(close_fdp)
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)
	              : memfd_create("flip-fuse", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path ? path : "memfd", strerror(errno));
	if (path && lock_file(fd) < 0)
		return err_set(err, -EBUSY, "%s: another process uses it", path);
	/* Sparse: pages come into being as slots are used. */
	r = fresh && ftruncate(fd, 0) < 0 ? -errno : 0;
	if (r == 0 && ftruncate(fd, (off_t)STATE_SIZE) < 0)
		r = -errno;
	if (r < 0)
		return err_set(err, r, "%s: %s", path ? path : "memfd", strerror(-r));
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* Slots that are free, below n_top. */
static int list_free(struct slots *s)
{
	uint32_t top = atomic_load(&s->header->n_top);

	s->free = malloc(sizeof(*s->free) * SLOTS_MAX); /* touched as far as it is used */
	if (!s->free)
		return -ENOMEM;
	s->n_top = top < SLOTS_MAX ? top : SLOTS_MAX;
	for (uint32_t i = s->n_top; i-- > 0;)
		if (!(atomic_load(&s->slot[i].generation) & 1))
			s->free[s->n_free++] = i;
	return 0;
}

static int map_file(struct slots *s, int fd, struct err *err)
{
	uint8_t *at = mmap(NULL, STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return err_set(err, -errno, "table of open files: %s", strerror(errno));
	s->header = (struct state_header *)at;
	s->slot = (struct slot *)(at + STATE_SLOTS_AT);
	if (s->header->version != STATE_VERSION || memcmp(s->header->magic, magic, sizeof(magic)) != 0) {
		memset(s->header, 0, sizeof(*s->header));
		memcpy(s->header->magic, magic, sizeof(magic));
		s->header->version = STATE_VERSION;
	}
	return 0;
}

int slots_open(const char *path, bool fresh, struct slots **ret_slots, struct err *err)
{
	struct slots *s;
	int fd = -1, r;

	r = open_file(path, fresh, &fd, err);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s) {
		(void)close(fd);
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&s->lock, NULL);
	s->fd = fd; /* its lock is held as long as it is open */
	s->path = path ? strdup(path) : NULL;
	r = path && !s->path ? -ENOMEM : map_file(s, fd, err);
	if (r == 0)
		r = list_free(s);
	if (r < 0) {
		slots_close(s, false);
		return err_prefix(err, r, "%s: ", path ? path : "state");
	}
	*ret_slots = s;
	return 0;
}

void slots_close(struct slots *s, bool remove)
{
	if (!s)
		return;
	if (remove && s->path)
		(void)unlink(s->path);
	if (s->header)
		(void)munmap(s->header, STATE_SIZE);
	(void)close(s->fd);
	(void)pthread_mutex_destroy(&s->lock);
	free(s->free);
	free(s->path);
	free(s);
}

void slots_set_session(struct slots *s, uint32_t connection, const struct wire_init *init, uint32_t flags)
{
	s->header->connection = connection;
	s->header->flags = flags;
	s->header->init = *init;
	atomic_store(&s->header->is_set, 1);
}

int slots_get_session(const struct slots *s, uint32_t *ret_connection, struct wire_init *ret_init, uint32_t *ret_flags)
{
	if (!atomic_load(&s->header->is_set))
		return -ENODATA;
	*ret_connection = s->header->connection;
	*ret_init = s->header->init;
	*ret_flags = s->header->flags;
	return 0;
}

static bool take_index(struct slots *s, uint32_t *ret_i)
{
	bool ok = true;

	(void)pthread_mutex_lock(&s->lock);
	if (s->n_free > 0) {
		*ret_i = s->free[--s->n_free];
	} else if (s->n_top < SLOTS_MAX) {
		*ret_i = s->n_top++;
		atomic_store(&s->header->n_top, s->n_top);
	} else {
		ok = false;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return ok;
}

/* A release that comes twice may look at a slot that the first one has freed and an open has taken: who reads what was
 * written then also sees the generation that came with it. */
static void copy(const struct slot *from, struct slot *to)
{
	__atomic_store_n(&to->unique, __atomic_load_n(&from->unique, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	__atomic_store_n(&to->node, __atomic_load_n(&from->node, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	__atomic_store_n(&to->object, __atomic_load_n(&from->object, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	__atomic_store_n(&to->backing_id, __atomic_load_n(&from->backing_id, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

int slots_take(struct slots *s, const struct slot *value, uint64_t *ret_fh)
{
	uint32_t i, generation;
	struct slot *slot;

	if (!take_index(s, &i))
		return -ENFILE;
	slot = &s->slot[i];
	copy(value, slot);
	generation = atomic_load(&slot->generation) + 1;
	atomic_store(&slot->generation, generation);
	*ret_fh = (uint64_t)generation << 32 | i;
	return 0;
}

bool slots_peek(const struct slots *s, uint64_t fh, struct slot *ret_value)
{
	const struct slot *slot = &s->slot[slot_of_fh(fh)];
	uint32_t generation = (uint32_t)(fh >> 32);

	if (!(generation & 1) || atomic_load(&slot->generation) != generation)
		return false;
	copy(slot, ret_value);
	return atomic_load(&slot->generation) == generation;
}

void slots_drop(struct slots *s, uint64_t fh)
{
	uint32_t i = slot_of_fh(fh);

	atomic_store(&s->slot[i].generation, (uint32_t)(fh >> 32) + 1);
	(void)pthread_mutex_lock(&s->lock);
	s->free[s->n_free++] = i;
	(void)pthread_mutex_unlock(&s->lock);
}

bool slots_next(const struct slots *s, uint32_t *i, struct slot *ret_value, uint64_t *ret_fh)
{
	for (uint32_t top = atomic_load(&s->header->n_top); *i < top && *i < SLOTS_MAX;) {
		uint32_t at = (*i)++;
		uint64_t fh = (uint64_t)atomic_load(&s->slot[at].generation) << 32 | at;

		if (!slots_peek(s, fh, ret_value))
			continue;
		*ret_fh = fh;
		return true;
	}
	return false;
}

bool slots_find_unique(const struct slots *s, uint64_t unique, uint64_t *ret_fh)
{
	struct slot v;
	uint32_t i = 0;

	while (slots_next(s, &i, &v, ret_fh))
		if (v.unique == unique)
			return true;
	return false;
}
