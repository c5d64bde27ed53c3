/* Models of known shapes with random weights, for benchmarks without a download.
 *
 * Values are normal with sigma 0.02. Drawing and quantizing each of billions would take minutes, so one
 * pool of blocks is drawn and quantized per model, and each row of a matrix is a sequence of blocks picked
 * at random: every value has the right distribution, and nothing that is measured can tell.
 *
 * A backend that copies matrices to memory of its own gets all experts from one place in host memory: 60 GB of them
 * would have to be written there first. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "model/internal.h"

enum {
	BLOCK = 256, /* values; a multiple of every type's block, a divisor of every row below */
	POOL_BLOCKS = 8192,
	MAX_THREADS = 16,
};

struct shape {
	const char *name;
	uint32_t n_layer, n_embd, n_ff, n_head, n_kv_head;
	bool tied;
	uint32_t n_expert, top_k, n_ff_exp; /* n_expert 0: dense */
};

static const struct shape shapes[] = {
	{ "qwen3-0.6b", 28, 1024, 3072, 16, 8, true, 0, 0, 0 },
	{ "qwen3-1.7b", 28, 2048, 6144, 16, 8, true, 0, 0, 0 },
	{ "qwen3-8b", 36, 4096, 12288, 32, 8, false, 0, 0, 0 },
	{ "qwen3-30b-a3b", 48, 2048, 0, 32, 4, false, 128, 8, 768 },
};

enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]), N_VOCAB = 151936, HEAD_DIM = 128, N_CTX = 40960 };

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static double uniform(uint64_t *state) /* (0, 1] */
{
	return ((double)(next_random(state) >> 11) + 1) / 9007199254740992.0;
}

/* Box and Muller, 1958. */
static float normal(uint64_t *state)
{
	return (float)(sqrt(-2 * log(uniform(state))) * cos(2 * M_PI * uniform(state)));
}

struct pool {
	char *blocks;  /* [POOL_BLOCKS] quantized */
	char *experts; /* what experts are made of where they are copied; NULL: nothing yet */
	size_t block_bytes;
	enum kn_dtype dtype;
};

static const float sigma = 0.02f;
/* FP8: five sigma become the greatest value of the type. */
static const float fp8_scale = 5 * 0.02f / 448;

static int pool_init(struct pool *pool, enum kn_dtype dtype)
{
	const float by = dtype == KN_FP8_128 ? sigma / fp8_scale : sigma;
	uint64_t state = 1;
	float values[BLOCK];

	pool->dtype = dtype;
	pool->block_bytes = kn_row_bytes(dtype, BLOCK);
	pool->blocks = malloc(POOL_BLOCKS * pool->block_bytes);
	if (!pool->blocks)
		return -ENOMEM;
	for (size_t b = 0; b < POOL_BLOCKS; b++) {
		for (int i = 0; i < BLOCK; i++)
			values[i] = by * normal(&state);
		kn_quantize(dtype, values, pool->blocks + b * pool->block_bytes, BLOCK);
	}
	return 0;
}

struct fill {
	const struct pool *pool;
	char *data;
	size_t n_blocks; /* this thread's */
	uint64_t seed;
};

static void *fill_blocks(void *arg)
{
	struct fill *f = arg;
	uint64_t state = f->seed;
	size_t bytes = f->pool->block_bytes;

	for (size_t i = 0; i < f->n_blocks; i++)
		memcpy(f->data + i * bytes, f->pool->blocks + next_random(&state) % POOL_BLOCKS * bytes, bytes);
	return NULL;
}

