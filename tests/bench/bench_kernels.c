/* The cpu backend's kernels on the shapes of Qwen3-0.6B, beside what the machine can do at best.
 *
 *   bench_kernels [--threads N] [--isa NAME] [--layers N] [--tokens N] [--type NAME]... [--cpu-time]
 *
 * decode: every product of one token, each layer with weights of its own, so that nothing but memory holds them;
 * the limit is reading. prefill: the same for 512 tokens; the limit is the arithmetic the weights' type allows.
 * Attention on its own, likewise. One JSON object a line; value and limit in the unit, share = value / limit. */
#include "base/options.h"
#include "kernels.h"
#include "limits.h"

enum { DIM = 1024, Q_DIM = 2048, KV_DIM = 1024, FF = 3072, VOCAB = 151936, HEAD = 128, N_MATS = 7 };

struct options {
	uint32_t threads, layers, tokens;
	const char *isa;
	struct opt_list types;
	bool cpu_time;
};

static const struct opt opts[] = {
	{ "threads", 't', OPT_UINT, offsetof(struct options, threads), "N", "threads [one per core]", NULL },
	{ "isa", 0, OPT_STR, offsetof(struct options, isa), "NAME", "instruction set [the best]", NULL },
	{ "layers", 0, OPT_UINT, offsetof(struct options, layers), "N", "layers with weights of their own [28]", NULL },
	{ "tokens", 'p', OPT_UINT, offsetof(struct options, tokens), "N", "tokens of a prompt [512]", NULL },
	{ "type", 0, OPT_LIST, offsetof(struct options, types), "NAME", "type of weight [BF16, Q8_0, Q4_0, Q4_K]",
	  NULL },
	{ "cpu-time", 0, OPT_FLAG, offsetof(struct options, cpu_time), NULL,
	  "one thread, by processor time: for a machine that is busy", NULL },
	{ 0 },
};

static void report(const char *what, double value, const char *unit, double limit)
{
	printf("{\"bench\":\"kernels\",\"case\":\"%s\",\"value\":%.3f,\"unit\":\"%s\",", what, value, unit);
	if (limit > 0)
		printf("\"limit\":%.3f,\"share\":%.3f,", limit, value / limit);
	else
		printf("\"limit\":null,\"share\":null,");
	printf("\"peer\":null,\"ratio\":null}\n");
	(void)fflush(stdout);
}

/* ---- Weights ---- */

struct layer {
	struct kn_mat mats[N_MATS]; /* q, k, v, o, gate, up, down */
};

struct model {
	struct kn_backend *be;
	struct layer *layers;
	size_t n_layers;
	struct kn_mat head;
	double bytes, layer_macs; /* read per token; multiplications per token, without the head */
};

/* Rows of Gaussian-like numbers: a few made, the others copies, for the arithmetic does not care. */
static int mat_random(struct kn_backend *be, struct kn_mat *m, enum kn_dtype dtype, uint32_t rows, uint32_t cols)
{
	enum { MADE = 16 };
	size_t row_bytes = kn_row_bytes(dtype, cols);
	char *data = aligned_alloc(64, (rows * row_bytes + 63) / 64 * 64);
	float *x = malloc(cols * sizeof(*x));

	if (!data || !x) {
		free(data);
		free(x);
		return -1;
	}
	for (uint32_t r = 0; r < rows; r++) {
		if (r >= MADE) {
			memcpy(data + r * row_bytes, data + r % MADE * row_bytes, row_bytes);
			continue;
		}
		for (uint32_t c = 0; c < cols; c++)
			x[c] = 0.02f * ((float)(rand() % 2001 - 1000) / 500.0f);
		kn_quantize(dtype, x, data + r * row_bytes, cols);
	}
	free(x);
	*m = (struct kn_mat){ .dtype = dtype, .rows = rows, .cols = cols, .data = data };
	return be->ops->mat_init(be, m);
}

