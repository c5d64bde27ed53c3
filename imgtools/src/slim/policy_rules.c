/* The rules as data, and their application. A rule keeps paths by pattern; `when` asks that some other path stays, so
 * the rules are gone over again until none adds anything. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "slim/policy_internal.h"

enum { ROUNDS_MAX = 8, PATHS = 12, WHENS = 6 };

struct rule {
	enum img_policy_key key;
	const char *name;
	bool only_yes;           /* `auto` is not enough */
	const char *when[WHENS]; /* auto: one of these stays; none: always */
	const char *paths[PATHS];
};

static const struct rule rules[] = {
	{ IMG_POLICY_USERS, "users and groups", false, { NULL }, { "/etc/passwd", "/etc/group" } },
	{ IMG_POLICY_NETWORK,
	  "names of hosts",
	  false,
	  { NULL },
	  { "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf" } },
	{ IMG_POLICY_RELEASE,
	  "release",
	  false,
	  { NULL },
	  { "/etc/os-release", "/usr/lib/os-release", "/etc/system-release", "/etc/opencloudos-release",
	    "/etc/redhat-release", "/etc/debian_version" } },
	{ IMG_POLICY_LOADER,
	  "library path",
	  false,
	  { "**/ld-linux*", "**/ld64.so*" },
	  { "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d/*.conf" } },
	{ IMG_POLICY_LOADER, "musl's library path", false, { "**/ld-musl-*" }, { "/etc/ld-musl-*" } },
	{ IMG_POLICY_CERTIFICATES,
	  "certificates",
	  false,
	  { "**/libssl.so*", "**/libgnutls.so*", "**/libnss3.so", "**/libmbedtls.so*", "**/libwolfssl.so*" },
	  { "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
	    "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt",
	    "/etc/pki/tls/certs/ca-bundle.trust.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	    "/usr/lib/ssl/cert.pem", "/usr/lib/ssl/certs", "/etc/pki/tls/certs" } },
	{ IMG_POLICY_CERTIFICATES,
	  "certificates by hash",
	  true,
	  { NULL },
	  { "/etc/ssl/certs/*", "/usr/share/ca-certificates/**", "/etc/pki/ca-trust/extracted/**" } },
	{ IMG_POLICY_OPENSSL,
	  "OpenSSL's configuration",
	  false,
	  { "**/libcrypto.so*" },
	  { "/etc/ssl/openssl.cnf", "/usr/lib/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/pki/tls/openssl.d/*",
	    "/etc/crypto-policies/back-ends/openssl*.config", "/etc/crypto-policies/back-ends/opensslcnf.config" } },
	{ IMG_POLICY_OPENSSL,
	  "OpenSSL's providers",
	  true,
	  { NULL },
	  { "**/ossl-modules/*.so", "**/engines-3/*.so", "**/engines-1.1/*.so" } },
	{ IMG_POLICY_NSS, "all name service modules", true, { NULL }, { "**/libnss_*.so.2" } },
	{ IMG_POLICY_GCONV,
	  "converters",
	  false,
	  { "/usr/bin/iconv", "**/gconv/*.so" },
	  { "**/gconv/gconv-modules", "**/gconv/gconv-modules.cache", "**/gconv/gconv-modules.d/*.conf",
	    "**/gconv/UTF-16.so", "**/gconv/UTF-32.so", "**/gconv/UTF-7.so", "**/gconv/UNICODE.so",
	    "**/gconv/ISO8859-1.so", "**/gconv/ISO8859-15.so", "**/gconv/CP1252.so" } },
	{ IMG_POLICY_GCONV, "all converters", true, { NULL }, { "**/gconv/*" } },
	{ IMG_POLICY_PYTHON_BASICS,
	  "Python's locales",
	  false,
	  { "/usr/lib*/python3.*/os.py", "/usr/local/lib*/python3.*/os.py" },
	  { "/usr/lib*/python3.*/locale.py", "/usr/local/lib*/python3.*/locale.py" } },
	{ IMG_POLICY_PYTHON_BASICS,
	  "names of hosts in Python",
	  false,
	  { "/usr/lib*/python3.*/socket.py", "/usr/local/lib*/python3.*/socket.py" },
	  { "/usr/lib*/python3.*/stringprep.py", "/usr/lib*/python3.*/encodings/idna.py",
	    "/usr/local/lib*/python3.*/stringprep.py", "/usr/local/lib*/python3.*/encodings/idna.py" } },
	{ IMG_POLICY_LICENCES,
	  "licences",
	  true,
	  { NULL },
	  { "/usr/share/licenses/**", "/usr/share/doc/*/copyright", "/usr/share/doc/*/COPYING*",
	    "/usr/share/doc/*/LICENSE*" } },
};

/* Folders that programs expect, made when the tree lacks them. */
static const struct {
	const char *path;
	uint32_t mode;
} folders[] = { { "/tmp", 01777 }, { "/var/tmp", 01777 }, { "/run", 0755 },
	        { "/dev", 0755 },  { "/proc", 0555 },     { "/sys", 0555 } };

/* Kept when they are there. */
static const char *const places[] = { "/var/run", "/var/lock", "/run/lock", "/root", "/home" };

static bool is_value(const struct img_policy *p, enum img_policy_key key, const char *value)
{
	return strcmp(img_policy_get(p, key), value) == 0;
}

int img_policy_prepare(const struct img_policy *p, struct img_tree *t, struct err *err)
{
	if (is_value(p, IMG_POLICY_TMP, "no"))
		return 0;
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		struct img_node n = {
			.path = folders[i].path, .type = IMG_DIR, .mode = folders[i].mode, .package = -1, .layer = -1
		};
		struct img_node *there;
		int r;

		/* "/var/tmp" where /var is a link, or a link that leads nowhere, is the image's own business */
		if (img_tree_resolve(t, n.path, false, &there, NULL, NULL) == 0)
			continue;
		r = img_tree_add(t, &n, NULL, err);
		if (r < 0 && r != -ENOTDIR)
			return r;
	}
	return 0;
}

/* ---- Applying ------------------------------------------------------------------------------------------------ */

struct apply {
	const struct img_policy *p;
	struct img_graph *g;
	struct img_tree *t;
	const char *const *env;
	size_t n_nodes;
	bool added;
};

/* Everything that a pattern matches becomes a root. Literal paths are looked up with the links on the way. */
static int keep_pattern(struct apply *x, const char *pattern, enum img_reason reason, const char *what)
{
	size_t fixed = strcspn(pattern, "*?[\\");
	int r;

	if (!pattern[fixed] && fixed > 0 && pattern[fixed - 1] != '/') {
		struct img_node *n;

		if (img_tree_resolve(x->t, pattern, false, &n, NULL, NULL) < 0 ||
		    img_graph_keeps(x->g, img_graph_index(x->g, n)) || img_policy_drops(x->p, n->path))
			return 0;
		r = img_graph_add_path(x->g, pattern, reason, what);
		x->added = x->added || r == 0;
		return r == -ENOMEM ? r : 0;
	}
	for (size_t i = 0; i < x->n_nodes; i++) {
		struct img_node *n = img_graph_node(x->g, (uint32_t)i);

		if (img_graph_keeps(x->g, (uint32_t)i) || !img_path_matches(pattern, n->path) ||
		    img_policy_drops(x->p, n->path))
			continue;
		r = img_graph_add_root(x->g, n, reason, what);
		if (r < 0)
			return r;
		x->added = true;
	}
	return 0;
}

static bool stays(const struct apply *x, const char *pattern)
{
	for (size_t i = 0; i < x->n_nodes; i++) {
		if (img_graph_keeps(x->g, (uint32_t)i) &&
		    img_path_matches(pattern, img_graph_node(x->g, (uint32_t)i)->path))
			return true;
	}
	return false;
}

static bool applies(const struct apply *x, const struct rule *rule)
{
	if (is_value(x->p, rule->key, "no"))
		return false;
	if (is_value(x->p, rule->key, "yes"))
		return true;
	if (rule->only_yes)
		return false;
	for (size_t i = 0; i < WHENS && rule->when[i]; i++) {
		if (stays(x, rule->when[i]))
			return true;
	}
	return !rule->when[0];
}

static int apply_rules(struct apply *x)
{
	int r = 0;

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
		if (!applies(x, &rules[i]))
			continue;
		for (size_t k = 0; r == 0 && k < PATHS && rules[i].paths[k]; k++)
			r = keep_pattern(x, rules[i].paths[k], IMG_REASON_POLICY, rules[i].name);
	}
	return r;
}

