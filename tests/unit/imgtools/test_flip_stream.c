/* Streams decoded as they come, and bytes between threads. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <zlib.h>
#include <zstd.h>

#include "stream/decode.h"
#include "stream/pipe.h"

enum { TEXT_SIZE = 700000 };

static uint8_t text[TEXT_SIZE];

static int make_text(void **state)
{
	uint32_t x = 1;

	(void)state;
	for (size_t i = 0; i < TEXT_SIZE; i++) {
		x = x * 1664525 + 1013904223;
		text[i] = (uint8_t)("etaoin shrdlu"[(x >> 24) % 13]);
	}
	return 0;
}

/* A source that gives at most `step` bytes at a time. */
struct input {
	const uint8_t *data;
	size_t size, at, step;
};

static ssize_t from_input(void *arg, void *buf, size_t size, struct err *err)
{
	struct input *in = arg;
	size_t n = in->size - in->at;

	n = n < size ? n : size;
	n = n < in->step ? n : in->step;
	memcpy(buf, in->data + in->at, n);
	in->at += n;
	return (ssize_t)n;
}

/* Everything that comes out; the last return value in *ret_last. */
static size_t decode_all(const uint8_t *data, size_t size, size_t step, size_t out_step, uint8_t *out, size_t out_size,
                         ssize_t *ret_last, struct err *err)
{
	struct input in = { data, size, 0, step };
	struct flip_decoder *d;
	size_t n = 0;

	assert_int_equal(flip_decoder_new(from_input, &in, &d, err), 0);
	while ((*ret_last = flip_decoder_read(d, out + n, out_size - n < out_step ? out_size - n : out_step, err)) > 0)
		n += (size_t)*ret_last;
	flip_decoder_free(d);
	return n;
}

static size_t gzip_member(const uint8_t *data, size_t size, uint8_t *out, size_t out_size)
{
	z_stream z = { 0 };
	size_t n;

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (uint8_t *)data;
	z.avail_in = (unsigned)size;
	z.next_out = out;
	z.avail_out = (unsigned)out_size;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	n = out_size - z.avail_out;
	(void)deflateEnd(&z);
	return n;
}

static void check_whole(const uint8_t *packed, size_t n)
{
	static const size_t steps[] = { 1, 7, 4096, 1 << 20 }, out_steps[] = { 65536, 999, 3, 1 };
	uint8_t *out = malloc(TEXT_SIZE + 1);
	ssize_t last;

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		size_t got = decode_all(packed, n, steps[i], out_steps[i], out, TEXT_SIZE + 1, &last, NULL);

		assert_int_equal(last, 0);
		assert_int_equal(got, TEXT_SIZE);
		assert_memory_equal(out, text, TEXT_SIZE);
	}
	free(out);
}

static void gzip_members_are_one_stream(void **state)
{
	uint8_t *packed = malloc(TEXT_SIZE * 2);
	size_t n = gzip_member(text, 300000, packed, TEXT_SIZE);

	(void)state;
	n += gzip_member(text + 300000, TEXT_SIZE - 300000, packed + n, TEXT_SIZE);
	check_whole(packed, n);
	memset(packed + n, 0, 1024); /* padding behind the last member */
	check_whole(packed, n + 1024);
	free(packed);
}

