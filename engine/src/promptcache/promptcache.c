/* The cache's threads and its slots. A slot belongs to whoever its state says; handing one over is a change of state
 * under the lock. Reading goes before writing: somebody waits for it. A disk is quick only when it is asked for several
 * things at a time, and a core checks a gigabyte or two per second: half of the cores read, one of them also lists the
 * folder at first, writes and removes. */
#include "promptcache/promptcache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/threadpool.h"
#include "promptcache/folder.h"

enum {
	N_READ = 4,
	N_WRITE = 2,
	N_OWN = N_READ + N_WRITE, /* with memory */
	N_ORDERS = 32,
	N_SLOTS = N_OWN + N_ORDERS,
	PAUSE_S = 30, /* without writing, after it failed */
	MOST_READERS = 8,
	SURE = 16, /* reads after which it is known how long they take, and over which that is smoothed */
};

enum slot_state {
	SLOT_FREE,
	SLOT_OWNER,  /* being filled, or read by the owner */
	SLOT_QUEUED, /* for a thread */
	SLOT_BUSY,   /* the thread's */
	SLOT_DONE,   /* for the owner */
};

struct slot {
	uint8_t *bytes; /* header and payload; NULL: an order */
	enum slot_state state;
	uint64_t order; /* of being queued */
	bool is_read;
	uint64_t tag;
	/* writing */
	struct eng_pc_page page;
	int32_t *ids;     /* [page_tokens] */
	const void *from; /* of an order */
	/* reading */
	struct eng_pc_key key;
	void *into; /* of an order */
	bool is_good;
};

struct reader {
	struct eng_pc *pc;
	pthread_t thread;
	uint8_t *scratch; /* a file of an order; NULL: none yet */
};

struct eng_pc {
	struct eng_pc_config config;
	char *dir;
	int fd, lock_fd;
	size_t header_bytes, file_bytes;
	struct reader readers[MOST_READERS]; /* the first one does all the rest, too */
	unsigned n_readers;
	void (*ready)(void *arg);
	void *ready_arg;

	pthread_mutex_t lock;
	pthread_cond_t work, scanned;
	/* protected by lock */
	struct slot slots[N_SLOTS]; /* those for reading first */
	struct eng_pc_index *index;
	struct eng_pc_stats stats;
	uint64_t n_queued; /* orders given so far */
	uint64_t limit_bytes;
	/* Between begin_ns and now, or what was read last, something was being read all the time. */
	uint32_t n_reading, n_measured;
	uint64_t begin_ns;
	double read_ns; /* as in stats, also while it is not sure yet */
	bool is_scanned, is_stopping;
	time_t quiet_until; /* no writing before */
	struct eng_pc_speed speed;
	bool has_speed, wants_speed; /* it is known; it is to be written */
};

static struct eng_pc_name name_of(const struct eng_pc_key *key)
{
	struct eng_pc_name name;

	memcpy(name.b, key->b, sizeof(name.b));
	return name;
}

/* ---- Removing ---- */

static void unlink_page(void *arg, const struct eng_pc_name *name, const struct eng_pc_name *parent)
{
	struct eng_pc *pc = arg;
	char file[ENG_PC_FILE_NAME];

	eng_pc_file_name(name, parent, file);
	(void)unlinkat(pc->fd, file, 0);
	pc->stats.bytes -= pc->file_bytes;
}

/* Locked. `keep` does not go: it is the page before the one that needs the room, or NULL. */
static void make_room(struct eng_pc *pc, uint64_t bytes, const struct eng_pc_name *keep)
{
	struct eng_pc_name name, parent;

	while (pc->stats.bytes + bytes > pc->limit_bytes && eng_pc_index_pop(pc->index, keep, &name, &parent)) {
		unlink_page(pc, &name, &parent);
		pc->stats.pages_evicted++;
	}
}

