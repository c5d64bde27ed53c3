/* Added tokens: spellings that are cut out of the text before the model sees it. Those with normalized =
 * false are looked for in the text as it came, the others (in their normalized form) in what normalizing
 * made of the stretches between. At each place the longest spelling wins, and a match that is then refused
 * (single_word, or a special token where special ones are plain text) still uses up its characters, as
 * in the reference. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

void tok_added_done(struct tok_added_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		free(set->items[i].content);
		free(set->items[i].decoded);
	}
	free(set->items);
	tok_prefixes_done(&set->raw);
	tok_prefixes_done(&set->normalized);
	*set = (struct tok_added_set){ 0 };
}

const struct tok_added *tok_added_by_id(const struct tok_added_set *set, int32_t id)
{
	size_t lo = 0, hi = set->n, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (set->items[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < set->n && set->items[lo].id == id ? &set->items[lo] : NULL;
}

/* ---- matching -------------------------------------------------------------------------------- */

static size_t longest_at(const struct tok_prefixes *index, const char *p, size_t n, uint32_t *ret_item)
{
	struct tok_prefix_walk walk;
	size_t best = 0;
	int64_t value;

	tok_prefix_start(index, &walk);
	for (size_t i = 0; i < n && tok_prefix_step(index, &walk, (uint8_t)p[i], &value); i++) {
		if (value >= 0) {
			best = i + 1;
			*ret_item = (uint32_t)value;
		}
	}
	return best;
}

static bool word_before(const char *text, size_t at)
{
	size_t from, len;

	if (at == 0)
		return false;
	from = tok_utf8_back(text, at);
	return tok_is_word(tok_utf8_get(text + from, at - from, &len));
}

static bool word_after(const char *text, size_t n, size_t at)
{
	size_t len;

	return at < n && tok_is_word(tok_utf8_get(text + at, n - at, &len));
}

static void take_spaces(const struct tok_added *token, const char *text, size_t n, size_t floor,
                        struct tok_added_match *match)
{
	size_t at, len;

	while (token->lstrip && match->begin > floor) {
		at = tok_utf8_back(text, match->begin);
		if (at < floor || !tok_is_space(tok_utf8_get(text + at, match->begin - at, &len)))
			break;
		match->begin = at;
	}
	while (token->rstrip && match->end < n && tok_is_space(tok_utf8_get(text + match->end, n - match->end, &len)))
		match->end += len;
}

bool tok_added_next(const struct eng_tokenizer *tok, const struct tok_prefixes *index, bool parse_special,
                    const char *text, size_t n, size_t floor, size_t *at, struct tok_added_match *ret)
{
	const struct tok_added *token;
	size_t i = *at, len, end;
	uint32_t item = 0;

	if (index->n == 0)
		return false;
	while (i < n) {
		unsigned char c = (unsigned char)text[i];

		len = index->first[c] < index->first[c + 1] ? longest_at(index, text + i, n - i, &item) : 0;
		if (len == 0) {
			i++;
			continue;
		}
		token = &tok->added.items[item];
		end = i + len;
		if ((token->special && !parse_special) ||
		    (token->single_word && (word_before(text, i) || word_after(text, n, end)))) {
			i = end;
			continue;
		}
		*ret = (struct tok_added_match){ i, end, token };
		*at = end;
		take_spaces(token, text, n, floor, ret);
		if (ret->begin < floor) /* an rstrip before this one took its first characters */
			ret->begin = floor;
		return true;
	}
	*at = n;
	return false;
}

/* ---- indexing -------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	const struct tok_added *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int normalize_item(const struct eng_tokenizer *tok, struct tok_added *item, struct tok_scratch *s,
                          struct err *err)
{
	const char *p;
	bool first = true;
	size_t n;
	int r;

	r = tok_normalize(tok->norms, tok->n_norms, s, item->content, item->n, &p, &n, &first, err);
	if (r < 0 || (n == item->n && memcmp(p, item->content, n) == 0))
		return r;
	item->decoded = malloc(n + 1);
	if (!item->decoded)
		return -ENOMEM;
	memcpy(item->decoded, p, n);
	item->decoded[n] = '\0';
	item->decoded_n = n;
	return 0;
}

static int build_indexes(struct tok_added_set *set)
{
	struct tok_prefix_entry *raw = calloc(set->n + 1, sizeof(*raw));
	struct tok_prefix_entry *normalized = calloc(set->n + 1, sizeof(*normalized));
	size_t n_raw = 0, n_normalized = 0;
	int r;

	if (!raw || !normalized) {
		free(raw);
		free(normalized);
		return -ENOMEM;
	}
	for (size_t i = 0; i < set->n; i++) {
		const struct tok_added *a = &set->items[i];

		if (!a->normalized)
			raw[n_raw++] = (struct tok_prefix_entry){ a->content, (uint32_t)a->n, (uint32_t)i };
		else
			normalized[n_normalized++] =
			        (struct tok_prefix_entry){ a->decoded ? a->decoded : a->content,
				                           (uint32_t)(a->decoded ? a->decoded_n : a->n), (uint32_t)i };
	}
	r = tok_prefixes_build(&set->raw, raw, n_raw);
	if (r < 0) {
		free(normalized);
		return r;
	}
	return tok_prefixes_build(&set->normalized, normalized, n_normalized);
}

int tok_added_index(struct eng_tokenizer *tok, const char *where, struct err *err)
{
	struct tok_added_set *set = &tok->added;
	struct tok_scratch s;
	int r = 0;

	if (set->n)
		qsort(set->items, set->n, sizeof(*set->items), by_id);
	for (size_t i = 1; i < set->n; i++) {
		if (set->items[i].id == set->items[i - 1].id)
			return err_set(err, -EBADMSG, "%s: added_tokens: \"%.60s\" and \"%.60s\" have the same id %d",
			               where, set->items[i - 1].content, set->items[i].content, (int)set->items[i].id);
	}
	tok_scratch_init(&s);
	for (size_t i = 0; r == 0 && i < set->n; i++) {
		if (set->items[i].normalized)
			r = normalize_item(tok, &set->items[i], &s, err);
	}
	tok_scratch_done(&s);
	if (r == 0)
		r = build_indexes(set);
	if (r == -ENOMEM || r == -EFBIG)
		return err_set(err, r, "%s: added_tokens: out of memory", where);
	return r;
}
