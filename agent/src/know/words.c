/* Words of questions and of the catalogue.
 *
 * A token is one Chinese character, or a run of ASCII that holds together ("/var/log/messages", "192.0.2.7", "--help").
 * ASCII words are compared folded: lower case, without a plural s. A word of the question that the catalogue does not
 * know is taken for a known one when it is one typing error away (Damerau: insert, delete, replace, swap). Words of
 * politeness and of plain grammar weigh almost nothing, others by how few tasks use them. */
#include "know/know_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

uint64_t ag_know_hash(const char *text, size_t len)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
	return h ? h : 1;
}

size_t ag_know_fold(const char *text, size_t len, char out[64])
{
	size_t n = 0;

	for (size_t i = 0; i < len && n < 63; i++)
		out[n++] = (char)tolower((unsigned char)text[i]);
	if (n > 3 && out[n - 1] == 's' && out[n - 2] != 's' && out[n - 2] != 'u' && out[n - 2] != 'i')
		n--;
	out[n] = '\0';
	return n;
}

static size_t utf8_len(unsigned char c)
{
	return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Punctuation that ends a word unless it is inside one. */
static bool is_edge(char c)
{
	return strchr(",.;:!?()[]<>\"'`", c) != NULL;
}

/* CJK punctuation and symbols: U+3000..U+303F, U+FF00..U+FF65 and the general block U+2000..U+206F. */
static bool is_wide_punctuation(const char *p, size_t len)
{
	const unsigned char *u = (const unsigned char *)p;

	if (len != 3)
		return false;
	return (u[0] == 0xe3 && u[1] == 0x80) || (u[0] == 0xef && (u[1] == 0xbc || u[1] == 0xbd)) ||
	       (u[0] == 0xe2 && (u[1] == 0x80 || u[1] == 0x81));
}

static bool take_ascii(const char *text, size_t len, size_t *pos, struct token *ret)
{
	size_t start = *pos, end;

	while (start < len && text[start] > 0 && is_edge(text[start]) &&
	       !(text[start] == '.' && start + 1 < len &&
	         (text[start + 1] == '/' || isalnum((unsigned char)text[start + 1]))))
		start++;
	end = start;
	while (end < len && text[end] > ' ' && text[end] != 0x7f && !strchr("\"`", text[end]) &&
	       !(text[end] == ',' || text[end] == ';'))
		end++;
	*pos = end > start ? end : start;
	while (end > start && is_edge(text[end - 1]))
		end--;
	/* "x?" or "what's": the apostrophe and what follows is grammar */
	for (size_t i = start; i + 1 < end; i++)
		if (text[i] == '\'' && i > start)
			end = i;
	if (end == start)
		return false;
	ret->text = text + start;
	ret->len = (uint16_t)(end - start);
	ret->start = (uint16_t)start;
	ret->is_cjk = false;
	return true;
}

int ag_know_next_token(const char *text, size_t len, size_t *pos, struct token *ret)
{
	memset(ret, 0, sizeof(*ret));
	while (*pos < len) {
		unsigned char c = (unsigned char)text[*pos];
		size_t n = utf8_len(c);

		if (c <= ' ' || c == 0x7f) {
			(*pos)++;
			continue;
		}
		if (c < 0x80) {
			size_t before = *pos;

			if (take_ascii(text, len, pos, ret))
				return 1;
			if (*pos == before)
				(*pos)++;
			continue;
		}
		if (n > len - *pos)
			n = len - *pos;
		ret->text = text + *pos;
		ret->len = (uint16_t)n;
		ret->start = (uint16_t)*pos;
		ret->is_cjk = true;
		*pos += n;
		if (!is_wide_punctuation(ret->text, n))
			return 1;
	}
	return 0;
}

uint32_t ag_know_word_find(const struct ag_know *k, const char *text, size_t len, bool is_cjk)
{
	char folded[64];
	uint64_t h;
	size_t i;

	if (!k->cap_word_table)
		return 0;
	if (!is_cjk) {
		len = ag_know_fold(text, len, folded);
		text = folded;
	}
	h = ag_know_hash(text, len);
	for (i = h & (k->cap_word_table - 1); k->word_table[i]; i = (i + 1) & (k->cap_word_table - 1)) {
		const struct word *w = &k->words[k->word_table[i]];

		if (w->hash == h && w->len == len && !memcmp(w->text, text, len))
			return k->word_table[i];
	}
	return 0;
}

bool ag_know_is_filler(const char *text, size_t len)
{
	static const char *const fillers =
	        " a an the my this that these those me i we you it its of for to in on at is are was be do does did "
	        "how can could "
	        "would please want need help just now here there with and or by what which tell show give let get from "
	        "up into some "
	        "any all box machine server system host need like should will so 的 了 吗 呢 吧 啊 呀 请 帮 我 你 下 "
	        "个 把 给 "
	        "这 那 是 有 怎 么 如 何 想 要 麻 烦 忙 一 台 机 器 上 里 看 查 能 不 能 都 些 什 们 得 咋 嘛 ";
	char key[64];

	if (len > 60)
		return false;
	key[0] = ' ';
	for (size_t i = 0; i < len; i++)
		key[i + 1] = (char)(text[i] > 0 ? tolower((unsigned char)text[i]) : text[i]);
	key[len + 1] = ' ';
	key[len + 2] = '\0';
	return strstr(fillers, key) != NULL;
}

/* One edit apart? */
static bool is_near(const char *a, size_t n, const char *b, size_t m)
{
	size_t i = 0, tail = 0;

	if (n > m + 1 || m > n + 1)
		return false;
	while (i < n && i < m && a[i] == b[i])
		i++;
	while (tail < n - i && tail < m - i && a[n - 1 - tail] == b[m - 1 - tail])
		tail++;
	n -= i + tail;
	m -= i + tail;
	if (n <= 1 && m <= 1)
		return true;
	return n == 2 && m == 2 && a[i] == b[i + 1] && a[i + 1] == b[i];
}

static bool is_word(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isalpha((unsigned char)text[i]))
			return false;
	return true;
}

