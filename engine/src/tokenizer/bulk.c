/* The two large members of tokenizer.json, read without building a JSON tree.
 *
 * A vocabulary of 150,000 entries with its merges is 6 to 12 MB of JSON: some 600,000 strings and arrays.
 * jansson takes 180 to 260 ms to build and free that tree (measured, 12 MB file), more than everything else
 * the start of the server does. So model.vocab and model.merges are cut out of the document, jansson parses
 * the small rest (and checks it as strictly as ever), and the two are read in one pass by the parsers here,
 * which know the only shapes they may have:
 *   vocab   {"piece": id, ...}  or  [["piece", score], ...]
 *   merges  ["a b", ...]        or  [["a", "b"], ...]
 * They are strict too: strings must be valid JSON strings of valid UTF-8, numbers JSON numbers. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

/* ---- cutting --------------------------------------------------------------------------------- */

static size_t skip_space(const char *p, size_t at, size_t end)
{
	while (at < end && (p[at] == ' ' || p[at] == '\n' || p[at] == '\r' || p[at] == '\t'))
		at++;
	return at;
}

/* Behind the string that begins at `at`, or end when it does not close. */
static size_t skip_string(const char *p, size_t at, size_t end)
{
	for (at++; at < end; at++) {
		if (p[at] == '\\')
			at++;
		else if (p[at] == '"')
			return at + 1;
	}
	return end;
}

/* Behind the value at `at`. Only brackets and strings are looked at; jansson judges the rest. */
static size_t skip_value(const char *p, size_t at, size_t end)
{
	size_t depth = 0;

	while (at < end) {
		switch (p[at]) {
		case '"':
			at = skip_string(p, at, end);
			if (depth == 0)
				return at;
			continue;
		case '{':
		case '[':
			depth++;
			break;
		case '}':
		case ']':
			if (depth == 0)
				return at;
			if (--depth == 0)
				return at + 1;
			break;
		case ',':
			if (depth == 0)
				return at;
			break;
		default:
			break;
		}
		at++;
	}
	return end;
}

/* The next member of an object: its key (with quotes) and where its value begins. False at the end. */
static bool next_member(const char *p, size_t *at, size_t end, size_t *ret_key, size_t *ret_key_end)
{
	size_t i = skip_space(p, *at, end);

	if (i < end && (p[i] == ',' || p[i] == '{'))
		i = skip_space(p, i + 1, end);
	if (i >= end || p[i] != '"')
		return false;
	*ret_key = i;
	*ret_key_end = skip_string(p, i, end);
	i = skip_space(p, *ret_key_end, end);
	if (i >= end || p[i] != ':')
		return false;
	*at = skip_space(p, i + 1, end);
	return true;
}

static bool is_key(const char *p, size_t begin, size_t end, const char *name)
{
	size_t n = strlen(name);

	return end - begin == n + 2 && memcmp(p + begin + 1, name, n) == 0;
}

static void find_in_model(struct tok_bulk *bulk, size_t at, size_t end)
{
	size_t key, key_end, value;

	while (next_member(bulk->data, &at, end, &key, &key_end)) {
		value = at;
		at = skip_value(bulk->data, at, end);
		if (bulk->vocab_begin == bulk->vocab_end && is_key(bulk->data, key, key_end, "vocab")) {
			bulk->vocab_begin = value;
			bulk->vocab_end = at;
		} else if (bulk->merges_begin == bulk->merges_end && is_key(bulk->data, key, key_end, "merges")) {
			bulk->merges_begin = value;
			bulk->merges_end = at;
		}
	}
}

static bool is_container(const struct tok_bulk *bulk, size_t begin, size_t end)
{
	return begin < end && (bulk->data[begin] == '{' || bulk->data[begin] == '[');
}

