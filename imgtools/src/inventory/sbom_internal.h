/* What both bills of materials are made from: digests of the files, dependencies between packages, texts. */
#ifndef IMG_SBOM_INTERNAL_H
#define IMG_SBOM_INTERNAL_H

#include <jansson.h>

#include "inventory/inventory.h"

struct img_sbom_file {
	const struct img_node *node;
	char sha1[41], sha256[65];
};

struct img_sbom_package {
	const struct img_rpm *rpm;
	char *version; /* "[epoch:]version-release" */
	char *purl;
	char *id;      /* "name-version-arch", letters of SPDX identifiers only, unique */
	size_t *needs; /* packages, by index, in order */
	size_t n_needs;
	size_t n_files, n_present;
};

struct img_sbom {
	const struct img_subject *subject;
	const struct img_sbom_opts *opts;
	struct img_sbom_file *files; /* by path */
	size_t n_files;
	struct img_sbom_package *packages; /* by name */
	size_t n_packages;
	char created[32];
	char *name;      /* of the image or root, without where it lies */
	char *version;   /* of an image: digest of its manifest; else NULL */
	char digest[65]; /* of all that is in it: for identifiers */
	struct err *err;
};

json_t *img_sbom_spdx(const struct img_sbom *b);      /* NULL: out of memory */
json_t *img_sbom_cyclonedx(const struct img_sbom *b); /* the same */

/* Whether a licence tag is an SPDX licence expression of identifiers that we know. */
bool img_sbom_is_expression(const char *text);
json_t *img_sbom_text(const char *text, size_t max); /* any bytes as a JSON string */

#endif
