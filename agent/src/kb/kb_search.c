/* Searching: words by BM25, vectors by cosine, joined by reciprocal rank fusion (Cormack, Clarke, Buettcher, 2009:
 * 1 / (60 + rank), summed over the lists), then the snippet that shows why.
 *
 * The question's words are joined by OR: a passage need not have all of them, BM25 weighs the rare ones. Words that
 * only make a question a question are left out while others remain. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kb/kb_internal.h"

enum { MAX_WORDS = 64, WORD_BYTES = 4 * AG_KB_MAX_TOKEN + 4, RRF_K = 60, CANDIDATES = 100, SNIPPET_CHARS = 160 };

struct words {
	char word[MAX_WORDS][WORD_BYTES];
	bool by_prefix[MAX_WORDS]; /* one character of a script without blanks */
	size_t n;
};

struct candidate {
	int64_t passage_id;
	double score;
	bool by_vector;
};

struct candidates {
	struct candidate items[2 * CANDIDATES];
	size_t n;
};

/* ---- The question -------------------------------------------------------------------------------------- */

static bool is_question_word(const char *word)
{
	static const char *const list[] = { "a",     "an",    "and",  "are",  "be",   "can",  "do",   "does",
		                            "for",   "from",  "how",  "i",    "in",   "is",   "it",   "my",
		                            "of",    "on",    "or",   "the",  "this", "to",   "what", "when",
		                            "where", "which", "who",  "why",  "with", "如何", "怎么", "怎样",
		                            "么样",  "什么",  "为什", "请问", "哪个", "哪些", "一个", "一下",
		                            "的",    "了",    "吗",   "呢",   "是",   "在" };

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		if (strcmp(word, list[i]) == 0)
			return true;
	}
	return false;
}

static int on_word(void *arg, const char *token, size_t len, size_t begin, size_t end)
{
	struct words *w = arg;

	(void)begin, (void)end;
	if (w->n == MAX_WORDS)
		return 1; /* enough */
	if (len >= WORD_BYTES)
		return 0;
	memcpy(w->word[w->n], token, len);
	w->word[w->n][len] = '\0';
	for (size_t i = 0; i < w->n; i++) {
		if (strcmp(w->word[i], w->word[w->n]) == 0)
			return 0;
	}
	/* One character of three or four bytes: everything else of one character is Latin, Greek and the like. */
	w->by_prefix[w->n] =
	        len >= 3 && ((unsigned char)token[0] >= 0xe3) && len == ((unsigned char)token[0] >= 0xf0 ? 4u : 3u);
	w->n++;
	return 0;
}

static void drop_question_words(struct words *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		n += !is_question_word(w->word[i]);
	if (n == 0)
		return;
	n = 0;
	for (size_t i = 0; i < w->n; i++) {
		if (is_question_word(w->word[i]))
			continue;
		if (n != i) {
			memcpy(w->word[n], w->word[i], WORD_BYTES);
			w->by_prefix[n] = w->by_prefix[i];
		}
		n++;
	}
	w->n = n;
}

/* Words hold neither quotes nor blanks: the tokenizer made them. */
static int match_expression(const struct words *w, struct base_buf *out)
{
	for (size_t i = 0; i < w->n; i++)
		(void)base_buf_printf(out, "%s\"%s\"%s", i ? " OR " : "", w->word[i], w->by_prefix[i] ? " *" : "");
	return base_buf_error(out);
}

/* ---- Candidates ---------------------------------------------------------------------------------------- */

static void add_ranked(struct candidates *c, int64_t id, size_t rank, bool by_vector)
{
	size_t i = 0;

	while (i < c->n && c->items[i].passage_id != id)
		i++;
	if (i == c->n) {
		if (c->n == sizeof(c->items) / sizeof(c->items[0]))
			return;
		c->items[c->n++] = (struct candidate){ .passage_id = id };
	}
	c->items[i].score += 1.0 / (double)(RRF_K + rank);
	c->items[i].by_vector = c->items[i].by_vector || by_vector;
}

