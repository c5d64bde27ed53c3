/* Who reads and writes what, and which allocations a program may keep in bfloat16.
 *
 * An allocation is kept so when every operation on it in this program takes it, the program writes it before it reads
 * it, and reads it at all: what is only written may be meant for whoever downloads it. The residual stream, which is
 * added to, stays float32, as do logits of routers. */
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"

static void add(struct gpu_access *list, uint32_t *n, const struct gpu_act *act, uint32_t width, unsigned flags)
{
	if (act->alloc != NO_ACT)
		list[(*n)++] = (struct gpu_access){ act, width, flags };
}

uint32_t gpu_accesses(const union gpu_rec *rec, struct gpu_access *ret)
{
	uint32_t n = 0, width;

	switch ((enum gpu_op)rec->h.op) {
	case OP_EMBED:
		add(ret, &n, &rec->embed.out, rec->embed.m->m.cols, ACCESS_WRITE);
		break;
	case OP_NORM:
		width = rec->norm.n_head * rec->norm.dim;
		add(ret, &n, &rec->norm.x, width, ACCESS_READ);
		add(ret, &n, &rec->norm.out, width, ACCESS_WRITE);
		break;
	case OP_MATMUL:
		add(ret, &n, &rec->matmul.x, rec->matmul.job[0].m->m.cols, ACCESS_READ);
		for (uint32_t i = 0; i < rec->h.n_jobs; i++) {
			const struct rec_job *j = &rec->matmul.job[i];

			add(ret, &n, &j->out, j->m->m.rows,
			    j->accumulate ? ACCESS_READ | ACCESS_WRITE | ACCESS_F32 : ACCESS_WRITE);
		}
		break;
	case OP_ROPE:
		add(ret, &n, &rec->rope.x, rec->rope.n_head * rec->rope.head_dim, ACCESS_READ | ACCESS_WRITE);
		break;
	case OP_KV_STORE:
		add(ret, &n, &rec->kv_store.k, rec->kv_store.kv.n_kv_head * rec->kv_store.kv.k_dim, ACCESS_READ);
		add(ret, &n, &rec->kv_store.v, rec->kv_store.kv.n_kv_head * rec->kv_store.kv.v_dim, ACCESS_READ);
		break;
	case OP_ATTENTION:
		add(ret, &n, &rec->attention.q, rec->attention.n_head * rec->attention.kv.k_dim, ACCESS_READ);
		add(ret, &n, &rec->attention.out, rec->attention.n_head * rec->attention.kv.v_dim, ACCESS_WRITE);
		break;
	case OP_ACT:
		add(ret, &n, &rec->act.gate, rec->act.dim, ACCESS_READ);
		add(ret, &n, &rec->act.up, rec->act.dim, ACCESS_READ);
		add(ret, &n, &rec->act.out, rec->act.dim, ACCESS_WRITE);
		break;
	case OP_ADD:
		add(ret, &n, &rec->add.y, rec->add.dim, ACCESS_READ);
		add(ret, &n, &rec->add.x, rec->add.dim, ACCESS_READ | ACCESS_WRITE | ACCESS_F32);
		break;
	case OP_ROUTE:
		add(ret, &n, &rec->route.logits, rec->route.n_expert, ACCESS_READ | ACCESS_F32);
		break;
	case OP_MOE:
		add(ret, &n, &rec->moe.x, rec->moe.dim, ACCESS_READ);
		add(ret, &n, &rec->moe.out, rec->moe.dim, ACCESS_READ | ACCESS_WRITE | ACCESS_F32);
		break;
	case OP_PICK:
		add(ret, &n, &rec->pick.logits, rec->pick.n_vocab, ACCESS_READ | ACCESS_F32);
		break;
	case OP_CONV:
		add(ret, &n, &rec->conv.x, rec->conv.n_channels, ACCESS_READ);
		add(ret, &n, &rec->conv.out, rec->conv.n_channels, ACCESS_WRITE);
		break;
	case OP_DELTA:
		width = rec->delta.n_v_head * rec->delta.v_dim;
		add(ret, &n, &rec->delta.qkv, 2 * rec->delta.n_k_head * rec->delta.k_dim + width, ACCESS_READ);
		add(ret, &n, &rec->delta.ba, 2 * rec->delta.n_v_head, ACCESS_READ);
		add(ret, &n, &rec->delta.out, width, ACCESS_WRITE);
		break;
	case OP_GATED_NORM:
		width = rec->gated_norm.n_head * rec->gated_norm.dim;
		add(ret, &n, &rec->gated_norm.x, width, ACCESS_READ);
		add(ret, &n, &rec->gated_norm.gate, width, ACCESS_READ);
		add(ret, &n, &rec->gated_norm.out, width, ACCESS_WRITE);
		break;
	case OP_GATE_ROWS:
		add(ret, &n, &rec->gate_rows.gate, 1, ACCESS_READ);
		add(ret, &n, &rec->gate_rows.x, (uint32_t)rec->gate_rows.dim, ACCESS_READ | ACCESS_WRITE);
		break;
	case OP_COMM:
		add(ret, &n, &rec->comm.x, rec->comm.dim,
		    rec->comm.kind == COMM_CLEAR ? ACCESS_WRITE : ACCESS_READ | ACCESS_WRITE);
		break;
	case N_OPS:
		break;
	}
	return n;
}

void gpu_choose_types(struct gpu_backend *be, struct gpu_program *p)
{
	struct gpu_access list[MAX_ACCESSES];

	/* is_bf16 until something speaks against it: with what is read after it was written it begins. */
	for (uint32_t i = 0; i < p->n_recs; i++) {
		uint32_t n = gpu_accesses(p->recs[i], list);

		for (uint32_t k = 0; k < n; k++) {
			uint32_t a = list[k].act->alloc;

			if ((list[k].flags & ACCESS_READ) && !p->writes[a])
				p->reads_first[a] = true;
			if (list[k].flags & ACCESS_READ)
				p->is_bf16[a] = true;
			if (list[k].flags & ACCESS_WRITE)
				p->writes[a] = true;
		}
	}
	for (uint32_t i = 0; i < p->n_recs; i++) {
		uint32_t n = gpu_accesses(p->recs[i], list);

		for (uint32_t k = 0; k < n; k++) {
			if (list[k].flags & ACCESS_F32)
				p->is_bf16[list[k].act->alloc] = false;
		}
	}
	for (uint32_t a = 0; a < p->n_allocs; a++) {
		if (be->exact || p->reads_first[a] || be->heap.allocs[a].stays_f32)
			p->is_bf16[a] = false;
	}
}
