/* Any bytes as the map of a partial object. What is accepted fits its own numbers, and its bits are read as they lie
 * there: the live ones in the same run of the machine, the durable ones in another, which then have become the live
 * ones. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/store_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_bits(const uint64_t *words, const uint8_t *disk, uint64_t n_blocks)
{
	uint64_t first = 0, n, found = 0, tidy;
	uint64_t *copy = malloc((size_t)map_bits_size(n_blocks));

	memcpy(copy, words, (size_t)map_bits_size(n_blocks));
	if (memcmp(copy, disk, (size_t)map_bits_size(n_blocks)) != 0) /* little-endian here */
		abort();
	tidy = flip_map_tidy(copy, n_blocks);
	if (tidy > n_blocks)
		abort();
	while (flip_map_missing((const _Atomic uint64_t *)copy, n_blocks, first, &first, &n)) {
		if (n == 0 || first + n > n_blocks || flip_map_has((const _Atomic uint64_t *)copy, first, 1))
			abort();
		found += n;
		first += n;
	}
	if (found + tidy != n_blocks)
		abort();
	free(copy);
}

static void load(int fd, const struct map_head *h, const uint8_t *boot, const uint8_t *disk)
{
	uint64_t *words = NULL;
	int r = flip_map_load(fd, h->digest, h->size, boot, false, &words, NULL);

	if (r == 0)
		check_bits(words, disk, h->n_blocks);
	else if (r != -EFBIG)
		abort(); /* the header was accepted */
	free(words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t other_boot[STORE_BOOT_SIZE], again[MAP_HEADER_SIZE];
	uint64_t *words = NULL;
	struct map_head h, back;
	int fd = memfd_create("map", MFD_CLOEXEC);

	if (fd < 0 || flip_store_write_at(fd, data, size, 0) < 0)
		abort();
	if (flip_map_parse(data, size, size, &h, NULL) < 0) {
		memset(&h, 0, sizeof(h));
		if (flip_map_load(fd, h.digest, 4096, h.boot, true, &words, NULL) == 0)
			abort();
		(void)close(fd);
		return 0;
	}
	flip_map_format(&h, again);
	if (flip_map_parse(again, sizeof(again), size, &back, NULL) < 0 || back.size != h.size ||
	    back.n_blocks != h.n_blocks)
		abort();
	load(fd, &h, h.boot, data + map_live_offset());
	memcpy(other_boot, h.boot, sizeof(other_boot));
	other_boot[0] ^= 1;
	load(fd, &h, other_boot, data + map_durable_offset(h.n_blocks));
	load(fd, &h, other_boot, data + map_durable_offset(h.n_blocks)); /* live now */
	(void)close(fd);
	return 0;
}
