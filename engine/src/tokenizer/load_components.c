/* The components of tokenizer.json to the structures that run: normalizers, pre-tokenizers, decoders.
 *
 * Sequences are flattened: a list of steps is all that is left at run time. A component this file does not
 * know is refused by name, because guessing would give ids that are silently wrong. `offsets` options have
 * no effect on ids. Post-processors are in load_post.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "tokenizer/tok_load.h"

int tok_load_no_memory(struct tok_loader *ld, const char *where)
{
	return err_set(ld->err, -ENOMEM, "%s: out of memory or too many components", where);
}

int tok_load_text(struct tok_loader *ld, const json_t *obj, const char *where, const char *key, char **ret,
                  size_t *ret_n)
{
	const char *s;
	int r;

	r = base_json_get_string(obj, where, key, &s, ld->err);
	if (r < 0)
		return r;
	*ret_n = json_string_length(json_object_get(obj, key));
	*ret = malloc(*ret_n + 1);
	if (!*ret)
		return tok_load_no_memory(ld, where);
	memcpy(*ret, s, *ret_n + 1);
	return 0;
}

/* One character. */
static int get_char(struct tok_loader *ld, const json_t *obj, const char *where, const char *key, uint32_t *ret)
{
	size_t n, len = 0;
	const char *s;
	int r;

	r = base_json_get_string(obj, where, key, &s, ld->err);
	if (r < 0)
		return r;
	n = json_string_length(json_object_get(obj, key));
	if (n)
		*ret = tok_utf8_get(s, n, &len);
	return n && len == n ? 0 : err_set(ld->err, -EINVAL, "%s: %s: expected one character", where, key);
}

int tok_load_bool(struct tok_loader *ld, const json_t *obj, const char *where, const char *key, bool otherwise,
                  bool *ret)
{
	int r;

	*ret = otherwise;
	r = base_json_opt_bool(obj, where, key, ret, ld->err);
	return r < 0 ? r : 0;
}

/* {"String": "..."} or {"Regex": "..."}; an old file may have the string itself. */
static int get_pattern(struct tok_loader *ld, const json_t *obj, const char *where, struct tok_pattern *ret)
{
	json_t *p = json_object_get(obj, "pattern");
	const char *regex;
	int r;

	if (json_is_string(p)) {
		r = tok_load_text(ld, obj, where, "pattern", &ret->text, &ret->n);
	} else {
		r = base_json_get_object(obj, where, "pattern", &p, ld->err);
		if (r < 0)
			return r;
		if (json_object_get(p, "Regex")) {
			r = base_json_get_string(p, where, "Regex", &regex, ld->err);
			return r < 0 ? r
			             : tok_regex_compile(where, regex, json_string_length(json_object_get(p, "Regex")),
			                                 &ret->regex, ld->err);
		}
		r = tok_load_text(ld, p, where, "String", &ret->text, &ret->n);
	}
	if (r == 0 && ret->n == 0)
		return err_set(ld->err, -ENOTSUP, "%s: pattern: an empty string is not supported", where);
	return r;
}

/* ---- dispatch -------------------------------------------------------------------------------- */

static int load_component(struct tok_loader *ld, const json_t *obj, const char *where,
                          const struct tok_component *table)
{
	const char *type;
	int r;

	if (!json_is_object(obj))
		return err_set(ld->err, -EINVAL, "%s: expected an object, got %s", where, base_json_type_name(obj));
	r = base_json_get_string(obj, where, "type", &type, ld->err);
	if (r < 0)
		return r;
	for (; table->type; table++) {
		if (strcmp(table->type, type) == 0)
			break;
	}
	if (!table->type)
		return err_set(ld->err, -ENOTSUP, "%s: the component \"%.60s\" is not supported", where, type);
	if (ld->depth == TOK_MAX_NESTING)
		return err_set(ld->err, -ENOTSUP, "%s: components nested deeper than %d", where, TOK_MAX_NESTING);
	ld->depth++;
	r = table->load(ld, obj, where);
	ld->depth--;
	return r;
}

