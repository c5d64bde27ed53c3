/* Shared by promptcache.c (life, and what the owner asks) and readers.c (the threads that read and write). A slot
 * belongs to whoever its state says; handing one over is a change of state under the lock. */
#ifndef ENG_PROMPTCACHE_INTERNAL_H
#define ENG_PROMPTCACHE_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "promptcache/index.h"
#include "promptcache/promptcache.h"

enum {
	N_READ = 4,
	N_WRITE = 2,
	N_OWN = N_READ + N_WRITE, /* with memory */
	N_ORDERS = 32,
	N_SLOTS = N_OWN + N_ORDERS,
	MOST_READERS = 8,
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

static inline struct eng_pc_name name_of(const struct eng_pc_key *key)
{
	struct eng_pc_name name;

	memcpy(name.b, key->b, sizeof(name.b));
	return name;
}

/* What the process before this one kept, before there are threads. */
void eng_pc_read_speed(struct eng_pc *pc);
/* One at least, or a negative errno; eng_pc_close() ends them. */
int eng_pc_start_readers(struct eng_pc *pc);

#endif
