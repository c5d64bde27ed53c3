/* tokenizer.json (Hugging Face tokenizers, version "1.0"): the file, its model and its added tokens; the other
 * components are load_components.c's, the vocabulary and merges themselves bulk.c's.
 *
 * `truncation` and `padding` are left out on purpose: they are habits of training scripts, and a server that
 * cut prompts because of them would be wrong. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "tokenizer/tok_load.h"

/* ---- models ---------------------------------------------------------------------------------- */

static int read_vocab_map(struct tok_loader *ld, const struct tok_bulk *bulk, const char *where)
{
	if (bulk->vocab_begin == bulk->vocab_end)
		return err_set(ld->err, -EINVAL, "%s: vocab: missing, or not an object", where);
	return tok_bulk_vocab_map(bulk, &ld->tok->vocab, ld->err);
}

/* The unknown token's id; a name that is not in the vocabulary counts as none, until it is needed. */
static int read_unk_token(struct tok_loader *ld, const json_t *obj, const char *where)
{
	const char *unk = NULL;
	int r;

	r = base_json_opt_string(obj, where, "unk_token", &unk, ld->err);
	if (r > 0)
		ld->tok->model.unk_id =
		        tok_vocab_find(&ld->tok->vocab, unk, json_string_length(json_object_get(obj, "unk_token")));
	return r < 0 ? r : 0;
}

static int optional_text(struct tok_loader *ld, const json_t *obj, const char *where, const char *key, char **ret,
                         size_t *ret_n)
{
	json_t *v = json_object_get(obj, key);

	/* An empty one changes nothing, and files have it for "none". */
	if (!v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0))
		return 0;
	return tok_load_text(ld, obj, where, key, ret, ret_n);
}

static int model_bpe(struct tok_loader *ld, const json_t *obj, const struct tok_bulk *bulk, const char *where)
{
	struct tok_model *m = &ld->tok->model;
	double dropout = 0;
	int r;

	m->kind = TOK_BPE;
	r = base_json_opt_double(obj, where, "dropout", &dropout, ld->err);
	if (r < 0)
		return r;
	if (dropout != 0)
		return err_set(ld->err, -ENOTSUP, "%s: dropout: random merges are not supported", where);
	r = optional_text(ld, obj, where, "continuing_subword_prefix", &m->prefix, &m->prefix_len);
	if (r == 0)
		r = optional_text(ld, obj, where, "end_of_word_suffix", &m->suffix, &m->suffix_len);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "fuse_unk", false, &m->fuse_unk);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "byte_fallback", false, &m->byte_fallback);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "ignore_merges", false, &m->ignore_merges);
	if (r == 0)
		r = read_vocab_map(ld, bulk, where);
	if (r == 0)
		r = read_unk_token(ld, obj, where);
	if (r < 0)
		return r;
	if (bulk->merges_begin == bulk->merges_end)
		return err_set(ld->err, -EINVAL, "%s: merges: missing, or not an array", where);
	return tok_bulk_merges(bulk, ld->tok, ld->err);
}

static int model_unigram(struct tok_loader *ld, const json_t *obj, const struct tok_bulk *bulk, const char *where)
{
	struct tok_model *m = &ld->tok->model;
	uint32_t unk;
	int r;

	m->kind = TOK_UNIGRAM;
	m->fuse_unk = true;
	r = tok_load_bool(ld, obj, where, "byte_fallback", false, &m->byte_fallback);
	if (r < 0)
		return r;
	if (bulk->vocab_begin == bulk->vocab_end)
		return err_set(ld->err, -EINVAL, "%s: vocab: missing, or not an array", where);
	r = tok_bulk_vocab_scores(bulk, ld->tok, ld->err);
	if (r < 0)
		return r;
	r = base_json_opt_u32(obj, where, "unk_id", &unk, ld->err);
	if (r > 0 && unk >= ld->tok->vocab.n_ids)
		return err_set(ld->err, -ERANGE, "%s: unk_id: %u is not in the vocabulary", where, unk);
	if (r > 0)
		m->unk_id = (int32_t)unk;
	if (r < 0)
		return r;
	return tok_unigram_index(ld->tok) < 0 ? tok_load_no_memory(ld, where) : 0;
}

