/* What an update would bring: the rpm database against the metadata that the package manager has cached, so that it
 * works without network and without root. For each installed package the newest version of the same name and
 * architecture, and the advisories that lie between the two (sys_updates_xml.c). Versions are compared by librpm.
 *
 * The package manager knows more (excludes, version locks, modules): what it would really do is `dnf check-update`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sys/sys_updates.h"

enum {
	MAX_INSTALLED = 1 << 17,
	MAX_SHOWN = 500,
};

/* ---- Packages ------------------------------------------------------------------------------------------------ */

void ag_sys_evr_done(struct evr *e)
{
	free(e->version);
	free(e->release);
	*e = (struct evr){ 0 };
}

int ag_sys_evr_compare(const struct updates *u, const struct evr *a, const struct evr *b)
{
	int c;

	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	c = u->rpm->rpmvercmp(a->version, b->version);
	return c ? c : u->rpm->rpmvercmp(a->release, b->release);
}

int ag_sys_evr_copy(struct evr *to, const struct evr *from)
{
	struct evr e = { from->epoch, strdup(from->version), strdup(from->release) };

	if (!e.version || !e.release) {
		ag_sys_evr_done(&e);
		return -ENOMEM;
	}
	ag_sys_evr_done(to);
	*to = e;
	return 0;
}

static void updates_done(struct updates *u)
{
	for (size_t i = 0; i < u->n; i++) {
		struct installed *p = &u->list[i];

		free(p->name);
		free(p->arch);
		ag_sys_evr_done(&p->has);
		ag_sys_evr_done(&p->best);
		json_decref(p->advisories);
	}
	free(u->list);
	for (size_t i = 0; i < u->n_caches; i++) {
		free(u->caches[i].dir);
		free(u->caches[i].id);
	}
}

static int by_name(const void *a, const void *b)
{
	const struct installed *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : strcmp(x->arch, y->arch);
}

static bool read_installed(struct updates *u, rpmts ts)
{
	rpmdbMatchIterator it = u->rpm->rpmtsInitIterator(ts, RPMDBI_PACKAGES, NULL, 0);
	bool ok = true;
	Header h;

	while (ok && it && (h = u->rpm->rpmdbNextIterator(it)) && u->n < MAX_INSTALLED) {
		const char *name = u->rpm->headerGetString(h, RPMTAG_NAME),
		           *arch = u->rpm->headerGetString(h, RPMTAG_ARCH);
		const char *version = u->rpm->headerGetString(h, RPMTAG_VERSION);
		const char *release = u->rpm->headerGetString(h, RPMTAG_RELEASE);
		struct evr e = { u->rpm->headerGetNumber(h, RPMTAG_EPOCH), (char *)(uintptr_t)version,
			         (char *)(uintptr_t)release };
		struct installed *p;

		if (!name || !arch || !version || !release) /* keys of signatures are such packages */
			continue;
		if (u->n == u->cap) {
			struct installed *more = reallocarray(u->list, 2 * u->cap + 512, sizeof(*more));

			if (!more)
				break;
			u->list = more;
			u->cap = 2 * u->cap + 512;
		}
		p = &u->list[u->n++];
		*p = (struct installed){ .name = strdup(name), .arch = strdup(arch) };
		ok = p->name && p->arch && ag_sys_evr_copy(&p->has, &e) == 0;
	}
	u->rpm->rpmdbFreeIterator(it);
	if (ok && u->n)
		qsort(u->list, u->n, sizeof(*u->list), by_name);
	return ok;
}

/* Of several installed versions (kernels) the newest counts: the others are left out. */
static void keep_newest(struct updates *u)
{
	size_t n = 0;

	for (size_t i = 0; i < u->n; i++) {
		struct installed *last = n ? &u->list[n - 1] : NULL, *p = &u->list[i];

		if (last && by_name(last, p) == 0) {
			struct installed *older = ag_sys_evr_compare(u, &last->has, &p->has) < 0 ? last : p,
			                 dropped = *older;

			if (older == last)
				*last = *p;
			free(dropped.name);
			free(dropped.arch);
			ag_sys_evr_done(&dropped.has);
			continue;
		}
		if (n != i)
			u->list[n] = *p;
		n++;
	}
	u->n = n;
}

