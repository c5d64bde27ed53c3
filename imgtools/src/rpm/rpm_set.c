/* Sets of packages: which there are, who provides a name, who owns a path.
 *
 * Both questions are answered by one kind of index, from a text to the packages that may know it; the package itself is
 * then looked through. That keeps the index small and lets a package that only metadata are known of be loaded (and its
 * lists replaced) without touching it. */
#include <errno.h>
#include <rpm/rpmver.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "rpm_internal.h"
#include "rpm_set_internal.h"

/* ---- The index -------------------------------------------------------------------------------------------- */

static uint64_t hash_text(const char *s)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3;
	return h ^ h >> 29;
}

static int index_grow(struct rpm_index *ix)
{
	const size_t n = ix->n_buckets ? ix->n_buckets * 2 : 1024;
	uint32_t *buckets = calloc(n, sizeof(*buckets));

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < ix->n; i++) {
		uint32_t *head = &buckets[hash_text(ix->entries[i].key) & (n - 1)];

		ix->entries[i].next = *head;
		*head = (uint32_t)i + 1;
	}
	free(ix->buckets);
	ix->buckets = buckets;
	ix->n_buckets = n;
	return 0;
}

int img_rpm_index_add(struct rpm_index *ix, const char *key, struct img_rpm *p)
{
	uint32_t *head;

	if (ix->n >= UINT32_MAX - 1)
		return -E2BIG;
	if (ix->n == ix->cap) {
		const size_t cap = ix->cap ? ix->cap * 2 : 1024;
		struct rpm_index_entry *grown = reallocarray(ix->entries, cap, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		ix->entries = grown;
		ix->cap = cap;
	}
	if (ix->n >= ix->n_buckets && index_grow(ix) < 0)
		return -ENOMEM;
	head = &ix->buckets[hash_text(key) & (ix->n_buckets - 1)];
	ix->entries[ix->n] = (struct rpm_index_entry){ key, p, *head };
	*head = (uint32_t)++ix->n;
	return 0;
}

static const struct rpm_index_entry *index_next(const struct rpm_index *ix, const char *key,
                                                const struct rpm_index_entry *last)
{
	uint32_t i = 0;

	if (last)
		i = last->next;
	else if (ix->n_buckets)
		i = ix->buckets[hash_text(key) & (ix->n_buckets - 1)];
	while (i && strcmp(ix->entries[i - 1].key, key) != 0)
		i = ix->entries[i - 1].next;
	return i ? &ix->entries[i - 1] : NULL;
}

static void index_clear(struct rpm_index *ix)
{
	free(ix->entries);
	free(ix->buckets);
	memset(ix, 0, sizeof(*ix));
}

/* ---- Versions --------------------------------------------------------------------------------------------- */

const char *img_rpm_nevra(const struct img_rpm *p, char *buf, size_t size)
{
	if (p->has_epoch && p->epoch)
		(void)snprintf(buf, size, "%s-%u:%s-%s.%s", p->name, p->epoch, p->version, p->release, p->arch);
	else
		(void)snprintf(buf, size, "%s-%s-%s.%s", p->name, p->version, p->release, p->arch);
	return buf;
}

int img_rpm_compare(const struct img_rpm *a, const struct img_rpm *b)
{
	int r;

	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	r = rpmvercmp(a->version, b->version);
	return r ? r : rpmvercmp(a->release, b->release);
}

bool img_rpm_dep_matches(const struct img_rpm_dep *require, const struct img_rpm_dep *provide)
{
	const uint32_t mask = IMG_RPMSENSE_LESS | IMG_RPMSENSE_GREATER | IMG_RPMSENSE_EQUAL;
	rpmver want, have;
	bool yes;

	if (strcmp(require->name, provide->name) != 0)
		return false;
	/* Without a version on either side every version fits, as in rpm. */
	if (!*require->version || !*provide->version || !(require->flags & mask) || !(provide->flags & mask))
		return true;
	want = rpmverParse(require->version);
	have = rpmverParse(provide->version);
	yes = want && have && rpmverOverlap(have, provide->flags & mask, want, require->flags & mask);
	rpmverFree(want);
	rpmverFree(have);
	return yes;
}

/* ---- The set ---------------------------------------------------------------------------------------------- */

int img_rpm_set_new(const char *arch, struct img_rpm_set **ret_set)
{
	struct img_rpm_set *s = calloc(1, sizeof(*s));
	struct utsname u;

	if (!s)
		return -ENOMEM;
	s->arch = strdup(arch ? arch : uname(&u) == 0 ? u.machine : "x86_64");
	if (!s->arch) {
		free(s);
		return -ENOMEM;
	}
	*ret_set = s;
	return 0;
}

void img_rpm_set_free(struct img_rpm_set *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		img_rpm_free(s->packages[i]);
	free(s->packages);
	index_clear(&s->names);
	index_clear(&s->paths);
	for (size_t i = 0; i < s->n_lists; i++)
		free(s->lists[i]);
	free(s->lists);
	free(s->db_path);
	free(s->arch);
	free(s);
}

static bool runs_here(const struct img_rpm_set *s, const char *arch)
{
	const size_t n = strlen(s->arch);

	/* x86_64_v2 and the like run where x86_64 is asked for; whether the processor agrees is the user's matter. */
	return strcmp(arch, "noarch") == 0 || strcmp(arch, s->arch) == 0 ||
	       (strncmp(arch, s->arch, n) == 0 && arch[n] == '_' && arch[n + 1] == 'v');
}

int img_rpm_set_take(struct img_rpm_set *s, struct img_rpm *p, struct err *err)
{
	if (!s->is_installed && !runs_here(s, p->arch)) {
		img_rpm_free(p);
		return 0;
	}
	if (s->n == s->cap) {
		const size_t cap = s->cap ? s->cap * 2 : 64;
		struct img_rpm **grown = reallocarray(s->packages, cap, sizeof(struct img_rpm *));

		if (!grown) {
			img_rpm_free(p);
			return err_set(err, -ENOMEM, "out of memory");
		}
		s->packages = grown;
		s->cap = cap;
	}
	((struct img_rpm_priv *)p->priv)->keys = s->keys;
	s->packages[s->n++] = p;
	s->is_sealed = false;
	return 0;
}

void img_rpm_set_keys(struct img_rpm_set *s, struct img_rpm_keys *k)
{
	s->keys = k;
}

int img_rpm_set_add_package(struct img_rpm_set *s, const char *path, struct err *err)
{
	struct img_rpm *p;
	int r = img_rpm_open(path, &p, err);

	return r < 0 ? r : img_rpm_set_take(s, p, err);
}

int img_rpm_set_add_repo(struct img_rpm_set *s, const char *dir, struct err *err)
{
	return img_rpm_repo_read(s, dir, err);
}

static int compare_packages(const void *a, const void *b)
{
	const struct img_rpm *const *x = a, *const *y = b;
	const int r = strcmp((*x)->name, (*y)->name);

	if (r)
		return r;
	return img_rpm_compare(*y, *x) ? img_rpm_compare(*y, *x) : strcmp((*x)->arch, (*y)->arch);
}

static int index_package(struct img_rpm_set *s, struct img_rpm *p)
{
	int r = img_rpm_index_add(&s->names, p->name, p);

	/* A name that is provided several times (by version) needs one entry; they often come in a row. */
	for (size_t i = 0; r == 0 && i < p->n_deps[IMG_RPM_PROVIDES]; i++) {
		const char *name = p->deps[IMG_RPM_PROVIDES][i].name;

		if (strcmp(name, p->name) != 0 && (i == 0 || strcmp(name, p->deps[IMG_RPM_PROVIDES][i - 1].name) != 0))
			r = img_rpm_index_add(&s->names, name, p);
	}
	/* What was left out at installation, or by an earlier cut, nobody owns. */
	for (size_t i = 0; r == 0 && i < p->n_files; i++) {
		if (img_rpm_file_is_installed(&p->files[i]))
			r = img_rpm_index_add(&s->paths, p->files[i].path, p);
	}
	return r;
}

/* Sorted, one version of each name (but for what is installed), numbered, indexed. The indexes borrow text that a later
 * img_rpm_load() replaces, so packages of metadata are indexed by text that stays: see rpm_repo.c. */
static int seal(struct img_rpm_set *s)
{
	size_t n = 0;
	int r = 0;

	if (s->is_sealed)
		return 0;
	if (s->n)
		qsort(s->packages, s->n, sizeof(struct img_rpm *), compare_packages);
	for (size_t i = 0; i < s->n; i++) {
		if (n && !s->is_installed && strcmp(s->packages[n - 1]->name, s->packages[i]->name) == 0) {
			img_rpm_free(s->packages[i]);
			continue;
		}
		s->packages[i]->index = (int32_t)n;
		s->packages[n++] = s->packages[i];
	}
	s->n = n;
	index_clear(&s->names);
	index_clear(&s->paths);
	s->has_lists = false;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = index_package(s, s->packages[i]);
	s->is_sealed = r == 0;
	return r;
}

size_t img_rpm_set_count(const struct img_rpm_set *s)
{
	(void)seal((struct img_rpm_set *)s);
	return s->n;
}

struct img_rpm *img_rpm_set_at(const struct img_rpm_set *s, size_t i)
{
	(void)seal((struct img_rpm_set *)s);
	return i < s->n ? s->packages[i] : NULL;
}

struct img_rpm *img_rpm_set_find(const struct img_rpm_set *s, const char *name)
{
	size_t lo = 0, hi;

	(void)seal((struct img_rpm_set *)s);
	for (hi = s->n; lo < hi;) {
		const size_t mid = lo + (hi - lo) / 2;

		if (strcmp(s->packages[mid]->name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->n && strcmp(s->packages[lo]->name, name) == 0 ? s->packages[lo] : NULL;
}

const char *img_rpm_set_db_path(const struct img_rpm_set *s)
{
	return s->db_path;
}

/* ---- Questions -------------------------------------------------------------------------------------------- */

static bool package_provides(const struct img_rpm *p, const struct img_rpm_dep *dep, uint32_t *ret_index)
{
	for (size_t i = 0; i < p->n_deps[IMG_RPM_PROVIDES]; i++) {
		if (img_rpm_dep_matches(dep, &p->deps[IMG_RPM_PROVIDES][i])) {
			*ret_index = (uint32_t)i;
			return true;
		}
	}
	return false;
}

/* The first file that is a reason for provide i. */
static int32_t file_of_provide(const struct img_rpm *p, uint32_t i)
{
	const uint32_t word = (uint32_t)IMG_RPM_PROVIDES << 24 | i;

	for (size_t f = 0; f < p->n_files; f++) {
		for (uint32_t k = 0; k < p->files[f].n_deps; k++) {
			if (p->files[f].deps[k] == word)
				return (int32_t)f;
		}
	}
	return -1;
}

static int32_t find_file(const struct img_rpm *p, const char *path)
{
	for (size_t i = 0; i < p->n_files; i++) {
		if (img_rpm_file_is_installed(&p->files[i]) && strcmp(p->files[i].path, path) == 0)
			return (int32_t)i;
	}
	return -1;
}

struct img_rpm *img_rpm_set_owner(struct img_rpm_set *s, const char *path, int32_t *ret_file, struct err *err)
{
	struct img_rpm *best = NULL;
	int32_t best_file = -1;

	if (seal(s) < 0)
		return NULL;
	if (!index_next(&s->paths, path, NULL) && img_rpm_repo_lists(s, err) < 0)
		return NULL;
	for (const struct rpm_index_entry *e = index_next(&s->paths, path, NULL); e;
	     e = index_next(&s->paths, path, e)) {
		int32_t file;

		if (img_rpm_load(e->package, err) < 0)
			return NULL;
		file = find_file(e->package, path);
		/* Folders have many owners; the first by name is as good as any, one in use is better. */
		if (file >= 0 &&
		    (!best || e->package->is_preferred > best->is_preferred ||
		     (e->package->is_preferred == best->is_preferred && e->package->index < best->index))) {
			best = e->package;
			best_file = file;
		}
	}
	if (best && ret_file)
		*ret_file = best_file;
	return best;
}

/* Better: the name itself, then one in use, then the first by name. */
static bool is_better(const struct img_rpm *a, const struct img_rpm *b, const char *name)
{
	const bool a_is = strcmp(a->name, name) == 0, b_is = strcmp(b->name, name) == 0;

	if (a_is != b_is)
		return a_is;
	if (a->is_preferred != b->is_preferred)
		return a->is_preferred;
	return a->index < b->index;
}

struct img_rpm *img_rpm_set_provider(struct img_rpm_set *s, const struct img_rpm_dep *dep, int32_t *ret_file,
                                     struct err *err)
{
	struct img_rpm *best = NULL;
	uint32_t index = 0;

	if (seal(s) < 0)
		return NULL;
	for (const struct rpm_index_entry *e = index_next(&s->names, dep->name, NULL); e;
	     e = index_next(&s->names, dep->name, e)) {
		if (package_provides(e->package, dep, &index) && (!best || is_better(e->package, best, dep->name)))
			best = e->package;
	}
	if (!best)
		return dep->name[0] == '/' ? img_rpm_set_owner(s, dep->name, ret_file, err) : NULL;
	if (img_rpm_load(best, err) < 0)
		return NULL;
	if (ret_file)
		*ret_file = package_provides(best, dep, &index) ? file_of_provide(best, index) : -1;
	return best;
}
