/* The package database of a root that holds only some files of its packages.
 *
 * What was found by trying (rpm 4.18; see docs/formats/slices.md):
 * - `rpm -V` passes over files whose state is 2, "not installed" (what --excludedocs leaves behind); they are no longer
 *   owners of their path (`rpm -qf`), nor do they meet requirements. A header with changed states is still the signed
 *   one: states stand outside the region that is signed.
 * - `rpm -V` also checks that requirements are met, so a database with whole headers of half the packages is never
 *   clean. The short form therefore drops the requirements that nobody in the database meets, with the files.
 * - A header without a region and without digests is accepted by rpm and by scanners; it is what rpm 3 packages are.
 * - rpm needs every table of rpmdb.sqlite, but no index of them, and any page size: a small database is four fifths
 *   empty pages, which VACUUM with pages of 512 bytes squeezes out.
 * - The same headers imported in the same order give the same tables; VACUUM INTO a new file gives the same bytes. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rpm/header.h>
#include <rpm/rpmlib.h>
#include <rpm/rpmlog.h>
#include <rpm/rpmmacro.h>
#include <rpm/rpmtd.h>
#include <rpm/rpmts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "rpm_internal.h"

/* ---- librpm ----------------------------------------------------------------------------------------------- */

static int be_silent(rpmlogRec rec, rpmlogCallbackData data)
{
	(void)rec;
	(void)data;
	return 0;
}

int img_rpm_lib_init(struct err *err)
{
	static bool is_ready;

	if (is_ready)
		return 0;
	(void)rpmlogSetCallback(be_silent, NULL);
	if (rpmReadConfigFiles(NULL, NULL) != 0)
		return err_set(err, -EIO, "librpm does not find its configuration");
	is_ready = true;
	return 0;
}

void img_rpm_lib_set_db(const char *dir, const char *backend)
{
	(void)rpmPushMacro(NULL, "_dbpath", NULL, dir, 0);
	(void)rpmPushMacro(NULL, "_db_backend", NULL, backend, 0);
}

void img_rpm_lib_unset_db(void)
{
	(void)rpmPopMacro(NULL, "_dbpath");
	(void)rpmPopMacro(NULL, "_db_backend");
}

/* ---- What is there ---------------------------------------------------------------------------------------- */

struct writer {
	struct img_rpm *const *packages;
	size_t n;
	img_rpmdb_has_file has_file;
	void *arg;
	const struct img_rpmdb_opts *o;
	const char **names; /* sorted: provides that count, paths that are there */
	size_t n_names;
	const struct img_rpm_dep **provides; /* sorted by name */
	size_t n_provides;
	uint32_t time;
};

static bool has(const struct writer *w, const struct img_rpm *p, size_t file)
{
	return !(p->files[file].flags & IMG_RPMFILE_GHOST) && w->has_file(p, file, w->arg);
}