static void mat_free(struct kn_backend *be, struct kn_mat *m)
{
	void *data = (void *)m->data;

	be->ops->mat_done(be, m);
	free(data);
}

static int model_init(struct model *md, struct kn_backend *be, enum kn_dtype dtype, size_t n_layers)
{
	static const uint32_t shapes[N_MATS][2] = { { Q_DIM, DIM }, { KV_DIM, DIM }, { KV_DIM, DIM }, { DIM, Q_DIM },
		                                    { FF, DIM },    { FF, DIM },     { DIM, FF } };

	memset(md, 0, sizeof(*md));
	md->be = be;
	md->layers = calloc(n_layers, sizeof(*md->layers));
	if (!md->layers)
		return -1;
	for (md->n_layers = 0; md->n_layers < n_layers; md->n_layers++) {
		for (int k = 0; k < N_MATS; k++) {
			if (mat_random(be, &md->layers[md->n_layers].mats[k], dtype, shapes[k][0], shapes[k][1]) < 0)
				return -1;
			md->bytes += (double)shapes[k][0] * (double)kn_row_bytes(dtype, shapes[k][1]);
			md->layer_macs += (double)shapes[k][0] * shapes[k][1];
		}
	}
	md->bytes += (double)VOCAB * (double)kn_row_bytes(dtype, DIM);
	return mat_random(be, &md->head, dtype, VOCAB, DIM);
}

static void model_done(struct model *md)
{
	for (size_t l = 0; l < md->n_layers; l++) {
		for (int k = 0; k < N_MATS; k++)
			mat_free(md->be, &md->layers[l].mats[k]);
	}
	mat_free(md->be, &md->head);
	free(md->layers);
}

/* ---- Products ---- */

struct activations {
	float *x, *q, *k, *v, *gate, *up, *logits;
};

static float *floats(size_t n)
{
	float *p = calloc(n, sizeof(*p));

	if (!p) {
		(void)fprintf(stderr, "bench_kernels: no memory\n");
		exit(1);
	}
	for (size_t i = 0; i < n; i++)
		p[i] = (float)(rand() % 2001 - 1000) / 500.0f;
	return p;
}

static void pass(const struct model *md, const struct activations *a, size_t n, bool head)
{
	const struct kn_ops *ops = md->be->ops;

	for (size_t l = 0; l < md->n_layers; l++) {
		const struct kn_mat *m = md->layers[l].mats;
		struct kn_matmul qkv[] = { { .w = &m[0], .out = a->q, .ld_out = Q_DIM },
			                   { .w = &m[1], .out = a->k, .ld_out = KV_DIM },
			                   { .w = &m[2], .out = a->v, .ld_out = KV_DIM } };
		struct kn_matmul o = { .w = &m[3], .out = a->x, .ld_out = DIM };
		struct kn_matmul ff[] = { { .w = &m[4], .out = a->gate, .ld_out = FF },
			                  { .w = &m[5], .out = a->up, .ld_out = FF } };
		struct kn_matmul down = { .w = &m[6], .out = a->x, .ld_out = DIM };

		ops->matmul(md->be, qkv, 3, a->x, DIM, n);
		ops->matmul(md->be, &o, 1, a->q, Q_DIM, n);
		ops->matmul(md->be, ff, 2, a->x, DIM, n);
		ops->matmul(md->be, &down, 1, a->gate, FF, n);
	}
	if (head) {
		struct kn_matmul job = { .w = &md->head, .out = a->logits, .ld_out = VOCAB };

		ops->matmul(md->be, &job, 1, a->x, DIM, 1);
	}
}

/* Median seconds of 7 passes after one to warm up. */
static double time_pass(const struct model *md, const struct activations *a, size_t n, bool head)
{
	enum { RUNS = 7 };
	double t[RUNS];

	pass(md, a, n, head);
	for (int i = 0; i < RUNS; i++) {
		t[i] = bench_now();
		pass(md, a, n, head);
		t[i] = bench_now() - t[i];
	}
	qsort(t, RUNS, sizeof(*t), by_seconds);
	return t[RUNS / 2];
}

