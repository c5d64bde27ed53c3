/* Quantizing a model: plan the tensors, decide each one's type, write.
 *
 * The mix follows what llama.cpp's users know by name. Norms, biases, routers and other small things stay
 * float32. Under q4_0, q4_k and their kin the output matrix gets Q6_K: it decides the token by itself and is
 * read once per token anyway. Q4_K and Q5_K give Q6_K also to V and the down projection of the first and last
 * eighth of the layers and of every third between (the "_M" mixes). Rows that are not whole blocks of a K
 * type fall back to the 32-value type of the same width. */
#include "quantize/quantize_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/threadpool.h"
#include "weights/weights_internal.h"

enum { MAX_CONFIG = 16 << 20, MAX_LAYERS = 10000 };

/* general.file_type's numbers, of the mixes above. */
static const uint32_t file_types[KN_N_DTYPES] = {
	[KN_F32] = 0,  [KN_F16] = 1,  [KN_BF16] = 32, [KN_Q8_0] = 7,  [KN_Q4_0] = 2,  [KN_Q4_1] = 3,
	[KN_Q5_0] = 8, [KN_Q5_1] = 9, [KN_Q4_K] = 15, [KN_Q5_K] = 17, [KN_Q6_K] = 18,
};

static bool ends_with(const char *text, const char *suffix)
{
	size_t n = strlen(text), m = strlen(suffix);

	return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* ---- Types -------------------------------------------------------------------------------------------- */

static bool stays_float(const struct qz_tensor *t)
{
	static const char *const suffixes[] = { "_norm.weight",        ".bias",
		                                "ffn_gate_inp.weight", "attn_sinks.weight",
		                                "rope_freqs.weight",   "ssm_ba.weight",
		                                "ssm_conv1d.weight" };

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		if (ends_with(t->name, suffixes[i]))
			return true;
	}
	return t->n_dims < 2 || !ends_with(t->name, ".weight");
}

static bool is_narrow(enum kn_dtype dtype)
{
	return dtype != KN_F32 && dtype != KN_F16 && dtype != KN_BF16 && dtype != KN_Q8_0;
}

