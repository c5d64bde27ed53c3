/* The policy as an object: keys with values, patterns, and the file they come from. */
#include <errno.h>
#include <fnmatch.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mapfile.h"
#include "slim/policy_internal.h"

enum { FILE_MAX = 1 << 20 };

static const struct img_policy_info infos[IMG_N_POLICY_KEYS] = {
	[IMG_POLICY_USERS] = { "users", "yes,no", "yes", "passwd and group" },
	[IMG_POLICY_NETWORK] = { "network", "yes,no", "yes", "hosts, resolv.conf, nsswitch.conf, host.conf, gai.conf" },
	[IMG_POLICY_CERTIFICATES] = { "certificates", "yes,no,auto", "auto",
	                              "CA bundle and its links; auto: when a TLS library stays" },
	[IMG_POLICY_TMP] = { "tmp", "yes,no", "yes", "/tmp, /var/tmp, /run, mount points" },
	[IMG_POLICY_TIMEZONES] = { "timezones", NULL, "auto",
	                           "names of zones, all, no; auto: TZ of the image and /etc/localtime" },
	[IMG_POLICY_LOCALES] = { "locales", NULL, "auto",
	                         "names of locales, all, no; auto: C.UTF-8 and those of the image's LANG, LC_ALL" },
	[IMG_POLICY_GCONV] = { "gconv", "yes,no,auto", "auto",
	                       "character set converters; auto: when iconv stays, or one was used" },
	[IMG_POLICY_TERMINFO] = { "terminfo", NULL, "auto",
	                          "names of terminals, all, no; auto: TERM and the usual ones when ncurses stays" },
	[IMG_POLICY_LICENCES] = { "licences", "yes,no", "no", "licence texts of the packages that stay in part" },
	[IMG_POLICY_PYTHON_METADATA] = { "python-metadata", "yes,no,auto", "auto",
	                                 "metadata and entry points of Python packages that stay" },
	[IMG_POLICY_PYTHON_BASICS] = { "python-basics", "yes,no,auto", "auto",
	                               "Python's modules for locales and names of hosts; auto: when Python, sockets "
	                               "stay" },
	[IMG_POLICY_OPENSSL] = { "openssl", "yes,no,auto", "auto",
	                         "OpenSSL's configuration; yes: its providers and engines too" },
	[IMG_POLICY_NSS] = { "nss", "yes,no,auto", "auto",
	                     "name service modules; auto: those that nsswitch.conf names" },
	[IMG_POLICY_RELEASE] = { "release", "yes,no", "yes", "os-release and its like" },
	[IMG_POLICY_LOADER] = { "loader", "yes,no", "yes", "ld.so.cache and its configuration" },
	[IMG_POLICY_WEAK] = { "weak", "yes,no,auto", "auto",
	                      "needs that may never arise (optional imports, dlopen); auto: when nothing was traced" },
	[IMG_POLICY_RPMDB] = { "rpmdb", "marked,signed,short,keep,no", "marked",
	                       "the package database: absent files marked (signed: in signed headers), only what is "
	                       "there, as it was" },
};

const struct img_policy_info *img_policy_info(enum img_policy_key key)
{
	return (unsigned int)key < IMG_N_POLICY_KEYS ? &infos[key] : NULL;
}

static void patterns_done(struct img_patterns *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

static int patterns_add(struct img_patterns *l, const char *s)
{
	char **more;

	if (l->n >= IMG_POLICY_PATTERNS_MAX)
		return -E2BIG;
	more = reallocarray(l->v, l->n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	l->v = more;
	l->v[l->n] = strdup(s);
	return l->v[l->n] ? (l->n++, 0) : -ENOMEM;
}

struct img_policy *img_policy_new(void)
{
	struct img_policy *p = calloc(1, sizeof(*p));

	for (size_t i = 0; p && i < IMG_N_POLICY_KEYS; i++) {
		p->values[i] = strdup(infos[i].initial);
		if (!p->values[i]) {
			img_policy_free(p);
			return NULL;
		}
	}
	return p;
}

void img_policy_free(struct img_policy *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < IMG_N_POLICY_KEYS; i++)
		free(p->values[i]);
	patterns_done(&p->keep);
	patterns_done(&p->drop);
	free(p);
}

static bool in_list(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		if (strncmp(p, word, len) == 0 && (p[len] == ',' || p[len] == 0))
			return true;
	}
	return false;
}

