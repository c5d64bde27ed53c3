/* Headers of our own for a package database: made of the tags of the signed ones, without a region and without digests
 * of themselves, which rpm and scanners take as they take packages of rpm 3.
 *
 * IMG_RPMDB_MARKED lists every file; what is not there has the state "not installed", and neither digest, owner nor
 * target. IMG_RPMDB_SHORT lists what is there, and tells the rest in words (rpm_dbabsent.c). Both tell what a scanner
 * or a package manager asks for: name, version, source package, vendor, licence, module, provides that hold,
 * requirements that are met. A requirement that nobody in the root meets would make every `rpm -V` fail although
 * nothing is broken: files that need something are there with what they need, or not at all. MARKED tells it as a
 * recommendation instead, and keeps conflicts and obsoletes, so that a package manager that works on top of the root
 * decides as it would have. Arrays in which every value is the one that rpm takes for a missing array are left out. */
#include <errno.h>
#include <rpm/rpmfiles.h>
#include <rpm/rpmlib.h>
#include <rpm/rpmtd.h>
#include <stdlib.h>
#include <string.h>

#include "rpm_dbwrite_internal.h"

/* ---- Arrays ----------------------------------------------------------------------------------------------- */

int img_rpmdb_put_array(Header h, rpmTagVal tag, rpmTagType type, void *data, uint32_t n)
{
	struct rpmtd_s td = { .tag = tag, .type = type, .count = n, .data = data };

	if (n == 0)
		return 0;
	return headerPut(h, &td, HEADERPUT_DEFAULT) ? 0 : -ENOMEM;
}

static size_t size_of_type(rpmTagType type)
{
	switch (type) {
	case RPM_CHAR_TYPE:
	case RPM_INT8_TYPE:
		return 1;
	case RPM_INT16_TYPE:
		return 2;
	case RPM_INT32_TYPE:
		return 4;
	case RPM_INT64_TYPE:
		return 8;
	case RPM_STRING_ARRAY_TYPE:
		return sizeof(char *);
	default:
		return 0;
	}
}

/* Copies those values of an array for which keep[] is set. */
static int copy_some(Header from, Header to, rpmTagVal tag, const bool *keep, size_t n)
{
	struct rpmtd_s td;
	size_t size, out = 0;
	char *values;
	int r;

	if (!headerGet(from, tag, &td, HEADERGET_MINMEM))
		return 0;
	size = size_of_type(td.type);
	if (!size || td.count != n) {
		rpmtdFreeData(&td);
		return 0;
	}
	values = malloc(n * size + 1);
	for (size_t i = 0; values && i < n; i++) {
		if (keep[i])
			memcpy(values + out++ * size, (char *)td.data + i * size, size);
	}
	r = values ? img_rpmdb_put_array(to, tag, td.type, values, (uint32_t)out) : -ENOMEM;
	free(values);
	rpmtdFreeData(&td);
	return r;
}

static int copy_whole(Header from, Header to, rpmTagVal tag)
{
	struct rpmtd_s td;
	int r = 0;

	if (!headerGet(from, tag, &td, HEADERGET_MINMEM))
		return 0;
	/* Of texts in several languages the one for all. */
	if (rpmTagGetClass(tag) == RPM_STRING_CLASS && rpmTagGetReturnType(tag) != RPM_ARRAY_RETURN_TYPE &&
	    (tag == RPMTAG_SUMMARY || tag == RPMTAG_GROUP))
		r = headerAddI18NString(to, tag, rpmtdGetString(&td), "C") ? 0 : -ENOMEM;
	else
		r = headerPut(to, &td, HEADERPUT_DEFAULT) ? 0 : -ENOMEM;
	rpmtdFreeData(&td);
	return r;
}

/* ---- Dependencies ----------------------------------------------------------------------------------------- */

