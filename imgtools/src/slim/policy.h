/* Policy: files that stay although nothing names them in code, and how far the graph goes. Rules are a table
 * (policy_rules.c): what they keep, when they apply, and the key that turns them on or off. A key is yes, no, auto (the
 * rule's own condition decides), or a list.
 *
 * A policy file is INI:
 *
 *   [policy]
 *   timezones = Europe/Berlin, UTC
 *   licences = yes
 *   [keep]
 *   path = /opt/app/plugins/
 *   [drop]
 *   path = /usr/share/info/
 *
 * Patterns are those of a shell; two stars also match '/', a pattern that ends in '/' means the folder and all below.
 */
#ifndef IMG_POLICY_H
#define IMG_POLICY_H

#include "slim/graph.h"

enum img_policy_key {
	IMG_POLICY_USERS,
	IMG_POLICY_NETWORK,
	IMG_POLICY_CERTIFICATES,
	IMG_POLICY_TMP,
	IMG_POLICY_TIMEZONES, /* list */
	IMG_POLICY_LOCALES,   /* list */
	IMG_POLICY_GCONV,
	IMG_POLICY_TERMINFO, /* list */
	IMG_POLICY_LICENCES,
	IMG_POLICY_PYTHON_METADATA,
	IMG_POLICY_PYTHON_BASICS,
	IMG_POLICY_OPENSSL,
	IMG_POLICY_NSS,
	IMG_POLICY_RELEASE,
	IMG_POLICY_LOADER,
	IMG_POLICY_WEAK,  /* yes: weak edges keep; no: they do not; auto: only when there is no trace */
	IMG_POLICY_RPMDB, /* short, marked, keep, no */
	IMG_N_POLICY_KEYS
};

struct img_policy;

struct img_policy *img_policy_new(void); /* the defaults; NULL when out of memory */
void img_policy_free(struct img_policy *p);

/* -EINVAL names the key, or the value that it does not take. */
int img_policy_set(struct img_policy *p, const char *key, const char *value, struct err *err);
const char *img_policy_get(const struct img_policy *p, enum img_policy_key key);
int img_policy_keep(struct img_policy *p, const char *pattern); /* both copy */
int img_policy_drop(struct img_policy *p, const char *pattern);
/* Errors name file and line. */
int img_policy_read(struct img_policy *p, const char *path, struct err *err);
int img_policy_parse(struct img_policy *p, const char *text, size_t size, const char *name, struct err *err);

/* Whether a policy says that this path goes; keep patterns win. */
bool img_policy_drops(const struct img_policy *p, const char *path);
bool img_policy_keeps(const struct img_policy *p, const char *path); /* by a pattern */
bool img_path_matches(const char *pattern, const char *path);

/* Before the graph is made: folders that every system has and the tree lacks (/tmp, /run, ...). */
int img_policy_prepare(const struct img_policy *p, struct img_tree *t, struct err *err);

/* Keep patterns and rules as roots; closes the graph. `env` is that of the image (may be NULL). */
int img_policy_apply(const struct img_policy *p, struct img_graph *g, struct img_tree *t, const char *const *env,
                     struct err *err);

/* One line of text per key for --help and the manual: "timezones", its values, what it does. */
struct img_policy_info {
	const char *key, *values, *initial, *help;
};
const struct img_policy_info *img_policy_info(enum img_policy_key key);

#endif