static int bench_type(struct kn_backend *be, const struct options *o, enum kn_dtype dtype, const struct bench_limits *l)
{
	static const uint32_t batches[] = { 1, 2, 4, 8, 16, 32 };
	const char *name = kn_dtype_info(dtype)->name;
	size_t n = o->tokens;
	struct activations a = { floats(n * DIM), floats(n * Q_DIM), floats(n * KV_DIM), floats(n * KV_DIM),
		                 floats(n * FF),  floats(n * FF),    floats(VOCAB) };
	struct model md;
	char label[64];
	double ops, start = bench_now();

	if (model_init(&md, be, dtype, o->layers) < 0) {
		(void)fprintf(stderr, "bench_kernels: no memory for %s\n", name);
		return 1;
	}
	(void)snprintf(label, sizeof(label), "%s make and load", name);
	report(label, bench_now() - start, "s", 0);
	ops = dtype == KN_BF16 && l->bf16_gop_s > 0  ? l->bf16_gop_s
	      : dtype > KN_BF16 && l->int8_gop_s > 0 ? l->int8_gop_s
	                                             : l->fma_gop_s;
	for (size_t i = 0; i < sizeof(batches) / sizeof(*batches) && batches[i] <= n; i++) {
		double t = time_pass(&md, &a, batches[i], true);

		(void)snprintf(label, sizeof(label), "%s decode n=%u", name, batches[i]);
		if (batches[i] <= 4)
			report(label, md.bytes / t * 1e-9, "GB/s", l->read_gb_s);
		else
			report(label, 2 * md.layer_macs * batches[i] / t * 1e-9, "GOP/s", ops);
	}
	(void)snprintf(label, sizeof(label), "%s prefill n=%zu", name, n);
	report(label, 2 * md.layer_macs * (double)n / time_pass(&md, &a, n, false) * 1e-9, "GOP/s", ops);
	model_done(&md);
	free(a.x);
	free(a.q);
	free(a.k);
	free(a.v);
	free(a.gate);
	free(a.up);
	free(a.logits);
	return 0;
}

/* ---- Attention ---- */

static double time_attention(struct kn_backend *be, uint32_t len, uint32_t n_q)
{
	enum { PAGE = 64, HEADS = 16, KV_HEADS = 8, RUNS = 9 };
	size_t tokens = (len + PAGE - 1) / PAGE * PAGE;
	uint32_t *pages = calloc(tokens / PAGE, sizeof(*pages));
	struct kn_kv kv = { .dtype = KN_F16, .n_kv_head = KV_HEADS, .k_dim = HEAD, .v_dim = HEAD, .page_tokens = PAGE };
	struct kn_attn attn = { .n_head = HEADS, .scale = 0.088f };
	float *k = floats((size_t)len * KV_HEADS * HEAD), *q = floats((size_t)n_q * HEADS * HEAD),
	      *out = floats((size_t)n_q * HEADS * HEAD);
	struct kn_seq seq = { .pages = pages, .kv_len = len, .n_q = len };
	double t[RUNS];

	for (size_t i = 0; i < tokens / PAGE; i++)
		pages[i] = (uint32_t)i;
	kv.k = be->ops->alloc(be, tokens * KV_HEADS * HEAD * 2);
	kv.v = be->ops->alloc(be, tokens * KV_HEADS * HEAD * 2);
	be->ops->kv_store(be, &kv, k, (size_t)KV_HEADS * HEAD, k, (size_t)KV_HEADS * HEAD, &seq, 1);
	seq.n_q = n_q;
	for (int i = 0; i < RUNS; i++) {
		t[i] = bench_now();
		be->ops->attention(be, out, HEADS * HEAD, q, HEADS * HEAD, &kv, &seq, 1, &attn);
		t[i] = bench_now() - t[i];
	}
	qsort(t, RUNS, sizeof(*t), by_seconds);
	be->ops->free(be, kv.k);
	be->ops->free(be, kv.v);
	free(pages);
	free(k);
	free(q);
	free(out);
	return t[RUNS / 2];
}