static bool is_own(const struct img_rpm *p, const bool *live, const struct img_rpm_dep *d)
{
	for (size_t i = 0; i < p->n_deps[IMG_RPM_PROVIDES]; i++) {
		if (live[i] && img_rpm_dep_matches(d, &p->deps[IMG_RPM_PROVIDES][i]))
			return true;
	}
	return false;
}

/* Features of rpm, and what only scriptlets need, which are not in these headers. */
static bool is_for_installing(const struct img_rpm_dep *d)
{
	const uint32_t scripts = RPMSENSE_PREREQ | RPMSENSE_SCRIPT_PRE | RPMSENSE_SCRIPT_POST | RPMSENSE_SCRIPT_PREUN |
	                         RPMSENSE_SCRIPT_POSTUN | RPMSENSE_SCRIPT_VERIFY | RPMSENSE_PRETRANS |
	                         RPMSENSE_POSTTRANS;

	return d->flags & (RPMSENSE_RPMLIB | scripts);
}

static int put_deps(Header h, const rpmTagVal tags[3], const char **names, const char **versions, uint32_t *flags,
                    uint32_t n)
{
	int r = img_rpmdb_put_array(h, tags[0], RPM_STRING_ARRAY_TYPE, names, n);

	if (r == 0)
		r = img_rpmdb_put_array(h, tags[1], RPM_STRING_ARRAY_TYPE, versions, n);
	return r < 0 ? r : img_rpmdb_put_array(h, tags[2], RPM_INT32_TYPE, flags, n);
}

/* What the package recommends, and the requirements in unmet[]. */
static int put_recommends(const struct img_rpm *p, const bool *unmet, Header to)
{
	static const rpmTagVal tags[3] = { RPMTAG_RECOMMENDNAME, RPMTAG_RECOMMENDVERSION, RPMTAG_RECOMMENDFLAGS };
	const size_t max = p->n_deps[IMG_RPM_REQUIRES] + p->n_deps[IMG_RPM_RECOMMENDS];
	const char **names = calloc(max + 1, sizeof(*names)), **versions = calloc(max + 1, sizeof(*versions));
	uint32_t *flags = calloc(max + 1, sizeof(*flags)), n = 0;
	int r = names && versions && flags ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < max; i++) {
		const size_t n_own = p->n_deps[IMG_RPM_RECOMMENDS];
		const struct img_rpm_dep *d =
		        i < n_own ? &p->deps[IMG_RPM_RECOMMENDS][i] : &p->deps[IMG_RPM_REQUIRES][i - n_own];

		if (i >= n_own && !unmet[i - n_own])
			continue;
		names[n] = d->name;
		versions[n] = d->version;
		flags[n++] = d->flags & (RPMSENSE_LESS | RPMSENSE_GREATER | RPMSENSE_EQUAL);
	}
	if (r == 0)
		r = put_deps(to, tags, names, versions, flags, n);
	free(names);
	free(versions);
	free(flags);
	return r;
}

