/* The cache's threads. Reading goes before writing: somebody waits for it. A disk is quick only when it is asked for
 * several things at a time, and a core checks a gigabyte or two per second: half of the cores read, one of them also
 * lists the folder at first, writes and removes. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/threadpool.h"
#include "promptcache/folder.h"
#include "promptcache/promptcache_internal.h"

enum {
	PAUSE_S = 30, /* without writing, after it failed */
	SURE = 16,    /* reads after which it is known how long they take, and over which that is smoothed */
};

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

void eng_pc_read_speed(struct eng_pc *pc)
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

int eng_pc_start_readers(struct eng_pc *pc)
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
