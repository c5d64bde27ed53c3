/* Pages as bytes: each layer's K, then its V, as they lie in the pool; on a group of devices one device's after the
 * other's. */
#include "base/sha256.h"
#include "model/internal.h"
#include "weights/weights.h"

/* Bytes of one page of one layer's K or V. */
static size_t part_bytes(const struct kn_kv *kv, uint32_t dim)
{
	return (size_t)kv->n_kv_head * kv->page_tokens * dim * kn_dtype_info(kv->dtype)->block_bytes;
}

static uint32_t n_shares(const struct eng_runner *r)
{
	return r->n_shares ? r->n_shares : 1;
}

static struct eng_runner *share_at(struct eng_runner *r, uint32_t i)
{
	return i == 0 ? r : r->shares[i];
}

static uint64_t share_page_bytes(const struct eng_runner *r)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < r->model->hp.n_layer; i++) {
		const struct kn_kv *kv = &r->kv[i];

		if (!kv->k)
			continue;
		total += part_bytes(kv, kv->k_dim) + (kv->v ? part_bytes(kv, kv->v_dim) : 0);
	}
	return total;
}

uint64_t eng_runner_page_bytes(const struct eng_runner *r)
{
	uint64_t total = share_page_bytes(r);

	for (uint32_t i = 1; i < n_shares(r); i++)
		total += share_page_bytes(r->shares[i]);
	return total;
}

static void page_read(struct eng_runner *r, uint32_t page, void *dst)
{
	char *to = dst;

	(void)r->ops->sync(r->be); /* a failure shows in the step that is to come */
	for (uint32_t i = 0; i < r->model->hp.n_layer; i++) {
		const struct kn_kv *kv = &r->kv[i];
		size_t n = part_bytes(kv, kv->k_dim);

		if (!kv->k)
			continue;
		r->ops->download(r->be, to, (const char *)kv->k + page * n, n);
		to += n;
		if (!kv->v)
			continue;
		n = part_bytes(kv, kv->v_dim);
		r->ops->download(r->be, to, (const char *)kv->v + page * n, n);
		to += n;
	}
}

void eng_runner_page_read(struct eng_runner *r, uint32_t page, void *dst)
{
	char *to = dst;

	for (uint32_t i = 0; i < n_shares(r); i++) {
		page_read(share_at(r, i), page, to);
		to += share_page_bytes(share_at(r, i));
	}
}

static void page_write(struct eng_runner *r, uint32_t page, const void *src)
{
	const char *from = src;

	(void)r->ops->sync(r->be);
	for (uint32_t i = 0; i < r->model->hp.n_layer; i++) {
		struct kn_kv *kv = &r->kv[i];
		size_t n = part_bytes(kv, kv->k_dim);

		if (!kv->k)
			continue;
		r->ops->upload(r->be, (char *)kv->k + page * n, from, n);
		from += n;
		if (!kv->v)
			continue;
		n = part_bytes(kv, kv->v_dim);
		r->ops->upload(r->be, (char *)kv->v + page * n, from, n);
		from += n;
	}
}

/* ---- Beside the steps ---- */

bool eng_runner_copies_pages(const struct eng_runner *r)
{
	return r->n_shares == 0 && r->ops->copy_begin && eng_runner_page_bytes(r) > 0; /* of one device */
}

void *eng_runner_host_alloc(struct eng_runner *r, size_t bytes)
{
	return r->ops->host_alloc(r->be, bytes);
}

void eng_runner_host_free(struct eng_runner *r, void *p)
{
	r->ops->host_free(r->be, p);
}

static size_t add_piece(struct kn_piece *piece, const void *pool, uint32_t page, size_t bytes, char **io_host)
{
	*piece = (struct kn_piece){ .device = (char *)pool + page * bytes, .host = *io_host, .bytes = bytes };
	*io_host += bytes;
	return 1;
}

