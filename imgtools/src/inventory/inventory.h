/* What is in an image or a root: its files with the packages they belong to, what differs between two of them, and
 * bills of materials. Everything comes out in one order, so that the same image gives the same bytes. */
#ifndef IMG_INVENTORY_H
#define IMG_INVENTORY_H

#include "base/buf.h"
#include "base/err.h"
#include "oci/oci.h"
#include "rpm/rpm.h"
#include "tree/tree.h"

/* ---- Subjects --------------------------------------------------------------------------------------------------- */

struct img_subject {
	char *name;                   /* as it was asked for */
	struct img_tree *tree;        /* node->package: index into packages, -1 for none */
	struct img_image *image;      /* NULL: a root */
	struct img_rpm_set *packages; /* NULL: it has no package database */
	size_t *n_present;            /* by package: files that are there, of those that are not directories */
	size_t *n_files;              /* by package: files that it has, the same way */
};

/* An image by its name, or a folder that holds a root. A package database that cannot be read is an error; none is
 * fine. (librpm: one thread at a time) */
int img_subject_open(const char *name, const struct img_open_opts *o, struct img_subject *ret_subject, struct err *err);
void img_subject_close(struct img_subject *s);

/* What a file is for, as far as its path tells. */
enum img_category {
	IMG_CAT_PROGRAM,
	IMG_CAT_LIBRARY,
	IMG_CAT_PYTHON,
	IMG_CAT_CONFIG,
	IMG_CAT_LOCALE,
	IMG_CAT_TIMEZONE,
	IMG_CAT_CERTIFICATE,
	IMG_CAT_DOCUMENT,
	IMG_CAT_LICENCE,
	IMG_CAT_DEVELOPMENT,
	IMG_CAT_DATABASE, /* of packages */
	IMG_CAT_LINK,
	IMG_CAT_DIRECTORY,
	IMG_CAT_OTHER,
	IMG_N_CATEGORIES
};
enum img_category img_category_of(const struct img_node *n);
const char *img_category_name(enum img_category c);

/* ---- Differences ------------------------------------------------------------------------------------------------- */

enum img_change {
	IMG_CHANGE_TYPE = 1u << 0,
	IMG_CHANGE_CONTENT = 1u << 1, /* of files; targets of links; numbers of devices */
	IMG_CHANGE_MODE = 1u << 2,
	IMG_CHANGE_OWNER = 1u << 3,
	IMG_CHANGE_XATTRS = 1u << 4,
	IMG_CHANGE_TIME = 1u << 5,
};

struct img_difference {
	const struct img_node *a, *b; /* NULL: not there */
	unsigned changes;             /* of what is in both */
	uint64_t a_bytes, b_bytes;    /* of a file with several names: at the first of them only */
};

struct img_diff {
	struct img_difference *list; /* by path */
	size_t n;
	uint64_t n_same;
	uint64_t a_bytes, b_bytes; /* of all files */
};

/* Compares two trees, bytes included. The nodes are borrowed. */
struct img_diff_opts {
	bool with_times;
	int (*is_canceled)(void *arg); /* asked often; non-zero ends it with -ECANCELED; NULL: never */
	void *is_canceled_arg;
};
int img_diff_make(struct img_tree *a, struct img_tree *b, const struct img_diff_opts *o, struct img_diff *ret_diff,
                  struct err *err);
void img_diff_done(struct img_diff *d);

/* ---- Bills of materials ---- */

enum img_sbom_format { IMG_SBOM_SPDX, IMG_SBOM_CYCLONEDX };

struct img_sbom_opts {
	enum img_sbom_format format;
	int64_t epoch;                 /* when it was made; -1: when the image was, or its newest package */
	bool without_files;            /* packages only */
	bool is_pretty;                /* indented */
	int (*is_canceled)(void *arg); /* asked often, from any thread; non-zero ends it with -ECANCELED; NULL: never */
	void *is_canceled_arg;
};

/* SPDX 2.3 or CycloneDX 1.5 as JSON. */
int img_sbom_append(const struct img_subject *s, const struct img_sbom_opts *o, struct base_buf *buf, struct err *err);

#endif