/* Shares the blocks of one matrix out to threads; one that cannot be started is done here. */
static void fill_parallel(const struct pool *pool, char *data, size_t n_blocks, uint64_t seed)
{
	struct fill fills[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	bool started[MAX_THREADS];
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	size_t n = cores < 1 || n_blocks < 65536 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (size_t)cores;

	for (size_t t = 0; t < n; t++) {
		size_t from = n_blocks * t / n, to = n_blocks * (t + 1) / n;

		fills[t] = (struct fill){ pool, data + from * pool->block_bytes, to - from, seed ^ t << 56 };
		started[t] = t + 1 < n && pthread_create(&threads[t], NULL, fill_blocks, &fills[t]) == 0;
		if (!started[t])
			(void)fill_blocks(&fills[t]);
	}
	for (size_t t = 0; t < n; t++) {
		if (started[t])
			(void)pthread_join(threads[t], NULL);
	}
}

/* Those of FP8. */
static int random_scales(struct eng_model *m, struct kn_mat *mat)
{
	size_t n = ((size_t)mat->rows + 127) / 128 * ((mat->cols + 127) / 128);
	float *scales;

	if (mat->dtype != KN_FP8_128)
		return 0;
	scales = model_host_alloc(m, n * sizeof(*scales));
	for (size_t i = 0; scales && i < n; i++)
		scales[i] = fp8_scale;
	mat->scales = scales;
	m->info.weight_bytes += n * sizeof(*scales);
	return scales ? 0 : -ENOMEM;
}

/* Values of a matrix in host memory. The number of matrices so far is the seed: the same model every time. */
static char *random_values(struct eng_model *m, const struct pool *pool, uint32_t rows, uint32_t cols)
{
	char *data = model_host_alloc(m, rows * kn_row_bytes(pool->dtype, cols));

	if (data)
		fill_parallel(pool, data, (size_t)rows * cols / BLOCK, m->mats.n + 1);
	return data;
}

static int take_mat(struct eng_model *m, const struct pool *pool, uint32_t rows, uint32_t cols, char *data,
                    struct kn_mat *ret, struct err *err)
{
	size_t bytes = rows * kn_row_bytes(pool->dtype, cols);

	if (!data)
		return err_set(err, -ENOMEM, "random model: no memory for a matrix of %zu bytes", bytes);
	*ret = (struct kn_mat){ .dtype = pool->dtype, .rows = rows, .cols = cols, .data = data };
	m->info.n_params += (uint64_t)rows * cols;
	m->info.weight_bytes += bytes;
	if (random_scales(m, ret) < 0)
		return err_set(err, -ENOMEM, "random model: no memory");
	return model_mat(m, "random model", ret, err);
}

static int random_mat(struct eng_model *m, const struct pool *pool, uint32_t rows, uint32_t cols, struct kn_mat *ret,
                      struct err *err)
{
	return take_mat(m, pool, rows, cols, random_values(m, pool, rows, cols), ret, err);
}

static float *ones(struct eng_model *m, uint32_t n)
{
	float values[4096];

	for (uint32_t i = 0; i < n; i++)
		values[i] = 1;
	m->info.n_params += n;
	m->info.weight_bytes += n * sizeof(float);
	return model_upload(m, values, n);
}

/* [n_expert] matrices. Shared values begin at another block for each, so that no two are the same. */
static int random_experts(struct eng_model *m, struct pool *pool, const struct shape *s, uint32_t rows, uint32_t cols,
                          const struct kn_mat **ret, struct err *err)
{
	uint32_t n_expert = model_share_experts(m->share, s->n_expert).n;
	struct kn_mat *mats = model_host_alloc(m, n_expert * sizeof(*mats));
	size_t n_blocks = (size_t)rows * cols / BLOCK;
	bool shares = !kn_is_on_host(m->backend);
	int r = 0;

	if (!mats)
		return err_set(err, -ENOMEM, "random model: no memory");
	memset(mats, 0, n_expert * sizeof(*mats));
	*ret = mats;
	if (shares && !pool->experts) {
		pool->experts = model_host_alloc(m, (n_blocks + POOL_BLOCKS) * pool->block_bytes);
		if (!pool->experts)
			return err_set(err, -ENOMEM, "random model: no memory");
		fill_parallel(pool, pool->experts, n_blocks + POOL_BLOCKS, m->mats.n + 1);
	}
	for (uint32_t e = 0; e < n_expert && r == 0; e++) {
		size_t first = (m->mats.n * 2654435761u >> 8) % POOL_BLOCKS;
		char *data = shares ? pool->experts + first * pool->block_bytes : random_values(m, pool, rows, cols);

		r = take_mat(m, pool, rows, cols, data, &mats[e], err);
	}
	return r;
}

static int random_moe(struct eng_model *m, struct pool *pool, const struct shape *s, uint32_t il, struct err *err)
{
	struct layer *l = &m->layers[il];
	size_t n = (size_t)s->n_expert * s->n_embd;
	float *router = model_host_alloc(m, n * sizeof(*router));
	uint64_t state = m->mats.n + 1, before;
	int r;

	if (!router)
		return err_set(err, -ENOMEM, "random model: no memory");
	for (size_t i = 0; i < n; i++)
		router[i] = 0.02f * normal(&state);
	l->router.w = (struct kn_mat){ .dtype = KN_F32, .rows = s->n_expert, .cols = s->n_embd, .data = router };
	m->info.n_params += n;
	m->info.weight_bytes += n * sizeof(*router);
	r = model_mat(m, "random model", &l->router.w, err);
	l->moe.n_expert = model_share_experts(m->share, s->n_expert).n;
	l->moe.first_expert = model_share_experts(m->share, s->n_expert).first;
	l->moe.n_ff = s->n_ff_exp;
	l->moe.act = m->hp.act;
	before = m->info.weight_bytes;
	r = r < 0 ? r : random_experts(m, pool, s, s->n_ff_exp, s->n_embd, &l->moe.gate, err);
	r = r < 0 ? r : random_experts(m, pool, s, s->n_ff_exp, s->n_embd, &l->moe.up, err);
	r = r < 0 ? r : random_experts(m, pool, s, s->n_embd, s->n_ff_exp, &l->moe.down, err);
	m->info.weight_bytes = before + model_count_experts(&m->info, &m->hp, il, m->info.weight_bytes - before);
	return r;
}

static int random_layer(struct eng_model *m, struct pool *pool, const struct shape *s, uint32_t il, struct err *err)
{
	struct layer *l = &m->layers[il];
	const struct {
		uint32_t rows, cols;
		struct linear *linear;
	} mats[] = {
		{ s->n_head * HEAD_DIM, s->n_embd, &l->q },
		{ s->n_kv_head * HEAD_DIM, s->n_embd, &l->k },
		{ s->n_kv_head * HEAD_DIM, s->n_embd, &l->v },
		{ s->n_embd, s->n_head * HEAD_DIM, &l->o },
		{ s->n_ff, s->n_embd, &l->gate },
		{ s->n_ff, s->n_embd, &l->up },
		{ s->n_embd, s->n_ff, &l->down },
	};
	int r = 0;

	for (size_t i = 0; i < sizeof(mats) / sizeof(mats[0]) && r == 0; i++) {
		if (mats[i].rows && mats[i].cols)
			r = random_mat(m, pool, mats[i].rows, mats[i].cols, &mats[i].linear->w, err);
	}
	if (r == 0 && s->n_expert)
		r = random_moe(m, pool, s, il, err);
	if (r < 0)
		return r;
	l->attn_in_norm = ones(m, s->n_embd);
	l->ffn_in_norm = ones(m, s->n_embd);
	l->q_norm = ones(m, HEAD_DIM);
	l->k_norm = ones(m, HEAD_DIM);
	if (!l->attn_in_norm || !l->ffn_in_norm || !l->q_norm || !l->k_norm)
		return err_set(err, -ENOMEM, "random model: no memory");
	return 0;
}

static int random_hparams(const struct shape *s, struct hparams *hp, struct err *err)
{
	struct rope_params rope;
	int r;

	hp->arch = arch_find_hf(s->n_expert ? "qwen3_moe" : "qwen3");
	hp->n_vocab = N_VOCAB;
	hp->n_ctx = N_CTX;
	hp->n_layer = s->n_layer;
	hp->n_embd = s->n_embd;
	hp->n_head = s->n_head;
	hp->n_kv_head = s->n_kv_head;
	hp->head_dim = HEAD_DIM;
	hp->eps = 1e-6f;
	/* Tokens that choose experts stay different from each other: what layers add, much of it the same for all, is
	 * little beside it. */
	hp->embed_scale = s->n_expert ? 500 : 1;
	hp->attn_scale = 1 / sqrtf(HEAD_DIM);
	hp->tied = s->tied;
	hp->qk_norm = true;
	hp->router = hp->arch->router;
	hp->n_expert = s->n_expert;
	hp->n_ff_exp = s->n_ff_exp;
	hp->normalize = true;
	hp->route_scale = 1;
	for (uint32_t i = 0; i < s->n_layer; i++) {
		hp->layer[i].n_ff = s->n_ff;
		hp->layer[i].top_k = s->top_k;
	}
	rope_params_init(&rope);
	rope.n_rot = HEAD_DIM;
	rope.theta = 1000000;
	r = rope_plan_build(&rope, hp->n_ctx, &hp->rope[0], err);
	hp->n_rope = 1;
	return r < 0 ? r : hparams_check("random model", hp, err);
}

static int random_weights(struct eng_model *m, struct pool *pool, const struct shape *s, struct err *err)
{
	int r = random_mat(m, pool, N_VOCAB, s->n_embd, &m->embed, err);

	m->head = &m->embed;
	if (r == 0 && (!s->tied || m->share.n > 1)) {
		m->info.weight_bytes = 0; /* single rows of the embedding table are read, not the table */
		r = random_mat(m, pool, model_share_vocab(m->share, N_VOCAB).n, s->n_embd, &m->head_own, err);
		m->head = &m->head_own;
	}
	if (r < 0)
		return r;
	m->out_norm = ones(m, s->n_embd);
	m->layers = calloc(s->n_layer, sizeof(*m->layers));
	if (!m->layers || !m->out_norm)
		return err_set(err, -ENOMEM, "random model: no memory");
	for (uint32_t i = 0; i < s->n_layer && r == 0; i++)
		r = random_layer(m, pool, s, i, err);
	return r;
}

/* The whole, or each device's share: random weights of its size. */
static int random_shares(struct eng_model *m, struct pool *pool, const struct shape *s, struct err *err)
{
	CLEANUP(freep) struct hparams *whole = malloc(sizeof(*whole));
	struct shape part = *s;
	int r = 0;

	if (!whole)
		return err_set(err, -ENOMEM, "random model: no memory");
	*whole = m->hp;
	m->share = model_share_of(m->backend);
	if (m->share.n > 1)
		r = model_shares_new(m, "random model", whole, err);
	for (uint32_t i = 0; i < m->share.n && r == 0; i++) {
		struct eng_model *one = i == 0 ? m : m->shares[i];

		part.n_head = one->hp.n_head;
		part.n_kv_head = one->hp.n_kv_head;
		part.n_ff = one->hp.layer[0].n_ff;
		part.n_ff_exp = one->hp.n_ff_exp;
		pool->experts = NULL; /* each share has its own */
		r = random_weights(one, pool, &part, err);
		r = r < 0 ? r : model_finish(one, err);
		if (i > 0) /* each has the embedding table */
			m->info.n_params += one->info.n_params - (uint64_t)N_VOCAB * s->n_embd;
	}
	if (r == 0 && m->share.n > 1)
		model_shares_count(m);
	return r;
}

/* "NAME" or "NAME:LAYERS" */
static int find_shape(const char *name, struct shape *ret, struct err *err)
{
	size_t len = strcspn(name, ":");
	char names[256] = "";
	uint32_t n_layer;

	for (size_t i = 0; i < N_SHAPES; i++) {
		if (strlen(shapes[i].name) == len && strncmp(shapes[i].name, name, len) == 0) {
			*ret = shapes[i];
			if (name[len] == '\0')
				return 0;
			n_layer = (uint32_t)strtoul(name + len + 1, NULL, 10);
			if (n_layer == 0 || n_layer > ret->n_layer)
				return err_set(err, -EINVAL, "random model %s: it has 1 to %u layers", shapes[i].name,
				               ret->n_layer);
			ret->n_layer = n_layer;
			return 0;
		}
		(void)snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ", " : "",
		               shapes[i].name);
	}
	return err_set(err, -EINVAL, "no random model is called \"%.64s\" (%s)", name, names);
}

int eng_model_random(const char *shape, enum kn_dtype dtype, struct kn_backend *backend, struct eng_model **ret_model,
                     struct err *err)
{
	CLEANUP(freep) char *blocks = NULL;
	struct pool pool = { 0 };
	struct shape s;
	struct eng_model *m;
	int r = find_shape(shape, &s, err);

	if (r < 0)
		return r;
	if (!kn_takes(backend, dtype))
		return err_set(err, -ENOTSUP, "random model: the backend %s does not take %s", backend->ops->name,
		               kn_dtype_info(dtype)->name);
	r = pool_init(&pool, dtype);
	blocks = pool.blocks;
	m = calloc(1, sizeof(*m));
	if (r < 0 || !m) {
		free(m);
		return err_set(err, -ENOMEM, "random model: no memory");
	}
	m->backend = backend;
	r = random_hparams(&s, &m->hp, err);
	r = r < 0 ? r : random_shares(m, &pool, &s, err);
	if (r < 0) {
		eng_model_close(m);
		return r;
	}
	*ret_model = m;
	return 0;
}