static void bench_attention(struct kn_backend *be, const struct bench_limits *l)
{
	double t = time_attention(be, 16384, 1);

	report("attention F16 one token, 16384 cached", 16384.0 * 8 * HEAD * 2 * 2 / t * 1e-9, "GB/s", l->read_gb_s);
	t = time_attention(be, 512, 512);
	report("attention F16 512 of 512 tokens", 512.0 * 513 / 2 * 16 * HEAD * 2 * 2 / t * 1e-9, "GOP/s",
	       l->fma_gop_s);
	t = time_attention(be, 4096, 512);
	report("attention F16 512 of 4096 tokens", 512.0 * 3840 * 16 * HEAD * 2 * 2 / t * 1e-9, "GOP/s", l->fma_gop_s);
}

/* ---- Main ---- */

static int run(int argc, char **argv)
{
	static const struct opt_command cmd = { .name = NULL, .opts = opts };
	static const struct opt_program prog = { .name = "bench_kernels" };
	static const char *const defaults[] = { "BF16", "Q8_0", "Q4_0", "Q4_K" };
	struct options o = { .layers = 28, .tokens = 512 };
	struct base_threadpool *pool = NULL;
	struct kn_backend *be = NULL;
	struct bench_limits l;
	struct err err = { 0 };
	int n_args = 0, r = opt_parse(&prog, &cmd, argc, argv, &o, &n_args, &err);

	if (r == OPT_EXIT_OK)
		return 0;
	if (r < 0 || n_args > 0)
		return opt_usage_error(&prog, &cmd, &err);
	if (o.tokens == 0 || o.layers == 0)
		return 2;
	if (o.cpu_time) {
		o.threads = 1;
		bench_clock = CLOCK_PROCESS_CPUTIME_ID;
	}
	if (base_threadpool_new(o.threads, &pool, &err) < 0) {
		(void)fprintf(stderr, "bench_kernels: %s\n", err_text(&err));
		return 1;
	}
	bench_limits_measure(pool, &l);
	base_threadpool_free(pool);
	report("limit: read", l.read_gb_s, "GB/s", 0);
	report("limit: read, one thread", l.read_1_gb_s, "GB/s", 0);
	report("limit: float multiply-add", l.fma_gop_s, "GOP/s", 0);
	report("limit: bfloat16 dot product", l.bf16_gop_s, "GOP/s", 0);
	report("limit: int8 dot product", l.int8_gop_s, "GOP/s", 0);
	if (kn_cpu_open(&(struct kn_config){ .n_threads = o.threads, .max_tokens = o.tokens, .isa = o.isa }, &be,
	                &err) < 0) {
		(void)fprintf(stderr, "bench_kernels: %s\n", err_text(&err));
		return 1;
	}
	r = 0;
	for (size_t i = 0; r == 0 && i < (o.types.n ? o.types.n : sizeof(defaults) / sizeof(*defaults)); i++) {
		enum kn_dtype dtype;

		r = kn_dtype_parse(o.types.n ? o.types.items[i] : defaults[i], &dtype, &err);
		if (r < 0)
			(void)fprintf(stderr, "bench_kernels: %s\n", err_text(&err));
		else if (!kn_takes(be, dtype))
			(void)fprintf(stderr, "bench_kernels: no kernels for %s here\n", o.types.items[i]);
		else
			r = bench_type(be, &o, dtype, &l);
	}
	bench_attention(be, &l);
	kn_backend_close(be);
	opt_list_done(&o.types);
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
	return run(argc, argv);
}