static void scan(struct eng_pc *pc)
{
	uint64_t others = eng_pc_folder_trim_others(pc->dir, &pc->config.identity, pc->config.budget_bytes / 2);
	struct eng_pc_index *ix = NULL;
	int r = eng_pc_index_new(&ix);

	if (r == 0)
		r = eng_pc_folder_scan(pc->fd, pc->file_bytes, ix);
	if (r < 0)
		base_log(BASE_LOG_DEBUG, "%s: the prompt cache is not read: %s", pc->dir, strerror(-r));
	(void)pthread_mutex_lock(&pc->lock);
	if (ix) {
		eng_pc_index_free(pc->index);
		pc->index = ix;
		pc->stats.bytes = eng_pc_index_count(ix) * pc->file_bytes;
	}
	pc->limit_bytes = others < pc->config.budget_bytes ? pc->config.budget_bytes - others : 0;
	make_room(pc, 0, NULL);
	pc->is_scanned = true;
	(void)pthread_cond_broadcast(&pc->scanned);
	(void)pthread_cond_broadcast(&pc->work);
	(void)pthread_mutex_unlock(&pc->lock);
}

/* ---- Writing and reading ---- */

static void write_speed(struct eng_pc *pc)
{
	struct eng_pc_speed speed;
	uint8_t file[ENG_PC_SPEED_BYTES];
	int r;

	(void)pthread_mutex_lock(&pc->lock);
	pc->wants_speed = false;
	pc->speed.read_ns = pc->stats.read_ns;
	speed = pc->speed;
	(void)pthread_mutex_unlock(&pc->lock);
	r = eng_pc_speed_seal(&speed, file);
	r = r < 0 ? r : eng_pc_file_write(pc->fd, ENG_PC_SPEED_NAME, file, sizeof(file));
	if (r < 0) /* then the next process finds out by itself */
		base_log(BASE_LOG_DEBUG, "%s: the speed of the prompt cache is not kept: %s", pc->dir, strerror(-r));
}

/* At the beginning. */
static void read_speed(struct eng_pc *pc)
{
	uint8_t file[ENG_PC_SPEED_BYTES];

	if (eng_pc_file_read(pc->fd, ENG_PC_SPEED_NAME, file, sizeof(file), NULL, 0) < 0 ||
	    eng_pc_speed_parse(file, sizeof(file), &pc->speed) < 0)
		return;
	pc->has_speed = true;
	pc->stats.read_ns = pc->read_ns = pc->speed.read_ns;
	pc->n_measured = pc->read_ns > 0 ? SURE : 0;
}

static void count_write_error(struct eng_pc *pc, int r)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	base_log(BASE_LOG_DEBUG, "%s: a page of the prompt cache is not written: %s", pc->dir, strerror(-r));
	(void)pthread_mutex_lock(&pc->lock);
	pc->stats.n_write_errors++;
	pc->quiet_until = ts.tv_sec + PAUSE_S;
	(void)pthread_mutex_unlock(&pc->lock);
}

