/* Post-processors of tokenizer.json. Of each only what it does to a single text is kept: ids before and after it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "tokenizer/tok_load.h"

static int put_around(struct tok_loader *ld, const char *where, struct eng_ids *before, struct eng_ids *after)
{
	struct eng_ids *p = &ld->tok->prefix, *s = &ld->tok->suffix;
	int r = 0;

	/* The later processor is the outer one. */
	for (size_t i = 0; r == 0 && i < p->n; i++)
		r = eng_ids_push(before, p->ids[i]);
	for (size_t i = 0; r == 0 && i < after->n; i++)
		r = eng_ids_push(s, after->ids[i]);
	if (r < 0)
		return tok_load_no_memory(ld, where);
	eng_ids_done(p);
	*p = *before;
	*before = (struct eng_ids){ 0 };
	return 0;
}

static int push_special(struct tok_loader *ld, const json_t *specials, const char *where, const char *name,
                        struct eng_ids *ids)
{
	json_t *entry, *list, *id;
	size_t i;
	int r;

	r = base_json_get_object(specials, where, name, &entry, ld->err);
	if (r == 0)
		r = base_json_get_array(entry, where, "ids", &list, ld->err);
	if (r < 0)
		return r;
	json_array_foreach(list, i, id)
	{
		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOK_MAX_IDS)
			return err_set(ld->err, -EINVAL, "%s: special_tokens: %.60s: ids: expected ids", where, name);
		if (eng_ids_push(ids, (int32_t)json_integer_value(id)) < 0)
			return tok_load_no_memory(ld, where);
	}
	return 0;
}

/* One piece of the template: the text itself, or ids of a special token. */
static int template_piece(struct tok_loader *ld, const json_t *piece, const json_t *specials, const char *where,
                          bool *seen_text, struct eng_ids *before, struct eng_ids *after)
{
	json_t *special, *sequence;
	const char *id;
	int r;

	sequence = json_object_get(piece, "Sequence");
	special = json_object_get(piece, "SpecialToken");
	if (json_is_object(sequence)) {
		r = base_json_get_string(sequence, where, "id", &id, ld->err);
		if (r < 0)
			return r;
		if (strcmp(id, "A") != 0 || *seen_text)
			return err_set(ld->err, -ENOTSUP, "%s: single: more than the text once is not supported",
			               where);
		*seen_text = true;
		return 0;
	}
	if (!json_is_object(special))
		return err_set(ld->err, -EINVAL, "%s: single: expected Sequence or SpecialToken", where);
	r = base_json_get_string(special, where, "id", &id, ld->err);
	return r < 0 ? r : push_special(ld, specials, where, id, *seen_text ? after : before);
}

static int post_template(struct tok_loader *ld, const json_t *obj, const char *where)
{
	CLEANUP(eng_ids_done) struct eng_ids before = { 0 };
	CLEANUP(eng_ids_done) struct eng_ids after = { 0 };
	json_t *single, *specials, *piece;
	bool seen_text = false;
	size_t i;
	int r;

	r = base_json_get_array(obj, where, "single", &single, ld->err);
	if (r == 0)
		r = base_json_get_object(obj, where, "special_tokens", &specials, ld->err);
	if (r < 0)
		return r;
	json_array_foreach(single, i, piece)
	{
		r = template_piece(ld, piece, specials, where, &seen_text, &before, &after);
		if (r < 0)
			return r;
	}
	if (!seen_text)
		return err_set(ld->err, -ENOTSUP, "%s: single: a template without the text is not supported", where);
	return put_around(ld, where, &before, &after);
}

/* ["[CLS]", 101] */
static int push_pair(struct tok_loader *ld, const json_t *obj, const char *where, const char *key, struct eng_ids *ids)
{
	json_t *pair, *id;
	int r;

	r = base_json_get_array(obj, where, key, &pair, ld->err);
	if (r < 0)
		return r;
	id = json_array_get(pair, 1);
	if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOK_MAX_IDS)
		return err_set(ld->err, -EINVAL, "%s: %s: expected [token, id]", where, key);
	return eng_ids_push(ids, (int32_t)json_integer_value(id)) < 0 ? tok_load_no_memory(ld, where) : 0;
}

static int post_bert(struct tok_loader *ld, const json_t *obj, const char *where)
{
	CLEANUP(eng_ids_done) struct eng_ids before = { 0 };
	CLEANUP(eng_ids_done) struct eng_ids after = { 0 };
	int r;

	r = push_pair(ld, obj, where, "cls", &before);
	if (r == 0)
		r = push_pair(ld, obj, where, "sep", &after);
	return r < 0 ? r : put_around(ld, where, &before, &after);
}

static int post_none(struct tok_loader *ld, const json_t *obj, const char *where)
{
	return 0; /* ByteLevel trims offsets, which nobody asks for here */
}

static int post_sequence(struct tok_loader *ld, const json_t *obj, const char *where)
{
	return tok_load_sequence(ld, obj, where, "processors", tok_postprocessors);
}

const struct tok_component tok_postprocessors[] = {
	{ "TemplateProcessing", post_template }, { "BertProcessing", post_bert },
	{ "RobertaProcessing", post_bert },      { "ByteLevel", post_none },
	{ "Sequence", post_sequence },           { NULL, NULL },
};
