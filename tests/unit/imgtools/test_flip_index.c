/* The index of a layer: written, mapped, searched, damaged; its chunks decoded. */
#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

#include "test.h"

#include "base/buf.h"
#include "base/mapfile.h"
#include "base/sha256.h"
#include "lazy/index.h"

#define BLOB "sha256:0000000000000000000000000000000000000000000000000000000000000000"

static char path[64];

static struct flip_toc *sample(bool has_list)
{
	static const char json[] =
	        "{\"version\":1,\"entries\":["
	        "{\"name\":\"b\",\"type\":\"reg\",\"size\":10,\"digest\":\"sha256:"
	        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"offset\":5,\"chunkSize\":4},"
	        "{\"type\":\"chunk\",\"offset\":8,\"chunkOffset\":4},"
	        "{\"name\":\".prefetch.landmark\",\"type\":\"reg\",\"size\":1,\"offset\":50},"
	        "{\"name\":\"a\",\"type\":\"reg\",\"size\":9,\"digest\":\"sha256:"
	        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"offset\":60}]%s}";
	char text[1024];
	struct flip_toc *t;

	(void)snprintf(text, sizeof(text), json, has_list ? ",\"flipPrefetch\":[[\"/a\",0,9],[\"/b\",4,1]]" : "");
	assert_int_equal(flip_toc_parse(FLIP_ESTARGZ, text, strlen(text), 90, "blob", &t, NULL), 0);
	return t;
}

static int setup(void **state)
{
	int fd;

	(void)state;
	(void)snprintf(path, sizeof(path), "/tmp/flip-index-XXXXXX");
	fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

static void what_was_written_is_found(void **state)
{
	struct flip_toc *t = sample(true);
	const struct flip_index_object *o;
	const uint32_t *list;
	struct flip_index *ix;
	uint8_t digest[32];

	(void)state;
	assert_int_equal(flip_index_write(t, BLOB, 90, path, NULL), 0);
	assert_int_equal(flip_index_open(path, &ix, NULL), 0);
	assert_int_equal(flip_index_format(ix), FLIP_ESTARGZ);
	assert_string_equal(flip_index_blob(ix), BLOB);
	assert_int_equal(flip_index_blob_size(ix), 90);
	assert_int_equal(flip_index_n_objects(ix), 2);
	assert_int_equal(flip_index_n_chunks(ix), 3);
	memset(digest, 0xbb, sizeof(digest));
	o = flip_index_find(ix, digest);
	assert_non_null(o);
	assert_ptr_equal(o, flip_index_object(ix, 1));
	assert_int_equal(o->size, 10);
	assert_int_equal(flip_index_chunk(ix, o->first_chunk + 1)->offset, 4);
	assert_int_equal(flip_index_chunk(ix, o->first_chunk + 1)->blob_size, 42);
	assert_ptr_equal(flip_index_chunk_object(ix, o->first_chunk + 1), o);
	memset(digest, 0xcc, sizeof(digest));
	assert_null(flip_index_find(ix, digest));
	assert_int_equal(flip_index_prefetch(ix, &list), 2);
	assert_int_equal(list[0], 2);
	assert_int_equal(list[1], 1);
	flip_index_close(ix);
	flip_toc_free(t);
}

static void without_a_list_the_landmark_decides(void **state)
{
	struct flip_toc *t = sample(false);
	struct flip_index *ix;
	const uint32_t *list;

	(void)state;
	assert_int_equal(flip_index_write(t, BLOB, 90, path, NULL), 0);
	assert_int_equal(flip_index_open(path, &ix, NULL), 0);
	assert_int_equal(flip_index_prefetch(ix, &list), 2);
	assert_int_equal(list[0], 0);
	assert_int_equal(list[1], 1);
	flip_index_close(ix);
	flip_toc_free(t);
}

/* Every byte changed, and every length: an error or an index that can be walked, never more. */
static void damage_is_refused_or_harmless(void **state)
{
	struct flip_toc *t = sample(true);
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	size_t n_refused = 0;

	(void)state;
	assert_int_equal(flip_index_write(t, BLOB, 90, path, NULL), 0);
	assert_int_equal(base_read_file(path, &b, NULL), 0);
	for (size_t i = 0; i < 2 * b.len; i++) {
		struct flip_index *ix = NULL;
		int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), r;
		size_t len = i < b.len ? b.len : i - b.len;

		b.data[i % b.len] ^= 0x41;
		assert_int_equal(write(fd, b.data, len), len);
		close(fd);
		b.data[i % b.len] ^= 0x41;
		r = flip_index_open(path, &ix, NULL);
		assert_true(r == 0 || r == -EBADMSG);
		n_refused += r != 0;
		for (size_t k = 0; r == 0 && k < flip_index_n_chunks(ix); k++)
			assert_non_null(flip_index_find(ix, flip_index_chunk_object(ix, k)->digest));
		flip_index_close(ix);
	}
	assert_true(n_refused > b.len + 100);
	base_buf_done(&b);
	flip_toc_free(t);
}

static size_t pack(enum flip_format f, const void *data, size_t size, void *out, size_t cap)
{
	struct libdeflate_compressor *c;
	size_t n;

	if (f == FLIP_ZSTD_CHUNKED)
		return ZSTD_compress(out, cap, data, size, 3);
	c = libdeflate_alloc_compressor(6);
	n = libdeflate_gzip_compress(c, data, size, out, cap);
	libdeflate_free_compressor(c);
	return n;
}

static void chunks_are_decoded_and_verified(void **state)
{
	static uint8_t data[300000], packed[400000], out[300000];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * i >> 7);
	for (enum flip_format f = FLIP_ESTARGZ; f <= FLIP_ZSTD_CHUNKED; f++) {
		size_t n = pack(f, data, sizeof(data), packed, sizeof(packed));
		struct flip_index_chunk c = { .inner_offset = 1000, .size = 100000, .blob_size = (uint32_t)n };
		struct err err = { 0 };

		base_sha256_bytes(data + 1000, 100000, c.digest);
		assert_int_equal(flip_chunk_decode(f, &c, packed, n, out, &err), 0);
		assert_memory_equal(out, data + 1000, 100000);
		c.digest[0] ^= 1;
		assert_int_equal(flip_chunk_decode(f, &c, packed, n, out, &err), -EBADMSG);
		memset(c.digest, 0, sizeof(c.digest));
		assert_int_equal(flip_chunk_decode(f, &c, packed, n, out, &err), 0);
		assert_int_equal(flip_chunk_decode(f, &c, packed, n - 1, out, &err), -EBADMSG);
		c.inner_offset = 250000; /* more is wanted than there is */
		assert_int_equal(flip_chunk_decode(f, &c, packed, n, out, &err), -EBADMSG);
		c.inner_offset = UINT32_MAX;
		assert_int_equal(flip_chunk_decode(f, &c, packed, n, out, &err), -EBADMSG);
		c.inner_offset = 0;
		c.blob_size = 20;
		assert_int_equal(flip_chunk_decode(f, &c, packed, n, out, &err), -EBADMSG);
		assert_int_equal(flip_chunk_decode(f, &c, "hello, this is not packed at all", 32, out, &err), -EBADMSG);
		assert_int_equal(flip_chunk_decode(FLIP_PLAIN, &c, packed, n, out, &err), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_written_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_list_the_landmark_decides, setup, teardown),
		cmocka_unit_test_setup_teardown(damage_is_refused_or_harmless, setup, teardown),
		cmocka_unit_test(chunks_are_decoded_and_verified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
