/* SentencePiece's precompiled character map (sentencepiece builder.cc; "Precompiled" in tokenizer.json).
 *
 *   offset 0   u32 LE   size of the trie in bytes, a multiple of 4
 *   offset 4   u32 LE[] the trie, a darts-clone double array
 *   then                replacement texts, each ended by NUL; the trie's values are offsets into them
 *
 * A unit of the double array: bits 0..7 label (bit 31 set on units that hold a value), bit 8 "has a leaf",
 * bits 10..30 the offset, shifted left by 8 when bit 9 is set. Every step is checked against the array's size.
 *
 * The text is taken by grapheme clusters: a cluster shorter than 6 bytes is looked up whole, else (or when
 * nothing is found) its characters one by one; and of several prefixes found, the shortest decides for the
 * whole chunk. That is how the reference implementation does it, odd as it is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <utf8proc.h>

#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

struct tok_charsmap {
	uint32_t *units;
	size_t n_units;
	char *texts; /* NUL after the last one, whatever the file says */
	size_t texts_len;
};

static uint32_t read_u32(const unsigned char *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void tok_charsmap_free(struct tok_charsmap *map)
{
	if (!map)
		return;
	free(map->units);
	free(map->texts);
	free(map);
}

int tok_charsmap_new(const void *data, size_t n, struct tok_charsmap **ret)
{
	const unsigned char *p = data;
	struct tok_charsmap *map;
	size_t trie;

	if (n < 4)
		return -EBADMSG;
	trie = read_u32(p);
	if (trie > n - 4 || trie % 4 || trie == 0)
		return -EBADMSG;
	map = calloc(1, sizeof(*map));
	if (!map)
		return -ENOMEM;
	map->n_units = trie / 4;
	map->texts_len = n - 4 - trie;
	map->units = calloc(map->n_units, sizeof(*map->units));
	map->texts = calloc(map->texts_len + 1, 1);
	if (!map->units || !map->texts) {
		tok_charsmap_free(map);
		return -ENOMEM;
	}
	for (size_t i = 0; i < map->n_units; i++)
		map->units[i] = read_u32(p + 4 + i * 4);
	memcpy(map->texts, p + 4 + trie, map->texts_len);
	*ret = map;
	return 0;
}

int tok_charsmap_from_base64(const char *text, size_t n, struct tok_charsmap **ret)
{
	CLEANUP(freep) unsigned char *bytes = NULL;
	int len;

	if (n == 0 || n % 4 || n > (256u << 20))
		return -EBADMSG;
	bytes = malloc(n / 4 * 3);
	if (!bytes)
		return -ENOMEM;
	len = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)n);
	if (len < 0)
		return -EBADMSG;
	len -= text[n - 1] == '=';
	len -= text[n - 2] == '=';
	return len < 0 ? -EBADMSG : tok_charsmap_new(bytes, (size_t)len, ret);
}

static size_t unit_offset(uint32_t unit)
{
	return (size_t)(unit >> 10) << (unit >> 6 & 8);
}

/* The replacement of a chunk, or NULL. */
static const char *look_up(const struct tok_charsmap *map, const char *chunk, size_t n)
{
	size_t at = unit_offset(map->units[0]), value;
	uint32_t unit;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)chunk[i];

		if (c == 0)
			break;
		at ^= c;
		if (at >= map->n_units)
			break;
		unit = map->units[at];
		if ((unit & 0x800000ff) != c)
			break;
		at ^= unit_offset(unit);
		if (!(unit >> 8 & 1))
			continue;
		if (at >= map->n_units)
			break;
		value = map->units[at] & 0x7fffffff;
		return value <= map->texts_len ? map->texts + value : NULL;
	}
	return NULL;
}

static int apply_cluster(const struct tok_charsmap *map, const char *p, size_t n, struct base_buf *out)
{
	const char *hit = n < 6 ? look_up(map, p, n) : NULL;
	size_t len;

	if (hit)
		return base_buf_puts(out, hit);
	for (size_t i = 0; i < n; i += len) {
		(void)tok_utf8_get(p + i, n - i, &len);
		hit = look_up(map, p + i, len);
		(void)(hit ? base_buf_puts(out, hit) : base_buf_append(out, p + i, len));
	}
	return base_buf_error(out);
}

int tok_charsmap_apply(const struct tok_charsmap *map, const char *text, size_t n, struct base_buf *out)
{
	size_t begin = 0, at = 0, len;
	utf8proc_int32_t state = 0;
	uint32_t prev = 0, cp;
	int r = 0;

	for (; at < n && r == 0; at += len) {
		cp = tok_utf8_get(text + at, n - at, &len);
		if (at > 0 && utf8proc_grapheme_break_stateful((utf8proc_int32_t)prev, (utf8proc_int32_t)cp, &state)) {
			r = apply_cluster(map, text + begin, at - begin, out);
			begin = at;
		}
		prev = cp;
	}
	if (r == 0 && begin < n)
		r = apply_cluster(map, text + begin, n - begin, out);
	return r;
}
