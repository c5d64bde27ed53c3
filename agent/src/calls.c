/* Calls of tools, assembled. Servers differ: most number the pieces by index and name the call in the first; some leave
 * the index out, some give every call the index 0 and another id, some send the arguments as an object, and some give
 * no id at all, so that one is made up here. */
#include "calls.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"

enum { MAX_NAME = 256, MAX_BLOCK = AG_CALLS_MAX_ARGS + 1024 };

static const char mark_open[] = "<tool_call>", mark_close[] = "</tool_call>";

void ag_calls_init(struct ag_calls *c)
{
	memset(c, 0, sizeof(*c));
}

void ag_calls_done(struct ag_calls *c)
{
	for (size_t i = 0; i < c->n; i++) {
		base_buf_done(&c->items[i].id);
		base_buf_done(&c->items[i].name);
		base_buf_done(&c->items[i].args);
	}
	c->n = 0;
}

static int new_call(struct ag_calls *c, json_int_t index, size_t *ret_at, struct err *err)
{
	if (c->n == AG_CALLS_MAX)
		return err_set(err, -EFBIG, "the model calls more than %d tools at once", AG_CALLS_MAX);
	c->items[c->n].index = index;
	base_buf_init(&c->items[c->n].id, MAX_NAME);
	base_buf_init(&c->items[c->n].name, MAX_NAME);
	base_buf_init(&c->items[c->n].args, AG_CALLS_MAX_ARGS);
	*ret_at = c->n++;
	return 0;
}

/* Which call a piece belongs to. */
static int find_call(struct ag_calls *c, const json_t *piece, const char *id, const char *name, size_t *ret_at,
                     struct err *err)
{
	const json_t *number = json_object_get(piece, "index");
	json_int_t index = json_is_integer(number) ? json_integer_value(number) : -1;