static const char *env_value(const struct apply *x, const char *name)
{
	size_t len = strlen(name);

	for (const char *const *e = x->env; e && *e; e++) {
		if (strncmp(*e, name, len) == 0 && (*e)[len] == '=')
			return *e + len + 1;
	}
	return NULL;
}

/* Calls back with each name of a list that commas separate. */
static int each_name(const char *list, int (*on_name)(struct apply *x, const char *name), struct apply *x)
{
	char name[256];
	int r = 0;

	while (r == 0 && *list) {
		size_t len;

		list += strspn(list, ", \t");
		len = strcspn(list, ", \t");
		if (len > 0 && len < sizeof(name)) {
			memcpy(name, list, len);
			name[len] = 0;
			r = on_name(x, name);
		}
		list += len;
	}
	return r;
}

static int keep_zone(struct apply *x, const char *name)
{
	char path[512];

	name += name[0] == ':'; /* TZ=:Europe/Berlin */
	(void)snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", name);
	return strstr(path, "..") ? 0 : keep_pattern(x, path, IMG_REASON_POLICY, "time zone");
}

static int apply_timezones(struct apply *x)
{
	const char *value = img_policy_get(x->p, IMG_POLICY_TIMEZONES), *tz = env_value(x, "TZ");
	int r;

	if (strcmp(value, "no") == 0)
		return 0;
	r = keep_pattern(x, "/etc/localtime", IMG_REASON_POLICY, "time zone");
	if (r == 0)
		r = keep_pattern(x, "/etc/timezone", IMG_REASON_POLICY, "time zone");
	if (r == 0 && tz)
		r = keep_zone(x, tz);
	if (r < 0 || strcmp(value, "auto") == 0)
		return r;
	return strcmp(value, "all") == 0 ? keep_pattern(x, "/usr/share/zoneinfo/", IMG_REASON_POLICY, "time zones")
	                                 : each_name(value, keep_zone, x);
}