static void zstd_frames_are_one_stream(void **state)
{
	static const uint8_t skippable[] = { 0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c' };
	uint8_t *packed = malloc(TEXT_SIZE * 2);
	size_t n = sizeof(skippable);

	(void)state;
	memcpy(packed, skippable, n);
	n += ZSTD_compress(packed + n, TEXT_SIZE, text, 1234, 3);
	n += ZSTD_compress(packed + n, TEXT_SIZE, text + 1234, TEXT_SIZE - 1234, 3);
	check_whole(packed, n);
	free(packed);
}

static void what_is_not_compressed_passes(void **state)
{
	(void)state;
	check_whole(text, TEXT_SIZE);
}

static void nothing_is_nothing(void **state)
{
	uint8_t out[8];
	ssize_t last;

	(void)state;
	assert_int_equal(decode_all(text, 0, 1, 8, out, 8, &last, NULL), 0);
	assert_int_equal(last, 0);
}

static void a_cut_or_damaged_stream_is_refused(void **state)
{
	uint8_t *packed = malloc(TEXT_SIZE * 2), *out = malloc(TEXT_SIZE + 1);
	struct err err = { 0 };
	ssize_t last;
	size_t n;

	(void)state;
	n = gzip_member(text, TEXT_SIZE, packed, TEXT_SIZE);
	(void)decode_all(packed, n - 4, 4096, 65536, out, TEXT_SIZE + 1, &last, &err);
	assert_int_equal(last, -EBADMSG);
	packed[n - 6] ^= 1; /* the CRC */
	(void)decode_all(packed, n, 4096, 65536, out, TEXT_SIZE + 1, &last, &err);
	assert_int_equal(last, -EBADMSG);
	n = ZSTD_compress(packed, TEXT_SIZE, text, TEXT_SIZE, 3);
	(void)decode_all(packed, n - 4, 4096, 65536, out, TEXT_SIZE + 1, &last, &err);
	assert_int_equal(last, -EBADMSG);
	packed[100] ^= 0x55;
	packed[101] ^= 0x55;
	(void)decode_all(packed, n, 4096, 65536, out, TEXT_SIZE + 1, &last, &err);
	assert_true(last == -EBADMSG || memcmp(out, text, TEXT_SIZE) != 0);
	free(packed);
	free(out);
}

/* ---- Pipes ---- */

static void *write_text(void *arg)
{
	struct flip_pipe *p = arg;

	for (size_t at = 0; at < TEXT_SIZE;) {
		size_t n = 1 + at % 9000;

		n = n < TEXT_SIZE - at ? n : TEXT_SIZE - at;
		if (flip_pipe_write(p, text + at, n) < 0)
			return NULL;
		at += n;
	}
	flip_pipe_end(p, 0, NULL);
	return p;
}

static void bytes_arrive_in_order(void **state)
{
	struct flip_pipe *p = flip_pipe_new(5000);
	uint8_t *out = malloc(TEXT_SIZE);
	pthread_t writer;
	size_t n = 0;
	ssize_t k;

	(void)state;
	assert_non_null(p);
	assert_int_equal(pthread_create(&writer, NULL, write_text, p), 0);
	while ((k = flip_pipe_read(p, out + n, 777, NULL)) > 0)
		n += (size_t)k;
	assert_int_equal(k, 0);
	assert_int_equal(n, TEXT_SIZE);
	assert_memory_equal(out, text, TEXT_SIZE);
	(void)pthread_join(writer, NULL);
	flip_pipe_free(p);
	free(out);
}

static void a_failure_comes_behind_the_bytes(void **state)
{
	struct flip_pipe *p = flip_pipe_new(100);
	struct err why = { 0 }, err = { 0 };
	char out[8];

	(void)state;
	assert_int_equal(flip_pipe_write(p, "abc", 3), 0);
	(void)err_set(&why, -EIO, "the wire is cut");
	flip_pipe_end(p, -EIO, &why);
	assert_int_equal(flip_pipe_read(p, out, sizeof(out), &err), 3);
	assert_int_equal(flip_pipe_read(p, out, sizeof(out), &err), -EIO);
	assert_string_equal(err_text(&err), "the wire is cut");
	flip_pipe_free(p);
}

static void a_writer_is_freed_when_the_reader_goes(void **state)
{
	struct flip_pipe *p = flip_pipe_new(1000);
	pthread_t writer;
	char out[10];
	void *result;

	(void)state;
	assert_int_equal(pthread_create(&writer, NULL, write_text, p), 0);
	assert_true(flip_pipe_read(p, out, sizeof(out), NULL) > 0);
	flip_pipe_break(p);
	(void)pthread_join(writer, &result);
	assert_null(result);
	flip_pipe_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gzip_members_are_one_stream),
		cmocka_unit_test(zstd_frames_are_one_stream),
		cmocka_unit_test(what_is_not_compressed_passes),
		cmocka_unit_test(nothing_is_nothing),
		cmocka_unit_test(a_cut_or_damaged_stream_is_refused),
		cmocka_unit_test(bytes_arrive_in_order),
		cmocka_unit_test(a_failure_comes_behind_the_bytes),
		cmocka_unit_test(a_writer_is_freed_when_the_reader_goes),
	};

	return cmocka_run_group_tests(tests, make_text, NULL);
}