static bool gets_more_bits(const struct qz_plan *plan, const struct qz_tensor *t)
{
	int64_t n = plan->n_layer, i = t->layer;

	if (!strstr(t->name, "attn_v") && !strstr(t->name, "attn_qkv") && !strstr(t->name, "ffn_down"))
		return false;
	return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static enum kn_dtype wanted(const struct qz_plan *plan, const struct qz_tensor *t)
{
	const struct eng_quantize_options *o = plan->options;
	bool embed = strcmp(t->name, "token_embd.weight") == 0;
	bool output = strcmp(t->name, "output.weight") == 0 || (embed && plan->tied);

	if (stays_float(t))
		return KN_F32;
	if (embed && o->embed_dtype != KN_N_DTYPES)
		return o->embed_dtype;
	if (output && o->output_dtype != KN_N_DTYPES)
		return o->output_dtype;
	if (o->pure)
		return o->dtype;
	if (output && is_narrow(o->dtype))
		return KN_Q6_K;
	if ((o->dtype == KN_Q4_K || o->dtype == KN_Q5_K) && t->layer >= 0 && gets_more_bits(plan, t))
		return KN_Q6_K;
	return o->dtype;
}

static enum kn_dtype fitting(enum kn_dtype dtype, uint64_t cols)
{
	if (cols % kn_dtype_info(dtype)->block_elems == 0)
		return dtype;
	if (cols % 32 != 0)
		return KN_F16;
	return dtype == KN_Q6_K ? KN_Q8_0 : dtype == KN_Q5_K ? KN_Q5_0 : KN_Q4_0;
}

static void decide_types(struct qz_plan *plan)
{
	uint64_t n_other = 0;
	const struct qz_tensor *example = NULL;
	enum kn_dtype was = KN_F32;

	for (size_t i = 0; i < plan->n_tensors; i++) {
		struct qz_tensor *t = &plan->tensors[i];
		enum kn_dtype dtype = wanted(plan, t);

		t->dtype = fitting(dtype, t->cols);
		if (t->dtype == dtype)
			continue;
		if (n_other++ == 0) {
			example = t;
			was = dtype;
		}
	}
	if (example)
		qz_note(plan,
		        "%llu tensors have rows that are not whole blocks and got another type, as %s: %s, not %s",
		        (unsigned long long)n_other, example->name, kn_dtype_info(example->dtype)->name,
		        kn_dtype_info(was)->name);
}

/* ---- Sources ------------------------------------------------------------------------------------------ */

static int plan_folder(struct qz_plan *plan, const char *folder, struct err *err)
{
	CLEANUP(freep) char *path = NULL;
	json_t *config = NULL;
	const struct qz_arch *arch;
	const char *type = NULL, *slash;
	size_t len = strlen(folder);
	int r;

	if (asprintf(&path, "%s/config.json", folder) < 0) {
		path = NULL;
		return err_set(err, -ENOMEM, "%s: out of memory", folder);
	}
	r = base_json_read_file(path, MAX_CONFIG, &config, err);
	r = r == 0 ? base_json_get_string(config, path, "model_type", &type, err) : r;
	r = r == 0 ? base_json_get_u32(config, path, "num_hidden_layers", &plan->n_layer, err) : r;
	if (r == 0 && plan->n_layer > MAX_LAYERS)
		r = err_set(err, -ERANGE, "%s: num_hidden_layers: out of range", path);
	arch = r == 0 ? qz_arch_find(type) : NULL;
	if (r == 0 && !arch)
		r = err_set(err, -ENOTSUP, "%s: architecture '%s' cannot be written as GGUF yet", path, type);
	r = r == 0 ? qz_map_tensors(plan, arch, config, err) : r;
	r = r == 0 ? qz_write_params(plan, arch, config, err) : r;
	while (len > 1 && folder[len - 1] == '/')
		len--;
	slash = memrchr(folder, '/', len);
	r = r == 0 ? eng_gguf_add_string(plan->writer, "general.name", slash && slash[1] ? slash + 1 : folder,
	                                 slash && slash[1] ? len - (size_t)(slash + 1 - folder) : len)
	           : r;
	r = r == 0 ? qz_write_vocab(plan, folder, config, err) : r;
	json_decref(config);
	return r;
}

static int plan_gguf(struct qz_plan *plan, struct err *err)
{
	static const char *const replaced[] = { "general.file_type",
		                                "general.quantization_version",
		                                "general.alignment",
		                                "split.no",
		                                "split.count",
		                                "split.tensors.count",
		                                NULL };
	char key[128];
	const char *arch;
	size_t len;
	int r;

	r = eng_gguf_get_string(plan->weights, "general.architecture", &arch, &len, err);
	if (r < 0)
		return r;
	(void)snprintf(key, sizeof(key), "%.*s.block_count", len < 64 ? (int)len : 64, arch);
	r = eng_gguf_get_u32(plan->weights, key, &plan->n_layer, err);
	if (r < 0)
		return r;
	r = eng_gguf_add_copies(plan->writer, plan->weights, replaced);
	plan->tied = !eng_weights_find(plan->weights, "output.weight");
	for (size_t i = 0; r == 0 && i < eng_weights_count(plan->weights); i++) {
		const struct eng_tensor *s = eng_weights_at(plan->weights, i);
		struct qz_tensor *t;

		if (s->dtype == KN_N_DTYPES)
			return err_set(err, -ENOTSUP, "%s: tensor '%s': elements of type %s cannot be converted",
			               plan->options->model_path, s->name, s->dtype_name);
		t = qz_plan_add(plan, s->name, s->n_dims, s->shape);
		r = t ? qz_from_tensor(t, s) : -ENOMEM;
	}
	return r < 0 ? err_set(err, r, "%s: %s", plan->options->model_path, strerror(-r)) : 0;
}

static int plan_model(struct qz_plan *plan, struct err *err)
{
	const char *path = plan->options->model_path;
	struct stat st;
	int r;

	r = eng_weights_open(path, &plan->weights, err);
	if (r < 0)
		return r;
	if (eng_weights_is_gguf(plan->weights))
		return plan_gguf(plan, err);
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return err_set(err, -EINVAL,
		               "%s: safetensors by themselves tell no architecture: name the model's folder", path);
	return plan_folder(plan, path, err);
}

/* ---- All of it ---------------------------------------------------------------------------------------- */

/* The order of the file is the order of reading: embeddings, layers, output. */
static int by_layer(const void *a, const void *b)
{
	const struct qz_tensor *x = a, *y = b;

	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void plan_done(struct qz_plan *plan)
{
	for (size_t i = 0; i < plan->n_tensors; i++) {
		free(plan->tensors[i].parts);
		free((void *)plan->tensors[i].values);
		free((void *)plan->tensors[i].source_row);
	}
	free(plan->tensors);
	free(plan->scratch);
	eng_arena_done(&plan->arena);
	eng_gguf_writer_free(plan->writer);
	eng_weights_close(plan->weights);
	base_threadpool_free(plan->pool);
}

static void sum_up(const struct qz_plan *plan, struct eng_quantize_result *result)
{
	*result = (struct eng_quantize_result){ .n_tensors = plan->n_tensors };
	for (size_t i = 0; i < plan->n_tensors; i++) {
		const struct qz_tensor *t = &plan->tensors[i];

		result->n_params += t->rows * t->cols;
		result->size_bytes += t->rows * kn_row_bytes(t->dtype, t->cols);
	}
}

/* GGUF has no type for it. */
static int check_types(const struct eng_quantize_options *o, struct err *err)
{
	const enum kn_dtype types[] = { o->dtype, o->embed_dtype, o->output_dtype };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (types[i] > KN_N_DTYPES)
			return err_set(err, -ENOTSUP, "GGUF files have no element type %s",
			               kn_dtype_info(types[i])->name);
	}
	return 0;
}

int eng_quantize(const struct eng_quantize_options *options, struct eng_quantize_result *ret_result, struct err *err)
{
	CLEANUP(plan_done) struct qz_plan plan = { .options = options };
	int r = check_types(options, err);

	if (r < 0)
		return r;
	if (eng_gguf_writer_new(&plan.writer) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = base_threadpool_new(options->n_threads, &plan.pool, err);
	r = r < 0 ? r : options->random_shape ? qz_plan_random(&plan, err) : plan_model(&plan, err);
	if (r < 0)
		return r;
	decide_types(&plan);
	r = qz_key_u32(&plan, "general", "file_type", file_types[options->dtype]);
	r = r == 0 ? qz_key_u32(&plan, "general", "quantization_version", 2) : r;
	if (r < 0)
		return err_set(err, r, "%s: %s", options->output_path, strerror(-r));
	qsort(plan.tensors, plan.n_tensors, sizeof(*plan.tensors), by_layer);
	r = qz_plan_write(&plan, err);
	if (r < 0)
		return r;
	sum_up(&plan, ret_result);
	return 0;
}