int tok_load_sequence(struct tok_loader *ld, const json_t *obj, const char *where, const char *key,
                      const struct tok_component *table)
{
	char inner[TOK_WHERE_SIZE];
	json_t *list, *item;
	size_t i;
	int r;

	r = base_json_get_array(obj, where, key, &list, ld->err);
	if (r < 0)
		return r;
	json_array_foreach(list, i, item)
	{
		(void)snprintf(inner, sizeof(inner), "%s.%s[%zu]", where, key, i);
		r = load_component(ld, item, inner, table);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A top-level component: missing or null is none. */
static int load_part(struct tok_loader *ld, const json_t *root, const char *key, const struct tok_component *table)
{
	char where[TOK_WHERE_SIZE];
	json_t *obj = json_object_get(root, key);

	if (!obj || json_is_null(obj))
		return 0;
	(void)snprintf(where, sizeof(where), "%.180s: %s", ld->file, key);
	return load_component(ld, obj, where, table);
}

/* ---- normalizers ----------------------------------------------------------------------------- */

static const struct tok_component normalizers[];

static int norm_simple(struct tok_loader *ld, const json_t *obj, const char *where)
{
	static const struct {
		const char *type;
		enum tok_norm_kind kind;
	} kinds[] = {
		{ "NFC", TOK_NORM_NFC },
		{ "NFD", TOK_NORM_NFD },
		{ "NFKC", TOK_NORM_NFKC },
		{ "NFKD", TOK_NORM_NFKD },
		{ "Lowercase", TOK_NORM_LOWERCASE },
		{ "StripAccents", TOK_NORM_STRIP_ACCENTS },
		{ "Nmt", TOK_NORM_NMT },
		{ "ByteLevel", TOK_NORM_BYTE_LEVEL },
	};
	const char *type = json_string_value(json_object_get(obj, "type"));

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(kinds[i].type, type) == 0)
			return tok_add_norm(ld->tok, kinds[i].kind) ? 0 : tok_load_no_memory(ld, where);
	}
	return -EINVAL;
}

static int norm_strip(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_norm *norm = tok_add_norm(ld->tok, TOK_NORM_STRIP);
	int r;

	if (!norm)
		return tok_load_no_memory(ld, where);
	r = tok_load_bool(ld, obj, where, "strip_left", true, &norm->left);
	return r < 0 ? r : tok_load_bool(ld, obj, where, "strip_right", true, &norm->right);
}

static int norm_replace(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_norm *norm = tok_add_norm(ld->tok, TOK_NORM_REPLACE);
	int r;

	if (!norm)
		return tok_load_no_memory(ld, where);
	r = get_pattern(ld, obj, where, &norm->pattern);
	return r < 0 ? r : tok_load_text(ld, obj, where, "content", &norm->text, &norm->n);
}

static int norm_prepend(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_norm *norm = tok_add_norm(ld->tok, TOK_NORM_PREPEND);

	return norm ? tok_load_text(ld, obj, where, "prepend", &norm->text, &norm->n) : tok_load_no_memory(ld, where);
}

static int norm_bert(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_norm *norm = tok_add_norm(ld->tok, TOK_NORM_BERT);
	int r;

	if (!norm)
		return tok_load_no_memory(ld, where);
	r = tok_load_bool(ld, obj, where, "clean_text", true, &norm->clean_text);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "handle_chinese_chars", true, &norm->chinese);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "lowercase", true, &norm->lowercase);
	/* Not said: accents go when case does. */
	return r < 0 ? r : tok_load_bool(ld, obj, where, "strip_accents", norm->lowercase, &norm->strip_accents);
}

static int norm_precompiled(struct tok_loader *ld, const json_t *obj, const char *where)
{
	const char *text;
	struct tok_norm *norm;
	int r;

	if (json_is_null(json_object_get(obj, "precompiled_charsmap")))
		return 0;
	r = base_json_get_string(obj, where, "precompiled_charsmap", &text, ld->err);
	if (r < 0)
		return r;
	norm = tok_add_norm(ld->tok, TOK_NORM_CHARSMAP);
	if (!norm)
		return tok_load_no_memory(ld, where);
	r = tok_charsmap_from_base64(text, strlen(text), &norm->charsmap);
	if (r < 0)
		return err_set(ld->err, r, "%s: precompiled_charsmap: not a valid character map", where);
	return 0;
}

static int norm_sequence(struct tok_loader *ld, const json_t *obj, const char *where)
{
	return tok_load_sequence(ld, obj, where, "normalizers", normalizers);
}