static int model_wordpiece(struct tok_loader *ld, const json_t *obj, const struct tok_bulk *bulk, const char *where)
{
	struct tok_model *m = &ld->tok->model;
	int r;

	m->kind = TOK_WORDPIECE;
	m->max_word_chars = 100;
	r = base_json_opt_u32(obj, where, "max_input_chars_per_word", &m->max_word_chars, ld->err);
	if (r < 0)
		return r;
	if (json_is_string(json_object_get(obj, "continuing_subword_prefix"))) {
		r = tok_load_text(ld, obj, where, "continuing_subword_prefix", &m->prefix, &m->prefix_len);
	} else {
		m->prefix = strdup("##");
		m->prefix_len = 2;
		r = m->prefix ? 0 : tok_load_no_memory(ld, where);
	}
	if (r >= 0)
		r = read_vocab_map(ld, bulk, where);
	return r < 0 ? r : read_unk_token(ld, obj, where);
}

static int model_wordlevel(struct tok_loader *ld, const json_t *obj, const struct tok_bulk *bulk, const char *where)
{
	int r;

	ld->tok->model.kind = TOK_WORDLEVEL;
	r = read_vocab_map(ld, bulk, where);
	return r < 0 ? r : read_unk_token(ld, obj, where);
}

static int load_model(struct tok_loader *ld, const json_t *root, const struct tok_bulk *bulk)
{
	char where[TOK_WHERE_SIZE];
	const char *type = NULL;
	json_t *obj;
	int r;

	r = base_json_get_object(root, ld->file, "model", &obj, ld->err);
	if (r < 0)
		return r;
	(void)snprintf(where, sizeof(where), "%.180s: model", ld->file);
	r = base_json_opt_string(obj, where, "type", &type, ld->err);
	if (r < 0)
		return r;
	/* Old files leave the type out; what they have tells. */
	if (!type)
		type = bulk->merges_begin != bulk->merges_end                                         ? "BPE"
		       : bulk->vocab_begin != bulk->vocab_end && bulk->data[bulk->vocab_begin] == '[' ? "Unigram"
		       : json_object_get(obj, "continuing_subword_prefix")                            ? "WordPiece"
		                                                                                      : "WordLevel";
	if (strcmp(type, "BPE") == 0)
		return model_bpe(ld, obj, bulk, where);
	if (strcmp(type, "Unigram") == 0)
		return model_unigram(ld, obj, bulk, where);
	if (strcmp(type, "WordPiece") == 0)
		return model_wordpiece(ld, obj, bulk, where);
	if (strcmp(type, "WordLevel") == 0)
		return model_wordlevel(ld, obj, bulk, where);
	return err_set(ld->err, -ENOTSUP, "%s: the component \"%.60s\" is not supported", where, type);
}

/* ---- added tokens ---------------------------------------------------------------------------- */

static int load_added_token(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_added_set *set = &ld->tok->added;
	struct tok_added *a = &set->items[set->n];
	int64_t id = -1;
	int32_t known;
	int r;

	*a = (struct tok_added){ 0 };
	if (!json_is_object(obj))
		return err_set(ld->err, -EINVAL, "%s: expected an object, got %s", where, base_json_type_name(obj));
	r = base_json_opt_i64(obj, where, "id", &id, ld->err);
	if (r < 0)
		return r;
	if (r == 0)
		return err_set(ld->err, -ENOENT, "%s: id: missing", where);
	if (id < 0 || id >= TOK_MAX_IDS)
		return err_set(ld->err, -ERANGE, "%s: id: %lld is out of range", where, (long long)id);
	r = tok_load_bool(ld, obj, where, "single_word", false, &a->single_word);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "lstrip", false, &a->lstrip);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "rstrip", false, &a->rstrip);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "special", false, &a->special);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "normalized", !a->special, &a->normalized);
	if (r == 0)
		r = tok_load_text(ld, obj, where, "content", &a->content, &a->n);
	if (r < 0)
		return r;
	if (a->n == 0 || a->n > TOK_MAX_PIECE_BYTES) {
		free(a->content);
		a->content = NULL;
		return a->n == 0 ? 0 : err_set(ld->err, -ERANGE, "%s: content: too long", where);
	}
	/* The model's vocabulary has the last word on the ids of its own pieces. */
	known = tok_vocab_find(&ld->tok->vocab, a->content, a->n);
	a->id = known >= 0 ? known : (int32_t)id;
	set->n++;
	return 0;
}

