/* Typed values from text, for the command line and for configuration files alike. */
#include "options_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Digits only: strtoull() would take "-1" and " 1". */
static int parse_u64(const char *what, const char *text, const char **ret_rest, uint64_t *ret, struct err *err)
{
	const char *p = text;
	uint64_t v = 0;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return err_set(err, -EINVAL, "%s: '%s' is too large", what, text);
	}
	if (p == text)
		return err_set(err, -EINVAL, "%s: '%s' is not a whole number", what, text);
	*ret_rest = p;
	*ret = v;
	return 0;
}

static int parse_number(const char *what, const char *text, uint64_t max, uint64_t *ret, struct err *err)
{
	const char *rest;
	uint64_t v;
	int r = parse_u64(what, text, &rest, &v, err);

	if (r < 0)
		return r;
	if (*rest)
		return err_set(err, -EINVAL, "%s: '%s' is not a whole number", what, text);
	if (v > max)
		return err_set(err, -EINVAL, "%s: '%s' is too large (at most %" PRIu64 ")", what, text, max);
	*ret = v;
	return 0;
}

static int parse_size(const char *what, const char *text, uint64_t *ret, struct err *err)
{
	static const char suffixes[] = "KMGT";
	const char *rest, *s;
	uint64_t v;
	int r = parse_u64(what, text, &rest, &v, err);

	if (r < 0)
		return r;
	s = *rest ? strchr(suffixes, *rest & ~0x20) : NULL; /* either case */
	if (s) {
		uint64_t unit = UINT64_C(1024) << (10 * (s - suffixes));

		if (__builtin_mul_overflow(v, unit, &v))
			return err_set(err, -EINVAL, "%s: '%s' is too large", what, text);
		rest++;
		if (strcasecmp(rest, "iB") == 0)
			rest += 2;
	}
	if (*rest)
		return err_set(err, -EINVAL, "%s: '%s' is not a size (a number, then K, M, G or T)", what, text);
	*ret = v;
	return 0;
}

/* The same text means the same number in every locale. */
static int parse_double(const char *what, const char *text, double *ret, struct err *err)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	char *end = NULL;
	double v;

	if (!c)
		return err_set(err, -ENOMEM, "%s: out of memory", what);
	v = strtod_l(text, &end, c);
	freelocale(c);
	if (end == text || *end || !isfinite(v))
		return err_set(err, -EINVAL, "%s: '%s' is not a number", what, text);
	*ret = v;
	return 0;
}

static int parse_flag(const char *what, const char *text, bool *ret, struct err *err)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = { { "true", true },   { "yes", true }, { "on", true },   { "1", true },
		      { "false", false }, { "no", false }, { "off", false }, { "0", false } };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(text, words[i].word) == 0) {
			*ret = words[i].value;
			return 0;
		}
	}
	return err_set(err, -EINVAL, "%s: '%s' is neither true nor false", what, text);
}

int base_option_next_choice(const char *choices, const char **pos, const char **ret_piece, size_t *ret_len)
{
	const char *p = *pos ? *pos : choices;

	if (!p || !*p)
		return 0;
	*ret_piece = p;
	*ret_len = strcspn(p, ",");
	p += *ret_len;
	*pos = *p ? p + 1 : p;
	return 1;
}

static int check_choice(const char *choices, const char *what, const char *text, struct err *err)
{
	const char *pos = NULL, *piece;
	size_t len;

	if (!choices)
		return 0;
	while (base_option_next_choice(choices, &pos, &piece, &len)) {
		if (strlen(text) == len && memcmp(text, piece, len) == 0)
			return 0;
	}
	return err_set(err, -EINVAL, "%s: '%s' is not one of %s", what, text, choices);
}

static int list_append(struct opt_list *list, const char *what, const char *text, struct err *err)
{
	const char **items = reallocarray(list->items, list->n + 1, sizeof(*items));

	if (!items)
		return err_set(err, -ENOMEM, "%s: out of memory", what);
	items[list->n] = text;
	list->items = items;
	list->n++;
	return 0;
}

void opt_list_done(struct opt_list *list)
{
	free(list->items);
	*list = (struct opt_list){ 0 };
}

int base_option_set(enum opt_type type, const char *choices, const char *what, const char *text, void *field,
                    struct err *err)
{
	uint64_t u = 0;
	int r = -EINVAL;

	switch (type) {
	case OPT_FLAG:
		return parse_flag(what, text, field, err);
	case OPT_STR:
		*(const char **)field = text;
		return 0;
	case OPT_UINT:
		r = parse_number(what, text, UINT32_MAX, &u, err);
		if (r == 0)
			*(uint32_t *)field = (uint32_t)u;
		return r;
	case OPT_U64:
		return parse_number(what, text, UINT64_MAX, field, err);
	case OPT_SIZE:
		return parse_size(what, text, field, err);
	case OPT_DOUBLE:
		return parse_double(what, text, field, err);
	case OPT_CHOICE:
		r = check_choice(choices, what, text, err);
		if (r == 0)
			*(const char **)field = text;
		return r;
	case OPT_LIST:
		return list_append(field, what, text, err);
	}
	return r;
}