static const struct tok_component normalizers[] = {
	{ "NFC", norm_simple },
	{ "NFD", norm_simple },
	{ "NFKC", norm_simple },
	{ "NFKD", norm_simple },
	{ "Lowercase", norm_simple },
	{ "StripAccents", norm_simple },
	{ "Nmt", norm_simple },
	{ "ByteLevel", norm_simple },
	{ "Strip", norm_strip },
	{ "Replace", norm_replace },
	{ "Prepend", norm_prepend },
	{ "BertNormalizer", norm_bert },
	{ "Precompiled", norm_precompiled },
	{ "Sequence", norm_sequence },
	{ NULL, NULL },
};

/* ---- pre-tokenizers -------------------------------------------------------------------------- */

static const struct tok_component pretokenizers[];

static int get_behavior(struct tok_loader *ld, const json_t *obj, const char *where, bool required,
                        enum tok_behavior *ret)
{
	static const struct {
		const char *name;
		enum tok_behavior behavior;
	} names[] = {
		{ "Removed", TOK_REMOVED },
		{ "Isolated", TOK_ISOLATED },
		{ "MergedWithPrevious", TOK_MERGED_WITH_PREVIOUS },
		{ "MergedWithNext", TOK_MERGED_WITH_NEXT },
		{ "Contiguous", TOK_CONTIGUOUS },
	};
	const char *name = "Isolated";
	int r;

	r = required ? base_json_get_string(obj, where, "behavior", &name, ld->err)
	             : base_json_opt_string(obj, where, "behavior", &name, ld->err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (strcmp(names[i].name, name) == 0) {
			*ret = names[i].behavior;
			return 0;
		}
	}
	return err_set(ld->err, -ENOTSUP, "%s: the behavior \"%.60s\" is not supported", where, name);
}

static int pre_byte_level(struct tok_loader *ld, const json_t *obj, const char *where)
{
	bool prefix, regex;
	int r;

	r = tok_load_bool(ld, obj, where, "add_prefix_space", true, &prefix);
	if (r == 0)
		r = tok_load_bool(ld, obj, where, "use_regex", true, &regex);
	if (r < 0)
		return r;
	if (prefix && !tok_add_pretok(ld->tok, TOK_PRE_PREFIX_SPACE))
		return tok_load_no_memory(ld, where);
	r = regex ? tok_add_regex_split(ld->tok, where, tok_gpt2_pattern, ld->err) : 0;
	if (r < 0)
		return r;
	return tok_add_pretok(ld->tok, TOK_PRE_BYTE_LEVEL) ? 0 : tok_load_no_memory(ld, where);
}

static int pre_split(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_pretok *pre = tok_add_pretok(ld->tok, TOK_PRE_SPLIT);
	int r;

	if (!pre)
		return tok_load_no_memory(ld, where);
	r = get_pattern(ld, obj, where, &pre->pattern);
	if (r == 0)
		r = get_behavior(ld, obj, where, true, &pre->behavior);
	return r < 0 ? r : tok_load_bool(ld, obj, where, "invert", false, &pre->invert);
}

/* Shared with the decoder of the same name. add_prefix_space is how older files say it. */
static int get_prepend(struct tok_loader *ld, const json_t *obj, const char *where, enum tok_prepend *ret)
{
	const char *scheme = NULL;
	bool prefix;
	int r;

	r = base_json_opt_string(obj, where, "prepend_scheme", &scheme, ld->err);
	if (r >= 0)
		r = tok_load_bool(ld, obj, where, "add_prefix_space", true, &prefix);
	if (r < 0)
		return r;
	if (!scheme)
		*ret = prefix ? TOK_PREPEND_ALWAYS : TOK_PREPEND_NEVER;
	else if (strcmp(scheme, "always") == 0)
		*ret = TOK_PREPEND_ALWAYS;
	else if (strcmp(scheme, "first") == 0)
		*ret = TOK_PREPEND_FIRST;
	else if (strcmp(scheme, "never") == 0)
		*ret = TOK_PREPEND_NEVER;
	else
		return err_set(ld->err, -ENOTSUP, "%s: the prepend_scheme \"%.60s\" is not supported", where, scheme);
	if (scheme && !prefix && *ret != TOK_PREPEND_NEVER)
		return err_set(ld->err, -EINVAL, "%s: add_prefix_space and prepend_scheme disagree", where);
	return 0;
}

