/* What scriptlets of packages make when they are installed, made here: users, folders for temporary files, the bundle
 * of certificates, locales, ld.so.cache. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "assembly.h"
#include "certificates.h"

/* ---- Users, folders -------------------------------------------------------------------------------------- */

int img_cut_add_text(struct img_assembly *a, const char *path, const char *text, size_t size)
{
	struct img_node n = {
		.path = path, .type = IMG_FILE, .mode = 0644, .package = -1, .layer = -1, .mtime_s = a->time
	};
	int r = img_cut_add_parents(a, path);

	n.data = (void *)text;
	n.size = size;
	return r < 0 ? r : img_tree_add(a->to, &n, NULL, a->err);
}

/* Is this the number of an owner of something in the tree? */
static bool is_used(struct img_tree *t, unsigned long id, bool group)
{
	for (size_t i = 0; i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);

		if ((group ? n->gid : n->uid) == id)
			return true;
	}
	return false;
}

/* Lines of a table for root, nobody and owners of what is there. */
static int add_table(struct img_assembly *a, const char *path, const char *table, bool group)
{
	struct base_buf out = BASE_BUF_INIT(4u << 20);
	int r;

	for (const char *line = table; line && *line;) {
		const size_t len = strcspn(line, "\n");
		const char *second = memchr(line, ':', len), *third;
		unsigned long id;

		third = second ? memchr(second + 1, ':', len - (size_t)(second + 1 - line)) : NULL;
		id = third ? strtoul(third + 1, NULL, 10) : 0;
		if (third && (id == 0 || strncmp(line, "nobody:", 7) == 0 || strncmp(line, "nogroup:", 8) == 0 ||
		              is_used(a->to, id, group))) {
			(void)base_buf_append(&out, line, len);
			(void)base_buf_putc(&out, '\n');
		}
		line += len + (line[len] == '\n');
	}
	if (out.len == 0)
		(void)base_buf_puts(&out, group ? "root:x:0:\nnogroup:x:65534:\n"
		                                : "root:x:0:0:root:/root:/bin/sh\n"
		                                  "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
	r = base_buf_error(&out) ? base_buf_error(&out) : img_cut_add_text(a, path, out.data, out.len);
	base_buf_done(&out);
	return r;
}

static int make_users(struct img_assembly *a, const char *name)
{
	(void)name;
	CLEANUP(freep) char *passwd = NULL;
	CLEANUP(freep) char *group = NULL;
	int r = img_cut_read_tables(a, &passwd, &group);

	if (r == 0)
		r = add_table(a, "/etc/passwd", passwd, false);
	return r < 0 ? r : add_table(a, "/etc/group", group, true);
}

static int make_tmp(struct img_assembly *a, const char *name)
{
	(void)name;
	static const char *const dirs[] = { "/tmp", "/var/tmp" };
	int r = 0;

	for (size_t i = 0; r == 0 && i < 2; i++) {
		struct img_node n = {
			.path = dirs[i], .type = IMG_DIR, .mode = 01777, .package = -1, .layer = -1, .mtime_s = a->time
		};

		r = img_cut_add_parents(a, dirs[i]);
		if (r == 0)
			r = img_tree_add(a->to, &n, NULL, a->err);
	}
	return r;
}

/* ---- Certificates ----------------------------------------------------------------------------------------- */

/* Where packages keep certificates, by what is said of those there; the longest that fits counts. */
static const struct {
	const char *dir;
	enum img_certs_kind kind;
	bool is_debian; /* else the layout of p11-kit and update-ca-trust */
} cert_dirs[] = {
	{ "/usr/share/ca-certificates/", IMG_CERTS_ANCHORS, true },
	{ "/usr/local/share/ca-certificates/", IMG_CERTS_ANCHORS, true },
	{ "/usr/share/pki/ca-trust-source/anchors/", IMG_CERTS_ANCHORS, false },
	{ "/usr/share/pki/ca-trust-source/blocklist/", IMG_CERTS_BLOCKED, false },
	{ "/usr/share/pki/ca-trust-source/blacklist/", IMG_CERTS_BLOCKED, false },
	{ "/usr/share/pki/ca-trust-source/", IMG_CERTS_SOURCE, false },
	{ "/etc/pki/ca-trust/source/anchors/", IMG_CERTS_ANCHORS, false },
	{ "/etc/pki/ca-trust/source/blocklist/", IMG_CERTS_BLOCKED, false },
	{ "/etc/pki/ca-trust/source/blacklist/", IMG_CERTS_BLOCKED, false },
	{ "/etc/pki/ca-trust/source/", IMG_CERTS_SOURCE, false },
};
enum { N_CERT_DIRS = sizeof(cert_dirs) / sizeof(cert_dirs[0]) };

/* The row of a path; N_CERT_DIRS: none. */
static size_t cert_dir_of(const char *path)
{
	const size_t len = strlen(path);

	for (size_t i = 0; i < N_CERT_DIRS; i++) {
		const size_t n = strlen(cert_dirs[i].dir);

		if (strncmp(path, cert_dirs[i].dir, n) != 0)
			continue;
		/* What Debian takes from there; README files and the like of the others hold no certificate. */
		return !cert_dirs[i].is_debian || (len > 4 && strcmp(path + len - 4, ".crt") == 0) ? i : N_CERT_DIRS;
	}
	return N_CERT_DIRS;
}

static bool wants_certs(const struct img_rpm *p, size_t file, void *arg)
{
	(void)arg;
	return cert_dir_of(p->files[file].path) < N_CERT_DIRS;
}

static int add_certs(struct img_assembly *a, struct img_tree *t, struct img_certs *certs, bool *is_debian, bool *is_p11)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);
		const size_t row = n->type == IMG_FILE ? cert_dir_of(n->path) : N_CERT_DIRS;
		size_t size;
		void *text;

		if (row == N_CERT_DIRS)
			continue;
		r = img_node_read_all(n, 64u << 20, &text, &size, a->err);
		if (r < 0)
			break;
		r = img_certs_add(certs, cert_dirs[row].kind, n->path, text, size, a->err);
		*(cert_dirs[row].is_debian ? is_debian : is_p11) = true;
		free(text);
	}
	return r;
}