/* "de_DE.UTF-8@euro" lies in de_DE.utf8@euro; messages in de_DE or de. */
static int keep_locale(struct apply *x, const char *name)
{
	char normal[128], path[512];
	size_t n = 0;
	bool in_codeset = false;
	int r;

	for (const char *p = name; *p && n + 1 < sizeof(normal); p++) {
		if (*p == '.' || *p == '@')
			in_codeset = *p == '.';
		else if (in_codeset && !isalnum((unsigned char)*p))
			continue;
		normal[n++] = in_codeset ? (char)tolower((unsigned char)*p) : *p;
	}
	normal[n] = 0;
	if (strpbrk(normal, "/*?[") || strcmp(normal, "C") == 0 || strcmp(normal, "POSIX") == 0)
		return 0;
	(void)snprintf(path, sizeof(path), "/usr/lib/locale/%s%s/", normal, strchr(normal, '.') ? "" : "*");
	r = keep_pattern(x, path, IMG_REASON_POLICY, "locale");
	if (r < 0 || strncmp(normal, "C.", 2) == 0)
		return r;
	r = keep_pattern(x, "/usr/lib/locale/locale-archive", IMG_REASON_POLICY, "locale");
	normal[strcspn(normal, ".@")] = 0;
	(void)snprintf(path, sizeof(path), "/usr/share/locale/%s/", normal);
	if (r == 0)
		r = keep_pattern(x, path, IMG_REASON_POLICY, "translations");
	normal[strcspn(normal, "_")] = 0;
	(void)snprintf(path, sizeof(path), "/usr/share/locale/%s/", normal);
	return r < 0 ? r : keep_pattern(x, path, IMG_REASON_POLICY, "translations");
}

static int apply_locales(struct apply *x)
{
	static const char *const names[] = { "LC_ALL", "LANG", "LC_CTYPE" };
	const char *value = img_policy_get(x->p, IMG_POLICY_LOCALES);
	int r = 0;

	if (strcmp(value, "no") == 0)
		return 0;
	if (strcmp(value, "all") == 0) {
		r = keep_pattern(x, "/usr/lib/locale/", IMG_REASON_POLICY, "locales");
		return r < 0 ? r : keep_pattern(x, "/usr/share/locale/", IMG_REASON_POLICY, "translations");
	}
	/* C.UTF-8 costs 0.36 MB: not without something that sets a locale */
	if (stays(x, "**/python3*") || stays(x, "**/libncurses*") || stays(x, "**/bin/bash") || stays(x, "**/perl*") ||
	    strcmp(value, "auto") != 0)
		r = keep_locale(x, "C.UTF-8");
	for (size_t i = 0; r == 0 && i < sizeof(names) / sizeof(*names); i++) {
		if (env_value(x, names[i]))
			r = keep_locale(x, env_value(x, names[i]));
	}
	return r < 0 || strcmp(value, "auto") == 0 ? r : each_name(value, keep_locale, x);
}