struct installed *ag_sys_updates_find(struct updates *u, const char *name, const char *arch)
{
	struct installed key = { .name = (char *)(uintptr_t)name, .arch = (char *)(uintptr_t)arch };

	return u->n ? bsearch(&key, u->list, u->n, sizeof(key), by_name) : NULL;
}

/* ---- Where the metadata is ------------------------------------------------------------------------------------- */

/* "baseos-2f0d1c..." -> "baseos": the package manager appends a hash of the addresses. */
static char *repository_id(const char *dir_name)
{
	const char *dash = strrchr(dir_name, '-');

	if (dash && dash > dir_name && strlen(dash + 1) >= 8 &&
	    strspn(dash + 1, "0123456789abcdef") == strlen(dash + 1))
		return strndup(dir_name, (size_t)(dash - dir_name));
	return strdup(dir_name);
}

/* Of two folders of one repository (its address changed) the newer counts. */
static void add_cache(struct updates *u, const char *dir, const char *name, int64_t time_s)
{
	char *id = repository_id(name), *copy = strdup(dir);

	for (size_t i = 0; id && copy && i < u->n_caches; i++) {
		if (strcmp(u->caches[i].id, id) != 0)
			continue;
		if (u->caches[i].time_s < time_s) {
			free(u->caches[i].dir);
			u->caches[i].dir = copy;
			u->caches[i].time_s = time_s;
			copy = NULL;
		}
		free(copy);
		free(id);
		return;
	}
	if (!id || !copy || u->n_caches == SYS_MAX_CACHES) {
		free(id);
		free(copy);
		return;
	}
	u->caches[u->n_caches++] = (struct cache){ copy, id, time_s };
}

static int by_id(const void *a, const void *b)
{
	return strcmp(((const struct cache *)a)->id, ((const struct cache *)b)->id);
}

static void find_caches(struct updates *u, const struct sys_ctx *ctx)
{
	static const char *const places[] = { "/var/cache/dnf", "/var/cache/libdnf5", "/var/cache/yum" };
	char path[4096];
	struct stat st;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "%s", places[i]);
		const char *name;

		while (dir && (name = ag_sys_next_entry(dir))) {
			if (ag_sys_path(ctx, path, sizeof(path), "%s/%s/repodata/repomd.xml", places[i], name) < 0 ||
			    stat(path, &st) < 0)
				continue;
			*strrchr(path, '/') = 0;
			add_cache(u, path, name, st.st_mtime);
		}
	}
	qsort(u->caches, u->n_caches, sizeof(u->caches[0]), by_id);
}

/* ---- Telling ---- */

static const char *const levels[] = { "", "security", "low", "moderate", "important", "critical" };

enum { IMPORTANT = 4, CRITICAL = 5 };

/* How much it matters, as an index of the levels: 0 is no security update, 1 is one without a level. */
static unsigned weight(const struct installed *p)
{
	unsigned best = 0;
	size_t i;
	const json_t *one;

	json_array_foreach(p->advisories, i, one)
	{
		const char *severity = json_string_value(json_object_get(one, "severity"));

		if (strcmp(json_string_value(json_object_get(one, "type")), "security") != 0)
			continue;
		best = best ? best : 1;
		for (unsigned k = 2; k <= CRITICAL; k++) {
			if (strcasecmp(severity, levels[k]) == 0 && k > best)
				best = k;
		}
	}
	return best;
}

static int worst_first(const void *a, const void *b)
{
	const struct installed *x = *(struct installed *const *)a, *y = *(struct installed *const *)b;
	unsigned wx = weight(x), wy = weight(y);

	return wx != wy ? (wx > wy ? -1 : 1) : by_name(x, y);
}

