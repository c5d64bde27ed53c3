/* Bills of materials: the facts, gathered once for both formats. Files are hashed on all cores; packages get names
 * that scanners know (package URLs); what a package needs comes from its requirements, within the image. */
#include "inventory.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/threadpool.h"
#include "sbom_internal.h"

enum { CHUNK = 1 << 18, MAX_TEXT = 256 };

static int out_of_memory(const struct img_sbom *b)
{
	return err_set(b->err, -ENOMEM, "out of memory");
}

/* ---- Files ---- */

struct hashing {
	struct img_sbom *sbom;
	pthread_mutex_t lock;
	int r; /* the first failure; protected by lock, as err */
	struct err err;
};

static void hex(const unsigned char *digest, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static int hash_file(const struct img_sbom_opts *o, struct img_sbom_file *f, char *buf, struct err *err)
{
	EVP_MD_CTX *one = EVP_MD_CTX_new(), *two = EVP_MD_CTX_new();
	unsigned char digest[EVP_MAX_MD_SIZE];
	ssize_t n = 1;
	int r = one && two && EVP_DigestInit_ex(one, EVP_sha1(), NULL) && EVP_DigestInit_ex(two, EVP_sha256(), NULL)
	                ? 0
	                : -ENOMEM;

	for (uint64_t at = 0; r == 0 && n > 0; at += (uint64_t)n) {
		if (o->is_canceled && o->is_canceled(o->is_canceled_arg) != 0)
			n = err_set(err, -ECANCELED, "canceled");
		else
			n = img_node_read(f->node, buf, CHUNK, at, err);
		if (n < 0)
			r = (int)n;
		else if (!EVP_DigestUpdate(one, buf, (size_t)n) || !EVP_DigestUpdate(two, buf, (size_t)n))
			r = -ENOMEM;
	}
	if (r == 0 && EVP_DigestFinal_ex(one, digest, NULL))
		hex(digest, 20, f->sha1);
	if (r == 0 && EVP_DigestFinal_ex(two, digest, NULL))
		hex(digest, 32, f->sha256);
	EVP_MD_CTX_free(one);
	EVP_MD_CTX_free(two);
	return r;
}

static void hash_files(void *arg, size_t begin, size_t end, unsigned worker)
{
	CLEANUP(freep) char *buf = malloc(CHUNK);
	struct hashing *h = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		struct err err = { 0 };
		int r = buf ? hash_file(h->sbom->opts, &h->sbom->files[i], buf, &err) : -ENOMEM;

		if (r < 0) {
			(void)pthread_mutex_lock(&h->lock);
			if (h->r == 0) {
				h->r = r;
				h->err = err;
			}
			(void)pthread_mutex_unlock(&h->lock);
		}
	}
}

static int gather_files(struct img_sbom *b)
{
	struct hashing h = { .sbom = b, .lock = PTHREAD_MUTEX_INITIALIZER };
	struct img_tree *t = b->subject->tree;
	struct base_threadpool *pool = NULL;
	int r;

	if (b->opts->without_files)
		return 0;
	b->files = calloc(img_tree_count(t), sizeof(*b->files));
	if (!b->files)
		return out_of_memory(b);
	for (size_t i = 0; i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);

		if (n->type == IMG_FILE)
			b->files[b->n_files++].node = n;
	}
	r = base_threadpool_new(0, &pool, b->err);
	if (r < 0)
		return r;
	base_threadpool_for(pool, b->n_files, 8, hash_files, &h);
	base_threadpool_free(pool);
	if (h.r < 0 && b->err)
		*b->err = h.err;
	return h.r;
}

/* ---- Packages ---- */

static void append_percent(struct base_buf *b, const char *text)
{
	for (; *text; text++) {
		if (isalnum((unsigned char)*text) || strchr("-._~:", *text))
			(void)base_buf_putc(b, *text);
		else
			(void)base_buf_printf(b, "%%%02X", (unsigned char)*text);
	}
}

/* ID= of the image's os-release, the namespace of its packages. */
static void distribution(const struct img_sbom *b, char out[64])
{
	CLEANUP(freep) void *data = NULL;
	struct img_node *n = NULL;
	size_t size = 0, len = 0;
	const char *p;

	out[0] = '\0';
	if ((img_tree_resolve(b->subject->tree, "/etc/os-release", true, &n, NULL, NULL) < 0 &&
	     img_tree_resolve(b->subject->tree, "/usr/lib/os-release", true, &n, NULL, NULL) < 0) ||
	    n->type != IMG_FILE || img_node_read_all(n, 1 << 16, &data, &size, NULL) < 0)
		return;
	p = strncmp(data, "ID=", 3) == 0 ? data : strstr(data, "\nID=");
	if (!p)
		return;
	p = strchr(p, '=') + 1;
	p += *p == '"' || *p == '\'';
	while (len < 63 && (isalnum((unsigned char)p[len]) || strchr("-._", p[len])) && p[len])
		len++;
	memcpy(out, p, len);
	out[len] = '\0';
}

