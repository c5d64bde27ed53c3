/* The handful of functions of NCCL that are needed, declared here as its documentation of 2.x has them: the library is
 * a quarter of a gigabyte and therefore neither linked nor required, nor is its header. RCCL has them under the same
 * names. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/nccl.h"
#include "gpu/vendor.h"

typedef struct nccl_comm_object *nccl_comm;
enum { NCCL_SUCCESS = 0, NCCL_FLOAT32 = 7, NCCL_BFLOAT16 = 9, NCCL_SUM = 0, LEAST_VERSION = 21000 /* bfloat16 */ };

struct functions {
	int (*get_version)(int *version);
	const char *(*get_error_string)(int result);
	int (*comm_init_all)(nccl_comm *comms, int n, const int *devices);
	int (*comm_destroy)(nccl_comm comm);
	int (*comm_abort)(nccl_comm comm);
	int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, nccl_comm comm, void *stream);
	int (*all_gather)(const void *from, void *to, size_t n, int type, nccl_comm comm, void *stream);
};

struct gpu_nccl {
	struct functions f;
	uint32_t n;
	atomic_bool is_aborted;
	pthread_t aborting;
	bool is_aborting;
	nccl_comm comms[KN_MAX_RANKS];
};

static bool resolve(void *library, struct functions *f)
{
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "ncclGetVersion", &f->get_version },    { "ncclGetErrorString", &f->get_error_string },
		{ "ncclCommInitAll", &f->comm_init_all }, { "ncclCommDestroy", &f->comm_destroy },
		{ "ncclCommAbort", &f->comm_abort },      { "ncclAllReduce", &f->all_reduce },
		{ "ncclAllGather", &f->all_gather },
	};

	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *p = dlsym(library, symbols[i].name);

		if (!p)
			return false;
		memcpy(symbols[i].slot, &p, sizeof(p));
	}
	return true;
}

struct gpu_nccl *gpu_nccl_open(const char *kind, const int *devices, uint32_t n, char *reason, size_t reason_bytes)
{
	const char *name = strcmp(kind, "hip") == 0 ? "librccl.so.1" : "libnccl.so.2";
	void *library = gpu_open_in(getenv("OCAI_GPU_LIBS"), name);
	struct gpu_nccl *nccl = calloc(1, sizeof(*nccl));
	int version = 0, r;

	if (!library)
		library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!library || !nccl) {
		(void)snprintf(reason, reason_bytes, "%s is not here", name);
		free(nccl);
		return NULL;
	}
	if (!resolve(library, &nccl->f) || nccl->f.get_version(&version) != NCCL_SUCCESS || version < LEAST_VERSION) {
		(void)snprintf(reason, reason_bytes, "%s is too old (%d)", name, version);
		free(nccl);
		return NULL;
	}
	/* What it takes for connections is taken here, not from what K and V have left by the first long prompt. */
	(void)setenv("NCCL_RUNTIME_CONNECT", "0", 0);
	r = nccl->f.comm_init_all(nccl->comms, (int)n, devices);
	if (r != NCCL_SUCCESS) {
		(void)snprintf(reason, reason_bytes, "%s: %s", name, nccl->f.get_error_string(r));
		free(nccl);
		return NULL;
	}
	nccl->n = n;
	return nccl; /* the library stays loaded */
}

static void *abort_all(void *arg)
{
	struct gpu_nccl *nccl = arg;

	for (uint32_t i = 0; i < nccl->n; i++)
		(void)nccl->f.comm_abort(nccl->comms[i]);
	return NULL;
}

/* By a thread of its own: it may wait for what other ranks have launched, and who calls may be one that they wait for.
 */
void gpu_nccl_abort(struct gpu_nccl *nccl)
{
	if (!nccl || atomic_exchange(&nccl->is_aborted, true))
		return;
	nccl->is_aborting = pthread_create(&nccl->aborting, NULL, abort_all, nccl) == 0;
}

void gpu_nccl_close(struct gpu_nccl *nccl)
{
	if (!nccl)
		return;
	if (nccl->is_aborting)
		(void)pthread_join(nccl->aborting, NULL);
	for (uint32_t i = 0; i < nccl->n && !atomic_load(&nccl->is_aborted); i++)
		(void)nccl->f.comm_destroy(nccl->comms[i]);
	free(nccl);
}

static int type_of(uint32_t elem)
{
	return elem == GK_BF16 ? NCCL_BFLOAT16 : NCCL_FLOAT32;
}

int gpu_nccl_all_reduce(struct gpu_nccl *nccl, uint32_t rank, void *p, size_t n, uint32_t elem, void *stream)
{
	if (atomic_load(&nccl->is_aborted))
		return -EIO;
	return nccl->f.all_reduce(p, p, n, type_of(elem), NCCL_SUM, nccl->comms[rank], stream) == NCCL_SUCCESS ? 0
	                                                                                                       : -EIO;
}

int gpu_nccl_all_gather(struct gpu_nccl *nccl, uint32_t rank, const void *from, void *to, size_t n, uint32_t elem,
                        void *stream)
{
	if (atomic_load(&nccl->is_aborted))
		return -EIO;
	return nccl->f.all_gather(from, to, n, type_of(elem), nccl->comms[rank], stream) == NCCL_SUCCESS ? 0 : -EIO;
}
