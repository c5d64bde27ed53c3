/* Words of a text, for indexing and for asking.
 *
 * Each character is decomposed by compatibility (NFKC's rules), case-folded and stripped of its marks, so that
 * "Ｄｉｓｋ", "DISK" and "disk" are one word, as are "café" and "cafe"; a finished word is composed again. Characters
 * of scripts written without blanks form runs, and a run is cut into overlapping pairs: 磁盘空间 is 磁盘, 盘空, 空间.
 * In documents the run's last character is a word too, so that every character begins a word and a question of one
 * character finds its places by prefix. */
#include <string.h>
#include <utf8proc.h>

#include "kb/kb_internal.h"

enum char_class { CLASS_NONE, CLASS_WORD, CLASS_CJK };

struct tokenizer {
	ag_kb_token_fn fn;
	void *arg;
	bool is_query;
	/* the word under construction */
	int32_t word[AG_KB_MAX_TOKEN + 1];
	size_t n_word, word_begin, word_end;
	/* the last character of a run, waiting for its neighbour */
	int32_t last;
	size_t last_begin, last_end, n_run;
};

static bool is_cjk(int32_t c)
{
	return (c >= 0x2e80 && c <= 0x2fdf) || c == 0x3005 || c == 0x3007 || (c >= 0x3040 && c <= 0x30ff) ||
	       (c >= 0x3105 && c <= 0x312f) || (c >= 0x31f0 && c <= 0x31ff) || (c >= 0x3400 && c <= 0x4dbf) ||
	       (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
	       (c >= 0x20000 && c <= 0x3fffd);
}

static enum char_class class_of(int32_t c)
{
	if (c < 0x80)
		return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ? CLASS_WORD : CLASS_NONE;
	if (is_cjk(c))
		return CLASS_CJK;
	switch (utf8proc_category(c)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_MC:
		return CLASS_WORD;
	default:
		return CLASS_NONE;
	}
}

static int emit(struct tokenizer *t, int32_t *chars, size_t n, size_t begin, size_t end)
{
	uint8_t out[4 * AG_KB_MAX_TOKEN + 4];
	size_t len = 0;
	utf8proc_ssize_t m = utf8proc_normalize_utf32(chars, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);

	for (utf8proc_ssize_t i = 0; i < m; i++)
		len += (size_t)utf8proc_encode_char(chars[i], out + len);
	return len ? t->fn(t->arg, (const char *)out, len, begin, end) : 0;
}

static int flush_word(struct tokenizer *t)
{
	size_t n = t->n_word;

	t->n_word = 0;
	return n ? emit(t, t->word, n, t->word_begin, t->word_end) : 0;
}

static int flush_run(struct tokenizer *t)
{
	size_t n = t->n_run;
	int32_t one[2] = { t->last, 0 };

	t->n_run = 0;
	if (n == 0 || (t->is_query && n > 1))
		return 0;
	return emit(t, one, 1, t->last_begin, t->last_end);
}

static int add_cjk(struct tokenizer *t, int32_t c, size_t begin, size_t end)
{
	int r = flush_word(t);

	if (r == 0 && t->n_run) {
		int32_t pair[3] = { t->last, c, 0 };

		r = emit(t, pair, 2, t->last_begin, end);
	}
	t->last = c;
	t->last_begin = begin;
	t->last_end = end;
	t->n_run++;
	return r;
}

static int add_char(struct tokenizer *t, int32_t c, size_t begin, size_t end)
{
	enum char_class class = class_of(c);
	int r;

	if (class == CLASS_CJK)
		return add_cjk(t, c, begin, end);
	r = flush_run(t);
	if (r == 0 && class == CLASS_NONE)
		return flush_word(t);
	if (t->n_word == 0)
		t->word_begin = begin;
	t->word_end = end;
	if (t->n_word < AG_KB_MAX_TOKEN) /* what is longer is known by its beginning */
		t->word[t->n_word++] = c;
	return r;
}

/* One character of the input: up to 18 after decomposition. */
static int take_char(struct tokenizer *t, int32_t c, size_t begin, size_t end)
{
	int32_t parts[32];
	utf8proc_ssize_t n = 1;
	int last_class = 0, r = 0;

	if (c < 0x80) {
		parts[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
	} else if (c >= 0xac00 && c <= 0xd7a3) {
		parts[0] = c; /* Hangul syllables stay whole */
	} else {
		n = utf8proc_decompose_char(c, parts, 32,
		                            UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD |
		                                    UTF8PROC_STRIPMARK | UTF8PROC_IGNORE,
		                            &last_class);
		if (n < 0 || n > 32)
			return 0;
	}
	for (utf8proc_ssize_t i = 0; i < n && r == 0; i++)
		r = add_char(t, parts[i], begin, end);
	return r;
}

int ag_kb_tokenize(const char *text, size_t len, bool is_query, ag_kb_token_fn fn, void *arg)
{
	struct tokenizer t = { .fn = fn, .arg = arg, .is_query = is_query };
	int r = 0;

	for (size_t i = 0; i < len && r == 0;) {
		int32_t c = (unsigned char)text[i];
		utf8proc_ssize_t n = 1;

		if (c >= 0x80)
			n = utf8proc_iterate((const uint8_t *)text + i, (utf8proc_ssize_t)(len - i), &c);
		if (n <= 0) { /* not UTF-8: a separator */
			n = 1;
			c = ' ';
		}
		r = take_char(&t, c, i, i + (size_t)n);
		i += (size_t)n;
	}
	if (r == 0)
		r = flush_word(&t);
	return r ? r : flush_run(&t);
}