/* A link that nobody has brought, as the package would have it. */
static int add_link(struct img_assembly *a, const char *path, const char *target)
{
	struct img_node *n;
	struct img_node link = { .path = path,
		                 .type = IMG_SYMLINK,
		                 .mode = 0777,
		                 .target = (char *)(uintptr_t)target,
		                 .size = strlen(target),
		                 .package = -1,
		                 .layer = -1,
		                 .mtime_s = a->time };
	int r;

	if (img_tree_resolve(a->to, path, false, &n, NULL, NULL) == 0)
		return 0;
	n = img_tree_find(a->from, path);
	r = img_cut_add_parents(a, path);
	return r < 0 ? r : img_tree_add(a->to, n && n->type == IMG_SYMLINK ? n : &link, NULL, a->err);
}

static int add_bundle(struct img_assembly *a, const struct base_buf *pem, bool is_debian, bool is_p11)
{
	int r = 0;

	if (is_debian)
		r = img_cut_add_text(a, "/etc/ssl/certs/ca-certificates.crt", pem->data, pem->len);
	if (r < 0 || !is_p11)
		return r;
	r = img_cut_add_text(a, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", pem->data, pem->len);
	if (r == 0)
		r = add_link(a, "/etc/pki/tls/certs/ca-bundle.crt",
		             "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
	return r < 0 ? r : add_link(a, "/etc/pki/tls/cert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
}

/* One bundle of the certificates that packages have, where the libraries of that layout look for it. */
static int make_ca_bundle(struct img_assembly *a, const char *name)
{
	const struct img_rpm_unpack_opts u = { .wants = wants_certs, .n_threads = 1 };
	struct base_buf pem = BASE_BUF_INIT(64u << 20);
	struct img_certs *certs = img_certs_new();
	bool is_debian = false, is_p11 = false;
	size_t n = 0;
	int r = certs ? add_certs(a, a->from, certs, &is_debian, &is_p11) : -ENOMEM;

	(void)name;
	/* Nothing that was chosen needs them: the package that has them by its usual name. */
	if (r == 0 && !is_debian && !is_p11) {
		struct img_rpm *p = img_rpm_set_find(img_world_set(a->w), "ca-certificates");
		struct img_tree *own = p && img_rpm_load(p, a->err) == 0 && p->location ? img_tree_new() : NULL;

		r = own ? img_rpm_unpack(&p, 1, &u, own, a->err) : 0;
		if (r == 0 && own)
			r = add_certs(a, own, certs, &is_debian, &is_p11);
		img_tree_free(own);
	}
	if (r == 0)
		r = img_certs_write(certs, &pem, &n);
	if (r == 0 && n == 0)
		r = err_set(a->err, -ENOENT, "ca-bundle: no certificates below %s or %s in the packages at hand",
		            cert_dirs[0].dir, cert_dirs[5].dir);
	if (r == 0)
		r = base_buf_error(&pem) ? base_buf_error(&pem) : add_bundle(a, &pem, is_debian, is_p11);
	base_buf_done(&pem);
	img_certs_free(certs);
	return r;
}

/* ---- Together --------------------------------------------------------------------------------------------- */

static int make_ld_cache(struct img_assembly *a, const char *name)
{
	struct img_node *n;
	int r = img_ldcache_add(a->to, a->err);

	if (r == 0 && (n = img_tree_find(a->to, "/etc/ld.so.cache")))
		n->mtime_s = a->time;
	(void)name;
	return r < 0 ? r : 0;
}

/* Whether a generator that was asked for ("user:web:80", "locale:de_DE.UTF-8", "tmp") is the one of this name. */
static bool is_generator(const char *asked, const char *name)
{
	const size_t len = strlen(name);
	const bool takes_words = strcmp(name, "user") == 0 || strcmp(name, "dir") == 0;

	if (strncmp(asked, name, len) != 0)
		return false;
	return takes_words ? asked[len] == ':' : asked[len] == 0 || (asked[len] == ':' && img_locale_is(asked));
}

int img_cut_generate(struct img_assembly *a)
{
	/* In this order, whatever they are asked for in: a user goes into the tables of all users. */
	static const struct {
		const char *name; /* up to a colon */
		int (*make)(struct img_assembly *a, const char *name);
	} makers[] = {
		{ "users", make_users },         { "user", img_cut_make_user },   { "tmp", make_tmp },
		{ "dir", img_cut_make_folder },  { "ca-bundle", make_ca_bundle }, { "locale", img_cut_make_locale },
		{ "ld.so.cache", make_ld_cache }
	};
	enum { N = sizeof(makers) / sizeof(makers[0]) };
	size_t n_known = 0;
	int r = make_ld_cache(a, NULL);

	for (size_t k = 0; r == 0 && k < N; k++) {
		for (size_t i = 0; r == 0 && i < a->cut->n_generate; i++) {
			const char *name = a->cut->generate[i];

			if (!is_generator(name, makers[k].name))
				continue;
			r = makers[k].make(a, name);
			n_known++;
		}
	}
	for (size_t i = 0; r == 0 && n_known < a->cut->n_generate && i < a->cut->n_generate; i++) {
		const char *name = a->cut->generate[i];
		size_t k = 0;

		while (k < N && !is_generator(name, makers[k].name))
			k++;
		if (k == N)
			r = err_set(a->err, -EINVAL,
			            "generate: there is no \"%s\" (users, user:..., tmp, dir:..., ca-bundle, locale, "
			            "ld.so.cache)",
			            name);
	}
	return r;
}
