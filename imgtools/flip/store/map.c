/* The map beside a partial object: which 4 KiB blocks are there. Header and two bitmaps, docs/formats/node-store.md.
 *
 * The live bits are written after the bytes that they speak of, so a killed process leaves nothing wrong. The kernel
 * may carry them to the disk before the bytes, though: after the machine went down they say nothing. The durable bits
 * are a copy that was taken before a sync and written after it: they are true at any time, and only they are believed
 * when the machine's run (its boot id) is another than that in the header. Bits only ever go from 0 to 1, so that any
 * mixture of old and new sectors is true as well. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "store/store_internal.h"

/*  offset size
 *   0     8   "FLIPMAP1"
 *   8     4   block size, 4096
 *  12     4   0
 *  16     8   size of the object
 *  24     8   number of blocks
 *  32    32   digest of the object
 *  64    16   boot id in which the live bits are true
 *  80    48   0
 * all numbers little-endian */
struct map_disk {
	uint8_t magic[8];
	uint32_t block_size, zero;
	uint64_t size, n_blocks;
	uint8_t digest[32];
	uint8_t boot[16];
	uint8_t reserved[48];
};
_Static_assert(sizeof(struct map_disk) == MAP_HEADER_SIZE, "the map's header");

static const uint8_t map_magic[8] = { 'F', 'L', 'I', 'P', 'M', 'A', 'P', '1' };

void flip_map_format(const struct map_head *h, uint8_t out[MAP_HEADER_SIZE])
{
	struct map_disk d = { .block_size = htole32(FLIP_STORE_BLOCK),
		              .size = htole64(h->size),
		              .n_blocks = htole64(h->n_blocks) };

	memcpy(d.magic, map_magic, sizeof(map_magic));
	memcpy(d.digest, h->digest, sizeof(d.digest));
	memcpy(d.boot, h->boot, sizeof(d.boot));
	memcpy(out, &d, sizeof(d));
}

int flip_map_parse(const uint8_t *data, size_t size, uint64_t file_size, struct map_head *ret_head, struct err *err)
{
	struct map_head h;
	struct map_disk d;

	if (size < sizeof(d))
		return err_set(err, -EBADMSG, "shorter than a header");
	memcpy(&d, data, sizeof(d));
	if (memcmp(d.magic, map_magic, sizeof(map_magic)) != 0)
		return err_set(err, -EBADMSG, "not a map");
	if (le32toh(d.block_size) != FLIP_STORE_BLOCK || d.zero != 0)
		return err_set(err, -EBADMSG, "blocks of %u bytes", le32toh(d.block_size));
	h.size = le64toh(d.size);
	h.n_blocks = le64toh(d.n_blocks);
	if (h.size == 0 || h.size > INT64_MAX || h.n_blocks != map_n_blocks(h.size))
		return err_set(err, -EBADMSG, "%llu blocks for %llu bytes", (unsigned long long)h.n_blocks,
		               (unsigned long long)h.size);
	if (file_size != MAP_HEADER_SIZE + 2 * map_bits_size(h.n_blocks))
		return err_set(err, -EBADMSG, "a file of %llu bytes", (unsigned long long)file_size);
	memcpy(h.digest, d.digest, sizeof(h.digest));
	memcpy(h.boot, d.boot, sizeof(h.boot));
	*ret_head = h;
	return 0;
}

uint64_t flip_map_tidy(uint64_t *words, uint64_t n_blocks)
{
	uint64_t n_words = map_bits_size(n_blocks) / 8, n = 0;

	if (n_blocks % 64 != 0)
		words[n_words - 1] &= (UINT64_C(1) << n_blocks % 64) - 1;
	for (uint64_t i = 0; i < n_words; i++)
		n += (uint64_t)__builtin_popcountll(words[i]);
	return n;
}

int flip_map_load(int fd, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size, const uint8_t boot[STORE_BOOT_SIZE],
                  bool read_only, uint64_t **ret_words, struct err *err)
{
	CLEANUP(freep) uint64_t *words = NULL;
	uint8_t header[MAP_HEADER_SIZE];
	struct map_head h;
	struct stat st;
	size_t n_bytes;
	bool is_live;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	if (st.st_size < MAP_HEADER_SIZE)
		return err_set(err, -EBADMSG, "shorter than a header");
	r = flip_store_read_at(fd, header, sizeof(header), 0);
	if (r == 0)
		r = flip_map_parse(header, sizeof(header), (uint64_t)st.st_size, &h, err);
	if (r < 0)
		return err_prefix(err, r, "its map: ");
	if (h.size != size || memcmp(h.digest, digest, FLIP_DIGEST_SIZE) != 0)
		return err_set(err, -EBADMSG, "its map is that of another object");

	/* The file is as long as its bitmaps, but for a sparse one that says little about memory. */
	if (h.size > STORE_MAX_OBJECT)
		return err_set(err, -EFBIG, "its map is too large");
	n_bytes = (size_t)map_bits_size(h.n_blocks);
	words = malloc(n_bytes);
	if (!words)
		return err_set(err, -ENOMEM, "out of memory");
	is_live = memcmp(h.boot, boot, STORE_BOOT_SIZE) == 0;
	r = flip_store_read_at(fd, words, n_bytes, is_live ? map_live_offset() : map_durable_offset(h.n_blocks));
	if (r == 0 && !is_live && !read_only) {
		/* First the bits, then the word that they are to be believed. */
		memcpy(h.boot, boot, STORE_BOOT_SIZE);
		flip_map_format(&h, header);
		r = flip_store_write_at(fd, words, n_bytes, map_live_offset());
		if (r == 0)
			r = flip_store_write_at(fd, header, sizeof(header), 0);
	}
	if (r < 0)
		return err_set(err, r, "its map: %s", strerror(-r));
	for (size_t i = 0; i < n_bytes / 8; i++)
		words[i] = le64toh(words[i]);
	*ret_words = words;
	words = NULL;
	return 0;
}

bool flip_map_missing(const _Atomic uint64_t *words, uint64_t n_blocks, uint64_t block, uint64_t *ret_first,
                      uint64_t *ret_n)
{
	uint64_t first, end;

	for (first = block; first < n_blocks;) {
		uint64_t clear = ~atomic_load_explicit(&words[first / 64], memory_order_acquire) >> first % 64;

		if (clear) {
			first += (uint64_t)__builtin_ctzll(clear);
			break;
		}
		first = (first / 64 + 1) * 64;
	}
	if (first >= n_blocks)
		return false;
	for (end = first; end < n_blocks;) {
		uint64_t set = atomic_load_explicit(&words[end / 64], memory_order_acquire) >> end % 64;

		if (set) {
			end += (uint64_t)__builtin_ctzll(set);
			break;
		}
		end = (end / 64 + 1) * 64;
	}
	*ret_first = first;
	*ret_n = (end < n_blocks ? end : n_blocks) - first;
	return true;
}

bool flip_map_has(const _Atomic uint64_t *words, uint64_t first, uint64_t n)
{
	uint64_t missing, n_missing;

	return n == 0 || !flip_map_missing(words, first + n, first, &missing, &n_missing);
}