static int keep_terminal(struct apply *x, const char *name)
{
	static const char *const dirs[] = { "/usr/share/terminfo", "/lib/terminfo", "/usr/lib/terminfo",
		                            "/etc/terminfo" };
	char path[512];
	int r = 0;

	for (size_t i = 0; r == 0 && !strchr(name, '/') && i < sizeof(dirs) / sizeof(*dirs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%c/%s", dirs[i], name[0], name);
		r = keep_pattern(x, path, IMG_REASON_POLICY, "terminal");
	}
	return r;
}

static int apply_terminfo(struct apply *x)
{
	const char *value = img_policy_get(x->p, IMG_POLICY_TERMINFO), *term = env_value(x, "TERM");
	int r = 0;

	if (strcmp(value, "no") == 0)
		return 0;
	if (strcmp(value, "all") == 0)
		return keep_pattern(x, "/usr/share/terminfo/", IMG_REASON_POLICY, "terminals");
	if (strcmp(value, "auto") != 0)
		return each_name(value, keep_terminal, x);
	if (stays(x, "**/libtinfo*") || stays(x, "**/libncurses*"))
		r = each_name("dumb,linux,vt100,xterm,xterm-256color,screen,tmux-256color", keep_terminal, x);
	return r < 0 || !term ? r : keep_terminal(x, term);
}

/* numpy stays: so does what importlib.metadata says of it. */
static int apply_python_metadata(struct apply *x)
{
	static const char *const files[] = { "METADATA", "PKG-INFO", "entry_points.txt", "top_level.txt" };
	int r = 0;

	for (size_t i = 0; r == 0 && !is_value(x->p, IMG_POLICY_PYTHON_METADATA, "no") && i < x->n_nodes; i++) {
		const struct img_node *n = img_graph_node(x->g, (uint32_t)i);
		const char *at = strstr(n->path, "-packages/"), *dash, *end;
		char path[IMG_PATH_MAX];
		const struct img_node *package;

		at = at ? at + strlen("-packages/") : NULL;
		if (!at || n->type != IMG_DIR || strchr(at, '/') ||
		    !(img_path_matches("**.dist-info", at) || img_path_matches("**.egg-info", at)))
			continue;
		dash = strchr(at, '-');
		end = dash ? dash : strrchr(at, '.');
		(void)snprintf(path, sizeof(path), "%.*s", (int)(end - n->path), n->path);
		package = img_tree_find(x->t, path);
		if (!package || !img_graph_keeps(x->g, img_graph_index(x->g, package)))
			continue;
		for (size_t k = 0; r == 0 && k < sizeof(files) / sizeof(*files); k++) {
			if (snprintf(path, sizeof(path), "%s/%s", n->path, files[k]) < (int)sizeof(path))
				r = keep_pattern(x, path, IMG_REASON_POLICY, "Python metadata");
		}
	}
	return r;
}

static int apply_tmp(struct apply *x)
{
	int r = 0;

	if (is_value(x->p, IMG_POLICY_TMP, "no"))
		return 0;
	for (size_t i = 0; r == 0 && i < sizeof(folders) / sizeof(*folders); i++)
		r = keep_pattern(x, folders[i].path, IMG_REASON_POLICY, "folder of every system");
	for (size_t i = 0; r == 0 && i < sizeof(places) / sizeof(*places); i++)
		r = keep_pattern(x, places[i], IMG_REASON_POLICY, "folder of every system");
	return r;
}

int img_policy_apply(const struct img_policy *p, struct img_graph *g, struct img_tree *t, const char *const *env,
                     struct err *err)
{
	static int (*const parts[])(struct apply * x) = { apply_rules,    apply_timezones, apply_locales,
		                                          apply_terminfo, apply_tmp,       apply_python_metadata };
	struct apply x = { .p = p, .g = g, .t = t, .env = env, .n_nodes = img_tree_count(t), .added = true };
	int r = 0;

	for (size_t i = 0; r == 0 && i < p->keep.n; i++)
		r = keep_pattern(&x, p->keep.v[i], IMG_REASON_KEEP, p->keep.v[i]);
	if (r == 0)
		r = img_graph_close(g, err);
	for (int round = 0; r == 0 && x.added && round < ROUNDS_MAX; round++) {
		x.added = false;
		for (size_t i = 0; r == 0 && i < sizeof(parts) / sizeof(*parts); i++)
			r = parts[i](&x);
		if (r == 0)
			r = img_graph_close(g, err);
	}
	return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
}
