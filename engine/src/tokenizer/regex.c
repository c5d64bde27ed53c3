/* The regexes of tokenizer.json run by PCRE2, and the walk over a text's matches.
 *
 * Compiled once, shared between threads; what a match writes is in the call's scratch. The machine stack
 * serves the JIT until a pattern needs more, then the call gets a stack of its own. Limits turn a hostile
 * pattern into an error instead of a hang. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

enum {
	MATCH_LIMIT = 10 * 1000 * 1000,
	HEAP_LIMIT_KIB = 64 * 1024,
	JIT_STACK_START = 64 * 1024,
	JIT_STACK_MAX = 32 * 1024 * 1024,
};

struct tok_regex {
	pcre2_code *code;
	char *translated;
	bool jit;
};

void tok_regex_free(struct tok_regex *re)
{
	if (!re)
		return;
	pcre2_code_free(re->code);
	free(re->translated);
	free(re);
}

const char *tok_regex_translated(const struct tok_regex *re)
{
	return re->translated;
}

int tok_regex_compile(const char *where, const char *pattern, size_t n, struct tok_regex **ret, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(1 << 20);
	pcre2_compile_context *context;
	struct tok_regex *re;
	PCRE2_SIZE offset;
	PCRE2_UCHAR msg[256];
	int r, code = 0;

	if (!tok_utf8_is_valid(pattern, n))
		return err_set(err, -EBADMSG, "%s: the regex is not UTF-8", where);
	r = tok_regex_translate(where, pattern, n, &out, err);
	if (r < 0)
		return r;
	re = calloc(1, sizeof(*re));
	context = pcre2_compile_context_create(NULL);
	if (!re || !context) {
		pcre2_compile_context_free(context);
		free(re);
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	}
	(void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	(void)pcre2_set_parens_nest_limit(context, 200);
	re->code = pcre2_compile((PCRE2_SPTR)base_buf_text(&out), out.len,
	                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset,
	                         context);
	pcre2_compile_context_free(context);
	if (!re->code) {
		(void)pcre2_get_error_message(code, msg, sizeof(msg));
		r = err_set(err, -ENOTSUP, "%s: regex \"%.200s\": %s at \"%.40s\"", where, pattern, (char *)msg,
		            base_buf_text(&out) + (offset <= out.len ? offset : out.len));
		free(re);
		return r;
	}
	/* Without JIT (not built in, or no executable memory) the interpreter gives the same answers. */
	re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;
	re->translated = base_buf_take(&out);
	if (!re->translated) {
		tok_regex_free(re);
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	}
	*ret = re;
	return 0;
}

void tok_regex_scratch_done(struct tok_scratch *s)
{
	pcre2_match_data_free(s->match_data);
	pcre2_match_context_free(s->match_context);
	pcre2_jit_stack_free(s->jit_stack);
	s->match_data = s->match_context = s->jit_stack = NULL;
}

static int prepare(struct tok_scratch *s)
{
	if (!s->match_data)
		s->match_data = pcre2_match_data_create(1, NULL);
	if (!s->match_context) {
		s->match_context = pcre2_match_context_create(NULL);
		if (s->match_context) {
			(void)pcre2_set_match_limit(s->match_context, MATCH_LIMIT);
			(void)pcre2_set_heap_limit(s->match_context, HEAP_LIMIT_KIB);
		}
	}
	return s->match_data && s->match_context ? 0 : -ENOMEM;
}

static int run(const struct tok_regex *re, struct tok_scratch *s, const char *text, size_t n, size_t at)
{
	int r;

	r = pcre2_match(re->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, s->match_data, s->match_context);
	if (r == PCRE2_ERROR_JIT_STACKLIMIT && !s->jit_stack) {
		s->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
		if (!s->jit_stack)
			return PCRE2_ERROR_NOMEMORY;
		pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
		r = pcre2_match(re->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, s->match_data, s->match_context);
	}
	return r;
}

int tok_regex_find(const struct tok_regex *re, struct tok_scratch *s, const char *text, size_t n, size_t at,
                   size_t *ret_begin, size_t *ret_end, struct err *err)
{
	PCRE2_UCHAR msg[256];
	PCRE2_SIZE *v;
	int r;

	r = prepare(s);
	if (r < 0)
		return err_set(err, r, "tokenizer: out of memory");
	r = run(re, s, text, n, at);
	if (r == PCRE2_ERROR_NOMATCH)
		return 0;
	if (r < 0) {
		(void)pcre2_get_error_message(r, msg, sizeof(msg));
		return err_set(err, r == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -E2BIG, "tokenizer: regex \"%.200s\": %s",
		               re->translated, (char *)msg);
	}
	v = pcre2_get_ovector_pointer(s->match_data);
	if (v[0] > v[1] || v[1] > n) /* \K in a lookahead can do that */
		return err_set(err, -E2BIG, "tokenizer: regex \"%.200s\": matches backwards", re->translated);
	*ret_begin = v[0];
	*ret_end = v[1];
	return 1;
}

void tok_pattern_done(struct tok_pattern *p)
{
	tok_regex_free(p->regex);
	free(p->text);
	*p = (struct tok_pattern){ 0 };
}

int tok_pattern_find(const struct tok_pattern *p, struct tok_scratch *s, const char *text, size_t n, size_t at,
                     size_t *ret_begin, size_t *ret_end, struct err *err)
{
	const char *hit;

	if (p->regex)
		return tok_regex_find(p->regex, s, text, n, at, ret_begin, ret_end, err);
	hit = at < n ? memmem(text + at, n - at, p->text, p->n) : NULL;
	if (!hit || !p->n)
		return 0;
	*ret_begin = (size_t)(hit - text);
	*ret_end = *ret_begin + p->n;
	return 1;
}