static int search_words(struct ag_kb *kb, const struct words *w, struct candidates *c, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf match = BASE_BUF_INIT(MAX_WORDS * (WORD_BYTES + 16));
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	size_t rank = 0;
	int code = SQLITE_DONE, r;

	if (w->n == 0)
		return 0;
	r = match_expression(w, &match);
	if (r < 0)
		return err_set(err, r, "out of memory");
	r = ag_kb_prepare(kb,
	                  "SELECT rowid FROM passage_fts WHERE passage_fts MATCH ?1"
	                  " ORDER BY bm25(passage_fts, 4.0, 1.0) LIMIT ?2",
	                  &stmt, err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_text(stmt, 1, base_buf_text(&match), -1, SQLITE_STATIC);
	(void)sqlite3_bind_int(stmt, 2, CANDIDATES);
	while ((code = sqlite3_step(stmt)) == SQLITE_ROW)
		add_ranked(c, sqlite3_column_int64(stmt, 0), ++rank, false);
	return code == SQLITE_DONE ? 0 : ag_kb_sql_error(kb, "searching", err);
}

struct nearest {
	int64_t id;
	float cosine;
};

/* Keeps the best CANDIDATES, sorted, best first. */
static size_t keep_nearest(struct nearest *list, size_t n, int64_t id, float cosine)
{
	size_t i = n;

	if (n == CANDIDATES && cosine <= list[n - 1].cosine)
		return n;
	if (n == CANDIDATES)
		i = n - 1;
	else
		n++;
	for (; i > 0 && list[i - 1].cosine < cosine; i--)
		list[i] = list[i - 1];
	list[i] = (struct nearest){ id, cosine };
	return n;
}

static float dot_half(const float *q, const uint8_t *halves, size_t dim)
{
	float sum = 0;

	for (size_t i = 0; i < dim; i++)
		sum += q[i] * ag_kb_float_from_half((uint16_t)(halves[2 * i] | halves[2 * i + 1] << 8));
	return sum;
}

static int search_vectors(struct ag_kb *kb, const char *question, struct candidates *c, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	CLEANUP(freep) float *q = NULL;
	struct nearest list[CANDIDATES];
	size_t dim = 0, n = 0;
	int code, r = ag_kb_embed_texts(kb->embed, &question, 1, &q, &dim, err);

	if (r == 0)
		r = ag_kb_prepare(kb, "SELECT passage_id, halves FROM vector WHERE model = ?1", &stmt, err);
	if (r < 0)
		return r;
	(void)sqlite3_bind_text(stmt, 1, ag_kb_embed_model(kb->embed), -1, SQLITE_STATIC);
	while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
		const uint8_t *halves = sqlite3_column_blob(stmt, 1);

		if (halves && (size_t)sqlite3_column_bytes(stmt, 1) == 2 * dim)
			n = keep_nearest(list, n, sqlite3_column_int64(stmt, 0), dot_half(q, halves, dim));
	}
	if (code != SQLITE_DONE)
		return ag_kb_sql_error(kb, "searching", err);
	for (size_t i = 0; i < n; i++)
		add_ranked(c, list[i].id, i + 1, true);
	return 0;
}

static int by_score(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->passage_id < y->passage_id ? -1 : x->passage_id > y->passage_id;
}

/* ---- Snippets -------------------------------------------------------------------------------------------- */

struct mark {
	size_t begin, end, word;
};

struct marks {
	const struct words *words;
	struct mark items[256];
	size_t n;
};

static int on_mark(void *arg, const char *token, size_t len, size_t begin, size_t end)
{
	struct marks *m = arg;

	for (size_t i = 0; i < m->words->n; i++) {
		const char *w = m->words->word[i];
		size_t n = strlen(w);

		if (m->words->by_prefix[i] ? len < n || memcmp(w, token, n) != 0 : len != n || memcmp(w, token, n) != 0)
			continue;
		if (m->words->by_prefix[i] && len > n) /* a pair: its first character was asked for */
			end = begin + n < end ? begin + n : end;
		m->items[m->n++] = (struct mark){ begin, end, i };
		break;
	}
	return m->n == sizeof(m->items) / sizeof(m->items[0]);
}

/* The byte that lies n characters behind `from`. */
static size_t forward(const char *s, size_t len, size_t from, size_t n)
{
	while (from < len && n) {
		from++;
		while (from < len && ((unsigned char)s[from] & 0xc0) == 0x80)
			from++;
		n--;
	}
	return from;
}

