/* Sequences with keys and values in pages, as the reference and as a device knows them. */
#ifndef GPU_TEST_BATCH_H
#define GPU_TEST_BATCH_H

#include "gpu_test.h"

struct length {
	uint32_t kv_len, n_q;
};

inline uint32_t elem_bytes(enum kn_dtype dtype)
{
	return kn_dtype_info(dtype)->block_bytes;
}

inline uint32_t test_answer_rows = UINT32_MAX; /* of plans, when fixed */

/* A batch of sequences over a pool of pages in random order, in both forms. */
struct test_batch {
	struct kn_kv ref_kv;
	struct gk_kv kv;
	both<uint8_t> k, v;
	uint32_t n_seqs, n_rows = 0, n_pages = 0;
	struct kn_seq *seqs;
	both<struct gk_seq> dev_seqs;
	both<uint32_t> pages, counts, row_seq;
	both<struct gk_work> few, many;
	both<struct gk_merge> merge;
	both<float> k_scale, v_scale;
	struct gk_batch batch;
	bool fits;

	static uint32_t total(const length *l, uint32_t n, uint32_t page_tokens)
	{
		uint32_t sum = 0;

		for (uint32_t i = 0; i < n; i++)
			sum += page_tokens ? (l[i].kv_len + page_tokens - 1) / page_tokens : l[i].n_q;
		return sum;
	}

	test_batch(enum kn_dtype dtype, const length *l, uint32_t n, uint32_t n_kv, uint32_t k_dim, uint32_t v_dim,
	           bool latent, uint32_t page_tokens, uint32_t group)
	    : k((size_t)total(l, n, page_tokens) * n_kv * page_tokens * k_dim * elem_bytes(dtype)),
	      v(latent ? 0 : (size_t)total(l, n, page_tokens) * n_kv * page_tokens * v_dim * elem_bytes(dtype)),
	      n_seqs(n), dev_seqs(n), pages(total(l, n, page_tokens)), counts(GK_N_COUNTS), row_seq(total(l, n, 0) + 2),
	      few(500), many(500), merge(500), k_scale(n_kv), v_scale(n_kv)
	{
		struct gk_plan plan = {};
		uint32_t page = 0;

		seqs = (struct kn_seq *)calloc(n, sizeof(*seqs));
		n_pages = (uint32_t)pages.n;
		for (uint32_t i = 0; i < n_pages; i++)
			pages.host[i] = i;
		for (uint32_t i = n_pages; i-- > 1;) {
			const uint32_t j = test_random() % (i + 1), t = pages.host[i];

			pages.host[i] = pages.host[j];
			pages.host[j] = t;
		}
		for (uint32_t i = 0; i < n; i++) {
			seqs[i].pages = pages.host + page;
			seqs[i].kv_len = l[i].kv_len;
			seqs[i].n_q = l[i].n_q;
			seqs[i].row = n_rows;
			dev_seqs.host[i].kv_len = l[i].kv_len;
			dev_seqs.host[i].n_q = l[i].n_q;
			dev_seqs.host[i].row = n_rows;
			dev_seqs.host[i].first_page = page;
			for (uint32_t r = 0; r < l[i].n_q; r++)
				row_seq.host[n_rows++] = i;
			page += (l[i].kv_len + page_tokens - 1) / page_tokens;
		}
		row_seq.host[n_rows] = row_seq.host[n_rows + 1] = GK_WHOLE;
		plan.few = few.host;
		plan.many = many.host;
		plan.merge = merge.host;
		plan.room = 500;
		plan.answer_rows = test_answer_rows;
		fits = gk_plan_attention(&test_ctx, n_kv, group, dev_seqs.host, n, &plan) == 0;
		counts.host[GK_N_ROWS] = n_rows;
		counts.host[GK_N_SEQS] = n;
		counts.host[GK_N_FEW] = plan.n_few;
		counts.host[GK_N_MANY] = plan.n_many;
		counts.host[GK_N_MERGE] = plan.n_merge;
		counts.host[GK_N_SHARES] = plan.n_shares;
		dev_seqs.up();
		pages.up();
		counts.up();
		row_seq.up();
		few.up();
		many.up();
		merge.up();
		batch.counts = counts.device;
		batch.seqs = dev_seqs.device;
		batch.pages = pages.device;
		batch.row_seq = row_seq.device;
		batch.few = few.device;
		batch.many = many.device;
		batch.merge = merge.device;
		batch.max_rows = n_rows + 2;
		batch.max_seqs = n;
		batch.max_few = plan.n_few ? plan.n_few + 1 : 0; /* bounds may be larger than what is there */
		batch.max_many = plan.n_many ? plan.n_many + 1 : 0;
		batch.max_merge = plan.n_merge ? plan.n_merge + 1 : 0;
		ref_kv.dtype = dtype;
		ref_kv.n_kv_head = n_kv;
		ref_kv.k_dim = k_dim;
		ref_kv.v_dim = v_dim;
		ref_kv.page_tokens = page_tokens;
		ref_kv.k = k.host;
		ref_kv.v = latent ? nullptr : v.host;
		ref_kv.k_scale = ref_kv.v_scale = nullptr;
		kv.k_scale = kv.v_scale = nullptr;
		kv.dtype = dtype;
		kv.n_kv_head = n_kv;
		kv.k_dim = k_dim;
		kv.v_dim = v_dim;
		kv.page_tokens = page_tokens;
		kv.k = k.device;
		kv.v = latent ? nullptr : v.device;
	}
	~test_batch()
	{
		free(seqs);
	}

	/* A scale of its own for each head. */
	void with_scales()
	{
		for (size_t h = 0; h < k_scale.n; h++) {
			k_scale.host[h] = 0.3f + 0.11f * (float)h;
			v_scale.host[h] = 0.02f + 0.005f * (float)h;
		}
		k_scale.up();
		v_scale.up();
		ref_kv.k_scale = k_scale.host;
		ref_kv.v_scale = v_scale.host;
		kv.k_scale = k_scale.device;
		kv.v_scale = v_scale.device;
	}

	/* What no sequence has written yet is no number: of bfloat16 and e4m3, behind fill(). */
	void poison()
	{
		const uint32_t bytes = elem_bytes(ref_kv.dtype);

		for (uint32_t i = 0; i < n_seqs; i++) {
			for (uint32_t t = seqs[i].kv_len; t % ref_kv.page_tokens; t++) {
				for (uint32_t h = 0; h < ref_kv.n_kv_head; h++) {
					const size_t page = seqs[i].pages[t / ref_kv.page_tokens],
					             slot = (page * ref_kv.n_kv_head + h) * ref_kv.page_tokens +
					                    t % ref_kv.page_tokens;

					memset(k.host + slot * ref_kv.k_dim * bytes, 0xff, ref_kv.k_dim * bytes);
					memset(v.host + slot * ref_kv.v_dim * bytes, 0xff, ref_kv.v_dim * bytes);
				}
			}
		}
		k.up();
		v.up();
	}

	/* Everything that is cached already, then the pool on the device as it is on the host. */
	void fill()
	{
		const uint32_t bytes = elem_bytes(ref_kv.dtype);

		for (int which = 0; which < 2; which++) {
			both<uint8_t> *pool = which ? &v : &k;
			const size_t elems = pool->n / bytes;
			float *f = (float *)malloc((elems ? elems : 1) * sizeof(float));

			test_normals(f, elems, 1.0f);
			kn_quantize(ref_kv.dtype, f, pool->host, elems);
			pool->up();
			free(f);
		}
	}
};

#endif
