/* Pages as bytes: each layer's K, then its V, as they lie in the pool; on a group of devices one device's after the
 * other's. */
#include <errno.h>

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
	return r->ops->copy_begin && eng_runner_page_bytes(r) > 0;
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

static int copy_share(struct eng_runner *r, uint32_t page, char *host, enum kn_way way, uint64_t *ret_ticket)
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

/* Of each device its part. If one of them does not begin, the tickets would differ from here on. */
int eng_runner_page_copy(struct eng_runner *r, uint32_t page, void *host, enum kn_way way, uint64_t *ret_ticket)
{
	uint64_t ticket = 0;
	char *part = host;
	int rc = r->copy_error;

	for (uint32_t i = 0; i < n_shares(r) && rc == 0; i++) {
		struct eng_runner *one = share_at(r, i);

		rc = copy_share(one, page, part, way, &ticket);
		if (rc == 0 && i > 0 && ticket != *ret_ticket)
			rc = -EIO;
		if (rc < 0 && i > 0) {
			for (uint32_t k = 0; k < i; k++)
				(void)share_at(r, k)->ops->copy_wait(share_at(r, k)->be, *ret_ticket);
			r->copy_error = rc = -EIO;
		}
		if (rc == 0)
			*ret_ticket = ticket;
		part += share_page_bytes(one);
	}
	return rc;
}

/* All devices of a group have begun the same copies: their tickets are the same. */
int eng_runner_copy_poll(struct eng_runner *r, uint64_t ticket)
{
	int rc = 1;

	for (uint32_t i = 0; i < n_shares(r) && rc > 0; i++)
		rc = share_at(r, i)->ops->copy_poll(share_at(r, i)->be, ticket);
	return rc;
}

/* Of all devices, whatever the others say: the first error. They are of one kind, so are their operations. */
static int on_all(struct eng_runner *r, uint64_t ticket, int (*op)(struct kn_backend *be, uint64_t ticket))
{
	int rc = 0;

	for (uint32_t i = 0; i < n_shares(r); i++) {
		int e = op(share_at(r, i)->be, ticket);

		rc = rc < 0 ? rc : e;
	}
	return rc;
}

int eng_runner_copy_wait(struct eng_runner *r, uint64_t ticket)
{
	return on_all(r, ticket, share_at(r, 0)->ops->copy_wait);
}

int eng_runner_copy_fence(struct eng_runner *r, uint64_t ticket)
{
	return on_all(r, ticket, share_at(r, 0)->ops->copy_fence);
}

int eng_runner_copy_follow(struct eng_runner *r, uint64_t ticket)
{
	return on_all(r, ticket, share_at(r, 0)->ops->copy_follow);
}

/* ---- From another runner ---- */

static bool is_alike(const struct eng_runner *a, const struct eng_runner *b)
{
	if (a->model->hp.n_layer != b->model->hp.n_layer || a->model->hp.arch != b->model->hp.arch)
		return false;
	for (uint32_t i = 0; i < a->model->hp.n_layer; i++) {
		const struct kn_kv *x = &a->kv[i], *y = &b->kv[i];

		if (!x->k != !y->k || !x->v != !y->v || x->dtype != y->dtype || x->n_kv_head != y->n_kv_head ||
		    x->k_dim != y->k_dim || x->v_dim != y->v_dim || x->page_tokens != y->page_tokens)
			return false;
	}
	return true;
}

int eng_runner_fetch_from(struct eng_runner *r, struct eng_runner *other, bool *ret_direct, struct err *err)
{
	bool direct = true;

	if (!r->ops->copy_from || r->ops->copy_from != other->ops->copy_from)
		return err_set(err, -ENOTSUP, "backend %s does not copy K and V from backend %s", r->ops->name,
		               other->ops->name);
	if (n_shares(r) != n_shares(other))
		return err_set(err, -ENOTSUP, "K and V of %u devices cannot be copied to %u: as many are needed",
		               n_shares(other), n_shares(r));
	for (uint32_t i = 0; i < n_shares(r); i++) {
		struct eng_runner *to = share_at(r, i), *from = share_at(other, i);

		if (!is_alike(to, from))
			return err_set(err, -ENOTSUP, "the pages of two runners are of different shapes");
		direct = to->ops->copy_from(to->be, from->be) > 0 && direct;
		to->source = from;
	}
	*ret_direct = direct;
	return 0;
}

static int fetch_share(struct eng_runner *r, uint32_t page, uint32_t from, uint32_t n_pages, uint64_t *ret_ticket)
{
	size_t n = 0;

	for (uint32_t i = 0; i < r->model->hp.n_layer; i++) {
		const struct kn_kv *to = &r->kv[i], *src = &r->source->kv[i];
		size_t k_bytes = part_bytes(to, to->k_dim), v_bytes = part_bytes(to, to->v_dim);

		if (to->k)
			r->pieces[n++] = (struct kn_piece){ .device = (char *)to->k + page * k_bytes,
				                            .host = (char *)src->k + from * k_bytes,
				                            .bytes = n_pages * k_bytes };
		if (to->v)
			r->pieces[n++] = (struct kn_piece){ .device = (char *)to->v + page * v_bytes,
				                            .host = (char *)src->v + from * v_bytes,
				                            .bytes = n_pages * v_bytes };
	}
	return r->ops->copy_begin(r->be, KN_FROM_PEER, r->pieces, n, ret_ticket);
}

int eng_runner_page_fetch(struct eng_runner *r, uint32_t page, uint32_t from, uint32_t n, uint64_t *ret_ticket)
{
	uint64_t ticket = 0;
	int rc = r->source_error;

	for (uint32_t i = 0; i < n_shares(r) && rc == 0; i++) {
		struct eng_runner *one = share_at(r, i);

		rc = fetch_share(one, page, from, n, &ticket);
		if (rc == 0 && i > 0 && ticket != *ret_ticket)
			rc = -EIO;
		if (rc == 0) {
			*ret_ticket = ticket;
			continue;
		}
		if (i == 0)
			return rc;
		/* The others have begun: from here on their tickets would differ. */
		for (uint32_t k = 0; k < i; k++)
			(void)share_at(r, k)->ops->copy_wait(share_at(r, k)->be, *ret_ticket);
		r->source_error = rc = -EIO;
	}
	return rc;
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