int tok_bulk_cut(struct tok_bulk *bulk, struct base_buf *rest)
{
	const char *p = bulk->data;
	size_t at = 0, end = bulk->len, key, key_end, value, done = 0;
	size_t cuts[2][2];

	at = skip_space(p, at, end);
	while (at < end && next_member(p, &at, end, &key, &key_end)) {
		value = at;
		at = skip_value(p, at, end);
		if (is_key(p, key, key_end, "model") && value < at && p[value] == '{') {
			find_in_model(bulk, value, at - 1);
			break;
		}
	}
	if (!is_container(bulk, bulk->vocab_begin, bulk->vocab_end))
		bulk->vocab_begin = bulk->vocab_end = 0;
	if (!is_container(bulk, bulk->merges_begin, bulk->merges_end))
		bulk->merges_begin = bulk->merges_end = 0;
	cuts[0][0] = bulk->vocab_begin < bulk->merges_begin ? bulk->vocab_begin : bulk->merges_begin;
	cuts[0][1] = bulk->vocab_begin < bulk->merges_begin ? bulk->vocab_end : bulk->merges_end;
	cuts[1][0] = bulk->vocab_begin < bulk->merges_begin ? bulk->merges_begin : bulk->vocab_begin;
	cuts[1][1] = bulk->vocab_begin < bulk->merges_begin ? bulk->merges_end : bulk->vocab_end;
	for (size_t i = 0; i < 2; i++) {
		if (cuts[i][0] == cuts[i][1])
			continue;
		(void)base_buf_append(rest, p + done, cuts[i][0] - done);
		(void)base_buf_puts(rest, "null");
		done = cuts[i][1];
	}
	return base_buf_append(rest, p + done, end - done);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reader {
	const char *where, *field;
	const char *data; /* the whole document, for line numbers */
	const char *p, *end;
	struct base_buf text; /* the last string that had escapes */
	struct err *err;
};

static int fail(struct reader *rd, int code, const char *what)
{
	size_t line = 1;

	for (const char *p = rd->data; (p = memchr(p, '\n', (size_t)(rd->p - p))) && p < rd->p; p++)
		line++;
	return err_set(rd->err, code, "%s: model.%s: line %zu: %s", rd->where, rd->field, line, what);
}

static char peek(struct reader *rd)
{
	while (rd->p < rd->end && (*rd->p == ' ' || *rd->p == '\n' || *rd->p == '\r' || *rd->p == '\t'))
		rd->p++;
	return rd->p < rd->end ? *rd->p : '\0';
}

static int expect(struct reader *rd, char c, const char *what)
{
	if (peek(rd) != c)
		return fail(rd, -EBADMSG, what);
	rd->p++;
	return 0;
}

static int hex4(struct reader *rd, uint32_t *ret)
{
	*ret = 0;
	for (int i = 0; i < 4; i++, rd->p++) {
		char c = rd->p < rd->end ? *rd->p : '\0';

		if (c >= '0' && c <= '9')
			*ret = *ret << 4 | (uint32_t)(c - '0');
		else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
			*ret = *ret << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
		else
			return fail(rd, -EBADMSG, "bad \\u escape");
	}
	return 0;
}

/* Behind "\u": one character, from a surrogate pair where it takes two. */
static int unicode_escape(struct reader *rd)
{
	uint32_t cp, low;
	int r;

	r = hex4(rd, &cp);
	if (r < 0)
		return r;
	if (cp >= 0xd800 && cp <= 0xdbff) {
		if (rd->end - rd->p < 2 || rd->p[0] != '\\' || rd->p[1] != 'u')
			return fail(rd, -EBADMSG, "half a surrogate pair");
		rd->p += 2;
		r = hex4(rd, &low);
		if (r < 0)
			return r;
		if (low < 0xdc00 || low > 0xdfff)
			return fail(rd, -EBADMSG, "half a surrogate pair");
		cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
	} else if (cp >= 0xdc00 && cp <= 0xdfff) {
		return fail(rd, -EBADMSG, "half a surrogate pair");
	}
	return tok_utf8_append(&rd->text, cp);
}

static int escaped_char(struct reader *rd)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *k;

	rd->p++;
	if (rd->p == rd->end)
		return fail(rd, -EBADMSG, "the string does not end");
	if (*rd->p == 'u') {
		rd->p++;
		return unicode_escape(rd);
	}
	k = *rd->p ? strchr(from, *rd->p) : NULL;
	if (!k)
		return fail(rd, -EBADMSG, "unknown escape");
	rd->p++;
	return base_buf_putc(&rd->text, to[k - from]);
}