static size_t backward(const char *s, size_t from, size_t n)
{
	while (from && n) {
		from--;
		while (from && ((unsigned char)s[from] & 0xc0) == 0x80)
			from--;
		n--;
	}
	return from;
}

/* Where the window begins that holds the most different words. */
static size_t best_window(const struct marks *m, const char *s, size_t len)
{
	size_t best = 0, best_count = 0;

	for (size_t i = 0; i < m->n; i++) {
		size_t stop = forward(s, len, m->items[i].begin, SNIPPET_CHARS - 20), count = 0;
		bool seen[MAX_WORDS] = { false };

		for (size_t j = i; j < m->n && m->items[j].end <= stop; j++) {
			count += !seen[m->items[j].word];
			seen[m->items[j].word] = true;
		}
		if (count > best_count) {
			best_count = count;
			best = m->items[i].begin;
		}
	}
	return backward(s, best, 20);
}

static int make_snippet(const struct words *words, const char *s, struct base_buf *out)
{
	struct marks m = { .words = words };
	size_t len = strlen(s), begin, end, mark = 0;
	bool open = false;

	(void)ag_kb_tokenize(s, len, false, on_mark, &m);
	begin = best_window(&m, s, len);
	end = forward(s, len, begin, SNIPPET_CHARS);
	if (begin)
		(void)base_buf_puts(out, "…");
	for (size_t i = begin; i < end; i++) {
		while (mark < m.n && m.items[mark].end <= i)
			mark++;
		if (open && (mark == m.n || m.items[mark].begin > i)) {
			(void)base_buf_putc(out, '\x02');
			open = false;
		}
		if (!open && mark < m.n && m.items[mark].begin <= i) {
			(void)base_buf_putc(out, '\x01');
			open = true;
		}
		if (s[i] == '\n' || s[i] == '\t' || s[i] == ' ') {
			if (out->len && out->data[out->len - 1] != ' ')
				(void)base_buf_putc(out, ' ');
		} else {
			(void)base_buf_putc(out, s[i]);
		}
	}
	if (open)
		(void)base_buf_putc(out, '\x02');
	if (end < len)
		(void)base_buf_puts(out, "…");
	return base_buf_error(out);
}

/* ---- Hits ------------------------------------------------------------------------------------------------ */

static char *column_dup(sqlite3_stmt *stmt, int column)
{
	const char *text = (const char *)sqlite3_column_text(stmt, column);

	return strdup(text ? text : "");
}

static int fill_hit(struct ag_kb *kb, sqlite3_stmt *stmt, const struct candidate *c, const struct words *words,
                    struct ag_kb_hit *hit, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf snippet = BASE_BUF_INIT(8192);
	int code;

	(void)sqlite3_reset(stmt);
	(void)sqlite3_bind_int64(stmt, 1, c->passage_id);
	code = sqlite3_step(stmt);
	if (code == SQLITE_DONE)
		return 0; /* removed by another program between the two questions */
	if (code != SQLITE_ROW)
		return ag_kb_sql_error(kb, "searching", err);
	hit->path = column_dup(stmt, 0);
	hit->line = (uint32_t)sqlite3_column_int64(stmt, 1);
	hit->title = column_dup(stmt, 2);
	hit->text = column_dup(stmt, 3);
	hit->score = c->score;
	hit->by_vector = c->by_vector;
	if (hit->text && make_snippet(words, hit->text, &snippet) == 0)
		hit->snippet = snippet.len ? base_buf_take(&snippet) : strdup("");
	if (hit->path && hit->title && hit->text && hit->snippet)
		return 1;
	return err_set(err, -ENOMEM, "out of memory");
}

struct cover {
	const struct words *words;
	bool seen[MAX_WORDS];
};

static int on_covered(void *arg, const char *token, size_t len, size_t begin, size_t end)
{
	struct cover *c = arg;

	(void)begin, (void)end;
	for (size_t i = 0; i < c->words->n; i++) {
		size_t n = strlen(c->words->word[i]);

		if (memcmp(c->words->word[i], token, n < len ? n : len) == 0 &&
		    (n == len || (n < len && c->words->by_prefix[i])))
			c->seen[i] = true;
	}
	return 0;
}