/* True when the page shall be written; there is room for it then. */
static bool wants_page(struct eng_pc *pc, const struct eng_pc_name *name, const struct eng_pc_name *parent)
{
	static const struct eng_pc_name none;
	struct timespec ts;
	bool wanted;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	(void)pthread_mutex_lock(&pc->lock);
	wanted = ts.tv_sec >= pc->quiet_until && !eng_pc_index_has(pc->index, name) &&
	         (memcmp(parent, &none, sizeof(none)) == 0 || eng_pc_index_has(pc->index, parent));
	if (wanted) {
		eng_pc_index_use(pc->index, parent); /* the last to go */
		make_room(pc, pc->file_bytes, parent);
		wanted = pc->stats.bytes + pc->file_bytes <= pc->limit_bytes;
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return wanted;
}

/* Where the slot's file is put together, of an order that is read its header alone; NULL: no memory. */
static uint8_t *file_of(struct reader *me, struct slot *s)
{
	bool is_first = me == me->pc->readers;

	if (s->bytes)
		return s->bytes;
	if (!me->scratch)
		me->scratch = malloc(is_first ? me->pc->file_bytes : me->pc->header_bytes);
	return me->scratch;
}

static void write_page(struct reader *me, struct slot *s)
{
	struct eng_pc *pc = me->pc;
	struct eng_pc_name name, parent = name_of(&s->page.parent);
	uint8_t *bytes = file_of(me, s);
	char file[ENG_PC_FILE_NAME];
	int r;

	if (!bytes)
		return;
	if (!s->bytes)
		memcpy(bytes + pc->header_bytes, s->from, pc->config.page_bytes);
	if (eng_pc_page_seal(&s->page, s->ids, bytes) < 0)
		return;
	name = name_of(&s->page.key);
	if (!wants_page(pc, &name, &parent))
		return;
	eng_pc_file_name(&name, &parent, file);
	r = eng_pc_file_write(pc->fd, file, bytes, pc->file_bytes);
	if (r < 0) {
		count_write_error(pc, r);
		return;
	}
	(void)pthread_mutex_lock(&pc->lock);
	pc->stats.bytes += pc->file_bytes;
	if (eng_pc_index_add(pc->index, &name, &parent) < 0)
		unlink_page(pc, &name, &parent); /* no memory for its entry */
	else
		pc->stats.pages_written++;
	(void)pthread_mutex_unlock(&pc->lock);
}

static int read_page(struct reader *me, struct slot *s)
{
	const struct eng_pc *pc = me->pc;
	struct eng_pc_name name = name_of(&s->key), parent = name_of(&s->page.parent);
	uint8_t *bytes = file_of(me, s), *payload = s->bytes ? bytes + pc->header_bytes : s->into;
	struct eng_pc_page page;
	char file[ENG_PC_FILE_NAME];
	int r;

	if (!bytes)
		return -ENOMEM;
	eng_pc_file_name(&name, &parent, file);
	r = eng_pc_file_read(pc->fd, file, bytes, pc->header_bytes, payload, pc->config.page_bytes);
	if (r == 0)
		r = eng_pc_page_parse(bytes, pc->header_bytes, payload, pc->config.page_bytes, &page, NULL);
	if (r == 0 && (memcmp(&page.identity, &pc->config.identity, sizeof(page.identity)) != 0 ||
	               memcmp(&page.key, &s->key, sizeof(page.key)) != 0))
		r = -EBADMSG;
	if (r < 0)
		return r;
	s->page = page;
	return 0;
}

/* Locked. Several are read at a time: what counts is how long after another one a page comes. The first ones, alone or
 * together, tell nothing by themselves. */
static void measure(struct eng_pc *pc, bool is_good)
{
	uint64_t now = (uint64_t)base_now_ns();
	double ns = (double)(now - pc->begin_ns);

	pc->begin_ns = now;
	pc->n_reading--;
	if (!is_good)
		return;
	pc->n_measured += pc->n_measured < SURE;
	pc->read_ns += (ns - pc->read_ns) / pc->n_measured;
	if (pc->n_measured == SURE)
		pc->stats.read_ns = pc->read_ns;
}

static void read_slot(struct reader *me, struct slot *s)
{
	struct eng_pc *pc = me->pc;
	struct eng_pc_name name = name_of(&s->key);
	int r = read_page(me, s);

	s->is_good = r == 0;
	(void)pthread_mutex_lock(&pc->lock);
	measure(pc, r == 0);
	if (r == 0) {
		pc->stats.pages_read++;
		eng_pc_index_use(pc->index, &name);
	} else if (r != -ENOMEM && eng_pc_index_has(pc->index, &name)) { /* else it was given up meanwhile */
		pc->stats.n_damaged++;
		eng_pc_index_remove(pc->index, &name, unlink_page, pc);
	}
	(void)pthread_mutex_unlock(&pc->lock);
}

/* Locked. The one that was queued first, reading before writing; which all but the first thread leave alone. */
static struct slot *next_slot(struct eng_pc *pc, bool may_write)
{
	struct slot *best = NULL;

	for (int i = 0; i < N_SLOTS; i++) {
		struct slot *s = &pc->slots[i];

		if (s->state == SLOT_QUEUED && (s->is_read || may_write) &&
		    (!best || s->is_read > best->is_read || (s->is_read == best->is_read && s->order < best->order)))
			best = s;
	}
	return best;
}

/* Locked. What there is to do, once the folder is listed: a slot, or NULL and the speed is to be written; false: it is
 * time to stop. */
static bool await_work(struct eng_pc *pc, bool is_first, struct slot **ret_slot)
{
	for (;;) {
		*ret_slot = pc->is_scanned ? next_slot(pc, is_first) : NULL;
		if (*ret_slot || (is_first && pc->wants_speed))
			return true;
		if (pc->is_stopping)
			return false;
		(void)pthread_cond_wait(&pc->work, &pc->lock);
	}
}

/* Locked. */
static void take_up(struct eng_pc *pc, struct slot *s)
{
	s->state = SLOT_BUSY;
	if (s->is_read && pc->n_reading++ == 0)
		pc->begin_ns = (uint64_t)base_now_ns();
}

static void *run(void *arg)
{
	struct reader *me = arg;
	struct eng_pc *pc = me->pc;
	bool is_first = me == pc->readers;
	struct slot *s;

	if (is_first)
		scan(pc);
	(void)pthread_mutex_lock(&pc->lock);
	while (await_work(pc, is_first, &s)) {
		if (s)
			take_up(pc, s);
		(void)pthread_mutex_unlock(&pc->lock);
		if (!s)
			write_speed(pc);
		else if (s->is_read)
			read_slot(me, s);
		else
			write_page(me, s);
		(void)pthread_mutex_lock(&pc->lock);
		if (!s)
			continue;
		s->state = s->is_read || !s->bytes ? SLOT_DONE : SLOT_FREE;
		(void)pthread_mutex_unlock(&pc->lock);
		if (pc->ready)
			pc->ready(pc->ready_arg);
		(void)pthread_mutex_lock(&pc->lock);
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return NULL;
}

/* ---- Life ---- */

static int make_slots(struct eng_pc *pc)
{
	for (int i = 0; i < N_SLOTS; i++) {
		struct slot *s = &pc->slots[i];

		/* Memory only once it is written to: the slots of a cache that is not used cost nothing. */
		s->bytes = i < N_OWN ? malloc(pc->file_bytes) : NULL;
		s->ids = calloc(pc->config.page_tokens, sizeof(*s->ids));
		if ((i < N_OWN && !s->bytes) || !s->ids)
			return -ENOMEM;
	}
	return eng_pc_index_new(&pc->index);
}

static int start_readers(struct eng_pc *pc)
{
	unsigned n = base_cpu_count() / 2;
	int r = 0;

	n = n < 1 ? 1 : n > MOST_READERS ? MOST_READERS : n;
	while (pc->n_readers < n) {
		struct reader *me = &pc->readers[pc->n_readers];

		me->pc = pc;
		r = -pthread_create(&me->thread, NULL, run, me);
		if (r < 0)
			break;
		(void)pthread_setname_np(me->thread, "eng-cache");
		pc->n_readers++;
	}
	return pc->n_readers > 0 ? 0 : r;
}

int eng_pc_open(const struct eng_pc_config *config, struct eng_pc **ret_pc, struct err *err)
{
	struct eng_pc *pc;
	int r;

	if (config->page_tokens == 0 || config->page_tokens > ENG_PC_MAX_TOKENS || config->page_bytes == 0 ||
	    config->page_bytes > SIZE_MAX / 4)
		return err_set(err, -EINVAL, "prompt cache: pages of %u tokens and %llu bytes", config->page_tokens,
		               (unsigned long long)config->page_bytes);
	pc = calloc(1, sizeof(*pc));
	if (!pc)
		return err_set(err, -ENOMEM, "out of memory");
	pc->fd = pc->lock_fd = -1;
	pc->config = *config;
	pc->header_bytes = eng_pc_header_bytes(config->page_tokens);
	pc->file_bytes = pc->header_bytes + config->page_bytes;
	(void)pthread_mutex_init(&pc->lock, NULL);
	(void)pthread_cond_init(&pc->work, NULL);
	(void)pthread_cond_init(&pc->scanned, NULL);
	if (config->budget_bytes < pc->file_bytes)
		r = err_set(err, -EINVAL, "prompt cache: %llu bytes do not hold one page of %zu bytes",
		            (unsigned long long)config->budget_bytes, pc->file_bytes);
	else
		r = eng_pc_folder_open(config->dir, &config->identity, &pc->fd, &pc->lock_fd, err);
	if (r == 0 && (!(pc->dir = strdup(config->dir)) || make_slots(pc) < 0))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0) {
		read_speed(pc);
		r = start_readers(pc);
		if (r < 0)
			(void)err_set(err, r, "prompt cache: %s", strerror(-r));
	}
	if (r < 0) {
		eng_pc_close(pc);
		return r;
	}
	*ret_pc = pc;
	return 0;
}

void eng_pc_close(struct eng_pc *pc)
{
	if (!pc)
		return;
	(void)pthread_mutex_lock(&pc->lock);
	pc->is_stopping = true;
	(void)pthread_cond_broadcast(&pc->work);
	(void)pthread_mutex_unlock(&pc->lock);
	for (unsigned i = 0; i < pc->n_readers; i++) {
		(void)pthread_join(pc->readers[i].thread, NULL);
		free(pc->readers[i].scratch);
	}
	for (int i = 0; i < N_SLOTS; i++) {
		free(pc->slots[i].bytes);
		free(pc->slots[i].ids);
	}
	eng_pc_index_free(pc->index);
	if (pc->fd >= 0)
		(void)close(pc->fd);
	if (pc->lock_fd >= 0)
		(void)close(pc->lock_fd);
	(void)pthread_mutex_destroy(&pc->lock);
	(void)pthread_cond_destroy(&pc->work);
	(void)pthread_cond_destroy(&pc->scanned);
	free(pc->dir);
	free(pc);
}

void eng_pc_set_ready(struct eng_pc *pc, void (*fn)(void *arg), void *arg)
{
	pc->ready = fn;
	pc->ready_arg = arg;
}

/* ---- For the owner ---- */

const struct eng_pc_key *eng_pc_identity(const struct eng_pc *pc)
{
	return &pc->config.identity;
}

int eng_pc_key(const struct eng_pc *pc, const struct eng_pc_key *parent, const int32_t *ids, struct eng_pc_key *ret_key)
{
	return eng_pc_key_next(&pc->config.identity, parent, ids, pc->config.page_tokens, ret_key);
}

bool eng_pc_has(struct eng_pc *pc, const struct eng_pc_key *key)
{
	struct eng_pc_name name = name_of(key);
	bool has;

	(void)pthread_mutex_lock(&pc->lock);
	while (!pc->is_scanned)
		(void)pthread_cond_wait(&pc->scanned, &pc->lock);
	has = eng_pc_index_has(pc->index, &name);
	(void)pthread_mutex_unlock(&pc->lock);
	return has;
}

bool eng_pc_get_speed(struct eng_pc *pc, struct eng_pc_speed *ret_speed)
{
	bool has_speed;

	(void)pthread_mutex_lock(&pc->lock);
	has_speed = pc->has_speed;
	if (has_speed)
		*ret_speed = pc->speed;
	(void)pthread_mutex_unlock(&pc->lock);
	return has_speed;
}

void eng_pc_keep_speed(struct eng_pc *pc, const struct eng_pc_speed *speed)
{
	(void)pthread_mutex_lock(&pc->lock);
	pc->speed = *speed;
	pc->has_speed = pc->wants_speed = true;
	(void)pthread_cond_broadcast(&pc->work); /* the first one is meant */
	(void)pthread_mutex_unlock(&pc->lock);
}

void eng_pc_get_stats(struct eng_pc *pc, struct eng_pc_stats *ret_stats)
{
	(void)pthread_mutex_lock(&pc->lock);
	*ret_stats = pc->stats;
	(void)pthread_mutex_unlock(&pc->lock);
}

/* Locked. */
static struct slot *free_slot(struct eng_pc *pc, int from, int to)
{
	for (int i = from; i < to; i++) {
		if (pc->slots[i].state == SLOT_FREE)
			return &pc->slots[i];
	}
	return NULL;
}

/* Locked. */
static void queue(struct eng_pc *pc, struct slot *s, bool is_read)
{
	s->is_read = is_read;
	s->order = pc->n_queued++;
	s->state = SLOT_QUEUED;
	(void)pthread_cond_broadcast(&pc->work);
}

void *eng_pc_store_slot(struct eng_pc *pc)
{
	struct slot *s;

	(void)pthread_mutex_lock(&pc->lock);
	s = free_slot(pc, N_READ, N_OWN);
	if (s)
		s->state = SLOT_OWNER;
	(void)pthread_mutex_unlock(&pc->lock);
	return s ? s->bytes + pc->header_bytes : NULL;
}

static void describe(struct eng_pc *pc, struct slot *s, const struct eng_pc_key *parent, const int32_t *ids,
                     uint64_t compute_ns)
{
	s->page = (struct eng_pc_page){ .identity = pc->config.identity,
		                        .parent = *parent,
		                        .n_tokens = pc->config.page_tokens,
		                        .compute_ns = compute_ns,
		                        .payload_bytes = pc->config.page_bytes };
	memcpy(s->ids, ids, pc->config.page_tokens * sizeof(*ids));
}

void eng_pc_store(struct eng_pc *pc, void *bytes, const struct eng_pc_key *parent, const int32_t *ids,
                  uint64_t compute_ns)
{
	struct slot *s = &pc->slots[N_READ];

	while (s->bytes + pc->header_bytes != bytes)
		s++;
	describe(pc, s, parent, ids, compute_ns);
	(void)pthread_mutex_lock(&pc->lock);
	queue(pc, s, false);
	(void)pthread_mutex_unlock(&pc->lock);
}

bool eng_pc_store_from(struct eng_pc *pc, const struct eng_pc_key *parent, const int32_t *ids, uint64_t compute_ns,
                       uint64_t tag, const void *from)
{
	struct slot *s;

	(void)pthread_mutex_lock(&pc->lock);
	s = free_slot(pc, N_OWN, N_SLOTS);
	if (s) {
		describe(pc, s, parent, ids, compute_ns);
		s->from = from;
		s->tag = tag;
		queue(pc, s, false);
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return s != NULL;
}

bool eng_pc_take_stored(struct eng_pc *pc, uint64_t *ret_tag)
{
	bool found = false;

	(void)pthread_mutex_lock(&pc->lock);
	for (int i = N_OWN; i < N_SLOTS && !found; i++) {
		struct slot *s = &pc->slots[i];

		found = s->state == SLOT_DONE && !s->is_read;
		if (found) {
			*ret_tag = s->tag;
			s->state = SLOT_FREE;
		}
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return found;
}

static bool load(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag,
                 void *into)
{
	struct slot *s;

	(void)pthread_mutex_lock(&pc->lock);
	s = into ? free_slot(pc, N_OWN, N_SLOTS) : free_slot(pc, 0, N_READ);
	if (s) {
		s->key = *key;
		s->page.parent = *parent;
		s->tag = tag;
		s->into = into;
		queue(pc, s, true);
	}
	(void)pthread_mutex_unlock(&pc->lock);
	return s != NULL;
}

bool eng_pc_load(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag)
{
	return load(pc, parent, key, tag, NULL);
}

bool eng_pc_load_into(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag,
                      void *into)
{
	return load(pc, parent, key, tag, into);
}

bool eng_pc_take(struct eng_pc *pc, struct eng_pc_loaded *ret_loaded)
{
	struct slot *best = NULL;

	(void)pthread_mutex_lock(&pc->lock);
	for (int i = 0; i < N_SLOTS; i++) {
		struct slot *s = &pc->slots[i];

		if (s->state >= SLOT_QUEUED && s->is_read && (!best || s->order < best->order))
			best = s;
	}
	if (best && best->state != SLOT_DONE)
		best = NULL; /* its turn first */
	if (best)
		best->state = SLOT_OWNER;
	(void)pthread_mutex_unlock(&pc->lock);
	if (!best)
		return false;
	*ret_loaded = (struct eng_pc_loaded){ .tag = best->tag,
		                              .page = !best->is_good ? NULL
		                                      : best->bytes  ? best->bytes + pc->header_bytes
		                                                     : best->into,
		                              .compute_ns = best->is_good ? best->page.compute_ns : 0,
		                              .slot = (uint32_t)(best - pc->slots) };
	return true;
}

void eng_pc_release(struct eng_pc *pc, const struct eng_pc_loaded *loaded)
{
	(void)pthread_mutex_lock(&pc->lock);
	pc->slots[loaded->slot].state = SLOT_FREE;
	(void)pthread_mutex_unlock(&pc->lock);
}