/* A string; the result is borrowed until the next one. */
static int read_string(struct reader *rd, const char **ret, size_t *ret_n)
{
	const char *begin;
	bool escaped = false;
	int r = 0;

	if (peek(rd) != '"')
		return fail(rd, -EINVAL, "expected a string");
	begin = ++rd->p;
	base_buf_reset(&rd->text);
	while (r == 0 && rd->p < rd->end && *rd->p != '"') {
		if ((unsigned char)*rd->p < 0x20)
			return fail(rd, -EBADMSG, "a control character in a string");
		if (*rd->p != '\\') {
			rd->p++;
			continue;
		}
		escaped = true;
		(void)base_buf_append(&rd->text, begin, (size_t)(rd->p - begin));
		r = escaped_char(rd);
		begin = rd->p;
	}
	if (r < 0)
		return r == -EFBIG ? fail(rd, -ERANGE, "the piece is too long") : r;
	if (rd->p == rd->end)
		return fail(rd, -EBADMSG, "the string does not end");
	*ret = begin;
	*ret_n = (size_t)(rd->p - begin);
	if (escaped) {
		if (base_buf_append(&rd->text, begin, *ret_n) < 0)
			return fail(rd, -ERANGE, "the piece is too long");
		*ret = base_buf_text(&rd->text);
		*ret_n = rd->text.len;
	}
	rd->p++;
	if (!tok_utf8_is_valid(*ret, *ret_n))
		return fail(rd, -EBADMSG, "a string is not UTF-8");
	return 0;
}

static int read_id(struct reader *rd, uint32_t *ret)
{
	const char *begin;
	uint64_t v = 0;

	if (peek(rd) == '-')
		return fail(rd, -ERANGE, "a negative id");
	begin = rd->p;
	for (; rd->p < rd->end && *rd->p >= '0' && *rd->p <= '9'; rd->p++) {
		if (v < TOK_MAX_IDS)
			v = v * 10 + (uint64_t)(*rd->p - '0');
	}
	if (rd->p == begin || (*begin == '0' && rd->p - begin > 1) ||
	    (rd->p < rd->end && (*rd->p == '.' || *rd->p == 'e' || *rd->p == 'E')))
		return fail(rd, -EINVAL, "expected an integer id");
	if (v >= TOK_MAX_IDS)
		return fail(rd, -ERANGE, "an id is too large");
	*ret = (uint32_t)v;
	return 0;
}

static int read_score(struct reader *rd, double *ret)
{
	char text[64];
	char *rest;
	size_t n = 0;

	(void)peek(rd);
	while (rd->p < rd->end && n < sizeof(text) - 1 && *rd->p && strchr("+-.eE0123456789", *rd->p))
		text[n++] = *rd->p++;
	text[n] = '\0';
	/* The program runs in the C locale for numbers, or strtod() would read "1,5" in some others. */
	*ret = strtod(text, &rest);
	if (n == 0 || *rest || !isfinite(*ret))
		return fail(rd, -EINVAL, "expected a number");
	return 0;
}

/* After an element: 1 another follows, 0 the container closed. */
static int more(struct reader *rd, char close)
{
	char c = peek(rd);

	if (c != ',' && c != close)
		return fail(rd, -EBADMSG, "expected a comma or the end");
	rd->p++;
	return c == ',';
}

/* 1 elements follow, 0 the container is empty. */
static int enter(struct reader *rd, char open, char close, const char *what)
{
	if (peek(rd) != open)
		return fail(rd, -EINVAL, what);
	rd->p++;
	if (peek(rd) != close)
		return 1;
	rd->p++;
	return 0;
}

static void reader_init(struct reader *rd, const struct tok_bulk *bulk, const char *field, size_t begin, size_t end,
                        struct err *err)
{
	*rd = (struct reader){ .where = bulk->where,
		               .field = field,
		               .data = bulk->data,
		               .p = bulk->data + begin,
		               .end = bulk->data + end,
		               .err = err };
	base_buf_init(&rd->text, TOK_MAX_PIECE_BYTES);
}