static double cover_of(const struct words *words, const struct ag_kb_hit *hit)
{
	struct cover c = { .words = words };
	size_t n = 0;

	(void)ag_kb_tokenize(hit->title, strlen(hit->title), false, on_covered, &c);
	(void)ag_kb_tokenize(hit->text, strlen(hit->text), false, on_covered, &c);
	for (size_t i = 0; i < words->n; i++)
		n += c.seen[i];
	return words->n ? (double)n / (double)words->n : 0;
}

static int fill_hits(struct ag_kb *kb, struct candidates *c, const struct words *words, size_t limit,
                     struct ag_kb_hits *hits, struct err *err)
{
	CLEANUP(ag_kb_finalizep) sqlite3_stmt *stmt = NULL;
	int r = ag_kb_prepare(kb,
	                      "SELECT f.path, p.line, p.title, p.text FROM passage p JOIN file f ON f.id = p.file_id"
	                      " WHERE p.id = ?1",
	                      &stmt, err);

	if (r < 0)
		return r;
	hits->items = calloc(limit, sizeof(*hits->items));
	if (!hits->items)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < c->n && hits->n < limit && r >= 0; i++) {
		hits->n++; /* a half-filled one is freed with the others */
		r = fill_hit(kb, stmt, &c->items[i], words, &hits->items[hits->n - 1], err);
		if (r == 0)
			hits->n--;
		else if (r > 0)
			hits->items[hits->n - 1].cover = cover_of(words, &hits->items[hits->n - 1]);
	}
	return r < 0 ? r : 0;
}

int ag_kb_search(struct ag_kb *kb, const char *question, size_t limit, struct ag_kb_hits *ret_hits, struct err *err)
{
	CLEANUP(freep) struct words *words = calloc(1, sizeof(*words));
	CLEANUP(freep) struct candidates *c = calloc(1, sizeof(*c));
	struct ag_kb_hits hits = { 0 };
	struct err why = { 0 };
	int r;

	if (limit < 1 || limit > CANDIDATES)
		return err_set(err, -EINVAL, "1 to %d passages can be asked for", CANDIDATES);
	if (!words || !c)
		return err_set(err, -ENOMEM, "out of memory");
	(void)ag_kb_tokenize(question, strlen(question), true, on_word, words);
	drop_question_words(words);
	r = search_words(kb, words, c, err);
	if (r == 0 && kb->embed && *question) {
		r = search_vectors(kb, question, c, &why);
		if (r == -EUCLEAN)
			return err_set(err, r, "%s", err_text(&why));
		if (r < 0)
			ag_kb_notice(kb, "searching by words only: %s", err_text(&why));
		r = 0;
	}
	if (r == 0 && c->n) {
		qsort(c->items, c->n, sizeof(c->items[0]), by_score);
		r = fill_hits(kb, c, words, limit, &hits, err);
	}
	if (r < 0) {
		ag_kb_hits_done(&hits);
		return r;
	}
	hits.n_words = words->n;
	*ret_hits = hits;
	return 0;
}

void ag_kb_hits_done(struct ag_kb_hits *hits)
{
	for (size_t i = 0; i < hits->n; i++) {
		free(hits->items[i].path);
		free(hits->items[i].title);
		free(hits->items[i].text);
		free(hits->items[i].snippet);
	}
	free(hits->items);
	hits->items = NULL;
	hits->n = 0;
}

int ag_kb_cite(const struct ag_kb_hits *hits, size_t max_bytes, struct base_buf *out)
{
	size_t begin = out->len;
	int n = 0;

	for (size_t i = 0; i < hits->n; i++) {
		const struct ag_kb_hit *h = &hits->items[i];
		CLEANUP(base_buf_done) struct base_buf one = BASE_BUF_INIT(1 << 20);

		if (base_buf_printf(&one, "[%d] %s:%u (%s)\n%s\n\n", n + 1, h->path, (unsigned)h->line, h->title,
		                    h->text) < 0)
			return -ENOMEM;
		if (out->len - begin + one.len > max_bytes)
			continue; /* a shorter one may still have room */
		if (base_buf_append(out, one.data, one.len) < 0)
			return base_buf_error(out);
		n++;
	}
	return n;
}