int img_policy_set(struct img_policy *p, const char *key, const char *value, struct err *err)
{
	size_t i = 0;
	char *copy;

	while (i < IMG_N_POLICY_KEYS && strcmp(infos[i].key, key) != 0)
		i++;
	if (i == IMG_N_POLICY_KEYS)
		return err_set(err, -EINVAL, "%.64s: no such policy", key);
	if (strlen(value) > IMG_POLICY_VALUE_MAX || (infos[i].values && !in_list(infos[i].values, value)))
		return err_set(err, -EINVAL, "%s: \"%.64s\" is not one of %s", key, value,
		               infos[i].values ? infos[i].values : "names");
	copy = strdup(value);
	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	free(p->values[i]);
	p->values[i] = copy;
	return 0;
}

const char *img_policy_get(const struct img_policy *p, enum img_policy_key key)
{
	return p->values[key];
}

int img_policy_keep(struct img_policy *p, const char *pattern)
{
	return patterns_add(&p->keep, pattern);
}

int img_policy_drop(struct img_policy *p, const char *pattern)
{
	return patterns_add(&p->drop, pattern);
}

/* ---- Patterns ------------------------------------------------------------------------------------------------ */

bool img_path_matches(const char *pattern, const char *path)
{
	size_t len = strlen(pattern), fixed = strcspn(pattern, "*?[\\");

	if (strncmp(pattern, path, fixed) != 0 && !(len > 0 && pattern[len - 1] == '/'))
		return false;
	if (len > 1 && pattern[len - 1] == '/') {
		if (fixed == len)
			return strncmp(pattern, path, len) == 0 ||
			       (strlen(path) == len - 1 && strncmp(pattern, path, len - 1) == 0);
		char below[IMG_PATH_MAX];

		return snprintf(below, sizeof(below), "%s*", pattern) < (int)sizeof(below) &&
		       fnmatch(below, path, 0) == 0;
	}
	return fnmatch(pattern, path, strstr(pattern, "**") ? 0 : FNM_PATHNAME) == 0;
}

static bool any_matches(const struct img_patterns *l, const char *path)
{
	for (size_t i = 0; i < l->n; i++) {
		if (img_path_matches(l->v[i], path))
			return true;
	}
	return false;
}

bool img_policy_keeps(const struct img_policy *p, const char *path)
{
	return any_matches(&p->keep, path);
}

bool img_policy_drops(const struct img_policy *p, const char *path)
{
	return p->drop.n && any_matches(&p->drop, path) && !any_matches(&p->keep, path);
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

struct parse {
	struct img_policy *p;
	const char *name;
	struct err *err;
	int r;
	struct {
		const char *at, *end;
	} in;
	int line;
};

/* One line for inih; longer ones than its buffer come in pieces, which it refuses. */
static char *read_line(char *buf, int size, void *stream)
{
	struct parse *x = stream;
	int n = 0;

	if (x->in.at >= x->in.end)
		return NULL;
	while (x->in.at < x->in.end && n < size - 1) {
		buf[n++] = *x->in.at;
		if (*x->in.at++ == '\n')
			break;
	}
	buf[n] = 0;
	x->line++;
	return buf;
}

static int on_value(void *user, const char *section, const char *key, const char *value)
{
	struct parse *x = user;

	if (x->r < 0)
		return 0;
	if (strcmp(section, "policy") == 0) {
		x->r = img_policy_set(x->p, key, value, x->err);
	} else if ((strcmp(section, "keep") == 0 || strcmp(section, "drop") == 0) && strcmp(key, "path") == 0) {
		x->r = value[0] != '/'     ? err_set(x->err, -EINVAL, "\"%.64s\" does not begin with /", value)
		       : section[0] == 'k' ? img_policy_keep(x->p, value)
		                           : img_policy_drop(x->p, value);
	} else {
		x->r = err_set(x->err, -EINVAL, "[%.32s] %.64s: no such setting", section, key);
	}
	if (x->r < 0)
		(void)err_prefix(x->err, x->r, "%s:%d: ", x->name, x->line);
	return x->r == 0;
}

int img_policy_parse(struct img_policy *p, const char *text, size_t size, const char *name, struct err *err)
{
	struct parse x = { .p = p, .name = name, .err = err, .in = { text, text + size } };
	int line = ini_parse_stream(read_line, &x, on_value, &x);

	if (x.r < 0)
		return x.r;
	return line ? err_set(err, -EBADMSG, "%s:%d: neither [section] nor key = value", name, line > 0 ? line : 0) : 0;
}

int img_policy_read(struct img_policy *p, const char *path, struct err *err)
{
	struct base_buf b = BASE_BUF_INIT(FILE_MAX);
	int r = base_read_file(path, &b, err);

	if (r >= 0)
		r = img_policy_parse(p, base_buf_text(&b), b.len, path, err);
	base_buf_done(&b);
	return r;
}
