/* What a model's own files say beside the weights: tokenizer, special tokens, chat template, sampling
 * defaults, end tokens. A Hugging Face folder spreads them over four files; a GGUF file has keys. Files
 * that are missing are fine except for the tokenizer; files that are wrong are errors. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "engine_chat.h"
#include "engine_internal.h"
#include "template/template.h"
#include "tokenizer/tokenizer.h"
#include "weights/weights.h"

enum { MAX_CONFIG_BYTES = 64 << 20, MAX_TEMPLATE_BYTES = 1 << 20, MAX_EOS_IDS = 64 };

void eng_meta_default_sampling(struct eng_sampling *s)
{
	*s = (struct eng_sampling){ .temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f };
}

void eng_meta_done(struct eng_meta *meta)
{
	eng_tokenizer_free(meta->tokenizer);
	eng_template_free(meta->chat);
	eng_template_free(meta->chat_tools);
	json_decref(meta->special);
	free(meta->eos_ids);
	free(meta->chat_text);
	memset(meta, 0, sizeof(*meta));
}

/* ---- Shared ---- */

static int add_eos(struct eng_meta *meta, int64_t id)
{
	int32_t *ids;

	if (id < 0 || id > INT32_MAX || meta->n_eos_ids == MAX_EOS_IDS)
		return 0;
	for (size_t i = 0; i < meta->n_eos_ids; i++) {
		if (meta->eos_ids[i] == id)
			return 0;
	}
	ids = realloc(meta->eos_ids, (meta->n_eos_ids + 1) * sizeof(*ids));
	if (!ids)
		return -ENOMEM;
	meta->eos_ids = ids;
	meta->eos_ids[meta->n_eos_ids++] = (int32_t)id;
	return 0;
}

/* What the template for tools shows counts, then what the other one does. */
static void note_formats(struct eng_meta *meta, const char *text, size_t len)
{
	const char *tools = eng_chat_detect_tools(text, len), *reasoning = eng_chat_detect_reasoning(text, len);

	if (!meta->tool_format || strcmp(meta->tool_format, "none") == 0)
		meta->tool_format = tools;
	if (!meta->reasoning_format || strcmp(meta->reasoning_format, "none") == 0)
		meta->reasoning_format = reasoning;
}

/* The first one found stands. */
static int parse_template(const char *where, const char *text, size_t len, struct eng_meta *meta,
                          struct eng_template **ret, struct err *err)
{
	if (*ret)
		return 0;
	if (len > MAX_TEMPLATE_BYTES)
		return err_set(err, -EFBIG, "%s: the chat template is larger than %d bytes", where, MAX_TEMPLATE_BYTES);
	note_formats(meta, text, len);
	if (ret == &meta->chat)
		meta->chat_text = strndup(text, len);
	return eng_template_parse(where, text, len, ret, err);
}

/* ---- Hugging Face folder ---- */

static char *file_in(const char *dir, const char *file)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, file) < 0 ? NULL : path;
}

/* The object in dir/file; 0 with *ret NULL when there is no such file. */
static int read_optional(const char *dir, const char *file, json_t **ret, struct err *err)
{
	CLEANUP(freep) char *path = file_in(dir, file);
	int r;

	*ret = NULL;
	if (!path)
		return err_set(err, -ENOMEM, "out of memory");
	if (access(path, F_OK) < 0)
		return 0;
	r = base_json_read_file(path, MAX_CONFIG_BYTES, ret, err);
	if (r < 0)
		return r;
	if (!json_is_object(*ret)) {
		json_decref(*ret);
		*ret = NULL;
		return err_set(err, -EBADMSG, "%s: expected an object", path);
	}
	return 0;
}

static int read_eos(struct eng_meta *meta, const json_t *config)
{
	const json_t *v = json_object_get(config, "eos_token_id"), *item;
	size_t i;
	int r = 0;

	if (json_is_integer(v))
		return add_eos(meta, json_integer_value(v));
	json_array_foreach((json_t *)v, i, item)
	{
		if (r == 0 && json_is_integer(item))
			r = add_eos(meta, json_integer_value(item));
	}
	return r;
}

static void read_float(const json_t *config, const char *key, double min, double max, float *ret)
{
	const json_t *v = json_object_get(config, key);

	if (json_is_number(v) && json_number_value(v) >= min && json_number_value(v) <= max)
		*ret = (float)json_number_value(v);
}

static void read_sampling(const json_t *config, struct eng_sampling *s)
{
	const json_t *k = json_object_get(config, "top_k");

	read_float(config, "temperature", 0, 100, &s->temperature);
	read_float(config, "top_p", 0, 1, &s->top_p);
	read_float(config, "min_p", 0, 1, &s->min_p);
	read_float(config, "repetition_penalty", 0.01, 100, &s->repetition_penalty);
	if (json_is_integer(k) && json_integer_value(k) > 0 && json_integer_value(k) <= INT32_MAX)
		s->top_k = (uint32_t)json_integer_value(k);
	if (json_is_false(json_object_get(config, "do_sample")))
		s->temperature = 0;
}