int eng_runner_page_copy(struct eng_runner *r, uint32_t page, void *host, enum kn_way way, uint64_t *ret_ticket)
{
	char *next = host;
	size_t n = 0;

	for (uint32_t i = 0; i < r->model->hp.n_layer; i++) {
		const struct kn_kv *kv = &r->kv[i];

		if (kv->k)
			n += add_piece(&r->pieces[n], kv->k, page, part_bytes(kv, kv->k_dim), &next);
		if (kv->v)
			n += add_piece(&r->pieces[n], kv->v, page, part_bytes(kv, kv->v_dim), &next);
	}
	return r->ops->copy_begin(r->be, way, r->pieces, n, ret_ticket);
}

int eng_runner_copy_poll(struct eng_runner *r, uint64_t ticket)
{
	return r->ops->copy_poll(r->be, ticket);
}

int eng_runner_copy_wait(struct eng_runner *r, uint64_t ticket)
{
	return r->ops->copy_wait(r->be, ticket);
}

int eng_runner_copy_fence(struct eng_runner *r, uint64_t ticket)
{
	return r->ops->copy_fence(r->be, ticket);
}

void eng_runner_page_write(struct eng_runner *r, uint32_t page, const void *src)
{
	const char *from = src;

	for (uint32_t i = 0; i < n_shares(r); i++) {
		page_write(share_at(r, i), page, from);
		from += share_page_bytes(share_at(r, i));
	}
}

void eng_runner_state_copy(struct eng_runner *r, uint32_t dst, uint32_t src)
{
	if (dst == src)
		return;
	for (uint32_t i = 0; i < n_shares(r); i++) {
		struct eng_runner *one = share_at(r, i);
		size_t n = hparams_state(&one->model->hp);

		one->ops->copy(one->be, one->states + dst * n, one->states + src * n, n * sizeof(*one->states));
		one->state_pos[dst] = one->state_pos[src];
	}
}

static void page_discard(struct eng_runner *r, uint32_t first, uint32_t n)
{
	if (!r->ops->discard)
		return;
	(void)r->ops->sync(r->be);
	for (uint32_t i = 0; i < r->model->hp.n_layer; i++) {
		const struct kn_kv *kv = &r->kv[i];
		size_t k_bytes = part_bytes(kv, kv->k_dim), v_bytes = part_bytes(kv, kv->v_dim);

		if (kv->k)
			r->ops->discard(r->be, (char *)kv->k + first * k_bytes, n * k_bytes);
		if (kv->v)
			r->ops->discard(r->be, (char *)kv->v + first * v_bytes, n * v_bytes);
	}
}

void eng_runner_page_discard(struct eng_runner *r, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n_shares(r); i++)
		page_discard(share_at(r, i), first, n);
}

void eng_runner_fingerprint(const struct eng_runner *r, struct base_sha256 *sha)
{
	const struct eng_model *m = r->model;
	uint32_t shape[] = { m->hp.n_layer, m->hp.n_vocab, m->hp.n_embd, r->config.page_tokens, r->config.kv_dtype };

	base_sha256_update(sha, m->info.arch, sizeof(m->info.arch));
	base_sha256_update(sha, shape, sizeof(shape));
	if (r->n_shares)
		base_sha256_update(sha, &r->n_shares, sizeof(r->n_shares));
	for (uint32_t i = 0; i < m->hp.n_layer; i++) {
		uint32_t layer[] = { r->kv[i].n_kv_head, r->kv[i].k_dim, r->kv[i].v_dim, r->kv[i].v != NULL };

		base_sha256_update(sha, layer, sizeof(layer));
	}
	for (uint32_t i = 0; i < m->hp.n_rope; i++) {
		const struct rope_plan *plan = &m->hp.rope[i];
		bool is_long = r->rope[i].inv_freq == m->inv_freq_long[i];

		base_sha256_update(sha, &is_long, sizeof(is_long));
		base_sha256_update(sha, is_long ? plan->inv_freq_long : plan->inv_freq,
		                   plan->n_rot / 2 * sizeof(plan->inv_freq[0]));
	}
	if (m->weights)
		eng_weights_fingerprint(m->weights, sha);
}