static int load_added(struct tok_loader *ld, const json_t *root)
{
	struct tok_added_set *set = &ld->tok->added;
	char where[TOK_WHERE_SIZE];
	json_t *list = NULL, *item;
	size_t i;
	int r;

	r = base_json_opt_array(root, ld->file, "added_tokens", &list, ld->err);
	if (r <= 0)
		return r;
	if (tok_grow(&set->items, &set->cap, json_array_size(list) + 1, sizeof(*set->items)) < 0)
		return tok_load_no_memory(ld, ld->file);
	json_array_foreach(list, i, item)
	{
		(void)snprintf(where, sizeof(where), "%.180s: added_tokens[%zu]", ld->file, i);
		r = load_added_token(ld, item, where);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the file -------------------------------------------------------------------------------- */

static int load_root(struct tok_loader *ld, const json_t *root, const struct tok_bulk *bulk)
{
	const char *version = "1.0";
	int r;

	if (!json_is_object(root))
		return err_set(ld->err, -EINVAL, "%s: expected an object, got %s", ld->file, base_json_type_name(root));
	r = base_json_opt_string(root, ld->file, "version", &version, ld->err);
	if (r < 0)
		return r;
	if (strcmp(version, "1.0") != 0)
		return err_set(ld->err, -ENOTSUP, "%s: version \"%.20s\" is not supported", ld->file, version);
	r = tok_load_components(ld, root);
	if (r == 0)
		r = load_model(ld, root, bulk);
	if (r == 0)
		r = load_added(ld, root);
	return r < 0 ? r : tok_finish(ld->tok, ld->file, ld->err);
}

static void tok_freep(struct eng_tokenizer **tok)
{
	eng_tokenizer_free(*tok);
}

int eng_tokenizer_parse(const char *where, const void *data, size_t len, struct eng_tokenizer **ret_tok,
                        struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf rest = BASE_BUF_INIT(TOK_MAX_FILE_BYTES + 16);
	CLEANUP(tok_freep) struct eng_tokenizer *tok = tok_new();
	CLEANUP(json_decrefp) json_t *root = NULL;
	struct tok_bulk bulk = { .where = where, .data = data, .len = len };
	struct tok_loader ld = { .tok = tok, .file = where, .err = err };
	int r;

	if (!tok)
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	if (len > TOK_MAX_FILE_BYTES)
		return err_set(err, -EFBIG, "%s: larger than %d bytes", where, TOK_MAX_FILE_BYTES);
	r = tok_bulk_cut(&bulk, &rest);
	if (r < 0)
		return err_set(err, r, "%s: out of memory", where);
	r = base_json_parse(where, base_buf_text(&rest), rest.len, &root, err);
	if (r == 0)
		r = load_root(&ld, root, &bulk);
	if (r < 0)
		return r;
	*ret_tok = tok;
	tok = NULL;
	return 0;
}

int eng_tokenizer_open(const char *path, struct eng_tokenizer **ret_tok, struct err *err)
{
	struct base_mapfile map;
	int r;

	r = base_mapfile_open(path, &map, err);
	if (r < 0)
		return r;
	r = eng_tokenizer_parse(path, map.data ? (const char *)map.data : "", map.size_bytes, ret_tok, err);
	base_mapfile_close(&map);
	return r;
}