/* generation_config.json, then config.json (also its text part) for what it lacks. */
static int read_generation(const char *dir, struct eng_meta *meta, struct err *err)
{
	json_t *generation = NULL, *config = NULL;
	const json_t *text;
	int r;

	r = read_optional(dir, "generation_config.json", &generation, err);
	if (r == 0)
		r = read_optional(dir, "config.json", &config, err);
	if (r == 0) {
		text = json_object_get(config, "text_config");
		read_sampling(generation, &meta->sampling);
		r = read_eos(meta, generation);
		if (r == 0 && meta->n_eos_ids == 0)
			r = read_eos(meta, config);
		if (r == 0 && meta->n_eos_ids == 0)
			r = read_eos(meta, text);
	}
	json_decref(generation);
	json_decref(config);
	return r;
}

/* A special token is a string or an object with its content. */
static const char *token_text(const json_t *v)
{
	return json_is_object(v) ? json_string_value(json_object_get(v, "content")) : json_string_value(v);
}

static void read_special(struct eng_meta *meta, const json_t *config)
{
	const char *key;
	const json_t *v;

	json_object_foreach((json_t *)config, key, v)
	{
		size_t n = strlen(key);
		const char *text = token_text(v);

		if (text && n > 6 && strcmp(key + n - 6, "_token") == 0)
			(void)json_object_set_new(meta->special, key, json_string(text));
	}
}

static int32_t special_id(const struct eng_meta *meta, const char *key)
{
	const char *text = json_string_value(json_object_get(meta->special, key));

	return text ? eng_tokenizer_find(meta->tokenizer, text, strlen(text)) : -1;
}

/* tokenizer_config.json's chat_template: one string, or a list of named ones. */
static int read_templates(const json_t *config, struct eng_meta *meta, struct err *err)
{
	const json_t *v = json_object_get(config, "chat_template"), *item;
	const char *where = "tokenizer_config.json: chat_template";
	size_t i;
	int r = 0;

	if (json_is_string(v))
		return parse_template(where, json_string_value(v), json_string_length(v), meta, &meta->chat, err);
	json_array_foreach((json_t *)v, i, item)
	{
		const char *which = json_string_value(json_object_get(item, "name"));
		const json_t *text = json_object_get(item, "template");

		if (r < 0 || !which || !json_is_string(text))
			continue;
		if (strcmp(which, "default") == 0)
			r = parse_template(where, json_string_value(text), json_string_length(text), meta, &meta->chat,
			                   err);
		else if (strcmp(which, "tool_use") == 0)
			r = parse_template(where, json_string_value(text), json_string_length(text), meta,
			                   &meta->chat_tools, err);
	}
	return r;
}

static int read_template_file(const char *dir, struct eng_meta *meta, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_TEMPLATE_BYTES);
	CLEANUP(freep) char *path = file_in(dir, "chat_template.jinja");
	int r;

	if (!path)
		return err_set(err, -ENOMEM, "out of memory");
	if (access(path, F_OK) < 0)
		return 0;
	r = base_read_file(path, &text, err);
	return r < 0 ? r : parse_template(path, base_buf_text(&text), text.len, meta, &meta->chat, err);
}

static int read_tokenizer_config(const char *dir, struct eng_meta *meta, struct err *err)
{
	json_t *map = NULL, *config = NULL;
	int r;

	r = read_optional(dir, "special_tokens_map.json", &map, err);
	if (r == 0)
		r = read_optional(dir, "tokenizer_config.json", &config, err);
	if (r == 0) {
		read_special(meta, map);
		read_special(meta, config);
		r = read_template_file(dir, meta, err);
	}
	if (r == 0)
		r = read_templates(config, meta, err);
	json_decref(map);
	json_decref(config);
	return r;
}

static int load_folder(const char *dir, struct eng_meta *meta, struct err *err)
{
	CLEANUP(freep) char *path = file_in(dir, "tokenizer.json");
	int r;

	if (!path)
		return err_set(err, -ENOMEM, "out of memory");
	r = eng_tokenizer_open(path, &meta->tokenizer, err);
	if (r == 0)
		r = read_tokenizer_config(dir, meta, err);
	if (r == 0)
		r = read_generation(dir, meta, err);
	if (r < 0)
		return r;
	meta->bos_id = special_id(meta, "bos_token");
	return meta->n_eos_ids == 0 ? add_eos(meta, special_id(meta, "eos_token")) : 0;
}

/* ---- GGUF ---- */

