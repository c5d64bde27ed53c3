/* Shared by comm.c (the group and its messages) and comm_watch.c (who waits for whom, when nobody goes on). */
#ifndef GPU_COMM_INTERNAL_H
#define GPU_COMM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "gpu/comm.h"
#include "gpu/nccl.h"

enum { COMM_RUNS = 4, COMM_SHOWN = 256 };

/* A program with messages that was launched: what its launches of our own are. */
struct comm_run {
	uint64_t number;    /* of such programs, from 1 on */
	uint32_t first_sum; /* the epoch of its first launch of our own */
	uint32_t n_messages;
	bool is_graph, by_library;
	struct gpu_message messages[COMM_SHOWN]; /* the first ones */
};

/* What a rank's thread says of itself. */
struct comm_rank {
	pthread_mutex_t lock;
	/* protected by lock */
	enum gpu_comm_doing doing;
	uint64_t since_ns;
	uint64_t n_programs;
	uint32_t n_sums;                 /* launches of our own so far, as the device counts them */
	struct comm_run runs[COMM_RUNS]; /* by number % COMM_RUNS */
};

struct comm_watch; /* comm_watch.c */

struct gpu_comm {
	uint32_t n;
	struct gpu_backend *ranks[KN_MAX_RANKS];
	struct gk_comm kernel[KN_MAX_RANKS]; /* of each rank; spaces NULL: devices do not reach each other */
	bool has_peers;
	struct gpu_nccl *nccl;                   /* NULL: not here */
	uint32_t *broken;                        /* pinned; written by gpu_comm_break() */
	size_t one_shot_bytes, captured_bytes;   /* see comm.c */
	_Atomic uint64_t n_met;                  /* arrivals of all ranks where they meet */
	uint64_t meets[KN_MAX_RANKS];            /* each rank's own */
	_Atomic uint64_t forms[2][KN_MAX_RANKS]; /* of the programs that they come with, by meets % 2 */
	_Atomic bool firsts[2][KN_MAX_RANKS];    /* whether they have not launched them yet, likewise */
	bool by_step[KN_MAX_RANKS];              /* each rank's own: what it launches now goes step by step */
	struct comm_rank state[KN_MAX_RANKS];
	struct comm_watch *watch; /* NULL: nobody looks */
	void (*note)(const char *kind, const char *text);
	/* For gathers by the library, of each rank: its own part, then everybody's. */
	char *parts[KN_MAX_RANKS];
	size_t parts_bytes[KN_MAX_RANKS];
};

static inline bool comm_is_broken(const struct gpu_comm *comm)
{
	return __atomic_load_n(comm->broken, __ATOMIC_ACQUIRE);
}

/* ms 0: as usual, or $OCAI_GPU_WATCH seconds. Without memory or a thread for it nobody looks. */
void gpu_comm_watch_start(struct gpu_comm *comm, uint32_t ms);
/* Before anything of the group is given back. */
void gpu_comm_watch_stop(struct gpu_comm *comm);

#endif