static void reader_done(struct reader *rd)
{
	base_buf_done(&rd->text);
}

static int vocab_error(struct reader *rd, int r, const char *p, size_t n, uint32_t id)
{
	char what[160];

	if (r == -ERANGE)
		return fail(rd, r, "the piece is too long");
	if (r == 1)
		(void)snprintf(what, sizeof(what), "\"%.*s\" comes twice", (int)(n < 60 ? n : 60), p);
	else if (r == -EEXIST)
		(void)snprintf(what, sizeof(what), "\"%.*s\" has the id %u of another piece", (int)(n < 60 ? n : 60), p,
		               id);
	else
		(void)snprintf(what, sizeof(what), "out of memory");
	return fail(rd, r == -ENOMEM ? r : -EBADMSG, what);
}

/* How often a character comes: with the separators of a container an upper bound for its elements, since
 * those inside strings only add to it. */
static uint32_t count_char(const char *p, size_t n, char c)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		k += p[i] == c;
	return (uint32_t)(k < UINT32_MAX ? k : UINT32_MAX);
}

int tok_bulk_vocab_map(const struct tok_bulk *bulk, struct tok_vocab *vocab, struct err *err)
{
	CLEANUP(reader_done) struct reader rd;
	size_t size = bulk->vocab_end - bulk->vocab_begin, n;
	const char *p;
	uint32_t id = 0;
	int r;

	reader_init(&rd, bulk, "vocab", bulk->vocab_begin, bulk->vocab_end, err);
	r = tok_vocab_reserve(vocab, count_char(rd.p, size, ':'), size / 2);
	if (r < 0)
		return fail(&rd, r, "out of memory");
	r = enter(&rd, '{', '}', "expected an object of pieces and ids");
	while (r > 0) {
		r = read_string(&rd, &p, &n);
		if (r < 0)
			return r;
		r = expect(&rd, ':', "expected a colon");
		if (r == 0)
			r = read_id(&rd, &id);
		if (r < 0)
			return r;
		r = tok_vocab_add(vocab, p, n, id);
		if (r != 0)
			return vocab_error(&rd, r, p, n, id);
		r = more(&rd, '}');
	}
	return r;
}

int tok_bulk_vocab_scores(const struct tok_bulk *bulk, struct eng_tokenizer *tok, struct err *err)
{
	CLEANUP(reader_done) struct reader rd;
	size_t size = bulk->vocab_end - bulk->vocab_begin, n, cap = 0;
	const char *p;
	uint32_t id = 0;
	double score = 0;
	int r;

	reader_init(&rd, bulk, "vocab", bulk->vocab_begin, bulk->vocab_end, err);
	r = tok_vocab_reserve(&tok->vocab, count_char(rd.p, size, '['), size / 2);
	if (r < 0)
		return fail(&rd, r, "out of memory");
	r = enter(&rd, '[', ']', "expected an array of pieces and scores");
	for (; r > 0; id++) {
		r = expect(&rd, '[', "expected [piece, score]");
		if (r == 0)
			r = read_string(&rd, &p, &n);
		if (r == 0)
			r = id >= TOK_MAX_IDS ? fail(&rd, -ERANGE, "too many pieces")
			                      : tok_grow(&tok->model.scores, &cap, (size_t)id + 1, sizeof(double));
		if (r < 0)
			return r;
		r = tok_vocab_add(&tok->vocab, p, n, id);
		if (r < 0)
			return vocab_error(&rd, r, p, n, id);
		r = expect(&rd, ',', "expected [piece, score]");
		if (r == 0)
			r = read_score(&rd, &score);
		if (r == 0)
			r = expect(&rd, ']', "expected [piece, score]");
		if (r < 0)
			return r;
		tok->model.scores[id] = score;
		r = more(&rd, ']');
	}
	return r;
}

