/* The public face: parse once, render many times.
 *
 * A template is immutable once parsed; everything that changes while rendering (scopes, values, limits)
 * is in a struct tpl_rt on the caller's stack and an arena that ends with the call, so any number of
 * threads may render the same template. Nothing a template does reaches outside: there is no import, no
 * file, no attribute that is not in the tables of this folder. */
#include "tpl_ast.h"
#include "tpl_interp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PARSE_MAX_MIB = 256 };

/* \r\n and \r become \n; one newline at the end goes. */
static void normalize_newlines(struct eng_template *t, const char *source, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (source[i] == '\r') {
			t->source[n++] = '\n';
			if (i + 1 < len && source[i + 1] == '\n')
				i++;
		} else {
			t->source[n++] = source[i];
		}
	}
	if (n && t->source[n - 1] == '\n')
		n--;
	t->source_len = n;
}

int eng_template_parse(const char *where, const char *source, size_t len, struct eng_template **ret_tmpl,
                       struct err *err)
{
	struct eng_template *t;
	int r;

	if (len > TPL_MAX_SOURCE)
		return err_set(err, -E2BIG, "%s: the template has %zu bytes, more than %d", where, len, TPL_MAX_SOURCE);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	t->arena.max = (size_t)PARSE_MAX_MIB << 20;
	t->where = strdup(where);
	t->source = malloc(len + 1);
	if (!t->where || !t->source) {
		eng_template_free(t);
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	}
	normalize_newlines(t, source, len);
	r = eng_tpl_lex(t, err);
	if (r == 0)
		r = eng_tpl_parse(t, err);
	free(t->tokens);
	t->tokens = NULL;
	if (r < 0) {
		eng_template_free(t);
		return r;
	}
	*ret_tmpl = t;
	return 0;
}

void eng_template_free(struct eng_template *tmpl)
{
	if (!tmpl)
		return;
	eng_tpl_arena_done(&tmpl->arena);
	free(tmpl->tokens);
	free(tmpl->source);
	free(tmpl->where);
	free(tmpl);
}

int eng_template_render(const struct eng_template *tmpl, const json_t *context, struct base_buf *out, struct err *err)
{
	struct tpl_rt rt = { .tmpl = tmpl, .context = context, .err = err, .out = out };
	size_t before = out->len;
	int r;

	if (base_buf_error(out))
		return err_set(err, base_buf_error(out), "%s: no room for the output", tmpl->where);
	rt.arena.max = (size_t)TPL_MAX_VALUE_MIB << 20;
	rt.globals = eng_tpl_arena_array(&rt.arena, tmpl->n_names, sizeof(*rt.globals));
	r = rt.globals ? eng_tpl_exec(&rt, tmpl->body) : eng_tpl_fail_memory(&rt);
	eng_tpl_arena_done(&rt.arena);
	if (r < 0) {
		/* All or nothing: what was there before stays, half a prompt does not. */
		out->error = 0;
		out->len = before;
		if (out->data)
			out->data[before] = '\0';
		return r;
	}
	return 0;
}
