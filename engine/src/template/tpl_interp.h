/* One render: its limits, scopes and the calls between evaluator, filters, tests and methods. */
#ifndef ENG_TPL_INTERP_H
#define ENG_TPL_INTERP_H

#include "tpl_ast.h"
#include "tpl_value.h"

enum {
	TPL_MAX_DEPTH = 480,      /* nested evaluation, and nesting of values walked */
	TPL_MAX_RANGE = 100000,   /* items of range(), as jinja2's sandbox has it */
	TPL_MAX_STEPS = 30000000, /* nodes evaluated; long text operations count by length */
	TPL_MAX_MS = 10000,
	TPL_MAX_VALUE_MIB = 128,
	TPL_MAX_OUTPUT_MIB = 64,
};

/* Variables of one scope. The outermost scope is the globals array instead. */
struct tpl_frame {
	struct tpl_frame *parent;
	bool captured; /* a macro keeps it: a loop must not reuse it */
	uint32_t n, cap;
	struct tpl_var {
		uint32_t name;
		struct tpl_value value;
	} * vars;
};

struct tpl_rt {
	const struct eng_template *tmpl;
	const json_t *context;
	struct tpl_arena arena;
	struct err *err;
	struct base_buf *out;      /* where {{ }} writes now */
	struct tpl_value *globals; /* by name; TPL_MISSING until looked up or set */
	struct tpl_frame *frame;   /* innermost scope; NULL at the top level */
	uint64_t steps;
	int64_t deadline_ns;
	unsigned depth;
	uint32_t line;
};

struct tpl_args {
	const struct tpl_value *pos;
	size_t n_pos;
	const struct tpl_value *kw_names; /* text */
	const struct tpl_value *kw_vals;
	size_t n_kw;
};

struct tpl_macro {
	const struct tpl_node *node;
	struct tpl_frame *frame; /* where it was defined */
};

struct tpl_loop {
	struct tpl_list *items;
	size_t index;
	unsigned depth;
	bool changed_seen;
	struct tpl_value changed; /* the arguments of the last changed() */
};

struct tpl_func {
	const char *name;
	int (*fn)(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret);
};

/* A method: `params` names what it takes, in order; see eng_tpl_bind(). */
struct tpl_method {
	const char *name;
	const char *params; /* NULL: any arguments, taken as they are */
	unsigned n_required;
	int (*fn)(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, struct tpl_value *ret);
};

/* The head of a method's function: `static TPL_METHOD(name) { ... }`. self has the type that the method belongs to. */
#define TPL_METHOD(name) \
	int name(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, struct tpl_value *ret)

struct tpl_bound {
	const struct tpl_method *method;
	struct tpl_value self;
};

struct tpl_filter {
	const char *name;
	const char *params;
	unsigned n_required;
	int (*fn)(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, struct tpl_value *ret);
};

struct tpl_test {
	const char *name;
	unsigned n_args;
	int (*fn)(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *arg, bool *ret);
};

/* ---- Errors and limits (tpl_alloc.c) ------------------------------------------------------------- */

