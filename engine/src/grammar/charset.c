/* Sets of code points. Categories come from utf8proc; the scan over all code points takes milliseconds, so what it
 * finds for \W \D and \p{..} is built where a pattern first asks for it, and kept. */
#include "grammar/charset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void gr_charset_done(struct charset *s)
{
	free(s->ranges);
	*s = (struct charset){ 0 };
}

int gr_charset_add(struct charset *s, uint32_t lo, uint32_t hi)
{
	if (s->n > 0 && lo >= s->ranges[s->n - 1].lo && lo <= s->ranges[s->n - 1].hi + 1) {
		if (hi > s->ranges[s->n - 1].hi)
			s->ranges[s->n - 1].hi = hi;
		return 0;
	}
	if (s->n == s->cap) {
		uint32_t cap = s->cap ? s->cap * 2 : 4;
		struct charset_range *r = realloc(s->ranges, cap * sizeof(*r));

		if (!r)
			return -ENOMEM;
		s->ranges = r;
		s->cap = cap;
	}
	s->ranges[s->n++] = (struct charset_range){ lo, hi };
	return 0;
}

int gr_charset_add_set(struct charset *s, const struct charset *other)
{
	int r = 0;

	for (uint32_t i = 0; i < other->n && r == 0; i++)
		r = gr_charset_add(s, other->ranges[i].lo, other->ranges[i].hi);
	return r;
}

static int compare(const void *a, const void *b)
{
	const struct charset_range *x = a, *y = b;

	return x->lo < y->lo ? -1 : x->lo > y->lo;
}

void gr_charset_finish(struct charset *s)
{
	uint32_t n = 0;

	if (s->n == 0)
		return;
	qsort(s->ranges, s->n, sizeof(*s->ranges), compare);
	for (uint32_t i = 1; i < s->n; i++) {
		if (s->ranges[i].lo <= s->ranges[n].hi + 1) {
			if (s->ranges[i].hi > s->ranges[n].hi)
				s->ranges[n].hi = s->ranges[i].hi;
		} else {
			s->ranges[++n] = s->ranges[i];
		}
	}
	s->n = n + 1;
}

int gr_charset_invert(struct charset *s)
{
	struct charset old = *s;
	uint32_t next = 0;
	int r = 0;

	*s = (struct charset){ 0 };
	r = gr_charset_add(&old, 0xd800, 0xdfff);
	gr_charset_finish(&old);
	for (uint32_t i = 0; i < old.n && r == 0; i++) {
		if (old.ranges[i].lo > next)
			r = gr_charset_add(s, next, old.ranges[i].lo - 1);
		next = old.ranges[i].hi + 1;
	}
	if (r == 0 && next <= CS_MAX)
		r = gr_charset_add(s, next, CS_MAX);
	gr_charset_done(&old);
	return r;
}