	for (size_t i = c->n; i-- > 0;) {
		const char *known = base_buf_text(&c->items[i].id);

		if (c->items[i].index != index)
			continue;
		/* Another id, or without numbers another name, begins another call. */
		if ((*id && *known && strcmp(id, known) != 0) || (index < 0 && *name && !*id))
			break;
		*ret_at = i;
		return 0;
	}
	return new_call(c, index, ret_at, err);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static int add_args(struct base_buf *out, const json_t *args, struct err *err)
{
	int r = 0;

	if (json_is_string(args))
		r = base_buf_append(out, json_string_value(args), json_string_length(args));
	else if (json_is_object(args) || json_is_array(args))
		r = base_json_append(out, args);
	return r < 0 ? err_set(err, r, "the arguments of a tool call are too long") : 0;
}

static int add_piece(struct ag_calls *c, const json_t *piece, struct err *err)
{
	const json_t *function = json_object_get(piece, "function");
	const char *id = text_of(piece, "id"), *name = text_of(function, "name");
	size_t at;
	int r;

	if (!json_is_object(piece))
		return 0;
	r = find_call(c, piece, id, name, &at, err);
	if (r < 0)
		return r;
	/* Said once; servers that repeat them say the same again. */
	if (c->items[at].id.len == 0)
		(void)base_buf_puts(&c->items[at].id, id);
	if (c->items[at].name.len == 0)
		(void)base_buf_puts(&c->items[at].name, name);
	if (base_buf_error(&c->items[at].id) || base_buf_error(&c->items[at].name))
		return err_set(err, -EFBIG, "the name of a tool call is too long");
	return add_args(&c->items[at].args, json_object_get(function, "arguments"), err);
}

int ag_calls_add(struct ag_calls *c, const json_t *tool_calls, struct err *err)
{
	const json_t *piece;
	size_t i;
	int r = 0;

	json_array_foreach(tool_calls, i, piece)
	{
		if (r == 0)
			r = add_piece(c, piece, err);
	}
	return r;
}

/* What stood between <tool_call> and its end. What is no JSON object becomes a call without a name. */
static int add_text(struct ag_calls *c, const char *text, size_t len, struct err *err)
{
	json_t *json = NULL;
	size_t at;
	int r = new_call(c, -1, &at, err);

	if (r < 0)
		return r;
	if (base_json_parse("tool call", text, len, &json, NULL) == 0 && json_is_object(json)) {
		(void)base_buf_puts(&c->items[at].name, text_of(json, "name"));
		r = add_args(&c->items[at].args, json_object_get(json, "arguments"), err);
	} else if (base_buf_append(&c->items[at].args, text, len) < 0) {
		r = err_set(err, -EFBIG, "a tool call is too long");
	}
	json_decref(json);
	if (r == 0 && base_buf_error(&c->items[at].name))
		r = err_set(err, -EFBIG, "the name of a tool call is too long");
	return r;
}

int ag_calls_take(struct ag_calls *c, json_t **ret_calls)
{
	json_t *calls = c->n ? json_array() : NULL;

	for (size_t i = 0; i < c->n; i++) {
		const struct base_buf *args = &c->items[i].args;

		if (c->items[i].id.len == 0)
			(void)base_buf_printf(&c->items[i].id, "call_%zu", i + 1);
		if (json_array_append_new(
		            calls,
		            json_pack("{s:s, s:s, s:{s:s, s:o}}", "id", base_buf_text(&c->items[i].id), "type",
		                      "function", "function", "name", base_buf_text(&c->items[i].name), "arguments",
		                      args->len ? json_stringn(args->data, args->len) : json_string("{}"))) < 0) {
			json_decref(calls);
			return -ENOMEM;
		}
	}
	*ret_calls = calls;
	return 0;
}

/* ---- Blocks within the text -------------------------------------------------------------------------------------- */

void ag_call_filter_init(struct ag_call_filter *f, struct ag_calls *calls, ag_text_fn on_text, void *arg,
                         struct err *err)
{
	*f = (struct ag_call_filter){
		.calls = calls, .on_text = on_text, .arg = arg, .held = BASE_BUF_INIT(MAX_BLOCK), .err = err
	};
}

void ag_call_filter_done(struct ag_call_filter *f)
{
	base_buf_done(&f->held);
}

static int end_block(struct ag_call_filter *f, size_t len)
{
	int r = add_text(f->calls, base_buf_text(&f->held), len, f->err);

	base_buf_reset(&f->held);
	f->is_inside = false;
	return r;
}

/* One more byte of the opening mark. */
static int hold(struct ag_call_filter *f, char c)
{
	if (base_buf_putc(&f->held, c) < 0)
		return err_set(f->err, -ENOMEM, "out of memory");
	if (f->held.len == sizeof(mark_open) - 1) {
		base_buf_reset(&f->held);
		f->is_inside = true;
	}
	return 0;
}

static int let_go(struct ag_call_filter *f)
{
	int r = f->held.len ? f->on_text(f->arg, base_buf_text(&f->held), f->held.len) : 0;

	base_buf_reset(&f->held);
	return r;
}

static int inside(struct ag_call_filter *f, char c)
{
	const size_t n = sizeof(mark_close) - 1;

	if (base_buf_putc(&f->held, c) < 0)
		return err_set(f->err, -EFBIG, "a tool call is too long");
	if (c == '>' && f->held.len >= n && memcmp(f->held.data + f->held.len - n, mark_close, n) == 0)
		return end_block(f, f->held.len - n);
	return 0;
}

int ag_call_filter_text(void *filter, const char *text, size_t len)
{
	struct ag_call_filter *f = filter;
	int r = 0;

	for (size_t i = 0; i < len && r == 0;) {
		size_t n = 0;

		/* What cannot begin a mark goes on in one piece, so that characters stay whole. */
		while (!f->is_inside && f->held.len == 0 && i + n < len && text[i + n] != mark_open[0])
			n++;
		if (n)
			r = f->on_text(f->arg, text + i, n);
		else if (f->is_inside)
			r = inside(f, text[i]);
		else if (text[i] == mark_open[f->held.len])
			r = hold(f, text[i]);
		else if ((r = let_go(f)) == 0)
			continue; /* the byte is looked at again, with nothing held */
		i += n ? n : 1;
	}
	return r;
}

int ag_call_filter_finish(struct ag_call_filter *f)
{
	return f->is_inside ? end_block(f, f->held.len) : let_go(f);
}
