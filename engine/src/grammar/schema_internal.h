/* Shared by the schema compiler's files. See schema.c. */
#ifndef ENG_GRAMMAR_SCHEMA_INTERNAL_H
#define ENG_GRAMMAR_SCHEMA_INTERNAL_H

#include <jansson.h>

#include "base/buf.h"
#include "grammar/grammar_internal.h"
#include "grammar/grow.h"

enum {
	TYPE_NULL = 1u << 0,
	TYPE_BOOLEAN = 1u << 1,
	TYPE_OBJECT = 1u << 2,
	TYPE_ARRAY = 1u << 3,
	TYPE_STRING = 1u << 4,
	TYPE_INTEGER = 1u << 5,
	TYPE_FRACTION = 1u << 6, /* numbers that are no integers */
	TYPE_ANY = (1u << 7) - 1,
	TYPE_NUMBER = TYPE_INTEGER | TYPE_FRACTION,
};

enum {
	SCHEMA_MAX_ATOMS = 128, /* subschemas that meet in one value */
	SCHEMA_MAX_CASES = 512, /* alternatives of one value after anyOf and oneOf are multiplied out */
	SCHEMA_MAX_WORK = 2000000,
	SCHEMA_MAX_LENGTH = 1 << 20, /* of minLength, maxItems ... that are told apart */
};

/* A subschema as it stands in the text. */
struct raw {
	const json_t *json;
	char *pointer; /* "#/properties/a" */
	bool one_of_checked;
};

/* A set of subschemas that all must hold, as numbers: raw << 1 | 1 when only its own keywords count and not what $ref,
 * allOf, anyOf and oneOf beside them bring in, which was multiplied out. Sorted, without twins. */
struct conj {
	uint32_t *parts, n;
	uint32_t value; /* the node it became */
};

/* Two alternatives of a oneOf: if this value is possible, they overlap. */
struct overlap {
	uint32_t value, raw, i, j;
};

/* The patterns of an object's other names, until it is known which values are possible. */
struct names_pending {
	uint32_t node;
	struct dfa_builder builder;
};

struct lex_memo {
	char *key;
	uint32_t node;
};

struct schema {
	struct eng_grammar *g;
	struct err *err;
	json_t *root;
	json_t *made; /* array: owns what was made up here (const objects) */
	struct raw *raws;
	uint32_t n_raws, cap_raws;
	uint32_t *raw_table, raw_size; /* hash by address */
	struct conj *conjs;
	uint32_t n_conjs, cap_conjs, n_done;
	uint32_t *conj_table, conj_size;
	struct overlap *overlaps;
	uint32_t n_overlaps, cap_overlaps;
	struct names_pending *pending;
	uint32_t n_pending, cap_pending;
	struct lex_memo *memos;
	uint32_t n_memos, cap_memos;
	uint64_t work;
};

/* schema.c */
int gr_schema_raw(struct schema *s, const json_t *json, const char *parent, const char *key, uint32_t *ret);
/* The value for all of parts (sorted here, changed); GR_NONE in *ret: nothing is possible. */
int gr_schema_value(struct schema *s, uint32_t *parts, uint32_t n, uint32_t *ret);
int gr_schema_fail(struct schema *s, uint32_t raw, const char *key, int code, const char *why);
int gr_schema_resolve(struct schema *s, uint32_t raw, const json_t *ref, uint32_t *ret);
const json_t *gr_schema_get(const struct schema *s, uint32_t raw, const char *key); /* NULL: no such keyword */
/* A made up schema becomes the property of s. */
int gr_schema_made(struct schema *s, json_t *json, uint32_t *ret_raw);

int gr_schema_too_many(struct schema *s, const char *what); /* -E2BIG */

/* schema_cases.c: the alternatives of the set's value. schema_possible.c: at the end. */
int gr_schema_work_on(struct schema *s, uint32_t conj);
int gr_schema_cut_impossible(struct schema *s, uint32_t root);

/* schema_check.c: keywords known, of the right types, supported. */
int gr_schema_check(struct schema *s, uint32_t raw);
uint32_t gr_schema_types(const json_t *type); /* 0: not a type or list of types */
uint32_t gr_schema_type_of(const json_t *value);

/* schema_valid.c: 1 valid, 0 not, negative error. SCHEMA_OWN: without $ref, allOf, anyOf, oneOf; SCHEMA_UNLISTED:
 * without enum and const. */
enum { SCHEMA_OWN = 1u << 0, SCHEMA_UNLISTED = 1u << 1 };
int gr_schema_valid(struct schema *s, uint32_t raw, const json_t *value, unsigned flags, unsigned depth);
/* Whether a pattern matches somewhere in the text (is_search) or the whole of it. */
int gr_schema_pattern_matches(struct schema *s, uint32_t raw, const char *key, const char *pattern, bool is_search,
                              const char *text, size_t len);

/* schema_scalar.c: terminals. Outputs are nodes, GR_NONE when nothing is accepted. atoms: one case, parts with the low
 * bit dropped. */
int gr_schema_string(struct schema *s, const uint32_t *atoms, uint32_t n, uint32_t *ret);
int gr_schema_number(struct schema *s, const uint32_t *atoms, uint32_t n, bool is_integer, uint32_t *ret);
/* A plain text terminal of this expression ("true|false"). */
int gr_schema_plain(struct schema *s, const char *regex, uint32_t *ret);
/* Strings, or other scalars, of a list. */
int gr_schema_strings(struct schema *s, const json_t *const *values, size_t n, uint32_t *ret);
int gr_schema_scalars(struct schema *s, const json_t *const *values, size_t n, uint32_t *ret);
int gr_schema_finish_lex(struct schema *s, struct dfa_builder *b, bool is_string, uint32_t *ret);
int gr_schema_add_regex(struct schema *s, uint32_t raw, const char *key, const char *regex, bool is_search,
                        struct dfa_builder *b);
/* NULL: not one of the standard's; "": of the standard, not supported. */
const char *gr_schema_format(const char *name);

/* schema_object.c, schema_array.c */
int gr_schema_object(struct schema *s, const uint32_t *atoms, uint32_t n, uint32_t alone, uint32_t *ret);
int gr_schema_array(struct schema *s, const uint32_t *atoms, uint32_t n, uint32_t *ret);
int gr_schema_finish_names(struct schema *s, struct names_pending *p);

/* number.c: expressions of the decimals (without exponents) on one side of a bound. */
int gr_number_bound(struct base_buf *out, const char *decimal, bool is_lower, bool is_strict);
/* Multiples of the decimal; added to b as one pattern. -E2BIG. */
int gr_number_multiple(struct dfa_builder *b, const char *decimal);
/* The shortest decimal without exponent that reads back as the same number; malloc'd. */
int gr_number_decimal(const json_t *number, char **ret);

#endif