/* The first range that ends at cp or behind it. */
static uint32_t find(const struct charset *s, uint32_t cp)
{
	uint32_t lo = 0, hi = s->n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (s->ranges[mid].hi < cp)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool gr_charset_has(const struct charset *s, uint32_t cp)
{
	return gr_charset_meets(s, cp, cp);
}

bool gr_charset_meets(const struct charset *s, uint32_t lo, uint32_t hi)
{
	uint32_t i = find(s, lo);

	return i < s->n && s->ranges[i].lo <= hi;
}

/* ---- Classes ---- */

typedef bool (*predicate)(uint32_t cp, const void *arg);

static int scan(struct charset *s, predicate is_in, const void *arg)
{
	uint32_t begin = 0;
	bool was_in = false;
	int r = 0;

	for (uint32_t cp = 0; cp <= CS_MAX + 1u && r == 0; cp++) {
		bool in = cp <= CS_MAX && (cp < 0xd800 || cp > 0xdfff) && is_in(cp, arg);

		if (in && !was_in)
			begin = cp;
		if (!in && was_in)
			r = gr_charset_add(s, begin, cp - 1);
		was_in = in;
	}
	return r;
}

enum { KEPT_NO_DIGIT, KEPT_NO_WORD, KEPT_CATEGORIES, MAX_KEPT = KEPT_CATEGORIES + 2 * 40 };

static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static struct charset kept[MAX_KEPT]; /* protected by kept_lock; n 0: not built yet */

static int add_kept(struct charset *s, unsigned which, predicate is_in, const void *arg)
{
	int r = 0;

	(void)pthread_mutex_lock(&kept_lock);
	if (kept[which].n == 0)
		r = scan(&kept[which], is_in, arg);
	if (r == 0)
		r = gr_charset_add_set(s, &kept[which]);
	else
		gr_charset_done(&kept[which]);
	(void)pthread_mutex_unlock(&kept_lock);
	return r;
}

static bool is_no_digit(uint32_t cp, const void *arg)
{
	(void)arg;
	return utf8proc_category((utf8proc_int32_t)cp) != UTF8PROC_CATEGORY_ND;
}

static bool is_no_word(uint32_t cp, const void *arg)
{
	utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);

	(void)arg;
	/* Letters, marks and numbers count as word characters in one dialect or another. */
	return cp != '_' && !(c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NO);
}

static const struct charset_range word[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
/* In both dialects; then what only one of them takes for space. */
static const struct charset_range space[] = { { 9, 13 },          { 0x20, 0x20 },     { 0xa0, 0xa0 },
	                                      { 0x1680, 0x1680 }, { 0x2000, 0x200a }, { 0x2028, 0x2029 },
	                                      { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 } };
static const struct charset_range space_too[] = { { 0x1c, 0x1f }, { 0x85, 0x85 }, { 0xfeff, 0xfeff } };

static int add_ranges(struct charset *s, const struct charset_range *r, size_t n)
{
	int e = 0;

	for (size_t i = 0; i < n && e == 0; i++)
		e = gr_charset_add(s, r[i].lo, r[i].hi);
	return e;
}

static int add_no_space(struct charset *s)
{
	struct charset t = { 0 };
	int r = add_ranges(&t, space, sizeof(space) / sizeof(space[0]));

	if (r == 0)
		r = add_ranges(&t, space_too, sizeof(space_too) / sizeof(space_too[0]));
	gr_charset_finish(&t);
	if (r == 0)
		r = gr_charset_invert(&t);
	if (r == 0)
		r = gr_charset_add_set(s, &t);
	gr_charset_done(&t);
	return r;
}

int gr_charset_add_class(struct charset *s, char letter)
{
	switch (letter) {
	case 'd':
		return gr_charset_add(s, '0', '9');
	case 'w':
		return add_ranges(s, word, sizeof(word) / sizeof(word[0]));
	case 's':
		return add_ranges(s, space, sizeof(space) / sizeof(space[0]));
	case 'D':
		return add_kept(s, KEPT_NO_DIGIT, is_no_digit, NULL);
	case 'W':
		return add_kept(s, KEPT_NO_WORD, is_no_word, NULL);
	case 'S':
		return add_no_space(s);
	default:
		return -EINVAL;
	}
}

struct category {
	const char *name;
	size_t len;
	bool invert;
};

static bool is_in_category(uint32_t cp, const void *arg)
{
	const struct category *c = arg;
	const char *name = utf8proc_category_string((utf8proc_int32_t)cp);

	return (strncmp(name, c->name, c->len) == 0) != c->invert;
}

int gr_charset_add_category(struct charset *s, const char *name, size_t len, bool invert)
{
	static const char *const names[] = { "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd",
		                             "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm",
		                             "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf" };
	const struct category c = { name, len, invert };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
			return add_kept(s, KEPT_CATEGORIES + 2 * (unsigned)i + invert, is_in_category, &c);
	}
	return -EINVAL;
}