static int copy_deps(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header from, Header to)
{
	static const rpmTagVal provides[] = { RPMTAG_PROVIDENAME, RPMTAG_PROVIDEVERSION, RPMTAG_PROVIDEFLAGS };
	static const rpmTagVal requires[] = { RPMTAG_REQUIRENAME, RPMTAG_REQUIREVERSION, RPMTAG_REQUIREFLAGS };
	static const rpmTagVal rest[] = { RPMTAG_CONFLICTNAME, RPMTAG_CONFLICTVERSION, RPMTAG_CONFLICTFLAGS,
		                          RPMTAG_OBSOLETENAME, RPMTAG_OBSOLETEVERSION, RPMTAG_OBSOLETEFLAGS };
	const size_t n = p->n_deps[IMG_RPM_REQUIRES];
	const bool is_marked = w->o->mode == IMG_RPMDB_MARKED;
	bool *live = img_rpmdb_live_deps(w, p, IMG_RPM_PROVIDES);
	bool *needed = img_rpmdb_live_deps(w, p, IMG_RPM_REQUIRES);
	bool *met = calloc(n + 1, 1), *unmet = calloc(n + 1, 1);
	int r = live && needed && met && unmet ? 0 : -ENOMEM;

	/* What the package needs of itself is always there; what only absent files need is not needed. */
	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct img_rpm_dep *d = &p->deps[IMG_RPM_REQUIRES][i];

		if (!needed[i] || is_own(p, live, d))
			continue;
		met[i] = img_rpmdb_is_met(w, d);
		unmet[i] = !met[i] && !is_for_installing(d);
	}
	for (int k = 0; r == 0 && k < 3; k++)
		r = copy_some(from, to, provides[k], live, p->n_deps[IMG_RPM_PROVIDES]);
	for (int k = 0; r == 0 && k < 3; k++)
		r = copy_some(from, to, requires[k], met, n);
	for (int k = 0; r == 0 && is_marked && k < 6; k++)
		r = copy_whole(from, to, rest[k]);
	if (r == 0 && is_marked)
		r = put_recommends(p, unmet, to);
	free(live);
	free(needed);
	free(met);
	free(unmet);
	return r;
}

/* ---- Files ------------------------------------------------------------------------------------------------ */

/* The files of a package that a header is to list, and which of them are there. */
struct rows {
	bool *listed, *present; /* by file */
	size_t n;               /* files of the package */
	bool has_links;         /* hard ones */
	int64_t clamp;
};

/* What is special about an array of file attributes. */
enum {
	ONLY_PRESENT = 1 << 0, /* an absent file has "" */
	ZERO_IS_NONE = 1 << 1, /* an array of zeroes, or of "", says nothing */
	OF_LINKS = 1 << 2,     /* only tells which files are hard links of each other */
	IS_TIME = 1 << 3,
};

static const struct attribute {
	rpmTagVal tag;
	int special;
} attributes[] = {
	{ RPMTAG_FILESIZES, 0 },
	{ RPMTAG_LONGFILESIZES, 0 },
	{ RPMTAG_FILEMODES, 0 },
	{ RPMTAG_FILERDEVS, ZERO_IS_NONE },
	{ RPMTAG_FILEMTIMES, IS_TIME },
	{ RPMTAG_FILEDIGESTS, ONLY_PRESENT },
	{ RPMTAG_FILELINKTOS, ONLY_PRESENT },
	{ RPMTAG_FILEFLAGS, ZERO_IS_NONE },
	{ RPMTAG_FILEUSERNAME, ONLY_PRESENT },
	{ RPMTAG_FILEGROUPNAME, ONLY_PRESENT },
	{ RPMTAG_FILEVERIFYFLAGS, 0 },
	{ RPMTAG_FILEDEVICES, OF_LINKS },
	{ RPMTAG_FILEINODES, OF_LINKS },
	{ RPMTAG_FILELANGS, ONLY_PRESENT | ZERO_IS_NONE },
	{ RPMTAG_FILECAPS, ONLY_PRESENT | ZERO_IS_NONE },
	{ RPMTAG_FILECOLORS, ZERO_IS_NONE },
};

/* Whether an array of n values says no more than its absence would. */
static bool says_nothing(int special, rpmTagType type, const void *values, size_t n)
{
	const size_t size = size_of_type(type);

	if (!(special & ZERO_IS_NONE))
		return false;
	for (size_t i = 0; type == RPM_STRING_ARRAY_TYPE && i < n; i++) {
		if (((const char *const *)values)[i][0])
			return false;
	}
	for (size_t i = 0; type != RPM_STRING_ARRAY_TYPE && i < n * size; i++) {
		if (((const uint8_t *)values)[i])
			return false;
	}
	return true;
}

