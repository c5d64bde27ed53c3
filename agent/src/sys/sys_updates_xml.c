/* The metadata of repositories: primary.xml says which packages there are, updateinfo.xml which advisories. Files are
 * unpacked by rpmio, XML is read in pieces by expat; nothing is kept but what concerns installed packages. */
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/library.h"
#include "sys/sys_updates.h"

enum {
	MAX_XML = 2047 << 20, /* bytes of one unpacked document */
	MAX_TEXT = 1024,
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

const struct xml *ag_sys_xml(void)
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

	ag_sys_evr_done(&r->evr);
	if (v && release && ag_sys_evr_copy(&r->evr, &e) < 0)
		r->no_memory = true;
}

/* A package of the repository: better than what is installed, and than what was found before? */
static void consider(struct reading *r)
{
	struct installed *p = r->evr.version && r->is_rpm ? ag_sys_updates_find(r->u, r->name, r->arch) : NULL;

	if (!p || ag_sys_evr_compare(r->u, &r->evr, &p->has) <= 0)
		return;
	if (p->best.version && ag_sys_evr_compare(r->u, &r->evr, &p->best) <= 0)
		return;
	if (ag_sys_evr_copy(&p->best, &r->evr) < 0)
		r->no_memory = true;
	p->download_bytes = r->size_bytes;
	p->repository = r->cache->id;
}

/* A package that the advisory brings: between what is installed and what is available? */
static void attach(struct reading *r, const char *name, const char *arch)
{
	struct installed *p = r->evr.version && name && arch ? ag_sys_updates_find(r->u, name, arch) : NULL;
	size_t i;
	const json_t *one;

	if (!p || !p->best.version || ag_sys_evr_compare(r->u, &r->evr, &p->has) <= 0 ||
	    ag_sys_evr_compare(r->u, &r->evr, &p->best) > 0)
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
		ag_sys_evr_done(&r->evr);
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
	ag_sys_evr_done(&r->evr);
	return ok;
}

bool ag_sys_updates_read(struct updates *u, const struct cache *cache, const char *kind, bool is_primary)
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
