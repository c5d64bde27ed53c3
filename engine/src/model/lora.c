/* Loading adapters and adding them to a step's rows. The step's rows are split into runs of one adapter each
 * (runner_step.c); each run of each matrix is two small products. */
#include "model/lora.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "weights/weights.h"

enum { CONFIG_MAX_BYTES = 1 << 20, MAX_RANK = 4096, NAME_BYTES = 256 };

struct lora_loader {
	struct eng_model *m;
	struct eng_weights *weights;
	const char *path; /* of the weights, for errors */
	double alpha;
	bool rank_stabilized;
	size_t n_used; /* tensors */
	struct err *err;
};

static void weights_closep(struct eng_weights **w)
{
	eng_weights_close(*w);
}

/* ---- The configuration ---- */

/* Kinds of LoRA that compute something else are refused by the key that asks for them. */
static int refuse_variants(const json_t *o, const char *path, struct err *err)
{
	static const char *const flags[] = { "use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora" };
	static const char *const lists[] = { "modules_to_save",         "rank_pattern",      "alpha_pattern",
		                             "trainable_token_indices", "layer_replication", "target_parameters",
		                             "alora_invocation_tokens" };

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (json_is_true(json_object_get(o, flags[i])))
			return err_set(err, -ENOTSUP, "%s: %s is not supported", path, flags[i]);
	}
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		const json_t *v = json_object_get(o, lists[i]);

		if (json_array_size(v) > 0 || json_object_size(v) > 0)
			return err_set(err, -ENOTSUP, "%s: %s is not supported", path, lists[i]);
	}
	return 0;
}

static int read_config(struct lora_loader *l, const char *path)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	const char *type, *bias;
	const json_t *alpha;
	int r = base_json_read_file(path, CONFIG_MAX_BYTES, &o, l->err);

	if (r < 0)
		return r;
	if (!json_is_object(o))
		return err_set(l->err, -EBADMSG, "%s: expected an object, got %s", path, base_json_type_name(o));
	type = json_string_value(json_object_get(o, "peft_type"));
	if (!type || strcmp(type, "LORA") != 0)
		return err_set(l->err, -ENOTSUP, "%s: peft_type: \"%.64s\" is not supported, only \"LORA\"", path,
		               type ? type : "?");
	bias = json_string_value(json_object_get(o, "bias"));
	if (bias && strcmp(bias, "none") != 0)
		return err_set(l->err, -ENOTSUP, "%s: bias: \"%.64s\" is not supported, only \"none\"", path, bias);
	alpha = json_object_get(o, "lora_alpha");
	if (!json_is_number(alpha) || !isfinite(json_number_value(alpha)))
		return err_set(l->err, -EINVAL, "%s: lora_alpha: expected a number, got %s", path,
		               base_json_type_name(alpha));
	l->alpha = json_number_value(alpha);
	l->rank_stabilized = json_is_true(json_object_get(o, "use_rslora"));
	return refuse_variants(o, path, l->err);
}

/* ---- The weights ---- */

/* What a target is called in files, and where it is in a layer. */
static const struct {
	const char *name;
	size_t linear; /* offset in struct layer */
} targets[N_LORA_TARGETS] = {
	[LORA_Q] = { "self_attn.q_proj", offsetof(struct layer, q) },
	[LORA_K] = { "self_attn.k_proj", offsetof(struct layer, k) },
	[LORA_V] = { "self_attn.v_proj", offsetof(struct layer, v) },
	[LORA_O] = { "self_attn.o_proj", offsetof(struct layer, o) },
	[LORA_GATE] = { "mlp.gate_proj", offsetof(struct layer, gate) },
	[LORA_UP] = { "mlp.up_proj", offsetof(struct layer, up) },
	[LORA_DOWN] = { "mlp.down_proj", offsetof(struct layer, down) },
};

/* One of a pair, as float32 times `scale`; *ret NULL when the file has none. */
static int load_one(struct lora_loader *l, uint32_t il, enum lora_target target, char which, uint32_t rows,
                    uint32_t cols, double scale, struct kn_mat *ret)
{
	char name[NAME_BYTES];
	const struct eng_tensor *t;
	size_t n = (size_t)rows * cols;
	float *values;

	(void)snprintf(name, sizeof(name), "base_model.model.model.layers.%u.%s.lora_%c.weight", il,
	               targets[target].name, which);
	t = eng_weights_find(l->weights, name);
	if (!t)
		return err_set(l->err, -ENOENT, "%s: tensor %s is missing", l->path, name);
	if (t->dtype == KN_N_DTYPES || t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != cols)
		return err_set(l->err, -EINVAL, "%s: %s: expected floats [%u, %u]", l->path, name, rows, cols);
	values = model_host_alloc(l->m, n * sizeof(*values));
	if (!values)
		return err_set(l->err, -ENOMEM, "%s: no memory", l->path);
	kn_dequantize(t->dtype, t->data, values, n);
	for (size_t i = 0; i < n; i++)
		values[i] *= (float)scale;
	*ret = (struct kn_mat){ .dtype = KN_F32, .rows = rows, .cols = cols, .data = values };
	l->n_used++;
	return model_mat(l->m, name, ret, l->err);
}

