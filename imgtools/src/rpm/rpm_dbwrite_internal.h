/* Between the files that write a package database: what is there (rpm_dbwrite.c), headers as they were signed
 * (rpm_dbsigned.c), headers of our own (rpm_dbheader.c), what these leave out (rpm_dbabsent.c). */
#ifndef IMG_RPM_DBWRITE_INTERNAL_H
#define IMG_RPM_DBWRITE_INTERNAL_H

#include <rpm/header.h>
#include <rpm/rpmfiles.h>
#include <rpm/rpmts.h>

#include "rpm_internal.h"

struct img_rpmdb_writer {
	struct img_rpm *const *packages;
	size_t n;
	img_rpmdb_has_file has_file;
	void *arg;
	const struct img_rpmdb_opts *o;
	const char **names; /* sorted: paths that are there */
	size_t n_names;
	const struct img_rpm_dep **provides; /* sorted by name: those that hold */
	size_t n_provides;
	uint32_t time;
};

/* Is this file there, and this package's? Not %ghost, and not what another package replaced. */
bool img_rpmdb_has(const struct img_rpmdb_writer *w, const struct img_rpm *p, size_t file);
/* The state that the database tells of a file. */
rpmfileState img_rpmdb_state(const struct img_rpmdb_writer *w, const struct img_rpm *p, size_t file);
/* Which dependencies still hold: not those that only absent files are the reason for. To be freed; NULL: no memory. */
bool *img_rpmdb_live_deps(const struct img_rpmdb_writer *w, const struct img_rpm *p, enum img_rpm_dep_kind kind);
/* Does anything in the database meet this requirement? */
bool img_rpmdb_is_met(const struct img_rpmdb_writer *w, const struct img_rpm_dep *d);

/* The header as an installed package has it: signatures merged in, nothing of an earlier installation. */
int img_rpmdb_signed_header(const struct img_rpm *p, rpmts ts, Header *ret_h, struct err *err);
/* A header without a signed region, made of the tags of the signed one: IMG_RPMDB_MARKED and IMG_RPMDB_SHORT. */
int img_rpmdb_own_header(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header whole, Header *ret_h);
/* Adds a description that tells which files are not there; nothing when all are. */
int img_rpmdb_put_absent(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header h);
/* Adds the states of all files, by the order of the header. */
int img_rpmdb_put_states(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header h);
/* Adds an array; nothing when it is empty. */
int img_rpmdb_put_array(Header h, rpmTagVal tag, rpmTagType type, void *data, uint32_t n);

#endif
