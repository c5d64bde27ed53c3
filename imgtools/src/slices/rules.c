/* Rules by hand, which override what is generated. Text in sections:
 *
 *   # comment
 *   [bash]                      a package: keep, drop, move
 *   move = /usr/bin/bashbug extras
 *   [curl_bins]                 a slice: keep, drop, add, need, want, generate
 *   generate = ld.so.cache
 *   [/usr/bin/curl]             files by path (a glob): need, want, unneed
 *   want = /etc/ssl/certs/ca-certificates.crt
 *
 * keep, drop, add, move take a glob of paths; need, want, unneed a slice or a path. `want` is a need that is passed
 * over where nobody has the thing. Rules are looked at in order, the last that says something about a file wins. */
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mapfile.h"
#include "slices_internal.h"

enum { MAX_RULES = 1u << 20, MAX_FILE = 16u << 20 };

enum key { KEEP, DROP, MOVE, ADD, NEED, WANT, UNNEED, GENERATE, N_KEYS };
static const char *const key_names[N_KEYS] = { "keep", "drop", "move", "add", "need", "want", "unneed", "generate" };

enum section { PACKAGE, SLICE, PATH };

struct rule {
	enum section kind;
	enum key key;
	const char *section; /* owned by the list of texts */
	const char *value;
	const char *slice; /* of `move` */
};

struct img_rules {
	struct rule *rules;
	size_t n, cap;
	char **texts;
	size_t n_texts, cap_texts;
};

/* ---- Reading ---------------------------------------------------------------------------------------------- */

static const char *keep_text(struct img_rules *r, const char *s, size_t len)
{
	char *copy;

	if (r->n_texts == r->cap_texts) {
		const size_t cap = r->cap_texts ? r->cap_texts * 2 : 64;
		char **grown = reallocarray(r->texts, cap, sizeof(*grown));

		if (!grown)
			return NULL;
		r->texts = grown;
		r->cap_texts = cap;
	}
	copy = strndup(s, len);
	if (copy)
		r->texts[r->n_texts++] = copy;
	return copy;
}

static int add_rule(struct img_rules *r, const struct rule *rule)
{
	if (r->n >= MAX_RULES)
		return -E2BIG;
	if (r->n == r->cap) {
		const size_t cap = r->cap ? r->cap * 2 : 64;
		struct rule *grown = reallocarray(r->rules, cap, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		r->rules = grown;
		r->cap = cap;
	}
	r->rules[r->n++] = *rule;
	return 0;
}

/* The slice or, without its role, the package: "libssl3_libs" names both. */
const char *img_slice_split(const char *name)
{
	const char *last = strrchr(name, '_');

	return last && last > name && last[1] ? last : NULL;
}

static enum section section_kind(const char *name)
{
	if (name[0] == '/')
		return PATH;
	return img_slice_split(name) ? SLICE : PACKAGE;
}

static bool key_belongs(enum key k, enum section s)
{
	static const bool table[N_KEYS][3] = {
		[KEEP] = { true, true, false },    [DROP] = { true, true, false },      [MOVE] = { true, true, false },
		[ADD] = { false, true, false },    [NEED] = { false, true, true },      [WANT] = { false, true, true },
		[UNNEED] = { false, false, true }, [GENERATE] = { false, true, false },
	};

	return table[k][s];
}

/* "GLOB SLICE" of a move. */
static int split_move(struct img_rules *r, struct rule *rule)
{
	const size_t len = strcspn(rule->value, " \t");
	const char *slice = rule->value + len + strspn(rule->value + len, " \t");

	if (!*slice || strpbrk(slice, " \t_/"))
		return -EINVAL;
	rule->slice = slice;
	rule->value = keep_text(r, rule->value, len);
	return rule->value ? 0 : -ENOMEM;
}

static int parse_line(struct img_rules *r, char *line, const char **section, const char *name, size_t number,
                      struct err *err)
{
	struct rule rule;
	char *equals, *end;
	size_t len;
	int k;

	line += strspn(line, " \t\r");
	for (end = line + strlen(line); end > line && strchr(" \t\r", end[-1]); end--)
		end[-1] = 0;
	if (!*line || *line == '#' || *line == ';')
		return 0;
	if (*line == '[') {
		len = strlen(line);
		if (len < 3 || line[len - 1] != ']' || strpbrk(line, " \t"))
			return err_set(err, -EINVAL, "%s:%zu: a section is a package, a slice or a path in brackets",
			               name, number);
		*section = keep_text(r, line + 1, len - 2);
		return *section ? 0 : -ENOMEM;
	}
	equals = strchr(line, '=');
	if (!equals || !*section)
		return err_set(err, -EINVAL, "%s:%zu: expected \"key = value\" in a section", name, number);
	for (end = equals; end > line && strchr(" \t", end[-1]); end--)
		;
	for (k = 0; k < N_KEYS; k++) {
		if (strlen(key_names[k]) == (size_t)(end - line) &&
		    strncmp(key_names[k], line, (size_t)(end - line)) == 0)
			break;
	}
	rule = (struct rule){ .section = *section, .kind = section_kind(*section), .key = (enum key)k };
	if (k == N_KEYS || !key_belongs(rule.key, rule.kind))
		return err_set(err, -EINVAL, "%s:%zu: [%.100s] has no \"%.*s\"", name, number, *section,
		               (int)(end - line), line);
	equals += 1 + strspn(equals + 1, " \t");
	if (!*equals)
		return err_set(err, -EINVAL, "%s:%zu: %s has no value", name, number, key_names[k]);
	rule.value = keep_text(r, equals, strlen(equals));
	if (!rule.value)
		return -ENOMEM;
	if (rule.key == MOVE) {
		k = split_move(r, &rule);
		if (k < 0)
			return err_set(err, k, "%s:%zu: move takes a path and the name of a role", name, number);
	}
	return add_rule(r, &rule);
}

int img_rules_parse(struct img_rules *r, const char *name, const char *text, size_t size, struct err *err)
{
	CLEANUP(freep) char *copy = NULL;
	const char *section = NULL;
	size_t number = 0;
	int e;

	if (memchr(text, 0, size))
		return err_set(err, -EINVAL, "%s: not a text", name);
	copy = strndup(text, size);
	if (!copy)
		return -ENOMEM;
	for (char *line = copy, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		e = parse_line(r, line, &section, name, ++number, err);
		if (e < 0)
			return e;
	}
	return 0;
}

static int read_one(void *rules, const char *path, struct err *err)
{
	struct base_buf buf = BASE_BUF_INIT(MAX_FILE);
	int e = base_read_file(path, &buf, err);

	if (e == 0)
		e = img_rules_parse(rules, path, base_buf_text(&buf), buf.len, err);
	base_buf_done(&buf);
	return e;
}

int img_rules_read(struct img_rules *r, const char *path, struct err *err)
{
	return base_each_file(path, ".rules", read_one, r, err);
}

int img_rules_new(struct img_rules **ret_rules)
{
	struct img_rules *r = calloc(1, sizeof(*r));

	if (!r || img_rules_parse(r, "built-in rules", img_builtin_rules, strlen(img_builtin_rules), NULL) < 0) {
		img_rules_free(r);
		return -ENOMEM;
	}
	*ret_rules = r;
	return 0;
}

void img_rules_free(struct img_rules *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n_texts; i++)
		free(r->texts[i]);
	free(r->texts);
	free(r->rules);
	free(r);
}