static int load_pair(struct lora_loader *l, uint32_t il, enum lora_target target, struct lora *lora)
{
	const struct linear *base = (const void *)((const char *)&l->m->layers[il] + targets[target].linear);
	struct lora_pair *pair = &lora->pairs[(size_t)il * N_LORA_TARGETS + target];
	char name[NAME_BYTES];
	const struct eng_tensor *t;
	uint32_t rank;
	double scale;
	int r;

	(void)snprintf(name, sizeof(name), "base_model.model.model.layers.%u.%s.lora_A.weight", il,
	               targets[target].name);
	t = eng_weights_find(l->weights, name);
	if (!t)
		return 0;
	if (base->w.rows == 0)
		return err_set(l->err, -ENOTSUP, "%s: %s: the model has no matrix of its own there", l->path, name);
	if (t->n_dims != 2 || t->shape[0] == 0 || t->shape[0] > MAX_RANK)
		return err_set(l->err, -EINVAL, "%s: %s: expected [rank, %u], rank at most %d", l->path, name,
		               base->w.cols, MAX_RANK);
	rank = (uint32_t)t->shape[0];
	scale = l->alpha / (l->rank_stabilized ? sqrt(rank) : rank);
	r = load_one(l, il, target, 'A', rank, base->w.cols, 1, &pair->a);
	r = r < 0 ? r : load_one(l, il, target, 'B', base->w.rows, rank, scale, &pair->b);
	if (rank > lora->rank)
		lora->rank = rank;
	return r;
}

/* Everything in the file must have been of use: an adapter that is applied in part computes nonsense quietly. */
static int nothing_is_left(const struct lora_loader *l)
{
	size_t n = eng_weights_count(l->weights);

	for (size_t i = 0; i < n && l->n_used < n; i++) {
		const struct eng_tensor *t = eng_weights_at(l->weights, i);
		unsigned layer;
		int end = -1;
		bool known = false;

		if (sscanf(t->name, "base_model.model.model.layers.%u.%n", &layer, &end) == 1 && end > 0) {
			for (int k = 0; k < N_LORA_TARGETS && !known; k++)
				known = strncmp(t->name + end, targets[k].name, strlen(targets[k].name)) == 0 &&
				        layer < l->m->hp.n_layer;
		}
		if (!known)
			return err_set(l->err, -ENOTSUP, "%s: %s: adapters of this are not supported", l->path,
			               t->name);
	}
	if (n == 0 || l->n_used < n)
		return err_set(l->err, -EBADMSG, "%s: %zu tensors, %zu of them in pairs", l->path, n, l->n_used);
	return 0;
}

int eng_model_add_lora(struct eng_model *m, const char *folder, struct err *err)
{
	CLEANUP(weights_closep) struct eng_weights *weights = NULL;
	struct lora_loader l = { .m = m, .err = err };
	char config[PATH_MAX], path[PATH_MAX];
	struct lora *grown, lora = { 0 };
	size_t n_pairs = (size_t)m->hp.n_layer * N_LORA_TARGETS;
	int r;

	if (m->hp.arch->encoder || m->hp.arch->attn == ATTN_MLA)
		return err_set(err, -ENOTSUP, "%s: adapters of %s are not supported", folder, m->hp.arch->name);
	if (m->share.n > 1)
		return err_set(err, -ENOTSUP, "%s: adapters are computed on one device", folder);
	if (snprintf(config, sizeof(config), "%s/adapter_config.json", folder) >= (int)sizeof(config) ||
	    snprintf(path, sizeof(path), "%s/adapter_model.safetensors", folder) >= (int)sizeof(path))
		return err_set(err, -ENAMETOOLONG, "%s: path too long", folder);
	l.path = path;
	r = read_config(&l, config);
	r = r < 0 ? r : eng_weights_open(path, &weights, err);
	if (r < 0)
		return r;
	l.weights = weights;
	lora.pairs = model_host_alloc(m, n_pairs * sizeof(*lora.pairs));
	grown = realloc(m->loras, (m->n_loras + 1) * sizeof(*grown));
	if (grown)
		m->loras = grown;
	if (!lora.pairs || !grown)
		return err_set(err, -ENOMEM, "%s: no memory", folder);
	memset(lora.pairs, 0, n_pairs * sizeof(*lora.pairs));
	for (uint32_t il = 0; il < m->hp.n_layer; il++) {
		for (int k = 0; k < N_LORA_TARGETS && r == 0; k++)
			r = load_pair(&l, il, (enum lora_target)k, &lora);
	}
	r = r < 0 ? r : nothing_is_left(&l);
	if (r < 0)
		return r;
	m->loras[m->n_loras++] = lora;
	if (lora.rank > m->lora_rank)
		m->lora_rank = lora.rank;
	return (int)m->n_loras;
}

/* ---- A step ---- */

void model_lora_add(struct eng_runner *r, uint32_t il, enum lora_target target, const float *in, size_t ld_in,
                    float *out, size_t ld_out)
{
	const struct eng_model *m = r->model;

	r->be->n_answer_rows = UINT32_MAX; /* rows of all kinds, counted anew for each run */
	for (size_t i = 0; i < r->n_runs; i++) {
		const struct adapter_run *run = &r->runs[i];
		const struct lora_pair *pair;
		struct kn_matmul down, up;

		if (run->adapter == 0)
			continue;
		pair = &m->loras[run->adapter - 1].pairs[(size_t)il * N_LORA_TARGETS + target];
		if (pair->a.rows == 0)
			continue;
		down = (struct kn_matmul){ .w = &pair->a, .out = r->buf[B_LORA], .ld_out = pair->a.rows };
		up = (struct kn_matmul){ .w = &pair->b,
			                 .out = out + run->row * ld_out,
			                 .ld_out = ld_out,
			                 .flags = KN_ACCUMULATE | KN_AMONG_ROWS };
		r->ops->matmul(r->be, &down, 1, in + run->row * ld_in, ld_in, run->n_rows);
		r->ops->matmul(r->be, &up, 1, r->buf[B_LORA], pair->a.rows, run->n_rows);
	}
	r->be->n_answer_rows = r->n_answer_rows;
}