/* "WHERE:LINE: words"; returns code. */
int eng_tpl_fail(struct tpl_rt *rt, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int eng_tpl_fail_memory(struct tpl_rt *rt);
int eng_tpl_fail_undefined(struct tpl_rt *rt, const struct tpl_value *v);
int eng_tpl_step(struct tpl_rt *rt, size_t n);
int eng_tpl_enter(struct tpl_rt *rt); /* one level deeper; on success pair with tpl_leave() */
static inline void tpl_leave(struct tpl_rt *rt)
{
	rt->depth--;
}

/* ---- Arguments (tpl_call.c) ---------------------------------------------------------------------- */

enum { TPL_MAX_PARAMS = 8 };

/* Spreads args over the space-separated parameter names; those not given are TPL_MISSING. */
int eng_tpl_bind(struct tpl_rt *rt, const char *callee, const char *params, unsigned n_required,
                 const struct tpl_args *args, struct tpl_value out[TPL_MAX_PARAMS]);
/* Bound arguments read with a default. "what" names callee and parameter for the message. */
int eng_tpl_arg_int(struct tpl_rt *rt, const struct tpl_value *arg, const char *what, int64_t def, int64_t *ret);
int eng_tpl_arg_text(struct tpl_rt *rt, const struct tpl_value *arg, const char *what, const char *def,
                     struct tpl_value *ret);
bool eng_tpl_arg_bool(const struct tpl_value *arg, bool def);

int eng_tpl_call(struct tpl_rt *rt, const struct tpl_value *callee, const struct tpl_args *args, struct tpl_value *ret);
int eng_tpl_call_filter(struct tpl_rt *rt, const struct tpl_filter *filter, const struct tpl_value *in,
                        const struct tpl_args *args, struct tpl_value *ret);

/* ---- Evaluation ---------------------------------------------------------------------------------- */

enum tpl_flow { TPL_NEXT, TPL_BREAK, TPL_CONTINUE }; /* what eng_tpl_exec() returns, unless negative */

int eng_tpl_eval(struct tpl_rt *rt, const struct tpl_node *node, struct tpl_value *ret);
int eng_tpl_eval_args(struct tpl_rt *rt, const struct tpl_call_args *call, struct tpl_args *ret);
int eng_tpl_exec(struct tpl_rt *rt, const struct tpl_node *node);
/* Runs a body in a scope of its own into a text. */
int eng_tpl_capture(struct tpl_rt *rt, const struct tpl_node *body, struct tpl_frame *frame, struct tpl_value *ret);

int eng_tpl_frame_new(struct tpl_rt *rt, struct tpl_frame *parent, struct tpl_frame **ret);
int eng_tpl_set_var(struct tpl_rt *rt, uint32_t name, struct tpl_value v);
int eng_tpl_lookup(struct tpl_rt *rt, uint32_t name, struct tpl_value *ret);
bool eng_tpl_find_global(const char *name, size_t len, struct tpl_value *ret);

int eng_tpl_binary(struct tpl_rt *rt, enum tpl_op op, const struct tpl_value *a, const struct tpl_value *b,
                   struct tpl_value *ret);
int eng_tpl_negate(struct tpl_rt *rt, const struct tpl_value *v, bool plus, struct tpl_value *ret);
/* foo.name: attributes first; foo[key]: items first. Absent: Undefined. */
int eng_tpl_get_attr(struct tpl_rt *rt, const struct tpl_value *v, const char *name, size_t len, struct tpl_value *ret);
int eng_tpl_get_item(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *key, struct tpl_value *ret);
int eng_tpl_slice(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value bounds[3],
                  struct tpl_value *ret);

const struct tpl_filter *eng_tpl_find_filter(const char *name, size_t len);
const struct tpl_test *eng_tpl_find_test(const char *name, size_t len);
const struct tpl_method *eng_tpl_find_method(const struct tpl_value *v, const char *name, size_t len);

extern const struct tpl_filter eng_tpl_text_filters[], eng_tpl_seq_filters[], eng_tpl_select_filters[],
        eng_tpl_number_filters[];
extern const struct tpl_method eng_tpl_text_methods[], eng_tpl_list_methods[], eng_tpl_dict_methods[];
extern const struct tpl_method eng_tpl_loop_methods[], eng_tpl_cycler_methods[];

/* ---- Text (tpl_text.c) --------------------------------------------------------------------------- */

/* Python's str() and repr(). */
int eng_tpl_str(struct tpl_rt *rt, const struct tpl_value *v, struct base_buf *out);
int eng_tpl_repr(struct tpl_rt *rt, const struct tpl_value *v, struct base_buf *out);
/* The value itself when it is text, else its str(). */
int eng_tpl_to_text(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_value *ret);
void eng_tpl_format_float(double f, char out[40]); /* repr(float) */
int eng_tpl_escape_html(struct tpl_rt *rt, const struct tpl_value *text, struct tpl_value *ret);
/* Shared by the filters and the methods of the same name. */
int eng_tpl_text_case(struct tpl_rt *rt, const struct tpl_value *v, bool upper, struct tpl_value *ret);
int eng_tpl_text_capitalize(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_value *ret);
struct tpl_value eng_tpl_text_strip(const struct tpl_value *v, const struct tpl_value *chars, bool left, bool right);
int eng_tpl_text_replace(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *from,
                         const struct tpl_value *to, int64_t count, struct tpl_value *ret);
/* Methods that cut a text (tpl_text_split.c). */
TPL_METHOD(eng_tpl_m_split);
TPL_METHOD(eng_tpl_m_rsplit);
TPL_METHOD(eng_tpl_m_splitlines);
TPL_METHOD(eng_tpl_m_partition);
TPL_METHOD(eng_tpl_m_rpartition);
int eng_tpl_format_percent(struct tpl_rt *rt, const struct tpl_value *fmt, const struct tpl_value *args,
                           struct tpl_value *ret);
int eng_tpl_format_braces(struct tpl_rt *rt, const struct tpl_value *fmt, const struct tpl_args *args,
                          struct tpl_value *ret);
int eng_tpl_tojson(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, struct tpl_value *ret);

/* ---- UTF-8 (tpl_utf8.c) ------------------------------------------------------------------------- */

/* Decodes one code point at s[0..len), len > 0; returns its bytes. Invalid bytes are taken singly as
 * U+FFFD, so every walk ends. */
size_t eng_tpl_utf8_next(const char *s, size_t len, uint32_t *ret_cp);
size_t eng_tpl_utf8_prev(const char *s, size_t len); /* bytes of the last code point */
size_t eng_tpl_utf8_count(const char *s, size_t len);
size_t eng_tpl_utf8_offset(const char *s, size_t len, size_t n); /* byte offset of code point n, at most len */
void eng_tpl_utf8_put(struct base_buf *out, uint32_t cp);
bool eng_tpl_is_space(uint32_t cp);
/* Offset of needle in hay from byte `from`, or -1. */
int64_t eng_tpl_find(const char *hay, size_t hay_len, const char *needle, size_t len, size_t from);
/* Offset of the last needle in hay that ends at or before `end`, or -1. */
int64_t eng_tpl_rfind(const char *hay, size_t end, const char *needle, size_t len);

#endif