/* pkg:rpm/DISTRIBUTION/NAME@VERSION-RELEASE?arch=...&epoch=...&upstream=... (package-url specification, type rpm) */
static char *make_purl(const struct img_rpm *p, const char *namespace)
{
	struct base_buf b = BASE_BUF_INIT(1 << 14);

	(void)base_buf_puts(&b, "pkg:rpm/");
	if (namespace[0])
		(void)base_buf_printf(&b, "%s/", namespace);
	append_percent(&b, p->name);
	(void)base_buf_putc(&b, '@');
	append_percent(&b, p->version);
	(void)base_buf_putc(&b, '-');
	append_percent(&b, p->release);
	(void)base_buf_puts(&b, "?arch=");
	append_percent(&b, p->arch);
	if (p->has_epoch)
		(void)base_buf_printf(&b, "&epoch=%u", p->epoch);
	if (p->source_rpm && p->source_rpm[0]) {
		(void)base_buf_puts(&b, "&upstream=");
		append_percent(&b, p->source_rpm);
	}
	return base_buf_take(&b);
}

static char *make_version(const struct img_rpm *p)
{
	char *text = NULL;
	int n = p->has_epoch && p->epoch ? asprintf(&text, "%u:%s-%s", p->epoch, p->version, p->release)
	                                 : asprintf(&text, "%s-%s", p->version, p->release);

	return n < 0 ? NULL : text;
}

/* Letters, digits, '.' and '-', and the position, which makes it unique. */
static char *make_id(const struct img_rpm *p, size_t i)
{
	char *text = NULL;

	if (asprintf(&text, "%s-%s-%s-%s-%zu", p->name, p->version, p->release, p->arch, i + 1) < 0)
		return NULL;
	for (char *c = text; *c; c++) {
		if (!isalnum((unsigned char)*c) && *c != '.' && *c != '-')
			*c = '-';
	}
	return text;
}

static int compare_sizes(const void *a, const void *b)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;

	return x < y ? -1 : x > y;
}

/* Packages of the image that provide what this one requires. */
static int find_needs(struct img_sbom *b, size_t index)
{
	struct img_sbom_package *p = &b->packages[index];
	const struct img_rpm *rpm = p->rpm;
	size_t n = rpm->n_deps[IMG_RPM_REQUIRES], n_found = 0, n_unique = 0;

	p->needs = calloc(n + 1, sizeof(*p->needs));
	if (!p->needs)
		return out_of_memory(b);
	for (size_t i = 0; i < n; i++) {
		struct img_rpm *to =
		        img_rpm_set_provider(b->subject->packages, &rpm->deps[IMG_RPM_REQUIRES][i], NULL, NULL);

		for (size_t k = 0; to && k < b->n_packages; k++) {
			if (b->packages[k].rpm == to && k != index)
				p->needs[n_found++] = k;
		}
	}
	qsort(p->needs, n_found, sizeof(*p->needs), compare_sizes);
	for (size_t i = 0; i < n_found; i++) {
		if (i == 0 || p->needs[i] != p->needs[n_unique - 1])
			p->needs[n_unique++] = p->needs[i];
	}
	p->n_needs = n_unique;
	return 0;
}

static int gather_packages(struct img_sbom *b)
{
	struct img_rpm_set *set = b->subject->packages;
	char namespace[64];
	int r = 0;

	if (!set)
		return 0;
	distribution(b, namespace);
	b->packages = calloc(img_rpm_set_count(set) + 1, sizeof(*b->packages));
	if (!b->packages)
		return out_of_memory(b);
	for (size_t i = 0; i < img_rpm_set_count(set); i++) {
		struct img_sbom_package *p = &b->packages[b->n_packages++];

		p->rpm = img_rpm_set_at(set, i);
		p->version = make_version(p->rpm);
		p->purl = make_purl(p->rpm, namespace);
		p->id = make_id(p->rpm, i);
		p->n_files = b->subject->n_files[i];
		p->n_present = b->subject->n_present[i];
		if (!p->version || !p->purl || !p->id)
			return out_of_memory(b);
	}
	for (size_t i = 0; r == 0 && i < b->n_packages; i++)
		r = find_needs(b, i);
	return r;
}

/* ---- The whole ---- */

static void time_text(int64_t epoch, char out[32])
{
	time_t t = (time_t)epoch;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
		(void)snprintf(out, 32, "1970-01-01T00:00:00Z");
}