/* ---- Asking ----------------------------------------------------------------------------------------------- */

/* Does a section of a package or slice speak of this package (and, for a slice, role)? */
static bool section_is(const struct rule *rule, const char *package, const char *role)
{
	const size_t n = strlen(package);

	/* A package may have an underscore in its name too. */
	if (rule->kind != PATH && strcmp(rule->section, package) == 0)
		return true;
	return rule->kind == SLICE && strncmp(rule->section, package, n) == 0 && rule->section[n] == '_' && role &&
	       strcmp(rule->section + n + 1, role) == 0;
}

static bool glob(const char *pattern, const char *path)
{
	return fnmatch(pattern, path, 0) == 0;
}

/* With `keep` lines in a section only what one of them matches stays. */
static bool is_kept(const struct img_rules *r, const struct rule *first, const char *package, const char *role,
                    const char *path)
{
	for (const struct rule *rule = first; rule < r->rules + r->n; rule++) {
		if (rule->key == KEEP && strcmp(rule->section, first->section) == 0 &&
		    section_is(rule, package, role) && glob(rule->value, path))
			return true;
	}
	return false;
}

const char *img_rules_slice(const struct img_rules *r, const struct img_rpm *p, const struct img_rpm_file *f)
{
	const char *role = img_slice_role(p, f);

	for (size_t i = 0; r && i < r->n; i++) {
		const struct rule *rule = &r->rules[i];
		const char *slice_role = rule->kind == SLICE ? img_slice_split(rule->section) + 1 : NULL;

		if (rule->key == ADD && section_is(rule, p->name, slice_role) && glob(rule->value, f->path)) {
			role = slice_role;
			continue;
		}
		if (!section_is(rule, p->name, role))
			continue;
		if (rule->key == MOVE && glob(rule->value, f->path))
			role = rule->slice;
		else if (rule->key == DROP && glob(rule->value, f->path))
			role = NULL;
		else if (rule->key == KEEP && !is_kept(r, rule, p->name, role, f->path))
			role = NULL;
	}
	return role;
}

size_t img_rules_needs(const struct img_rules *r, const char *path, bool want, const char **targets, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; r && i < r->n && n < max; i++) {
		const struct rule *rule = &r->rules[i];

		if (rule->kind == PATH && rule->key == (want ? WANT : NEED) && glob(rule->section, path))
			targets[n++] = rule->value;
	}
	return n;
}

bool img_rules_unneeds(const struct img_rules *r, const char *path, const char *target)
{
	for (size_t i = 0; r && i < r->n; i++) {
		const struct rule *rule = &r->rules[i];

		if (rule->kind == PATH && rule->key == UNNEED && glob(rule->section, path) && glob(rule->value, target))
			return true;
	}
	return false;
}

size_t img_rules_slice_lines(const struct img_rules *r, const char *slice, const char *key, const char **values,
                             size_t max)
{
	size_t n = 0;

	for (size_t i = 0; r && i < r->n && n < max; i++) {
		const struct rule *rule = &r->rules[i];

		if (rule->kind == SLICE && strcmp(rule->section, slice) == 0 && strcmp(key_names[rule->key], key) == 0)
			values[n++] = rule->value;
	}
	return n;
}
