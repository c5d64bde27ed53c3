/* Repositories in a folder: repodata/repomd.xml leads to the compressed primary.xml and filelists.xml, whose checksums
 * are compared with what repomd.xml says. Filelists are large and rarely needed: they are read when someone asks for a
 * path that primary.xml (programs, /etc) does not know. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpm_set_internal.h"

int img_rpm_check_file(const char *path, const char *checksum, struct err *err)
{
	CLEANUP(freep) char *block = NULL;
	CLEANUP(close_fdp) int fd = -1;
	const char *hex = strchr(checksum, ':');
	char kind[16] = "", text[2 * EVP_MAX_MD_SIZE + 1];
	uint8_t digest[EVP_MAX_MD_SIZE];
	const EVP_MD *md;
	EVP_MD_CTX *ctx;
	unsigned n_digest = 0;
	ssize_t n;

	if (!hex || (size_t)(hex - checksum) >= sizeof(kind))
		return 0;
	memcpy(kind, checksum, (size_t)(hex++ - checksum));
	if (strcmp(kind, "sha") == 0)
		(void)snprintf(kind, sizeof(kind), "sha1");
	md = strncmp(kind, "sha", 3) == 0 ? EVP_get_digestbyname(kind) : NULL;
	if (!md)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	block = malloc(1 << 17);
	ctx = EVP_MD_CTX_new();
	if (!block || !ctx || EVP_DigestInit_ex(ctx, md, NULL) != 1) {
		EVP_MD_CTX_free(ctx);
		return -ENOMEM;
	}
	while ((n = read(fd, block, 1 << 17)) > 0)
		(void)EVP_DigestUpdate(ctx, block, (size_t)n);
	(void)EVP_DigestFinal_ex(ctx, digest, &n_digest);
	EVP_MD_CTX_free(ctx);
	if (n < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	for (unsigned i = 0; i < n_digest; i++)
		(void)snprintf(text + (size_t)i * 2, 3, "%02x", digest[i]);
	return strcasecmp(text, hex) == 0
	               ? 0
	               : err_set(err, -EBADMSG, "%s: not the file that the repository's metadata describe (%s)", path,
	                         kind);
}

static int feed(const void *data, size_t size, void *arg, struct err *err)
{
	return img_rpm_xml_feed(arg, data, size, false, err);
}

/* Runs a document through its parser, which is freed. */
static int parse_file(const char *path, const char *checksum, struct img_rpm_xml *x, struct err *err)
{
	int r = checksum ? img_rpm_check_file(path, checksum, err) : 0;

	if (r == 0)
		r = img_rpm_decompress(path, 0, feed, x, err);
	if (r == 0)
		r = img_rpm_xml_feed(x, "", 0, true, err);
	img_rpm_xml_free(x);
	return r;
}

static int take(struct img_rpm *p, void *arg, struct err *err)
{
	return img_rpm_set_take(arg, p, err);
}

/* Remembers where the filelists are and what they should be: "CHECKSUM PATH". */
static int remember_lists(struct img_rpm_set *s, const char *dir, const struct img_rpm_repomd *m)
{
	char **grown;

	if (!m->filelists)
		return 0;
	grown = reallocarray(s->lists, s->n_lists + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	s->lists = grown;
	if (asprintf(&s->lists[s->n_lists], "%s %s/%s", m->filelists_checksum ? m->filelists_checksum : "-", dir,
	             m->filelists) < 0)
		return -ENOMEM;
	s->n_lists++;
	return 0;
}

int img_rpm_repo_read(struct img_rpm_set *s, const char *dir, struct err *err)
{
	CLEANUP(img_rpm_repomd_done) struct img_rpm_repomd m = { 0 };
	CLEANUP(freep) char *path = NULL, *primary = NULL;
	struct img_rpm_xml *x;
	int r;

	if (asprintf(&path, "%s/repodata/repomd.xml", dir) < 0)
		return -ENOMEM;
	if (access(path, R_OK) < 0)
		return err_set(err, -errno, "%s: %s (a repository made by createrepo_c is expected)", path,
		               strerror(errno));
	r = s->keys ? img_rpm_keys_check_file(s->keys, path, err) : 0;
	if (r == 0)
		r = img_rpm_xml_repomd(path, &m, &x);
	if (r == 0)
		r = parse_file(path, NULL, x, err);
	if (r < 0)
		return r;
	if (!m.primary)
		return err_set(err, -EBADMSG, "%s: names no primary metadata", path);
	if (asprintf(&primary, "%s/%s", dir, m.primary) < 0)
		return -ENOMEM;
	r = img_rpm_xml_primary(primary, dir, take, s, &x);
	if (r == 0)
		r = parse_file(primary, m.primary_checksum, x, err);
	return r < 0 ? r : remember_lists(s, dir, &m);
}

struct lister {
	struct img_rpm_set *set;
	struct img_rpm *last; /* paths of one package come in a row */
};

static int list_path(const char *name, const char *arch, uint32_t epoch, const char *version, const char *release,
                     const char *path, void *arg)
{
	struct lister *l = arg;
	struct img_rpm *p = l->last;
	const char *key;

	if (!p || strcmp(p->name, name) != 0)
		p = l->last = img_rpm_set_find(l->set, name);
	/* Another version or architecture than the one that counts here. */
	if (!p || strcmp(p->arch, arch) != 0 || p->epoch != epoch || strcmp(p->version, version) != 0 ||
	    strcmp(p->release, release) != 0)
		return 0;
	key = img_rpm_text(p, path);
	return key ? img_rpm_index_add(&l->set->paths, key, p) : -ENOMEM;
}

int img_rpm_repo_lists(struct img_rpm_set *s, struct err *err)
{
	struct lister l = { .set = s };
	int r = 0;

	if (s->has_lists)
		return 0;
	s->has_lists = true;
	for (size_t i = 0; r == 0 && i < s->n_lists; i++) {
		CLEANUP(freep) char *checksum = strdup(s->lists[i]);
		struct img_rpm_xml *x;
		char *path;

		if (!checksum)
			return -ENOMEM;
		path = strchr(checksum, ' ');
		*path++ = 0;
		r = img_rpm_xml_filelists(path, list_path, &l, &x);
		if (r == 0)
			r = parse_file(path, checksum, x, err);
	}
	return r;
}
