/* The page file: a header of fixed fields and the page's token ids, both under a digest, then the payload under a sum,
 * which a core makes five times as fast. Nothing of it is believed before both agree and the key follows from what it
 * claims. Numbers are little-endian (static_assert below); docs/formats/kv-page.md. */
#include "promptcache/page_file.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "promptcache/page_sum.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is written as it lies in memory");

static const char magic[8] = "OCAIKVP2";

struct header {
	char magic[8];
	uint32_t header_bytes;
	uint32_t n_tokens;
	uint64_t payload_bytes;
	uint64_t compute_ns;
	struct eng_pc_key identity, parent, key;
	uint64_t payload_sum;
	uint8_t reserved[24];
	uint8_t header_digest[32]; /* of all before it, and of the ids behind it */
};
static_assert(sizeof(struct header) == 192, "as in docs/formats/kv-page.md");

size_t eng_pc_header_bytes(uint32_t n_tokens)
{
	return (sizeof(struct header) + (size_t)n_tokens * sizeof(int32_t) + 63) / 64 * 64;
}

int eng_pc_key_next(const struct eng_pc_key *identity, const struct eng_pc_key *parent, const int32_t *ids,
                    uint32_t n_ids, struct eng_pc_key *ret_key)
{
	struct base_sha256 *sha;
	int r = base_sha256_new(&sha);

	if (r < 0)
		return r;
	base_sha256_update(sha, identity->b, sizeof(identity->b));
	base_sha256_update(sha, parent->b, sizeof(parent->b));
	base_sha256_update(sha, ids, n_ids * sizeof(*ids));
	base_sha256_final(sha, ret_key->b);
	base_sha256_free(sha);
	return 0;
}

/* Of the header up to its digest and of what lies between the header and the payload. */
static int digest_header(const uint8_t *file, size_t header_bytes, uint8_t digest[BASE_SHA256_SIZE])
{
	struct base_sha256 *sha;
	int r = base_sha256_new(&sha);

	if (r < 0)
		return r;
	base_sha256_update(sha, file, offsetof(struct header, header_digest));
	base_sha256_update(sha, file + sizeof(struct header), header_bytes - sizeof(struct header));
	base_sha256_final(sha, digest);
	base_sha256_free(sha);
	return 0;
}

int eng_pc_page_seal(struct eng_pc_page *page, const int32_t *ids, uint8_t *file)
{
	size_t header_bytes = eng_pc_header_bytes(page->n_tokens);
	struct header h = { .header_bytes = (uint32_t)header_bytes,
		            .n_tokens = page->n_tokens,
		            .payload_bytes = page->payload_bytes,
		            .compute_ns = page->compute_ns,
		            .identity = page->identity,
		            .parent = page->parent };
	int r;

	memcpy(h.magic, magic, sizeof(magic));
	r = eng_pc_key_next(&page->identity, &page->parent, ids, page->n_tokens, &h.key);
	if (r < 0)
		return r;
	h.payload_sum = eng_pc_page_sum(file + header_bytes, page->payload_bytes);
	memset(file, 0, header_bytes);
	memcpy(file, &h, sizeof(h));
	memcpy(file + sizeof(h), ids, page->n_tokens * sizeof(*ids));
	r = digest_header(file, header_bytes, file + offsetof(struct header, header_digest));
	if (r == 0)
		page->key = h.key;
	return r;
}

static int check_header(const uint8_t *file, size_t header_bytes, size_t payload_bytes, struct header *h,
                        struct err *err)
{
	uint8_t digest[BASE_SHA256_SIZE];
	int r;

	if (header_bytes < sizeof(*h))
		return err_set(err, -EBADMSG, "%zu bytes are no page of K and V", header_bytes);
	memcpy(h, file, sizeof(*h));
	if (memcmp(h->magic, magic, sizeof(magic)) != 0)
		return err_set(err, -EBADMSG, "not a page of K and V, or of another version");
	if (h->n_tokens == 0 || h->n_tokens > ENG_PC_MAX_TOKENS ||
	    h->header_bytes != eng_pc_header_bytes(h->n_tokens) || h->header_bytes != header_bytes ||
	    h->payload_bytes != payload_bytes)
		return err_set(err, -EBADMSG, "%u tokens, %u and %llu bytes do not make a file of %zu and %zu",
		               h->n_tokens, h->header_bytes, (unsigned long long)h->payload_bytes, header_bytes,
		               payload_bytes);
	r = digest_header(file, h->header_bytes, digest);
	if (r < 0)
		return err_set(err, r, "out of memory");
	if (memcmp(digest, h->header_digest, sizeof(digest)) != 0)
		return err_set(err, -EBADMSG, "the header is damaged");
	return 0;
}

int eng_pc_page_parse(const uint8_t *file, size_t header_bytes, const void *payload, size_t payload_bytes,
                      struct eng_pc_page *ret_page, struct err *err)
{
	int32_t *ids;
	struct eng_pc_key key;
	struct header h;
	int r = check_header(file, header_bytes, payload_bytes, &h, err);

	if (r < 0)
		return r;
	ids = malloc(h.n_tokens * sizeof(*ids)); /* the file may lie at any address */
	if (!ids)
		return err_set(err, -ENOMEM, "out of memory");
	memcpy(ids, file + sizeof(h), h.n_tokens * sizeof(*ids));
	r = eng_pc_key_next(&h.identity, &h.parent, ids, h.n_tokens, &key);
	free(ids);
	if (r < 0)
		return err_set(err, r, "out of memory");
	if (memcmp(&key, &h.key, sizeof(key)) != 0)
		return err_set(err, -EBADMSG, "the key is not that of its tokens");
	if (eng_pc_page_sum(payload, payload_bytes) != h.payload_sum)
		return err_set(err, -EBADMSG, "the payload is damaged");
	*ret_page = (struct eng_pc_page){ .identity = h.identity,
		                          .parent = h.parent,
		                          .key = h.key,
		                          .n_tokens = h.n_tokens,
		                          .compute_ns = h.compute_ns,
		                          .payload_bytes = h.payload_bytes };
	return 0;
}
