/* RPM headers from bytes.
 *
 * A header is a small database: 8 bytes of sizes, an index of fixed entries, a store of values (rpm's own
 * docs/manual/format_header.md; integers are big-endian):
 *
 *   0   4  number of index entries      4   4  bytes of the store
 *   8  16  each entry: tag, type, offset into the store, count of values
 *   .   .  the store
 *
 * In a package file 8 bytes of magic stand before it; in a package database nothing does. Tags 62 and 63 mark a region
 * (the part that was signed); what a database adds (states of files, time of installation) stands behind it as entries
 * of their own, so of two entries with one tag the last counts.
 */
#include "rpm_internal.h"

#include <errno.h>
#include <string.h>

enum { MAX_ENTRIES = 1u << 16, ENTRY_SIZE = 16, INTRO_SIZE = 8 };

static struct img_rpm_entry entry_at(const struct img_rpm_hdr *h, uint32_t i)
{
	const uint8_t *b = h->index + (size_t)i * ENTRY_SIZE;

	return (struct img_rpm_entry){ img_rpm_be32(b), img_rpm_be32(b + 4), img_rpm_be32(b + 8),
		                       img_rpm_be32(b + 12) };
}

size_t img_rpm_hdr_size(const uint8_t intro[8])
{
	const uint32_t n = img_rpm_be32(intro), store = img_rpm_be32(intro + 4);

	if (n == 0 || n > MAX_ENTRIES || store > IMG_RPM_MAX_HEADER)
		return 0;
	return INTRO_SIZE + (size_t)n * ENTRY_SIZE + store;
}

/* Do the values of an entry lie in the store? Strings need their NUL there. *ret_bytes: what they take. */
static bool entry_fits(const struct img_rpm_hdr *h, const struct img_rpm_entry *e, uint64_t *ret_bytes)
{
	static const uint8_t sizes[] = { 0, 1, 1, 2, 4, 8, 0, 1, 0, 0 };
	const uint8_t *p;
	uint64_t left;

	if (e->type < TYPE_CHAR || e->type > TYPE_I18N || e->count == 0 || e->offset > h->store_size)
		return false;
	left = h->store_size - e->offset;
	*ret_bytes = (uint64_t)e->count * sizes[e->type];
	if (sizes[e->type])
		return *ret_bytes <= left;
	if (e->type == TYPE_STRING && e->count != 1)
		return false;
	p = h->store + e->offset;
	for (uint32_t i = 0; i < e->count; i++) {
		const uint8_t *end = left ? memchr(p, 0, left) : NULL;

		if (!end)
			return false;
		*ret_bytes += (uint64_t)(end + 1 - p);
		left -= (uint64_t)(end + 1 - p);
		p = end + 1;
	}
	return true;
}

int img_rpm_hdr_init(struct img_rpm_hdr *h, const uint8_t *data, size_t size, const char *name, struct err *err)
{
	uint64_t checked = 0;

	if (size < INTRO_SIZE || img_rpm_hdr_size(data) == 0)
		return err_set(err, -EBADMSG, "%s: not an RPM header", name);
	if (img_rpm_hdr_size(data) > size)
		return err_set(err, -EBADMSG, "%s: header is cut short (%zu of %zu bytes)", name, size,
		               img_rpm_hdr_size(data));
	h->n_entries = img_rpm_be32(data);
	h->store_size = img_rpm_be32(data + 4);
	h->index = data + INTRO_SIZE;
	h->store = h->index + (size_t)h->n_entries * ENTRY_SIZE;

	for (uint32_t i = 0; i < h->n_entries; i++) {
		const struct img_rpm_entry e = entry_at(h, i);
		uint64_t bytes = 0;

		/* Entries may overlap; looking through one store again and again is what the bound forbids. */
		if (checked > (uint64_t)h->store_size * 4 || !entry_fits(h, &e, &bytes))
			return err_set(err, -EBADMSG,
			               "%s: header entry %u (tag %u, type %u): its values are not in the store", name,
			               i, e.tag, e.type);
		checked += bytes;
	}
	return 0;
}

bool img_rpm_hdr_find(const struct img_rpm_hdr *h, uint32_t tag, struct img_rpm_entry *ret_entry)
{
	for (uint32_t i = h->n_entries; i-- > 0;) {
		const struct img_rpm_entry e = entry_at(h, i);

		if (e.tag == tag) {
			*ret_entry = e;
			return true;
		}
	}
	return false;
}

bool img_rpm_hdr_has(const struct img_rpm_hdr *h, uint32_t tag)
{
	struct img_rpm_entry e;

	return img_rpm_hdr_find(h, tag, &e);
}

const char *img_rpm_hdr_string(const struct img_rpm_hdr *h, uint32_t tag)
{
	struct img_rpm_entry e;

	if (!img_rpm_hdr_find(h, tag, &e) || (e.type != TYPE_STRING && e.type != TYPE_STRINGS && e.type != TYPE_I18N))
		return NULL;
	return (const char *)h->store + e.offset;
}

/* Value i of an entry of integers. */
uint64_t img_rpm_hdr_integer(const struct img_rpm_hdr *h, const struct img_rpm_entry *e, uint32_t i)
{
	static const uint8_t sizes[] = { 0, 1, 1, 2, 4, 8 };
	const uint8_t *b = h->store + e->offset + (size_t)i * sizes[e->type];
	uint64_t v = 0;

	for (unsigned k = 0; k < sizes[e->type]; k++)
		v = v << 8 | b[k];
	return v;
}

uint64_t img_rpm_hdr_number(const struct img_rpm_hdr *h, uint32_t tag)
{
	struct img_rpm_entry e;

	return img_rpm_hdr_find(h, tag, &e) && e.type <= TYPE_INT64 ? img_rpm_hdr_integer(h, &e, 0) : 0;
}

/* An array with one value per file (or dependency): absent is fine and leaves *ret_entry with count 0. */
int img_rpm_hdr_array(const struct img_rpm_hdr *h, uint32_t tag, bool strings, size_t n,
                      struct img_rpm_entry *ret_entry, const char *what, struct err *err)
{
	struct img_rpm_entry e;

	memset(ret_entry, 0, sizeof(*ret_entry));
	if (!img_rpm_hdr_find(h, tag, &e))
		return 0;
	if (strings ? e.type != TYPE_STRINGS : e.type > TYPE_INT64)
		return err_set(err, -EBADMSG, "%s: type %u is not the one it should have", what, e.type);
	if (e.count != n)
		return err_set(err, -EBADMSG, "%s: %u values for %zu entries", what, e.count, n);
	*ret_entry = e;
	return 0;
}