static int copy_attribute(const struct rows *rows, const struct attribute *a, Header from, Header to)
{
	struct rpmtd_s td;
	size_t size, n = 0;
	char *values;
	int r = 0;

	if ((a->special & OF_LINKS && !rows->has_links) || !headerGet(from, a->tag, &td, HEADERGET_MINMEM))
		return 0;
	size = size_of_type(td.type);
	if (!size || td.count != rows->n) {
		rpmtdFreeData(&td);
		return 0;
	}
	values = malloc(rows->n * size + 1);
	for (size_t i = 0; values && i < rows->n; i++) {
		char *value = values + n * size;

		if (!rows->listed[i])
			continue;
		memcpy(value, (char *)td.data + i * size, size);
		if (a->special & ONLY_PRESENT && !rows->present[i] && td.type == RPM_STRING_ARRAY_TYPE)
			memcpy(value, &(const char *){ "" }, size);
		/* The file has been given an earlier time, too. */
		if (a->special & IS_TIME && td.type == RPM_INT32_TYPE && rows->clamp >= 0 &&
		    *(uint32_t *)(void *)value > rows->clamp)
			memcpy(value, &(uint32_t){ (uint32_t)rows->clamp }, size);
		n++;
	}
	if (!values)
		r = -ENOMEM;
	else if (!says_nothing(a->special, td.type, values, n))
		r = img_rpmdb_put_array(to, a->tag, td.type, values, (uint32_t)n);
	free(values);
	rpmtdFreeData(&td);
	return r;
}

/* Base names, folders, and which name is in which folder. */
static int put_names(const struct rows *rows, const struct img_rpm *p, Header to)
{
	const char **dirs = calloc(p->n_files + 1, sizeof(*dirs)), **bases = calloc(p->n_files + 1, sizeof(*bases));
	uint32_t *indexes = calloc(p->n_files + 1, sizeof(*indexes)), n = 0, n_dirs = 0;
	char **owned = calloc(p->n_files + 1, sizeof(*owned));
	int r = dirs && bases && indexes && owned ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < p->n_files; i++) {
		const char *path = p->files[i].path, *base = strrchr(path, '/') + 1;
		const size_t len = (size_t)(base - path);
		uint32_t d = n_dirs;

		if (!rows->listed[i])
			continue;
		/* Files come sorted, so the folder is mostly one of the last ones. */
		while (d && (strlen(dirs[d - 1]) != len || memcmp(dirs[d - 1], path, len) != 0))
			d--;
		if (d == 0) {
			owned[n_dirs] = strndup(path, len);
			dirs[n_dirs] = owned[n_dirs];
			r = dirs[n_dirs++] ? 0 : -ENOMEM;
			d = n_dirs;
		}
		indexes[n] = d - 1;
		bases[n++] = base;
	}
	if (r == 0)
		r = img_rpmdb_put_array(to, RPMTAG_BASENAMES, RPM_STRING_ARRAY_TYPE, bases, n);
	if (r == 0)
		r = img_rpmdb_put_array(to, RPMTAG_DIRNAMES, RPM_STRING_ARRAY_TYPE, dirs, n_dirs);
	if (r == 0)
		r = img_rpmdb_put_array(to, RPMTAG_DIRINDEXES, RPM_INT32_TYPE, indexes, n);
	for (uint32_t d = 0; owned && d < n_dirs; d++)
		free(owned[d]);
	free(owned);
	free(dirs);
	free(bases);
	free(indexes);
	return r;
}

/* What is installed of the package, in bytes. */
static int put_size(const struct rows *rows, const struct img_rpm *p, Header to)
{
	uint64_t size = 0;
	uint32_t u32;

	for (size_t i = 0; i < p->n_files; i++) {
		const struct img_rpm_file *f = &p->files[i];

		if (rows->present[i] && f->type == IMG_FILE && (!f->link_group || f->link_group == i + 1))
			size += f->size;
	}
	u32 = (uint32_t)size;
	return size > UINT32_MAX ? img_rpmdb_put_array(to, RPMTAG_LONGSIZE, RPM_INT64_TYPE, &size, 1)
	                         : img_rpmdb_put_array(to, RPMTAG_SIZE, RPM_INT32_TYPE, &u32, 1);
}

