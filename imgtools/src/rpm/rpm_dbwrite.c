/* The package database of a root that holds only some files of its packages.
 *
 * What was found by trying (rpm 4.18; see docs/formats/slices.md):
 * - `rpm -V` passes over files whose state is 2, "not installed" (what --excludedocs leaves behind); they are no longer
 *   owners of their path (`rpm -qf`), nor do they meet requirements. A header with changed states is still the signed
 *   one: states stand outside the region that is signed.
 * - `rpm -V` also checks that requirements are met, so a database with whole headers of half the packages is never
 *   clean, and it checks times, which a signed header cannot be told. Hence headers of our own (rpm_dbheader.c).
 * - rpm needs every table of rpmdb.sqlite, but no index of them, and any page size: a small database is four fifths
 *   empty pages, which a copy with pages of 512 bytes squeezes out.
 * - The same headers imported in the same order give the same tables. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rpm/header.h>
#include <rpm/rpmlib.h>
#include <rpm/rpmlog.h>
#include <rpm/rpmmacro.h>
#include <rpm/rpmts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "rpm_dbwrite_internal.h"

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

bool img_rpmdb_has(const struct img_rpmdb_writer *w, const struct img_rpm *p, size_t file)
{
	const struct img_rpm_file *f = &p->files[file];

	return !(f->flags & IMG_RPMFILE_GHOST) && img_rpm_file_is_installed(f) && w->has_file(p, file, w->arg);
}

bool *img_rpmdb_live_deps(const struct img_rpmdb_writer *w, const struct img_rpm *p, enum img_rpm_dep_kind kind)
{
	const size_t n = p->n_deps[kind];
	bool *live = malloc(n + 1);
	bool *has_reason = calloc(n + 1, 1);

	for (size_t i = 0; live && i < n; i++)
		live[i] = false;
	for (size_t f = 0; live && has_reason && f < p->n_files; f++) {
		const bool is_there = img_rpmdb_has(w, p, f);

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
static int collect(struct img_rpmdb_writer *w)
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
		bool *live = img_rpmdb_live_deps(w, p, IMG_RPM_PROVIDES);

		if (!live)
			return -ENOMEM;
		for (size_t k = 0; k < p->n_deps[IMG_RPM_PROVIDES]; k++) {
			if (live[k])
				w->provides[w->n_provides++] = &p->deps[IMG_RPM_PROVIDES][k];
		}
		free(live);
		for (size_t f = 0; f < p->n_files; f++) {
			if (img_rpmdb_has(w, p, f))
				w->names[w->n_names++] = p->files[f].path;
		}
	}
	if (w->n_names)
		qsort(w->names, w->n_names, sizeof(*w->names), compare_names);
	if (w->n_provides)
		qsort(w->provides, w->n_provides, sizeof(*w->provides), compare_provides);
	return 0;
}

bool img_rpmdb_is_met(const struct img_rpmdb_writer *w, const struct img_rpm_dep *d)
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

/* ---- The files -------------------------------------------------------------------------------------------- */

static int import_package(const struct img_rpmdb_writer *w, const struct img_rpm *p, rpmts ts, rpmtxn txn,
                          struct err *err)
{
	const bool is_signed = w->o->mode == IMG_RPMDB_SIGNED;
	uint32_t color = 0, time = w->time;
	Header h, own;
	int r = img_rpmdb_signed_header(p, ts, &h, err);

	if (r < 0)
		return r;
	if (is_signed) {
		r = img_rpmdb_put_states(w, p, h);
	} else {
		r = img_rpmdb_own_header(w, p, h, &own);
		if (r == 0) {
			(void)headerFree(h);
			h = own;
		}
	}
	if (r == 0)
		r = img_rpmdb_put_array(h, RPMTAG_INSTALLTIME, RPM_INT32_TYPE, &time, 1);
	if (r == 0)
		r = img_rpmdb_put_array(h, RPMTAG_INSTALLTID, RPM_INT32_TYPE, &time, 1);
	if (r == 0 && is_signed)
		r = img_rpmdb_put_array(h, RPMTAG_INSTALLCOLOR, RPM_INT32_TYPE, &color, 1);
	if (r == 0 && rpmtsImportHeader(txn, h, 0) != RPMRC_OK)
		r = err_set(err, -EIO, "%s: librpm does not take it into the database", p->name);
	(void)headerFree(h);
	return r;
}

static int import_all(const struct img_rpmdb_writer *w, const char *dir, struct err *err)
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

/* The files by their rows in the indexes: nobody owns the path of one that is not there. */
static int list_files(const struct img_rpmdb_writer *w, struct img_rpmdb_rows *rows)
{
	size_t max = 1;

	for (size_t i = 0; i < w->n; i++)
		max += w->packages[i]->n_files;
	rows->v = calloc(max, sizeof(*rows->v));
	if (!rows->v)
		return -ENOMEM;
	for (uint32_t i = 0; w->o->mode == IMG_RPMDB_MARKED && i < w->n; i++) {
		for (uint32_t f = 0; f < w->packages[i]->n_files; f++)
			rows->v[rows->n++] = (struct img_rpmdb_row){ i + 1, f, w->packages[i]->files[f].path,
				                                     img_rpmdb_has(w, w->packages[i], f) };
	}
	return 0;
}

static int add_database(const struct img_rpmdb_writer *w, const char *dir, const char *db_path, struct img_tree *t,
                        struct err *err)
{
	char from[IMG_RPM_TEMP_SIZE + 16], to[IMG_RPM_TEMP_SIZE + 16];
	struct img_rpmdb_rows files = { 0 };
	int r = list_files(w, &files);

	(void)snprintf(from, sizeof(from), "%s/rpmdb.sqlite", dir);
	(void)snprintf(to, sizeof(to), "%s/squeezed", dir);
	if (r == 0)
		r = w->o->mode == IMG_RPMDB_SIGNED ? img_rpmdb_vacuum(from, to, err)
		                                   : img_rpmdb_rebuild_small(from, to, &files, err);
	if (r == 0)
		r = add_to_tree(t, db_path, to, w->time, err);
	free(files.v);
	return r;
}

int img_rpmdb_write(struct img_rpm *const *packages, size_t n, img_rpmdb_has_file has_file, void *arg,
                    const struct img_rpmdb_opts *o, const char *db_path, struct img_tree *t, struct err *err)
{
	struct img_rpmdb_writer w = { .packages = packages, .n = n, .has_file = has_file, .arg = arg, .o = o };
	char dir[IMG_RPM_TEMP_SIZE] = "";
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
	if (r == 0)
		r = add_database(&w, dir, db_path, t, err);
	img_rpm_temp_remove(dir);
	free(w.names);
	free(w.provides);
	return r == -ENOMEM ? err_set(err, r, "out of memory for the package database") : r;
}