static void put_evr(json_t *out, const char *key, const struct evr *e)
{
	char text[512];

	if (e->epoch)
		(void)snprintf(text, sizeof(text), "%llu:%s-%s", (unsigned long long)e->epoch, e->version, e->release);
	else
		(void)snprintf(text, sizeof(text), "%s-%s", e->version, e->release);
	ag_sys_set_text(out, key, text);
}

static void put_updates(struct updates *u, json_t *out)
{
	CLEANUP(freep) struct installed **found = calloc(u->n + 1, sizeof(*found));
	uint64_t security = 0, critical = 0, important = 0, bytes = 0;
	json_t *list = json_array();
	size_t n = 0;

	for (size_t i = 0; found && i < u->n; i++) {
		if (!u->list[i].best.version)
			continue;
		found[n++] = &u->list[i];
		bytes += u->list[i].download_bytes;
		security += weight(&u->list[i]) > 0;
		important += weight(&u->list[i]) == IMPORTANT;
		critical += weight(&u->list[i]) == CRITICAL;
	}
	if (n)
		qsort(found, n, sizeof(*found), worst_first);
	ag_sys_set_u64(out, "count", n);
	ag_sys_set_u64(out, "security", security);
	ag_sys_set_u64(out, "critical", critical);
	ag_sys_set_u64(out, "important", important);
	ag_sys_set_u64(out, "download_bytes", bytes);
	for (size_t i = 0; i < n && i < MAX_SHOWN; i++) {
		json_t *one = json_object();

		ag_sys_set_text(one, "name", found[i]->name);
		ag_sys_set_text(one, "arch", found[i]->arch);
		put_evr(one, "installed", &found[i]->has);
		put_evr(one, "available", &found[i]->best);
		ag_sys_set_text(one, "repository", found[i]->repository);
		ag_sys_set_u64(one, "download_bytes", found[i]->download_bytes);
		ag_sys_set_text(one, "severity", levels[weight(found[i])]);
		if (found[i]->advisories)
			(void)json_object_set(one, "advisories", found[i]->advisories);
		ag_sys_append_take(list, one);
	}
	(void)json_object_set_new(out, "packages", list);
}

void ag_sys_updates(const struct rpm *rpm, const struct sys_ctx *ctx, rpmts ts, json_t *packages)
{
	struct updates *u = calloc(1, sizeof(*u));
	json_t *out = ag_sys_object(packages, "updates"), *repositories;

	if (!u)
		return;
	u->rpm = rpm;
	u->xml = ag_sys_xml();
	find_caches(u, ctx);
	if (!u->xml || u->n_caches == 0) {
		ag_sys_note(out,
		            u->xml ? "The package manager has no metadata here yet: run `dnf makecache` first."
		                   : "libexpat is not on this machine: metadata cannot be read.",
		            u->xml ? "本机还没有软件源元数据:请先运行 `dnf makecache`。"
		                   : "本机没有 libexpat:无法读取元数据。",
		            NULL);
		updates_done(u);
		free(u);
		return;
	}
	repositories = ag_sys_array(out, "repositories");
	if (read_installed(u, ts))
		keep_newest(u);
	for (size_t i = 0; i < u->n_caches; i++) {
		json_t *one = json_object();

		ag_sys_set_text(one, "id", u->caches[i].id);
		ag_sys_set_u64(one, "metadata_time_s", (uint64_t)u->caches[i].time_s);
		ag_sys_append_take(repositories, one);
		if (!ag_sys_updates_read(u, &u->caches[i], "primary.xml", true))
			ag_sys_note(out, "The metadata of {id} cannot be read whole: run `dnf clean metadata`.",
			            "{id} 的元数据无法完整读取:请运行 `dnf clean metadata`。",
			            json_pack("{s:s}", "id", u->caches[i].id));
	}
	/* Advisories need to know what is available: a second round. */
	for (size_t i = 0; i < u->n_caches; i++)
		(void)ag_sys_updates_read(u, &u->caches[i], "updateinfo.xml", false);
	put_updates(u, out);
	updates_done(u);
	free(u);
}