/* The id of one half of a merge. */
static int merge_half(struct reader *rd, const struct tok_vocab *vocab, const char *p, size_t n, int32_t *ret)
{
	char what[160];

	*ret = tok_vocab_find(vocab, p, n);
	if (*ret >= 0)
		return 0;
	(void)snprintf(what, sizeof(what), "merges \"%.*s\", which is not in the vocabulary", (int)(n < 60 ? n : 60),
	               p);
	return fail(rd, -EBADMSG, what);
}

static int add_merge(struct reader *rd, struct eng_tokenizer *tok, int32_t left, int32_t right, uint32_t rank)
{
	int32_t result = tok_merge_result(tok, left, right);
	const char *a, *b;
	char what[160];
	size_t a_n, b_n;

	if (result >= 0) {
		tok_merges_add(&tok->model, (uint32_t)left, (uint32_t)right, rank, (uint32_t)result);
		return 0;
	}
	a = tok_vocab_get(&tok->vocab, left, &a_n);
	b = tok_vocab_get(&tok->vocab, right, &b_n);
	(void)snprintf(what, sizeof(what), "merges \"%.*s\" and \"%.*s\", which together are not in the vocabulary",
	               (int)(a_n < 40 ? a_n : 40), a, (int)(b_n < 40 ? b_n : 40), b);
	return fail(rd, -EBADMSG, what);
}

/* "a b": exactly one space. */
static int read_merge_text(struct reader *rd, const struct tok_vocab *vocab, int32_t *ret_left, int32_t *ret_right)
{
	const char *p, *space;
	size_t n;
	int r;

	r = read_string(rd, &p, &n);
	if (r < 0)
		return r;
	if (n >= 8 && memcmp(p, "#version", 8) == 0)
		return 1;
	space = memchr(p, ' ', n);
	if (!space || memchr(space + 1, ' ', (size_t)(p + n - space - 1)))
		return fail(rd, -EBADMSG, "expected two pieces with a space between");
	r = merge_half(rd, vocab, p, (size_t)(space - p), ret_left);
	return r < 0 ? r : merge_half(rd, vocab, space + 1, (size_t)(p + n - space - 1), ret_right);
}

static int read_merge_pair(struct reader *rd, const struct tok_vocab *vocab, int32_t *ret_left, int32_t *ret_right)
{
	const char *p;
	size_t n;
	int r;

	r = expect(rd, '[', "expected a merge: \"a b\" or [\"a\", \"b\"]");
	if (r == 0)
		r = read_string(rd, &p, &n);
	if (r == 0)
		r = merge_half(rd, vocab, p, n, ret_left);
	if (r == 0)
		r = expect(rd, ',', "expected two pieces");
	if (r == 0)
		r = read_string(rd, &p, &n);
	if (r == 0)
		r = merge_half(rd, vocab, p, n, ret_right);
	return r < 0 ? r : expect(rd, ']', "expected two pieces");
}

int tok_bulk_merges(const struct tok_bulk *bulk, struct eng_tokenizer *tok, struct err *err)
{
	CLEANUP(reader_done) struct reader rd;
	int32_t left = -1, right = -1;
	uint32_t rank = 0, bound;
	bool pairs;
	int r;

	reader_init(&rd, bulk, "merges", bulk->merges_begin, bulk->merges_end, err);
	r = enter(&rd, '[', ']', "expected an array");
	if (r <= 0)
		return r;
	pairs = peek(&rd) == '[';
	bound = count_char(rd.p, (size_t)(rd.end - rd.p), ',') + 1;
	if (pairs)
		bound = bound / 2 + 1; /* every pair has a comma of its own */
	r = tok_merges_reserve(&tok->model, bound);
	if (r < 0)
		return fail(&rd, r, "too many merges");
	r = 1;
	while (r > 0) {
		r = pairs ? read_merge_pair(&rd, &tok->vocab, &left, &right)
		          : read_merge_text(&rd, &tok->vocab, &left, &right);
		if (r == 0)
			r = add_merge(&rd, tok, left, right, rank++);
		if (r < 0)
			return r;
		r = more(&rd, ']');
	}
	return r;
}