/* "2024-05-06T07:08:09", with or without what follows. */
static bool is_time(const char *text)
{
	static const char shape[] = "dddd-dd-ddTdd:dd:dd";

	for (size_t i = 0; shape[i]; i++) {
		if (shape[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != shape[i])
			return false;
	}
	return true;
}

static void find_time(struct img_sbom *b)
{
	const struct img_image *image = b->subject->image;
	uint64_t newest = 0;

	if (b->opts->epoch >= 0) {
		time_text(b->opts->epoch, b->created);
		return;
	}
	if (image && image->config->created && is_time(image->config->created)) {
		(void)snprintf(b->created, sizeof(b->created), "%.19sZ", image->config->created);
		return;
	}
	for (size_t i = 0; i < b->n_packages; i++) {
		if (b->packages[i].rpm->build_time > newest)
			newest = b->packages[i].rpm->build_time;
	}
	time_text((int64_t)newest, b->created);
}

/* "oci:/tmp/x/app:v1" is "app:v1": where an image lies on one machine is no part of what it is. */
static int find_name(struct img_sbom *b)
{
	CLEANUP(freep) char *name = strdup(b->subject->name);
	const struct img_image *image = b->subject->image;
	char *last;

	if (!name)
		return out_of_memory(b);
	while (strlen(name) > 1 && name[strlen(name) - 1] == '/')
		name[strlen(name) - 1] = '\0';
	if (strncmp(name, "docker://", 9) == 0)
		last = name + 9;
	else
		last = strrchr(name, '/') ? strrchr(name, '/') + 1 : image ? strchr(name, ':') + 1 : name;
	b->name = strdup(last[0] && strcmp(last, ".") != 0 ? last : "root");
	b->version = image && image->manifest_digest[0] ? strdup(image->manifest_digest) : NULL;
	return b->name ? 0 : out_of_memory(b);
}

/* One digest over names, versions and contents. */
static int find_digest(struct img_sbom *b)
{
	uint8_t digest[BASE_SHA256_SIZE];
	struct base_sha256 *s = NULL;

	if (base_sha256_new(&s) < 0)
		return out_of_memory(b);
	base_sha256_update(s, b->name, strlen(b->name) + 1);
	base_sha256_update(s, b->created, strlen(b->created) + 1);
	base_sha256_update(s, &b->opts->format, sizeof(b->opts->format));
	for (size_t i = 0; i < b->n_packages; i++)
		base_sha256_update(s, b->packages[i].purl, strlen(b->packages[i].purl) + 1);
	for (size_t i = 0; i < b->n_files; i++) {
		base_sha256_update(s, b->files[i].node->path, strlen(b->files[i].node->path) + 1);
		base_sha256_update(s, b->files[i].sha256, 64);
	}
	base_sha256_final(s, digest);
	base_sha256_free(s);
	base_sha256_hex(digest, b->digest);
	return 0;
}

json_t *img_sbom_text(const char *text, size_t max)
{
	struct base_buf b = BASE_BUF_INIT(6 * max + 16);
	json_t *value = NULL;

	(void)base_json_append_string(&b, text, strnlen(text, max));
	if (!base_buf_error(&b))
		value = json_loadb(base_buf_text(&b), b.len, JSON_DECODE_ANY, NULL);
	base_buf_done(&b);
	return value;
}

static void sbom_done(struct img_sbom *b)
{
	for (size_t i = 0; i < b->n_packages; i++) {
		free(b->packages[i].version);
		free(b->packages[i].purl);
		free(b->packages[i].id);
		free(b->packages[i].needs);
	}
	free(b->packages);
	free(b->files);
	free(b->name);
	free(b->version);
}

int img_sbom_append(const struct img_subject *s, const struct img_sbom_opts *o, struct base_buf *buf, struct err *err)
{
	struct img_sbom b = { .subject = s, .opts = o, .err = err };
	CLEANUP(freep) char *text = NULL;
	json_t *doc = NULL;
	int r = gather_files(&b);

	if (r == 0)
		r = gather_packages(&b);
	if (r == 0) {
		find_time(&b);
		r = find_name(&b);
	}
	if (r == 0)
		r = find_digest(&b);
	if (r == 0) {
		doc = o->format == IMG_SBOM_SPDX ? img_sbom_spdx(&b) : img_sbom_cyclonedx(&b);
		text = doc ? json_dumps(doc, o->is_pretty ? JSON_INDENT(2) : JSON_COMPACT) : NULL;
		if (!text || base_buf_puts(buf, text) < 0 || base_buf_putc(buf, '\n') < 0)
			r = out_of_memory(&b);
	}
	json_decref(doc);
	sbom_done(&b);
	return r;
}
