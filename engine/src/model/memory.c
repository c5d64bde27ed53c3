/* What a model owns: host memory, backend memory and prepared matrices, each remembered in a list, so that
 * one function gives everything back however far loading came. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"
#include "weights/weights.h"

static int list_push(struct ptr_list *list, void *p)
{
	void **grown;
	size_t cap;

	if (list->n == list->cap) {
		cap = list->cap ? list->cap * 2 : 64;
		grown = realloc(list->p, cap * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		list->p = grown;
		list->cap = cap;
	}
	list->p[list->n++] = p;
	return 0;
}

void *model_host_alloc(struct eng_model *m, size_t bytes)
{
	void *p = NULL;

	if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0)
		return NULL;
	if (list_push(&m->host, p) < 0) {
		free(p);
		return NULL;
	}
	m->info.own_bytes += bytes;
	return p;
}

void model_host_free(struct eng_model *m, void *p)
{
	if (!p || m->host.n == 0 || m->host.p[m->host.n - 1] != p)
		return; /* model_unload() does */
	m->host.n--;
	free(p);
}

float *model_upload(struct eng_model *m, const float *values, size_t n)
{
	const struct kn_ops *ops = m->backend->ops;
	float *p = ops->alloc(m->backend, n * sizeof(*p));

	if (!p)
		return NULL;
	if (list_push(&m->device, p) < 0) {
		ops->free(m->backend, p);
		return NULL;
	}
	ops->upload(m->backend, p, values, n * sizeof(*p));
	m->info.own_bytes += n * sizeof(*p);
	return p;
}

int model_mat(struct eng_model *m, const char *name, struct kn_mat *mat, struct err *err)
{
	int r = kn_takes(m->backend, mat->dtype) ? m->backend->ops->mat_init(m->backend, mat) : -ENOTSUP;

	if (r < 0)
		return err_set(err, r, "%s: %s [%u, %u]: backend %s cannot take it: %s", name,
		               kn_dtype_info(mat->dtype)->name, mat->rows, mat->cols, m->backend->ops->name,
		               strerror(-r));
	r = list_push(&m->mats, mat);
	if (r < 0) {
		m->backend->ops->mat_done(m->backend, mat);
		return err_set(err, r, "%s: no memory", name);
	}
	m->info.own_bytes += mat->packed_bytes;
	if (mat->packed && m->weights)
		eng_weights_cool(m->weights, mat->data, mat->rows * kn_row_bytes(mat->dtype, mat->cols));
	return 0;
}

void model_unload(struct eng_model *m)
{
	for (size_t i = 0; i < m->mats.n; i++)
		m->backend->ops->mat_done(m->backend, m->mats.p[i]);
	for (size_t i = 0; i < m->device.n; i++)
		m->backend->ops->free(m->backend, m->device.p[i]);
	for (size_t i = 0; i < m->host.n; i++)
		free(m->host.p[i]);
	free(m->mats.p);
	free(m->device.p);
	free(m->host.p);
	free(m->layers);
	free(m->loras);
}

int model_shares_new(struct eng_model *m, const char *where, const struct hparams *whole, struct err *err)
{
	struct share share = model_share_of(m->backend);
	int r = model_share_hparams(where, whole, share, &m->hp, err);

	m->share = share;
	m->shares[0] = m;
	for (uint32_t i = 1; i < share.n && r == 0; i++) {
		struct eng_model *one = m->shares[i] = calloc(1, sizeof(*one));

		if (!one)
			return err_set(err, -ENOMEM, "%s: no memory", where);
		one->backend = m->backend->ranks[i];
		one->share = model_share_of(one->backend);
		r = model_share_hparams(where, whole, one->share, &one->hp, err);
	}
	return r;
}

void model_shares_count(struct eng_model *m)
{
	for (uint32_t i = 1; i < m->share.n; i++) {
		const struct eng_model_info *info = &m->shares[i]->info;

		m->info.weight_bytes += info->weight_bytes;
		m->info.expert_bytes += info->expert_bytes;
		m->info.own_bytes += info->own_bytes;
		m->info.kv_bytes_per_token += info->kv_bytes_per_token;
		m->info.state_bytes += info->state_bytes;
	}
}

int model_finish(struct eng_model *m, struct err *err)
{
	const struct hparams *hp = &m->hp;
	struct eng_model_info *info = &m->info;
	uint64_t kv_values;

	for (uint32_t i = 0; i < hp->n_rope; i++) {
		m->inv_freq[i] = model_upload(m, hp->rope[i].inv_freq, hp->rope[i].n_rot / 2);
		m->inv_freq_long[i] = model_upload(m, hp->rope[i].inv_freq_long, hp->rope[i].n_rot / 2);
		if (!m->inv_freq[i] || !m->inv_freq_long[i])
			return err_set(err, -ENOMEM, "no memory for rotary tables");
	}
	kv_values = hp->arch->attn == ATTN_MLA ? hp->kv_lora + hp->qk_rope : 2ull * hp->n_kv_head * hp->head_dim;
	(void)snprintf(info->arch, sizeof(info->arch), "%s", hp->arch->name);
	info->n_vocab = hp->n_vocab;
	info->n_ctx = hp->n_ctx;
	info->n_layer = hp->n_layer;
	info->n_embd = hp->n_embd;
	/* In the 16-bit types that serving uses. */
	info->kv_bytes_per_token = kv_values * hparams_n_attention(hp) * 2;
	info->state_bytes = hparams_state(hp) * sizeof(float);
	return 0;
}