static uint32_t find_near(const struct ag_know *k, const char *text, size_t len)
{
	char folded[64];
	size_t n;

	if (len < 5 || len > 20 || !is_word(text, len))
		return 0;
	n = ag_know_fold(text, len, folded);
	for (uint32_t i = 1; i < k->n_words; i++) {
		const struct word *w = &k->words[i];

		if (w->len >= 5 && w->text[0] == folded[0] && is_near(folded, n, w->text, w->len))
			return i;
	}
	return 0;
}

/* Two values written as one word: "user@host", "host:/path", "host:port", "key=value", "8000-9000". Where the first
 * ends, or 0. */
static size_t split_at(const char *s, size_t len)
{
	const char *at = memchr(s, '@', len), *colon = memchr(s, ':', len), *equals = memchr(s, '=', len);
	const char *dash = memchr(s, '-', len), *dot = memchr(s, '.', len);
	size_t digits = strspn(s, "0123456789");

	if (len > 4 && !memcmp(s, "git@", 4))
		return 0;
	if (at && at > s && at + 1 < s + len && !memchr(s, '/', (size_t)(at - s)) &&
	    (dot > at || (colon && colon > at)))
		return (size_t)(at - s);
	if (colon && colon > s && colon + 1 < s + len && colon[1] == '/' && !(colon + 2 < s + len && colon[2] == '/'))
		return (size_t)(colon - s);
	if (colon && dot && dot < colon && isdigit((unsigned char)s[0]) && colon + 1 < s + len &&
	    isdigit((unsigned char)colon[1]))
		return (size_t)(colon - s);
	if (equals && dot && dot < equals && equals + 1 < s + len)
		return (size_t)(equals - s);
	if (dash && digits && digits < 6 && dash == s + digits && len - digits - 1 < 6 && digits + 1 < len &&
	    strspn(dash + 1, "0123456789") >= len - digits - 1 && !(len == 5 && digits == 2))
		return digits;
	return 0;
}

/* Cuts tokens[n - 1] in three where it holds two values; returns the new count. */
static size_t split_token(struct token *tokens, size_t n)
{
	struct token *t = &tokens[n - 1];
	size_t at = t->is_cjk ? 0 : split_at(t->text, t->len);

	if (!at || n + 2 > KNOW_MAX_TOKENS)
		return n;
	tokens[n] = tokens[n + 1] = *t;
	tokens[n].text = t->text + at;
	tokens[n].start = (uint16_t)(t->start + at);
	tokens[n].len = 1;
	tokens[n + 1].text = t->text + at + 1;
	tokens[n + 1].start = (uint16_t)(t->start + at + 1);
	tokens[n + 1].len = (uint16_t)(t->len - at - 1);
	t->len = (uint16_t)at;
	return split_token(tokens, n + 2);
}

static void weigh(const struct ag_know *k, struct token *t)
{
	t->word = ag_know_word_find(k, t->text, t->len, t->is_cjk);
	if (!t->word && !t->is_cjk) {
		t->word = find_near(k, t->text, t->len);
		t->is_near = t->word != 0;
	}
	if (ag_know_is_filler(t->text, t->len) || (t->len == 1 && strchr("@:=-", t->text[0])))
		t->weight = 0.25f;
	else if (t->word)
		t->weight = k->words[t->word].weight;
	else
		t->weight = t->is_cjk ? 2.0f : 3.5f;
}

size_t ag_know_tokenize(const struct ag_know *k, const char *question, char text[KNOW_MAX_TEXT],
                        struct token tokens[KNOW_MAX_TOKENS])
{
	size_t len = strnlen(question, KNOW_MAX_TEXT - 1), n = 0, pos = 0;

	memcpy(text, question, len);
	text[len] = '\0';
	/* A character that was cut in two goes altogether. */
	while (len && len == KNOW_MAX_TEXT - 1 && ((unsigned char)text[len - 1] & 0xc0) == 0x80)
		text[--len] = '\0';
	while (n < KNOW_MAX_TOKENS && ag_know_next_token(text, len, &pos, &tokens[n])) {
		size_t first = n++;

		n = split_token(tokens, n);
		while (first < n)
			weigh(k, &tokens[first++]);
	}
	return n;
}
