/* What an update would bring: the rpm database against the metadata that the package manager has cached, so that it
 * works without network and without root. For each installed package the newest version of the same name and
 * architecture, and the advisories (updateinfo.xml) that lie between the two. Versions are compared by librpm, files
 * are unpacked by rpmio, XML is read in pieces by expat; nothing is kept but what concerns installed packages.
 *
 * The package manager knows more (excludes, version locks, modules): what it would really do is `dnf check-update`. */
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/library.h"
#include "sys/sys_rpm.h"

enum {
	MAX_INSTALLED = 1 << 17,
	MAX_CACHES = 256,
	MAX_XML = 2047 << 20, /* bytes of one unpacked document */
	MAX_TEXT = 1024,
	MAX_SHOWN = 500,
	MAX_ADVISORIES = 16, /* of one package */
	CHUNK = 1 << 16,
};

/* ---- expat, opened at run time ------------------------------------------------------------------------------ */

#define XML_FUNCTIONS(X)               \
	X(XML_ParserCreate)            \
	X(XML_ParserFree)              \
	X(XML_SetUserData)             \
	X(XML_SetElementHandler)       \
	X(XML_SetCharacterDataHandler) \
	X(XML_StopParser)              \
	X(XML_Parse)

struct xml {
#define X(f) __typeof__(&f) f;
	XML_FUNCTIONS(X)
#undef X
};

static const struct xml *xml_library(void)
{
	static struct xml table;
	static bool is_loaded;
#define X(f) { #f, &table.f },
	static const struct base_symbol symbols[] = { XML_FUNCTIONS(X) };
#undef X

	if (!is_loaded)
		is_loaded =
		        base_library_load("libexpat.so.1", symbols, sizeof(symbols) / sizeof(symbols[0]), NULL) == 0;
	return is_loaded ? &table : NULL;
}

/* ---- Packages ------------------------------------------------------------------------------------------------ */

struct evr {
	uint64_t epoch;
	char *version, *release;
};

struct installed {
	char *name, *arch;
	struct evr has, best; /* best.version NULL: nothing newer */
	uint64_t download_bytes;
	const char *repository; /* borrowed from the cache list */
	json_t *advisories;
};

struct cache { /* one repository's folder */
	char *dir, *id;
	int64_t time_s;
};

struct updates {
	const struct rpm *rpm;
	const struct xml *xml;
	struct installed *list; /* by name, then architecture */
	size_t n, cap;
	struct cache caches[MAX_CACHES];
	size_t n_caches;
};

static void evr_done(struct evr *e)
{
	free(e->version);
	free(e->release);
	*e = (struct evr){ 0 };
}

static int evr_compare(const struct updates *u, const struct evr *a, const struct evr *b)
{
	int c;

	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	c = u->rpm->rpmvercmp(a->version, b->version);
	return c ? c : u->rpm->rpmvercmp(a->release, b->release);
}

static int evr_copy(struct evr *to, const struct evr *from)
{
	struct evr e = { from->epoch, strdup(from->version), strdup(from->release) };

	if (!e.version || !e.release) {
		evr_done(&e);
		return -ENOMEM;
	}
	evr_done(to);
	*to = e;
	return 0;
}

static void updates_done(struct updates *u)
{
	for (size_t i = 0; i < u->n; i++) {
		struct installed *p = &u->list[i];

		free(p->name);
		free(p->arch);
		evr_done(&p->has);
		evr_done(&p->best);
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
		ok = p->name && p->arch && evr_copy(&p->has, &e) == 0;
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
			struct installed *older = evr_compare(u, &last->has, &p->has) < 0 ? last : p, dropped = *older;

			if (older == last)
				*last = *p;
			free(dropped.name);
			free(dropped.arch);
			evr_done(&dropped.has);
			continue;
		}
		if (n != i)
			u->list[n] = *p;
		n++;
	}
	u->n = n;
}