static int pre_metaspace(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_pretok *pre = tok_add_pretok(ld->tok, TOK_PRE_METASPACE);
	int r;

	if (!pre)
		return tok_load_no_memory(ld, where);
	r = get_char(ld, obj, where, "replacement", &pre->cp);
	if (r == 0)
		r = get_prepend(ld, obj, where, &pre->prepend);
	return r < 0 ? r : tok_load_bool(ld, obj, where, "split", true, &pre->split);
}

static int pre_removing(struct tok_loader *ld, const char *where, enum tok_pretok_kind kind)
{
	struct tok_pretok *pre = tok_add_pretok(ld->tok, kind);

	if (!pre)
		return tok_load_no_memory(ld, where);
	pre->behavior = TOK_REMOVED;
	return 0;
}

static int pre_whitespace(struct tok_loader *ld, const json_t *obj, const char *where)
{
	return pre_removing(ld, where, TOK_PRE_WHITESPACE);
}

static int pre_whitespace_split(struct tok_loader *ld, const json_t *obj, const char *where)
{
	return pre_removing(ld, where, TOK_PRE_WHITESPACE_SPLIT);
}

static int pre_punctuation(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_pretok *pre = tok_add_pretok(ld->tok, TOK_PRE_PUNCTUATION);

	return pre ? get_behavior(ld, obj, where, false, &pre->behavior) : tok_load_no_memory(ld, where);
}

static int pre_bert(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_pretok *pre;
	int r;

	r = pre_removing(ld, where, TOK_PRE_WHITESPACE_SPLIT);
	if (r < 0)
		return r;
	pre = tok_add_pretok(ld->tok, TOK_PRE_PUNCTUATION);
	if (!pre)
		return tok_load_no_memory(ld, where);
	pre->behavior = TOK_ISOLATED;
	return 0;
}

static int pre_digits(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_pretok *pre = tok_add_pretok(ld->tok, TOK_PRE_DIGITS);
	bool individual;
	int r;

	if (!pre)
		return tok_load_no_memory(ld, where);
	r = tok_load_bool(ld, obj, where, "individual_digits", false, &individual);
	pre->behavior = r == 0 && individual ? TOK_ISOLATED : TOK_CONTIGUOUS;
	return r;
}

static int pre_delimiter(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_pretok *pre = tok_add_pretok(ld->tok, TOK_PRE_CHAR_DELIMITER);

	if (!pre)
		return tok_load_no_memory(ld, where);
	pre->behavior = TOK_REMOVED;
	return get_char(ld, obj, where, "delimiter", &pre->cp);
}

static int pre_fixed_length(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_pretok *pre = tok_add_pretok(ld->tok, TOK_PRE_FIXED_LENGTH);
	int r;

	if (!pre)
		return tok_load_no_memory(ld, where);
	pre->behavior = TOK_ISOLATED;
	pre->length = 5;
	r = base_json_opt_u32(obj, where, "length", &pre->length, ld->err);
	if (r < 0)
		return r;
	return pre->length ? 0 : err_set(ld->err, -EINVAL, "%s: length: must be at least 1", where);
}

static int pre_sequence(struct tok_loader *ld, const json_t *obj, const char *where)
{
	return tok_load_sequence(ld, obj, where, "pretokenizers", pretokenizers);
}

static const struct tok_component pretokenizers[] = {
	{ "ByteLevel", pre_byte_level },
	{ "Split", pre_split },
	{ "Metaspace", pre_metaspace },
	{ "Whitespace", pre_whitespace },
	{ "WhitespaceSplit", pre_whitespace_split },
	{ "BertPreTokenizer", pre_bert },
	{ "Punctuation", pre_punctuation },
	{ "Digits", pre_digits },
	{ "CharDelimiterSplit", pre_delimiter },
	{ "FixedLength", pre_fixed_length },
	{ "Sequence", pre_sequence },
	{ NULL, NULL },
};

/* ---- decoders -------------------------------------------------------------------------------- */

static const struct tok_component decoders[];

