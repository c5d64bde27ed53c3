/* NCCL's functions as its documentation has them, in plain loops over ordinary memory: what test_gpu_nccl.c is run
 * with. Ranks meet at every call, whatever thread they are on; an aborted communicator lets all of them go. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INTERNAL_ERROR = 3, FLOAT32 = 7, BFLOAT16 = 9, MOST = 16 };

struct clique {
	pthread_mutex_t lock;
	pthread_cond_t met;
	uint32_t n, n_here, n_left, n_alive;
	uint64_t turn;
	bool is_aborted;
	const void *from[MOST];
};

struct nccl_comm_object {
	struct clique *c;
	uint32_t rank;
};
typedef struct nccl_comm_object *nccl_comm;

int ncclGetVersion(int *version);
const char *ncclGetErrorString(int result);
int ncclCommInitAll(nccl_comm *comms, int n, const int *devices);
int ncclCommDestroy(nccl_comm comm);
int ncclCommAbort(nccl_comm comm);
int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, nccl_comm comm, void *stream);
int ncclAllGather(const void *from, void *to, size_t n, int type, nccl_comm comm, void *stream);

int ncclGetVersion(int *version)
{
	*version = 22703;
	return SUCCESS;
}

const char *ncclGetErrorString(int result)
{
	return result == SUCCESS ? "no error" : "internal error";
}

int ncclCommInitAll(nccl_comm *comms, int n, const int *devices)
{
	struct clique *c = calloc(1, sizeof(*c));

	(void)devices;
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->met, NULL);
	c->n = c->n_alive = (uint32_t)n;
	for (int i = 0; i < n; i++) {
		comms[i] = calloc(1, sizeof(*comms[i]));
		comms[i]->c = c;
		comms[i]->rank = (uint32_t)i;
	}
	return SUCCESS;
}

int ncclCommDestroy(nccl_comm comm)
{
	struct clique *c = comm->c;
	bool is_last;

	(void)pthread_mutex_lock(&c->lock);
	is_last = --c->n_alive == 0;
	(void)pthread_mutex_unlock(&c->lock);
	free(comm);
	if (is_last)
		free(c);
	return SUCCESS;
}

/* Ranks may still be inside: what they hold is kept. */
static nccl_comm aborted[4 * MOST];
static uint32_t n_aborted;

int ncclCommAbort(nccl_comm comm)
{
	(void)pthread_mutex_lock(&comm->c->lock);
	aborted[n_aborted++ % (4 * MOST)] = comm;
	comm->c->is_aborted = true;
	(void)pthread_cond_broadcast(&comm->c->met);
	(void)pthread_mutex_unlock(&comm->c->lock);
	return SUCCESS;
}

/* Until all have come; false: aborted. With the lock. */
static bool meet(struct clique *c)
{
	uint64_t turn = c->turn;

	if (++c->n_here == c->n) {
		c->n_here = 0;
		c->turn++;
		(void)pthread_cond_broadcast(&c->met);
	}
	while (c->turn == turn && !c->is_aborted)
		(void)pthread_cond_wait(&c->met, &c->lock);
	return !c->is_aborted;
}

static float load(const void *p, size_t i, int type)
{
	uint32_t bits;
	float f;

	if (type == FLOAT32)
		return ((const float *)p)[i];
	bits = (uint32_t)((const uint16_t *)p)[i] << 16;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

static void store(void *p, size_t i, int type, float f)
{
	uint32_t bits;

	if (type == FLOAT32) {
		((float *)p)[i] = f;
		return;
	}
	memcpy(&bits, &f, sizeof(bits));
	bits += 0x7fff + (bits >> 16 & 1);
	((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
}

int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, nccl_comm comm, void *stream)
{
	struct clique *c = comm->c;
	float *sums = malloc(n * sizeof(*sums));
	bool ok;

	(void)stream;
	(void)op;
	(void)pthread_mutex_lock(&c->lock);
	c->from[comm->rank] = from;
	ok = meet(c);
	for (size_t i = 0; i < n && ok; i++) {
		sums[i] = 0;
		for (uint32_t r = 0; r < c->n; r++)
			sums[i] += load(c->from[r], i, type);
	}
	ok = ok && meet(c); /* all have read */
	for (size_t i = 0; i < n && ok; i++)
		store(to, i, type, sums[i]);
	(void)pthread_mutex_unlock(&c->lock);
	free(sums);
	return ok ? SUCCESS : INTERNAL_ERROR;
}

int ncclAllGather(const void *from, void *to, size_t n, int type, nccl_comm comm, void *stream)
{
	struct clique *c = comm->c;
	size_t bytes = n * (type == FLOAT32 ? 4 : 2);
	bool ok;

	(void)stream;
	(void)pthread_mutex_lock(&c->lock);
	c->from[comm->rank] = from;
	ok = meet(c);
	for (uint32_t r = 0; r < c->n && ok; r++)
		memcpy((char *)to + r * bytes, c->from[r], bytes);
	ok = ok && meet(c);
	(void)pthread_mutex_unlock(&c->lock);
	return ok ? SUCCESS : INTERNAL_ERROR;
}