/* Which dependencies still hold: not those that only absent files are the reason for. */
static bool *live_deps(const struct writer *w, const struct img_rpm *p, enum img_rpm_dep_kind kind)
{
	const size_t n = p->n_deps[kind];
	bool *live = malloc(n + 1);
	bool *has_reason = calloc(n + 1, 1);

	for (size_t i = 0; live && i < n; i++)
		live[i] = false;
	for (size_t f = 0; live && has_reason && f < p->n_files; f++) {
		const bool is_there = has(w, p, f);

		for (uint32_t k = 0; k < p->files[f].n_deps; k++) {
			const uint32_t word = p->files[f].deps[k];

			if (word >> 24 != kind)
				continue;
			has_reason[word & 0xffffff] = true;
			live[word & 0xffffff] |= is_there;
		}
	}
	for (size_t i = 0; live && has_reason && i < n; i++)
		live[i] |= !has_reason[i];
	if (!has_reason) {
		free(live);
		live = NULL;
	}
	free(has_reason);
	return live;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_provides(const void *a, const void *b)
{
	const struct img_rpm_dep *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

/* All that can meet a requirement: provides that hold, and paths. */
static int collect(struct writer *w)
{
	size_t cap_names = 1, cap_provides = 1;

	for (size_t i = 0; i < w->n; i++) {
		cap_names += w->packages[i]->n_files;
		cap_provides += w->packages[i]->n_deps[IMG_RPM_PROVIDES];
	}
	w->names = calloc(cap_names, sizeof(*w->names));
	w->provides = calloc(cap_provides, sizeof(*w->provides));
	if (!w->names || !w->provides)
		return -ENOMEM;
	for (size_t i = 0; i < w->n; i++) {
		const struct img_rpm *p = w->packages[i];
		bool *live = live_deps(w, p, IMG_RPM_PROVIDES);

		if (!live)
			return -ENOMEM;
		for (size_t k = 0; k < p->n_deps[IMG_RPM_PROVIDES]; k++) {
			if (live[k])
				w->provides[w->n_provides++] = &p->deps[IMG_RPM_PROVIDES][k];
		}
		free(live);
		for (size_t f = 0; f < p->n_files; f++) {
			if (has(w, p, f))
				w->names[w->n_names++] = p->files[f].path;
		}
	}
	if (w->n_names)
		qsort(w->names, w->n_names, sizeof(*w->names), compare_names);
	if (w->n_provides)
		qsort(w->provides, w->n_provides, sizeof(*w->provides), compare_provides);
	return 0;
}

static bool is_met(const struct writer *w, const struct img_rpm_dep *d)
{
	size_t lo = 0, hi = w->n_provides;

	if (d->name[0] == '/' && w->n_names &&
	    bsearch(&d->name, w->names, w->n_names, sizeof(*w->names), compare_names))
		return true;
	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (strcmp(w->provides[mid]->name, d->name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < w->n_provides && strcmp(w->provides[lo]->name, d->name) == 0; lo++) {
		if (img_rpm_dep_matches(d, w->provides[lo]))
			return true;
	}
	return false;
}

/* ---- Headers ---------------------------------------------------------------------------------------------- */

/* The tags that this file writes itself. */
static bool is_state_of_installation(uint32_t tag)
{
	return tag == RPMTAG_FILESTATES || tag == RPMTAG_INSTALLTIME || tag == RPMTAG_INSTALLTID ||
	       tag == RPMTAG_INSTALLCOLOR;
}

/* How many entries of an installed header are the signed region, and how many bytes of the store: the first entry leads
 * to a copy of itself at the region's end, which says how far back the index began. 0: there is no region. */
static uint32_t region_entries(const struct img_rpm_hdr *h, uint32_t *ret_store)
{
	enum { HEADERIMMUTABLE = 63, BIN = 7, SIZE = 16 };
	const uint32_t at = img_rpm_be32(h->index + 8);
	uint32_t back;

	if (img_rpm_be32(h->index) != HEADERIMMUTABLE || img_rpm_be32(h->index + 4) != BIN ||
	    img_rpm_be32(h->index + 12) != SIZE || at > h->store_size || h->store_size - at < SIZE)
		return 0;
	back = 0 - img_rpm_be32(h->store + at + 8);
	*ret_store = at + SIZE;
	return back % SIZE == 0 && back / SIZE <= h->n_entries ? back / SIZE : 0;
}

/* A copy of one value, whatever its type. */
static int copy_tag(Header from, Header to, rpmTagVal tag)
{
	struct rpmtd_s td;
	int r = 0;

	if (!headerGet(from, tag, &td, HEADERGET_MINMEM | HEADERGET_RAW))
		return 0;
	r = headerPut(to, &td, HEADERPUT_DEFAULT) ? 0 : -ENOMEM;
	rpmtdFreeData(&td);
	return r;
}

/* An installed header as it was in the package file, with what was added since but for what this file writes: librpm
 * does not export a header in which such an entry was changed. */
static int installed_header(const struct img_rpm *p, Header *ret_h, struct err *err)
{
	Header all = headerImport((void *)p->header, (unsigned)p->header_size, HEADERIMPORT_COPY), h = NULL;
	CLEANUP(freep) uint8_t *blob = NULL;
	struct img_rpm_hdr hdr;
	uint32_t n, store = 0;
	int r = img_rpm_hdr_init(&hdr, p->header, p->header_size, p->name, err);

	if (r < 0 || !all) {
		(void)headerFree(all);
		return r < 0 ? r : err_set(err, -EBADMSG, "%s: librpm does not accept its header", p->name);
	}
	n = region_entries(&hdr, &store);
	if (n == 0) {
		h = headerNew();
	} else {
		const uint32_t sizes[2] = { htobe32(n), htobe32(store) };

		blob = malloc(8 + (size_t)n * 16 + store);
		if (blob) {
			memcpy(blob, sizes, 8);
			memcpy(blob + 8, hdr.index, (size_t)n * 16);
			memcpy(blob + 8 + (size_t)n * 16, hdr.store, store);
			h = headerImport(blob, (unsigned)(8 + n * 16 + store), HEADERIMPORT_COPY);
		}
	}
	if (!h)
		r = err_set(err, -EBADMSG, "%s: librpm does not accept the signed part of its header", p->name);
	for (uint32_t i = n; r == 0 && i < hdr.n_entries; i++) {
		const uint32_t tag = img_rpm_be32(hdr.index + (size_t)i * 16);

		if (tag > 63 && !is_state_of_installation(tag) && !headerIsEntry(h, (rpmTagVal)tag))
			r = copy_tag(all, h, (rpmTagVal)tag);
	}
	(void)headerFree(all);
	if (r < 0) {
		(void)headerFree(h);
		return r;
	}
	*ret_h = h;
	return 0;
}

/* The header as an installed package has it: signatures merged in. */
static int whole_header(const struct img_rpm *p, rpmts ts, Header *ret_h, struct err *err)
{
	FD_t fd;
	rpmRC rc;

	if (!p->location)
		return installed_header(p, ret_h, err);
	fd = Fopen(p->location, "r.ufdio");
	if (!fd || Ferror(fd)) {
		(void)Fclose(fd);
		return err_set(err, -EIO, "%s: cannot be opened again", p->location);
	}
	rc = rpmReadPackageFile(ts, fd, p->location, ret_h);
	(void)Fclose(fd);
	/* Signed by a key that is not known here, or not at all: trust was decided before. */
	if (rc != RPMRC_OK && rc != RPMRC_NOKEY && rc != RPMRC_NOTTRUSTED)
		return err_set(err, -EBADMSG, "%s: librpm does not accept it", p->location);
	return 0;
}

static int put_array(Header h, rpmTagVal tag, rpmTagType type, void *data, uint32_t n)
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
	r = values ? put_array(to, tag, td.type, values, (uint32_t)out) : -ENOMEM;
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

static bool is_own(const struct img_rpm *p, const bool *live, const struct img_rpm_dep *d)
{
	for (size_t i = 0; i < p->n_deps[IMG_RPM_PROVIDES]; i++) {
		if (live[i] && img_rpm_dep_matches(d, &p->deps[IMG_RPM_PROVIDES][i]))
			return true;
	}
	return false;
}

static int copy_deps(const struct writer *w, const struct img_rpm *p, Header from, Header to)
{
	static const rpmTagVal provides[] = { RPMTAG_PROVIDENAME, RPMTAG_PROVIDEVERSION, RPMTAG_PROVIDEFLAGS };
	static const rpmTagVal requires[] = { RPMTAG_REQUIRENAME, RPMTAG_REQUIREVERSION, RPMTAG_REQUIREFLAGS };
	const size_t n = p->n_deps[IMG_RPM_REQUIRES];
	bool *live = live_deps(w, p, IMG_RPM_PROVIDES), *needed = live_deps(w, p, IMG_RPM_REQUIRES);
	bool *met = calloc(n + 1, 1);
	int r = live && needed && met ? 0 : -ENOMEM;

	/* What the package needs of itself is always there; what only absent files need is not needed. */
	for (size_t i = 0; r == 0 && i < n; i++)
		met[i] = needed[i] && is_met(w, &p->deps[IMG_RPM_REQUIRES][i]) &&
		         !is_own(p, live, &p->deps[IMG_RPM_REQUIRES][i]);
	for (int k = 0; r == 0 && k < 3; k++)
		r = copy_some(from, to, provides[k], live, p->n_deps[IMG_RPM_PROVIDES]);
	for (int k = 0; r == 0 && k < 3; k++)
		r = copy_some(from, to, requires[k], met, n);
	free(live);
	free(needed);
	free(met);
	return r;
}

/* Base names, folders and the rest of the files that are there. */
static int copy_files(const struct writer *w, const struct img_rpm *p, Header from, Header to)
{
	static const rpmTagVal arrays[] = { RPMTAG_FILESIZES,     RPMTAG_LONGFILESIZES,   RPMTAG_FILEMODES,
		                            RPMTAG_FILERDEVS,     RPMTAG_FILEMTIMES,      RPMTAG_FILEDIGESTS,
		                            RPMTAG_FILELINKTOS,   RPMTAG_FILEFLAGS,       RPMTAG_FILEUSERNAME,
		                            RPMTAG_FILEGROUPNAME, RPMTAG_FILEVERIFYFLAGS, RPMTAG_FILEDEVICES,
		                            RPMTAG_FILEINODES,    RPMTAG_FILELANGS,       RPMTAG_FILECAPS,
		                            RPMTAG_FILECOLORS };
	bool *keep = calloc(p->n_files + 1, 1);
	const char **dirs = calloc(p->n_files + 1, sizeof(*dirs)), **bases = calloc(p->n_files + 1, sizeof(*bases));
	uint32_t *indexes = calloc(p->n_files + 1, sizeof(*indexes));
	char **owned = calloc(p->n_files + 1, sizeof(*owned));
	uint64_t size = 0;
	uint32_t n = 0, n_dirs = 0, u32;
	int r = keep && dirs && bases && indexes && owned ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < p->n_files; i++) {
		const char *path = p->files[i].path, *base = strrchr(path, '/') + 1;
		const size_t len = (size_t)(base - path);

		keep[i] = has(w, p, i);
		if (!keep[i])
			continue;
		/* Files come sorted, so the folder is mostly the last one's. */
		if (!n_dirs || strlen(dirs[n_dirs - 1]) != len || memcmp(dirs[n_dirs - 1], path, len) != 0) {
			uint32_t d = 0;

			while (d < n_dirs && (strlen(dirs[d]) != len || memcmp(dirs[d], path, len) != 0))
				d++;
			if (d == n_dirs) {
				owned[n_dirs] = strndup(path, len);
				dirs[n_dirs] = owned[n_dirs];
				r = dirs[n_dirs++] ? 0 : -ENOMEM;
			}
			indexes[n] = d;
		} else {
			indexes[n] = n_dirs - 1;
		}
		bases[n++] = base;
		size += p->files[i].type == IMG_FILE && (!p->files[i].link_group || p->files[i].link_group == i + 1)
		                ? p->files[i].size
		                : 0;
	}
	for (size_t i = 0; r == 0 && i < sizeof(arrays) / sizeof(arrays[0]); i++)
		r = copy_some(from, to, arrays[i], keep, p->n_files);
	if (r == 0)
		r = put_array(to, RPMTAG_BASENAMES, RPM_STRING_ARRAY_TYPE, bases, n);
	if (r == 0)
		r = put_array(to, RPMTAG_DIRNAMES, RPM_STRING_ARRAY_TYPE, dirs, n_dirs);
	if (r == 0)
		r = put_array(to, RPMTAG_DIRINDEXES, RPM_INT32_TYPE, indexes, n);
	if (r == 0 && n) {
		char *states = calloc(n, 1); /* all 0: normal */

		r = states ? put_array(to, RPMTAG_FILESTATES, RPM_CHAR_TYPE, states, n) : -ENOMEM;
		free(states);
	}
	u32 = (uint32_t)size;
	if (r == 0)
		r = size > UINT32_MAX ? put_array(to, RPMTAG_LONGSIZE, RPM_INT64_TYPE, &size, 1)
		                      : put_array(to, RPMTAG_SIZE, RPM_INT32_TYPE, &u32, 1);
	for (uint32_t d = 0; owned && d < n_dirs; d++)
		free(owned[d]);
	free(owned);
	free(keep);
	free(dirs);
	free(bases);
	free(indexes);
	return r;
}

static int short_header(const struct writer *w, const struct img_rpm *p, Header whole, Header *ret_h)
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
	if (r < 0) {
		(void)headerFree(h);
		return r;
	}
	*ret_h = h;
	return 0;
}

static int mark_states(const struct writer *w, const struct img_rpm *p, Header h)
{
	char *states = calloc(p->n_files + 1, 1);
	int r;

	if (!states)
		return -ENOMEM;
	for (size_t i = 0; i < p->n_files; i++)
		states[i] = p->files[i].flags & IMG_RPMFILE_GHOST || has(w, p, i) ? RPMFILE_STATE_NORMAL
		                                                                  : RPMFILE_STATE_NOTINSTALLED;
	r = put_array(h, RPMTAG_FILESTATES, RPM_CHAR_TYPE, states, (uint32_t)p->n_files);
	free(states);
	return r;
}

static int import_package(const struct writer *w, const struct img_rpm *p, rpmts ts, rpmtxn txn, struct err *err)
{
	uint32_t color = 0, time = w->time;
	Header h, shortened;
	int r = whole_header(p, ts, &h, err);

	if (r < 0)
		return r;
	if (w->o->mode == IMG_RPMDB_SHORT) {
		r = short_header(w, p, h, &shortened);
		if (r == 0) {
			(void)headerFree(h);
			h = shortened;
		}
	} else {
		r = mark_states(w, p, h);
	}
	if (r == 0)
		r = put_array(h, RPMTAG_INSTALLTIME, RPM_INT32_TYPE, &time, 1);
	if (r == 0)
		r = put_array(h, RPMTAG_INSTALLTID, RPM_INT32_TYPE, &time, 1);
	if (r == 0 && w->o->mode == IMG_RPMDB_MARKED)
		r = put_array(h, RPMTAG_INSTALLCOLOR, RPM_INT32_TYPE, &color, 1);
	if (r == 0 && rpmtsImportHeader(txn, h, 0) != RPMRC_OK)
		r = err_set(err, -EIO, "%s: librpm does not take it into the database", p->name);
	(void)headerFree(h);
	return r;
}

/* ---- The file --------------------------------------------------------------------------------------------- */

static int import_all(const struct writer *w, const char *dir, struct err *err)
{
	rpmtxn txn;
	rpmts ts;
	int r = img_rpm_lib_init(err);

	if (r < 0)
		return r;
	img_rpm_lib_set_db(dir, "sqlite");
	ts = rpmtsCreate();
	(void)rpmtsSetVSFlags(ts, RPMVSF_MASK_NOSIGNATURES | RPMVSF_MASK_NODIGESTS);
	if (rpmtsOpenDB(ts, O_RDWR | O_CREAT) != 0)
		r = err_set(err, -EIO, "librpm cannot make a database of the sqlite kind in %s", dir);
	txn = r == 0 ? rpmtxnBegin(ts, RPMTXN_WRITE) : NULL;
	if (r == 0 && !txn)
		r = err_set(err, -EIO, "librpm gives no lock on %s", dir);
	for (size_t i = 0; r == 0 && i < w->n; i++)
		r = import_package(w, w->packages[i], ts, txn, err);
	(void)rpmtxnEnd(txn);
	(void)rpmtsCloseDB(ts);
	(void)rpmtsFree(ts);
	img_rpm_lib_unset_db();
	return r;
}

static int add_to_tree(struct img_tree *t, const char *db_path, const char *file, uint32_t time, struct err *err)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)1 << 32);
	char path[IMG_PATH_MAX];
	struct img_node n = {
		.path = path, .type = IMG_FILE, .mode = 0644, .mtime_s = time, .package = -1, .layer = -1
	};
	int r = base_read_file(file, &buf, err);

	if (r == 0) {
		(void)snprintf(path, sizeof(path), "%s/%s", db_path, "rpmdb.sqlite");
		n.data = buf.data;
		n.size = buf.len;
		r = img_tree_add(t, &n, NULL, err);
	}
	base_buf_done(&buf);
	return r;
}

