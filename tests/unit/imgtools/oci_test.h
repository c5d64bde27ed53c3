/* Images made by hand for the tests: tar archives of any bytes, and layouts around them. */
#ifndef OCI_TEST_H
#define OCI_TEST_H

#include "base/sha256.h"
#include "oci/oci.h"
#include "tree_test.h"

/* One header and its bytes, as careless or hostile as asked for. */
static inline void raw_entry(struct base_buf *b, const char *name, char type, const char *link, const char *data,
                             unsigned major, unsigned minor)
{
	static const char zeros[512];
	size_t size = data ? strlen(data) : 0;
	unsigned sum = 0;
	char h[512];

	memset(h, 0, sizeof(h));
	memcpy(h, name, strnlen(name, 100));
	memcpy(h + 100, type == '5' ? "0000755" : "0000644", 7);
	memcpy(h + 108, "0000000", 7);
	memcpy(h + 116, "0000000", 7);
	(void)snprintf(h + 124, 12, "%011o", (unsigned)(size & 0x3fffffff));
	memcpy(h + 136, "00000000001", 11);
	memset(h + 148, ' ', 8);
	h[156] = type;
	memcpy(h + 157, link ? link : "", strnlen(link ? link : "", 100));
	memcpy(h + 257, "ustar\00000", 8);
	(void)snprintf(h + 329, 8, "%07o", major);
	(void)snprintf(h + 337, 8, "%07o", minor);
	for (size_t i = 0; i < sizeof(h); i++)
		sum += (unsigned char)h[i];
	(void)snprintf(h + 148, 8, "%06o", sum);
	assert_int_equal(base_buf_append(b, h, sizeof(h)), 0);
	assert_int_equal(base_buf_append(b, data ? data : "", size), 0);
	assert_int_equal(base_buf_append(b, zeros, -size % 512), 0);
}

static inline void raw_end(struct base_buf *b)
{
	static const char zeros[1024];

	assert_int_equal(base_buf_append(b, zeros, sizeof(zeros)), 0);
}

static inline const char *digest_of(const void *data, size_t size)
{
	static char digests[8][IMG_DIGEST_SIZE];
	static unsigned turn;
	char *d = digests[turn++ % 8];
	uint8_t sum[BASE_SHA256_SIZE];

	assert_int_equal(base_sha256_bytes(data, size, sum), 0);
	memcpy(d, "sha256:", 7);
	base_sha256_hex(sum, d + 7);
	return d;
}

static inline void put_blob(const char *dir, const void *data, size_t size)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", digest_of(data, size) + 7);
	assert_int_equal(base_write_file_atomic(in_dir(dir, name), data, size, 0644, NULL), 0);
}

/* A layout at `dir` whose only image has these plain layers. */
static inline void make_layout(const char *at, const struct base_buf *layers, size_t n)
{
	struct base_buf config = BASE_BUF_INIT(1 << 20), manifest = BASE_BUF_INIT(1 << 20),
	                index = BASE_BUF_INIT(1 << 20);

	char *dir = strdup(at);

	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(mkdir(in_dir(dir, "blobs"), 0755), 0);
	assert_int_equal(mkdir(in_dir(dir, "blobs/sha256"), 0755), 0);
	(void)base_buf_puts(
	        &config, "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
	for (size_t i = 0; i < n; i++)
		(void)base_buf_printf(&config, "%s\"%s\"", i ? "," : "", digest_of(layers[i].data, layers[i].len));
	(void)base_buf_puts(&config, "]}}");
	(void)base_buf_printf(
	        &manifest,
	        "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"x\",\"digest\":\"%s\",\"size\":%zu},\"layers\":[",
	        digest_of(config.data, config.len), config.len);
	for (size_t i = 0; i < n; i++) {
		(void)base_buf_printf(&manifest, "%s{\"mediaType\":\"x\",\"digest\":\"%s\",\"size\":%zu}", i ? "," : "",
		                      digest_of(layers[i].data, layers[i].len), layers[i].len);
		put_blob(dir, layers[i].data, layers[i].len);
	}
	(void)base_buf_puts(&manifest, "]}");
	(void)base_buf_printf(&index, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"%s\",\"size\":%zu}]}",
	                      digest_of(manifest.data, manifest.len), manifest.len);
	put_blob(dir, config.data, config.len);
	put_blob(dir, manifest.data, manifest.len);
	write_text(in_dir(dir, "index.json"), base_buf_text(&index));
	write_text(in_dir(dir, "oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}");
	free(dir);
	base_buf_done(&config);
	base_buf_done(&manifest);
	base_buf_done(&index);
}

/* "<kind>:<dir>/<rest>" in one of four buffers. */
static inline const char *image_at(const char *kind, const char *dir, const char *rest)
{
	static char names[4][4200];
	static unsigned turn;
	char *name = names[turn++ % 4];

	(void)snprintf(name, 4200, "%s:%s/%s", kind, dir, rest);
	return name;
}

static inline struct img_image *open_image(const char *name)
{
	struct img_image *image = NULL;
	struct err err = { 0 };

	if (img_image_open(name, NULL, &image, &err) < 0)
		fail_msg("%s", err_text(&err));
	return image;
}

static inline void write_image(const char *name, const struct img_write_plan *plan)
{
	struct err err = { 0 };

	if (img_image_write(name, plan, NULL, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static inline void assert_text_is(const struct img_tree *t, const char *path, const char *text)
{
	const struct img_node *n = img_tree_find(t, path);
	void *data = NULL;
	size_t size = 0;

	assert_non_null(n);
	assert_int_equal(img_node_read_all(n, 1 << 20, &data, &size, NULL), 0);
	assert_string_equal(data, text);
	free(data);
}

#endif
