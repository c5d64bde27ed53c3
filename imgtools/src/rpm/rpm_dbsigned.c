/* Headers for a package database as they were signed: of a package file by librpm, of an installed package from what an
 * earlier database holds, without what that installation added. */
#include <endian.h>
#include <errno.h>
#include <rpm/rpmlib.h>
#include <rpm/rpmtd.h>
#include <rpm/rpmts.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "rpm_dbwrite_internal.h"

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
int img_rpmdb_signed_header(const struct img_rpm *p, rpmts ts, Header *ret_h, struct err *err)
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
