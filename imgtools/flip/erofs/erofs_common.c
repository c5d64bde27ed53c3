/* Small parts of the format that writer and reader share: checksum, names of attributes, their hash. */
#include <string.h>

#include "erofs/erofs_internal.h"

/* CRC-32C (Castagnoli) bit by bit, reflected: 3 KiB for each image, not worth a table. */
static uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t len)
{
	for (; len; len--, p++) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}

uint32_t flip_erofs_checksum(const uint8_t *block)
{
	static const uint8_t zero[4];
	const uint8_t *p = block + EROFS_SUPER_AT, *end = block + EROFS_BLOCK;
	uint32_t crc = crc32c(~0u, p, 4); /* the magic; the checksum is behind it */

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, p + 8, (size_t)(end - p) - 8);
}

/* ---- Attributes ------------------------------------------------------------------------------------------- */

static const struct {
	const char *prefix;
	uint8_t index;
	bool is_whole; /* the name, not the beginning of one */
} kinds[] = {
	{ "user.", EROFS_XATTR_USER, false },
	{ "trusted.", EROFS_XATTR_TRUSTED, false },
	{ "security.", EROFS_XATTR_SECURITY, false },
	{ "system.posix_acl_access", EROFS_XATTR_ACL_ACCESS, true },
	{ "system.posix_acl_default", EROFS_XATTR_ACL_DEFAULT, true },
};
enum { N_KINDS = sizeof(kinds) / sizeof(*kinds) };

uint8_t flip_erofs_xattr_split(const char *name, const char **ret_rest)
{
	for (size_t i = 0; i < N_KINDS; i++) {
		size_t len = strlen(kinds[i].prefix);

		if (strncmp(name, kinds[i].prefix, len) != 0 || (name[len] == '\0') != kinds[i].is_whole)
			continue;
		*ret_rest = name + len;
		return kinds[i].index;
	}
	return 0;
}

const char *flip_erofs_xattr_prefix(uint8_t index)
{
	for (size_t i = 0; i < N_KINDS; i++) {
		if (kinds[i].index == index)
			return kinds[i].prefix;
	}
	return NULL;
}

/* XXH32 (Collet's specification 0.1.1), for names, which are short: a name of 16 bytes or more takes the four lanes. */
enum { LANE_STRIPE = 16 };
static const uint32_t prime1 = 0x9e3779b1u, prime2 = 0x85ebca77u, prime3 = 0xc2b2ae3du, prime4 = 0x27d4eb2fu,
                      prime5 = 0x165667b1u;

static uint32_t rotate(uint32_t v, unsigned n)
{
	return v << n | v >> (32 - n);
}

static uint32_t load32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t xxh32(const uint8_t *p, size_t len, uint32_t seed)
{
	const uint8_t *end = p + len;
	uint32_t h = seed + prime5;

	if (len >= LANE_STRIPE) {
		uint32_t lane[4] = { seed + prime1 + prime2, seed + prime2, seed, seed - prime1 };

		for (; end - p >= LANE_STRIPE; p += LANE_STRIPE) {
			for (size_t i = 0; i < 4; i++)
				lane[i] = rotate(lane[i] + load32(p + 4 * i) * prime2, 13) * prime1;
		}
		h = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
	}
	h += (uint32_t)len;
	for (; end - p >= 4; p += 4)
		h = rotate(h + load32(p) * prime3, 17) * prime4;
	for (; p < end; p++)
		h = rotate(h + *p * prime5, 11) * prime1;
	h = (h ^ h >> 15) * prime2;
	h = (h ^ h >> 13) * prime3;
	return h ^ h >> 16;
}

unsigned flip_erofs_xattr_bit(uint8_t index, const char *rest, size_t len)
{
	return xxh32((const uint8_t *)rest, len, 0x25bbe08fu + index) & 31;
}