static struct installed *find_exact(struct updates *u, const char *name, const char *arch)
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
	if (!id || !copy || u->n_caches == MAX_CACHES) {
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

/* ---- Reading one document --------------------------------------------------------------------------------------- */

enum element { OTHER, PACKAGE, NAME, ARCH, UPDATE, ID, TITLE, SEVERITY };

struct reading {
	struct updates *u;
	const struct cache *cache;
	XML_Parser parser;
	bool is_primary, no_memory;
	enum element in;
	char text[MAX_TEXT];
	size_t n;
	/* of the package at hand */
	bool is_rpm;
	char name[MAX_TEXT], arch[64];
	struct evr evr;
	uint64_t size_bytes;
	/* of the advisory at hand */
	char id[128], type[32], severity[32], title[MAX_TEXT];
};

static const char *attribute(const XML_Char **atts, const char *name)
{
	for (; *atts; atts += 2) {
		if (strcmp(atts[0], name) == 0)
			return atts[1];
	}
	return NULL;
}

static void take_evr(struct reading *r, const XML_Char **atts, const char *ver, const char *rel)
{
	const char *epoch = attribute(atts, "epoch"), *v = attribute(atts, ver), *release = attribute(atts, rel);
	struct evr e = { epoch ? strtoull(epoch, NULL, 10) : 0, (char *)(uintptr_t)v, (char *)(uintptr_t)release };

	evr_done(&r->evr);
	if (v && release && evr_copy(&r->evr, &e) < 0)
		r->no_memory = true;
}

/* A package of the repository: better than what is installed, and than what was found before? */
static void consider(struct reading *r)
{
	struct installed *p = r->evr.version && r->is_rpm ? find_exact(r->u, r->name, r->arch) : NULL;

	if (!p || evr_compare(r->u, &r->evr, &p->has) <= 0)
		return;
	if (p->best.version && evr_compare(r->u, &r->evr, &p->best) <= 0)
		return;
	if (evr_copy(&p->best, &r->evr) < 0)
		r->no_memory = true;
	p->download_bytes = r->size_bytes;
	p->repository = r->cache->id;
}

/* A package that the advisory brings: between what is installed and what is available? */
static void attach(struct reading *r, const char *name, const char *arch)
{
	struct installed *p = r->evr.version && name && arch ? find_exact(r->u, name, arch) : NULL;
	size_t i;
	const json_t *one;

	if (!p || !p->best.version || evr_compare(r->u, &r->evr, &p->has) <= 0 ||
	    evr_compare(r->u, &r->evr, &p->best) > 0)
		return;
	if (!p->advisories)
		p->advisories = json_array();
	json_array_foreach(p->advisories, i, one)
	{
		if (strcmp(json_string_value(json_object_get(one, "id")), r->id) == 0)
			return;
	}
	if (json_array_size(p->advisories) < MAX_ADVISORIES) {
		json_t *advisory = json_object();

		ag_sys_set_text(advisory, "id", r->id);
		ag_sys_set_text(advisory, "type", r->type);
		ag_sys_set_text(advisory, "severity", r->severity);
		ag_sys_set_text(advisory, "title", r->title);
		ag_sys_append_take(p->advisories, advisory);
	}
}

static void start_primary(struct reading *r, const char *name, const XML_Char **atts)
{
	const char *type;

	if (strcmp(name, "package") == 0) {
		type = attribute(atts, "type");
		r->is_rpm = !type || strcmp(type, "rpm") == 0;
		r->name[0] = r->arch[0] = 0;
		r->size_bytes = 0;
		evr_done(&r->evr);
	} else if (strcmp(name, "name") == 0) {
		r->in = NAME;
	} else if (strcmp(name, "arch") == 0) {
		r->in = ARCH;
	} else if (strcmp(name, "version") == 0) {
		take_evr(r, atts, "ver", "rel");
	} else if (strcmp(name, "size") == 0) {
		const char *size = attribute(atts, "package");

		r->size_bytes = size ? strtoull(size, NULL, 10) : 0;
	}
}

static void start_updateinfo(struct reading *r, const char *name, const XML_Char **atts)
{
	if (strcmp(name, "update") == 0) {
		const char *type = attribute(atts, "type");

		(void)snprintf(r->type, sizeof(r->type), "%s", type ? type : "");
		r->id[0] = r->severity[0] = r->title[0] = 0;
	} else if (strcmp(name, "id") == 0 && !r->id[0]) {
		r->in = ID;
	} else if (strcmp(name, "title") == 0 && !r->title[0]) {
		r->in = TITLE;
	} else if (strcmp(name, "severity") == 0) {
		r->in = SEVERITY;
	} else if (strcmp(name, "package") == 0) {
		take_evr(r, atts, "version", "release");
		attach(r, attribute(atts, "name"), attribute(atts, "arch"));
	}
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
	struct reading *r = arg;

	r->in = OTHER;
	r->n = 0;
	(r->is_primary ? start_primary : start_updateinfo)(r, name, atts);
	if (r->no_memory)
		(void)r->u->xml->XML_StopParser(r->parser, XML_FALSE);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct reading *r = arg;

	r->text[r->n] = 0;
	switch (r->in) {
	case NAME:
		(void)snprintf(r->name, sizeof(r->name), "%s", r->text);
		break;
	case ARCH:
		(void)snprintf(r->arch, sizeof(r->arch), "%.63s", r->text);
		break;
	case ID:
		(void)snprintf(r->id, sizeof(r->id), "%.127s", r->text);
		break;
	case TITLE:
		(void)snprintf(r->title, sizeof(r->title), "%s", r->text);
		break;
	case SEVERITY:
		(void)snprintf(r->severity, sizeof(r->severity), "%.31s", r->text);
		break;
	default:
		break;
	}
	r->in = OTHER;
	r->n = 0;
	if (r->is_primary && strcmp(name, "package") == 0)
		consider(r);
	if (r->no_memory)
		(void)r->u->xml->XML_StopParser(r->parser, XML_FALSE);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int len)
{
	struct reading *r = arg;
	size_t fits = sizeof(r->text) - 1 - r->n;

	if (r->in == OTHER)
		return;
	fits = (size_t)len < fits ? (size_t)len : fits;
	memcpy(r->text + r->n, text, fits);
	r->n += fits;
}

/* False when it cannot be read whole: what was read before that counts all the same. */
static bool read_document(struct updates *u, const struct cache *cache, const char *file, bool is_primary)
{
	static const struct {
		const char *end, *mode;
	} kinds[] = { { ".gz", "r.gzdio" },
		      { ".zst", "r.zstdio" },
		      { ".xz", "r.xzdio" },
		      { ".bz2", "r.bzdio" },
		      { "", "r.ufdio" } };
	CLEANUP(freep) char *buf = malloc(CHUNK);
	CLEANUP(freep) struct reading *r = calloc(1, sizeof(*r));
	char path[4096];
	size_t k = 0;
	uint64_t total = 0;
	ssize_t got = 0;
	bool ok = false;
	FD_t fd;

	while (strlen(kinds[k].end) > strlen(file) ||
	       strcmp(file + strlen(file) - strlen(kinds[k].end), kinds[k].end) != 0)
		k++;
	if (!buf || !r || snprintf(path, sizeof(path), "%s/%s", cache->dir, file) >= (int)sizeof(path))
		return false;
	fd = u->rpm->Fopen(path, kinds[k].mode);
	*r = (struct reading){
		.u = u, .cache = cache, .is_primary = is_primary, .parser = u->xml->XML_ParserCreate(NULL)
	};
	if (fd && !u->rpm->Ferror(fd) && r->parser) {
		u->xml->XML_SetUserData(r->parser, r);
		u->xml->XML_SetElementHandler(r->parser, on_start, on_end);
		u->xml->XML_SetCharacterDataHandler(r->parser, on_text);
		do {
			got = u->rpm->Fread(buf, 1, CHUNK, fd);
			total += got > 0 ? (uint64_t)got : 0;
			ok = got >= 0 && !u->rpm->Ferror(fd) && total <= MAX_XML &&
			     u->xml->XML_Parse(r->parser, buf, (int)got, got == 0) == XML_STATUS_OK;
		} while (ok && got > 0);
	}
	if (r->parser)
		u->xml->XML_ParserFree(r->parser);
	if (fd)
		(void)u->rpm->Fclose(fd);
	evr_done(&r->evr);
	return ok;
}

/* The file of a repository whose name holds "primary.xml" or "updateinfo.xml"; false when it was there and broken. */
static bool read_kind(struct updates *u, const struct cache *cache, const char *kind, bool is_primary)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = opendir(cache->dir);
	const char *name;
	bool ok = true;

	while (dir && (name = ag_sys_next_entry(dir))) {
		const char *at = strstr(name, kind);

		/* not primary.xml.gz.asc, nor what zchunk makes of it */
		if (at && !strstr(at, ".zck") && !strstr(at, ".asc"))
			ok = read_document(u, cache, name, is_primary) && ok;
	}
	return ok;
}

/* ---- Telling
 * --------------------------------------------------------------------------------------------------------- */

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
	u->xml = xml_library();
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
		if (!read_kind(u, &u->caches[i], "primary.xml", true))
			ag_sys_note(out, "The metadata of {id} cannot be read whole: run `dnf clean metadata`.",
			            "{id} 的元数据无法完整读取:请运行 `dnf clean metadata`。",
			            json_pack("{s:s}", "id", u->caches[i].id));
	}
	/* Advisories need to know what is available: a second round. */
	for (size_t i = 0; i < u->n_caches; i++)
		(void)read_kind(u, &u->caches[i], "updateinfo.xml", false);
	put_updates(u, out);
	updates_done(u);
	free(u);
}
