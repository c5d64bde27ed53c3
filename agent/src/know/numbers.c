/* Numbers in a question, in digits and in words of both languages, and sizes with their units. */
#include "know/know_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cjk_digit(const struct token *t)
{
	static const char digits[] = "零一二三四五六七八九十百两千";

	if (!t->is_cjk || t->len != 3)
		return -1;
	for (int i = 0; i < 14; i++)
		if (!memcmp(digits + i * 3, t->text, 3))
			return i;
	return -1;
}

/* 三, 十, 二十五, 一百, 一千. */
static long cjk_number(const struct token *tokens, size_t n)
{
	long total = 0, digit = 0;
	bool any = false;

	for (size_t i = 0; i < n; i++) {
		int d = cjk_digit(&tokens[i]);
		long unit = d == 10 ? 10 : d == 11 ? 100 : d == 13 ? 1000 : 0;

		if (d < 0 || (!unit && digit))
			return -1;
		if (unit) {
			total += (digit ? digit : 1) * unit;
			digit = 0;
		} else {
			digit = d == 12 ? 2 : d;
		}
		any = true;
	}
	return any ? total + digit : -1;
}

static long english_number(const struct token *t)
{
	static const struct {
		const char *word;
		long value;
	} words[] = { { "one", 1 },     { "two", 2 },      { "three", 3 },   { "four", 4 },     { "five", 5 },
		      { "six", 6 },     { "seven", 7 },    { "eight", 8 },   { "nine", 9 },     { "ten", 10 },
		      { "twelve", 12 }, { "fifteen", 15 }, { "twenty", 20 }, { "thirty", 30 },  { "forty", 40 },
		      { "fifty", 50 },  { "sixty", 60 },   { "ninety", 90 }, { "hundred", 100 } };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (t->len == strlen(words[i].word) && strncasecmp(t->text, words[i].word, t->len) == 0)
			return words[i].value;
	return -1;
}

long ag_know_number(const struct token *tokens, size_t n)
{
	if (n == 1 && !tokens[0].is_cjk) {
		if (all_of(tokens[0].text, tokens[0].len, "0123456789") && tokens[0].len < 18)
			return strtol(tokens[0].text, NULL, 10);
		return english_number(&tokens[0]);
	}
	return cjk_number(tokens, n);
}

bool ag_know_size(const struct token *tokens, size_t n, char *out, size_t size)
{
	char text[64];
	size_t len = 0, digits;
	const char *unit;

	for (size_t i = 0; i < n; i++) {
		if (len + tokens[i].len + 1 >= sizeof(text))
			return false;
		memcpy(text + len, tokens[i].text, tokens[i].len);
		len += tokens[i].len;
	}
	text[len] = '\0';
	digits = strspn(text, "0123456789");
	unit = text + digits;
	if (!digits || digits > 9 || !*unit)
		return false;
	if (strncmp(unit, "个", 3) == 0)
		unit += 3;
	if (strcmp(unit, "兆") == 0)
		unit = "M";
	if (!strchr("kKmMgGtT", unit[0]) || !unit[0] ||
	    !(unit[1] == '\0' || strcasecmp(unit + 1, "b") == 0 || strcasecmp(unit + 1, "ib") == 0))
		return false;
	return snprintf(out, size, "%.*s%c", (int)digits, text, toupper((unsigned char)unit[0])) < (int)size;
}