int img_rpmdb_write(struct img_rpm *const *packages, size_t n, img_rpmdb_has_file has_file, void *arg,
                    const struct img_rpmdb_opts *o, const char *db_path, struct img_tree *t, struct err *err)
{
	struct writer w = { .packages = packages, .n = n, .has_file = has_file, .arg = arg, .o = o };
	char dir[IMG_RPM_TEMP_SIZE] = "", from[IMG_RPM_TEMP_SIZE + 16], to[IMG_RPM_TEMP_SIZE + 16];
	int64_t time = o->install_time;
	int r;

	for (size_t i = 0; o->install_time < 0 && i < n; i++)
		time = (int64_t)packages[i]->build_time > time ? (int64_t)packages[i]->build_time : time;
	w.time = time < 0 ? 0 : time > UINT32_MAX ? UINT32_MAX : (uint32_t)time;
	r = collect(&w);
	if (r == 0)
		r = img_rpm_temp_new(dir, err);
	if (r == 0)
		r = import_all(&w, dir, err);
	(void)snprintf(from, sizeof(from), "%s/rpmdb.sqlite", dir);
	(void)snprintf(to, sizeof(to), "%s/squeezed", dir);
	if (r == 0)
		r = o->mode == IMG_RPMDB_SHORT ? img_rpmdb_rebuild_short(from, to, err)
		                               : img_rpmdb_vacuum(from, to, err);
	if (r == 0)
		r = add_to_tree(t, db_path, to, w.time, err);
	img_rpm_temp_remove(dir);
	free(w.names);
	free(w.provides);
	return r == -ENOMEM ? err_set(err, r, "out of memory for the package database") : r;
}