/* Keys of ids, and the name that templates know the token by. */
static const struct {
	const char *key, *name;
	bool ends;
} gguf_tokens[] = {
	{ "tokenizer.ggml.bos_token_id", "bos_token", false },
	{ "tokenizer.ggml.eos_token_id", "eos_token", true },
	{ "tokenizer.ggml.eot_token_id", NULL, true },
	{ "tokenizer.ggml.eom_token_id", NULL, true },
	{ "tokenizer.ggml.padding_token_id", "pad_token", false },
	{ "tokenizer.ggml.unknown_token_id", "unk_token", false },
};

static int gguf_special(const struct eng_weights *w, struct eng_meta *meta)
{
	for (size_t i = 0; i < sizeof(gguf_tokens) / sizeof(gguf_tokens[0]); i++) {
		const char *piece;
		uint32_t id = 0;
		size_t len = 0;

		if (eng_gguf_get_u32(w, gguf_tokens[i].key, &id, NULL) < 0 || id > INT32_MAX)
			continue;
		piece = eng_tokenizer_piece(meta->tokenizer, (int32_t)id, &len);
		if (gguf_tokens[i].name && piece)
			(void)json_object_set_new(meta->special, gguf_tokens[i].name, json_stringn(piece, len));
		if (i == 0)
			meta->bos_id = (int32_t)id;
		if (gguf_tokens[i].ends && add_eos(meta, id) < 0)
			return -ENOMEM;
	}
	return 0;
}

static void gguf_float(const struct eng_weights *w, const char *key, float min, float max, float *ret)
{
	float v = 0;

	if (eng_gguf_get_f32(w, key, &v, NULL) == 0 && v >= min && v <= max)
		*ret = v;
}

/* Sampling defaults, and end ids beside the one of the vocabulary, as our own converter keeps them. */
static int gguf_generation(const struct eng_weights *w, struct eng_meta *meta)
{
	struct eng_sampling *s = &meta->sampling;
	int32_t *ids = NULL;
	uint64_t n = 0;
	int r = 0;

	gguf_float(w, "general.sampling.temp", 0, 100, &s->temperature);
	gguf_float(w, "general.sampling.top_p", 0, 1, &s->top_p);
	gguf_float(w, "general.sampling.min_p", 0, 1, &s->min_p);
	gguf_float(w, "general.sampling.penalty_repeat", 0.01f, 100, &s->repetition_penalty);
	(void)eng_gguf_get_u32(w, "general.sampling.top_k", &s->top_k, NULL);
	if (eng_gguf_get_i32_array(w, "ocai.generation.eos_token_ids", &ids, &n, NULL) < 0)
		return 0;
	for (uint64_t i = 0; i < n && r == 0; i++)
		r = add_eos(meta, ids[i]);
	free(ids);
	return r;
}

static int gguf_templates(const struct eng_weights *w, struct eng_meta *meta, struct err *err)
{
	const char *text;
	size_t len;
	int r = 0;

	if (eng_gguf_get_string(w, "tokenizer.chat_template", &text, &len, NULL) == 0)
		r = parse_template("tokenizer.chat_template", text, len, meta, &meta->chat, err);
	if (r == 0 && eng_gguf_get_string(w, "tokenizer.chat_template.tool_use", &text, &len, NULL) == 0)
		r = parse_template("tokenizer.chat_template.tool_use", text, len, meta, &meta->chat_tools, err);
	return r;
}

/* Files of weights alone say so: ids go in and out, text does not. */
static bool is_without_vocabulary(const struct eng_weights *w)
{
	static const char *const names[] = { "none", "no_vocab" };
	const char *kind;
	size_t len;

	if (eng_gguf_get_string(w, "tokenizer.ggml.model", &kind, &len, NULL) < 0)
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i]) == len && memcmp(kind, names[i], len) == 0)
			return true;
	}
	return false;
}

static int load_gguf(const struct eng_weights *w, struct eng_meta *meta, struct err *err)
{
	int r;

	if (is_without_vocabulary(w))
		return gguf_generation(w, meta);
	r = eng_tokenizer_from_gguf(w, &meta->tokenizer, err);
	if (r == 0)
		r = gguf_special(w, meta);
	if (r == 0)
		r = gguf_generation(w, meta);
	return r == 0 ? gguf_templates(w, meta, err) : r;
}

/* ---- */

int eng_meta_load(const char *path, const struct eng_weights *weights, struct eng_meta *meta, struct err *err)
{
	memset(meta, 0, sizeof(*meta));
	meta->bos_id = -1;
	eng_meta_default_sampling(&meta->sampling);
	meta->special = json_object();
	if (!meta->special)
		return err_set(err, -ENOMEM, "out of memory");
	if (weights && eng_weights_is_gguf(weights))
		return load_gguf(weights, meta, err);
	return load_folder(path, meta, err);
}