static int dec_simple(struct tok_loader *ld, const json_t *obj, const char *where)
{
	const char *type = json_string_value(json_object_get(obj, "type"));
	enum tok_dec_kind kind = strcmp(type, "ByteLevel") == 0 ? TOK_DEC_BYTE_LEVEL
	                         : strcmp(type, "Fuse") == 0    ? TOK_DEC_FUSE
	                                                        : TOK_DEC_BYTE_FALLBACK;

	return tok_add_dec(ld->tok, kind) ? 0 : tok_load_no_memory(ld, where);
}

static int dec_metaspace(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_dec *dec = tok_add_dec(ld->tok, TOK_DEC_METASPACE);
	enum tok_prepend prepend;
	int r;

	if (!dec)
		return tok_load_no_memory(ld, where);
	r = get_char(ld, obj, where, "replacement", &dec->cp);
	if (r == 0)
		r = get_prepend(ld, obj, where, &prepend);
	if (r == 0)
		dec->keep_first = prepend == TOK_PREPEND_NEVER;
	return r;
}

static int dec_wordpiece(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_dec *dec = tok_add_dec(ld->tok, TOK_DEC_WORDPIECE);
	int r;

	if (!dec)
		return tok_load_no_memory(ld, where);
	r = tok_load_text(ld, obj, where, "prefix", &dec->text, &dec->n);
	return r < 0 ? r : tok_load_bool(ld, obj, where, "cleanup", true, &dec->cleanup);
}

static int dec_strip(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_dec *dec = tok_add_dec(ld->tok, TOK_DEC_STRIP);
	int r;

	if (!dec)
		return tok_load_no_memory(ld, where);
	r = get_char(ld, obj, where, "content", &dec->cp);
	if (r == 0)
		r = base_json_get_u32(obj, where, "start", &dec->start, ld->err);
	return r < 0 ? r : base_json_get_u32(obj, where, "stop", &dec->stop, ld->err);
}

static int dec_replace(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_dec *dec = tok_add_dec(ld->tok, TOK_DEC_REPLACE);
	int r;

	if (!dec)
		return tok_load_no_memory(ld, where);
	r = get_pattern(ld, obj, where, &dec->pattern);
	return r < 0 ? r : tok_load_text(ld, obj, where, "content", &dec->text, &dec->n);
}

static int dec_bpe(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_dec *dec = tok_add_dec(ld->tok, TOK_DEC_BPE);

	return dec ? tok_load_text(ld, obj, where, "suffix", &dec->text, &dec->n) : tok_load_no_memory(ld, where);
}

static int dec_ctc(struct tok_loader *ld, const json_t *obj, const char *where)
{
	struct tok_dec *dec = tok_add_dec(ld->tok, TOK_DEC_CTC);
	int r;

	if (!dec)
		return tok_load_no_memory(ld, where);
	r = tok_load_text(ld, obj, where, "pad_token", &dec->text, &dec->n);
	if (r == 0)
		r = tok_load_text(ld, obj, where, "word_delimiter_token", &dec->text2, &dec->n2);
	return r < 0 ? r : tok_load_bool(ld, obj, where, "cleanup", true, &dec->cleanup);
}

static int dec_sequence(struct tok_loader *ld, const json_t *obj, const char *where)
{
	return tok_load_sequence(ld, obj, where, "decoders", decoders);
}

static const struct tok_component decoders[] = {
	{ "ByteLevel", dec_simple },
	{ "Fuse", dec_simple },
	{ "ByteFallback", dec_simple },
	{ "Metaspace", dec_metaspace },
	{ "WordPiece", dec_wordpiece },
	{ "Strip", dec_strip },
	{ "Replace", dec_replace },
	{ "BPEDecoder", dec_bpe },
	{ "CTC", dec_ctc },
	{ "Sequence", dec_sequence },
	{ NULL, NULL },
};

int tok_load_components(struct tok_loader *ld, const json_t *root)
{
	int r;

	r = load_part(ld, root, "normalizer", normalizers);
	if (r == 0)
		r = load_part(ld, root, "pre_tokenizer", pretokenizers);
	if (r == 0)
		r = load_part(ld, root, "decoder", decoders);
	return r < 0 ? r : load_part(ld, root, "post_processor", tok_postprocessors);
}
