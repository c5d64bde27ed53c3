/* The reference backend: plain C, one thread, the definition of the right answer. Sums are accumulated
 * in double and rounded to float once, in a fixed order per row, so that a row's result never depends on
 * what else is in the batch. Nothing here is optimised at the price of clarity. */
#include "ref/ref.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct ref_backend {
	struct kn_backend base;
	float *scratch; /* grown while matrices are prepared */
	size_t n_scratch;
	int error;
};

void *ref_alloc(struct kn_backend *be, size_t bytes)
{
	void *p = NULL;

	(void)be;
	return posix_memalign(&p, 64, bytes ? bytes : 64) == 0 ? p : NULL;
}

void ref_free(struct kn_backend *be, void *p)
{
	(void)be;
	free(p);
}

void ref_upload(struct kn_backend *be, void *dst, const void *host, size_t bytes)
{
	(void)be;
	memcpy(dst, host, bytes);
}

void ref_download(struct kn_backend *be, void *host, const void *src, size_t bytes)
{
	(void)be;
	memcpy(host, src, bytes);
}

void ref_copy(struct kn_backend *be, void *dst, const void *src, size_t bytes)
{
	(void)be;
	memcpy(dst, src, bytes);
}

int ref_mat_init(struct kn_backend *be, struct kn_mat *m)
{
	(void)be;
	if (kn_row_bytes(m->dtype, m->cols) == 0)
		return -EINVAL;
	m->packed = NULL;
	m->packed_bytes = 0;
	return 0;
}

void ref_mat_done(struct kn_backend *be, struct kn_mat *m)
{
	(void)be;
	m->data = NULL;
}

/* ---- What needs the backend's own memory ---- */

static int grow_scratch(struct ref_backend *ref, size_t n)
{
	float *p;

	if (n <= ref->n_scratch)
		return 0;
	p = realloc(ref->scratch, n * sizeof(*p));
	if (!p)
		return -ENOMEM;
	ref->scratch = p;
	ref->n_scratch = n;
	return 0;
}

/* An expert is [n_ff, dim] or [dim, n_ff]: three times the longer side holds what ref_moe_scratch() asks for. */
static int mat_init_growing(struct kn_backend *be, struct kn_mat *m)
{
	struct ref_backend *ref = (struct ref_backend *)be;
	size_t longest = m->rows > m->cols ? m->rows : m->cols;
	int r = ref_mat_init(be, m);

	return r < 0 ? r : grow_scratch(ref, 3 * longest);
}

static void moe(struct kn_backend *be, const struct kn_moe *moe, float *out, size_t ld_out, const float *x, size_t ld_x,
                size_t n, size_t dim, uint32_t top_k, const int32_t *ids, const float *weights)
{
	struct ref_backend *ref = (struct ref_backend *)be;

	/* Allocates only for matrices that another backend of this kind prepared. */
	if (grow_scratch(ref, 2 * (size_t)moe->n_ff + dim) < 0) {
		ref->error = -ENOMEM;
		return;
	}
	ref_moe_scratch(be, moe, out, ld_out, x, ld_x, n, dim, top_k, ids, weights, ref->scratch);
}

static void pick(struct kn_backend *be, const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
                 const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret)
{
	struct ref_backend *ref = (struct ref_backend *)be;

	/* Allocates at the first call only. */
	if (grow_scratch(ref, n_vocab * sizeof(struct kn_best) / sizeof(float)) < 0) {
		ref->error = -ENOMEM;
		return;
	}
	ref_pick_scratch(logits, ld, n, n_vocab, softcap, picks, n_best, ret_best, ret, (struct kn_best *)ref->scratch);
}

static int sync_error(struct kn_backend *be)
{
	struct ref_backend *ref = (struct ref_backend *)be;
	int r = ref->error;

	ref->error = 0;
	return r;
}

static void ref_close(struct kn_backend *be)
{
	struct ref_backend *ref = (struct ref_backend *)be;

	free(ref->scratch);
	free(ref);
}

static const struct kn_ops ref_ops = {
	.name = "ref",
	.close = ref_close,
	.sync = sync_error,
	.alloc = ref_alloc,
	.free = ref_free,
	.upload = ref_upload,
	.download = ref_download,
	.copy = ref_copy,
	.mat_init = mat_init_growing,
	.mat_done = ref_mat_done,
	.embed = ref_embed,
	.rmsnorm = ref_rmsnorm,
	.layernorm = ref_layernorm,
	.matmul = ref_matmul,
	.rope = ref_rope,
	.kv_store = ref_kv_store,
	.attention = ref_attention,
	.conv_silu = ref_conv_silu,
	.delta_rule = ref_delta_rule,
	.gated_rmsnorm = ref_gated_rmsnorm,
	.gate_rows = ref_gate_rows,
	.act_mul = ref_act_mul,
	.add = ref_add,
	.route = ref_route,
	.moe = moe,
	.pick = pick,
};

int kn_ref_open(const struct kn_config *config, struct kn_backend **ret_backend, struct err *err)
{
	struct ref_backend *ref = calloc(1, sizeof(*ref));

	(void)config;
	if (!ref)
		return err_set(err, -ENOMEM, "no memory for the reference backend");
	ref->base.ops = &ref_ops;
	ref->base.keeps_states = true;
	*ret_backend = &ref->base;
	return 0;
}