rpmfileState img_rpmdb_state(const struct img_rpmdb_writer *w, const struct img_rpm *p, size_t file)
{
	const struct img_rpm_file *f = &p->files[file];

	/* Replaced by another package's, of another colour, ...: that has not changed. */
	if (f->state != IMG_RPM_NORMAL && f->state != IMG_RPM_NET_SHARED)
		return (rpmfileState)f->state;
	if (f->flags & IMG_RPMFILE_GHOST || img_rpmdb_has(w, p, file))
		return (rpmfileState)f->state;
	return RPMFILE_STATE_NOTINSTALLED;
}

static int put_states(const struct img_rpmdb_writer *w, const struct img_rpm *p, const bool *listed, Header h)
{
	char *states = calloc(p->n_files + 1, 1);
	uint32_t n = 0;
	int r;

	for (size_t i = 0; states && i < p->n_files; i++) {
		if (!listed || listed[i])
			states[n++] = (char)img_rpmdb_state(w, p, i);
	}
	r = states ? img_rpmdb_put_array(h, RPMTAG_FILESTATES, RPM_CHAR_TYPE, states, n) : -ENOMEM;
	free(states);
	return r;
}

int img_rpmdb_put_states(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header h)
{
	return put_states(w, p, NULL, h);
}

static int copy_files(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header from, Header to)
{
	struct rows rows = { .listed = calloc(p->n_files + 1, 1),
		             .present = calloc(p->n_files + 1, 1),
		             .n = p->n_files,
		             .clamp = w->o->clamp_mtime };
	int r = rows.listed && rows.present ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < p->n_files; i++) {
		rows.present[i] = img_rpmdb_has(w, p, i);
		rows.listed[i] = rows.present[i] || w->o->mode == IMG_RPMDB_MARKED;
		rows.has_links |= rows.listed[i] && p->files[i].link_group;
	}
	for (size_t i = 0; r == 0 && i < sizeof(attributes) / sizeof(attributes[0]); i++)
		r = copy_attribute(&rows, &attributes[i], from, to);
	if (r == 0)
		r = put_names(&rows, p, to);
	if (r == 0)
		r = put_states(w, p, rows.listed, to);
	if (r == 0)
		r = put_size(&rows, p, to);
	free(rows.listed);
	free(rows.present);
	return r;
}

/* ---- The header ------------------------------------------------------------------------------------------- */

int img_rpmdb_own_header(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header whole, Header *ret_h)
{
	static const rpmTagVal tags[] = { RPMTAG_NAME,
		                          RPMTAG_VERSION,
		                          RPMTAG_RELEASE,
		                          RPMTAG_EPOCH,
		                          RPMTAG_SUMMARY,
		                          RPMTAG_BUILDTIME,
		                          RPMTAG_LICENSE,
		                          RPMTAG_VENDOR,
		                          RPMTAG_DISTRIBUTION,
		                          RPMTAG_DISTTAG,
		                          RPMTAG_MODULARITYLABEL,
		                          RPMTAG_GROUP,
		                          RPMTAG_URL,
		                          RPMTAG_OS,
		                          RPMTAG_ARCH,
		                          RPMTAG_SOURCERPM,
		                          RPMTAG_SIGMD5,
		                          RPMTAG_FILEDIGESTALGO };
	Header h = headerNew();
	int r = h ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < sizeof(tags) / sizeof(tags[0]); i++)
		r = copy_whole(whole, h, tags[i]);
	if (r == 0)
		r = copy_deps(w, p, whole, h);
	if (r == 0)
		r = copy_files(w, p, whole, h);
	if (r == 0 && w->o->mode == IMG_RPMDB_SHORT)
		r = img_rpmdb_put_absent(w, p, h);
	if (r < 0) {
		(void)headerFree(h);
		return r;
	}
	*ret_h = h;
	return 0;
}
