/* Tables of contents: documents, and where they are in a blob. */
#include <errno.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#include "test.h"

#include "base/buf.h"
#include "base/sha256.h"
#include "lazy/toc.h"
#include "tree/tar.h"

#define DA "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DB "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define HEAD "{\"version\":1,\"entries\":["
#define BLOB "sha256:0000000000000000000000000000000000000000000000000000000000000000"

static int parse(const char *json, uint64_t blob_size, struct flip_toc **ret, struct err *err)
{
	return flip_toc_parse(FLIP_ESTARGZ, json, strlen(json), blob_size, "blob", ret, err);
}

static void every_kind_of_entry_becomes_a_node(void **state)
{
	static const char json[] =
	        HEAD "{\"name\":\"etc/\",\"type\":\"dir\",\"mode\":493,\"modtime\":\"2024-02-29T12:00:00.25Z\"},"
	             "{\"name\":\"./etc/"
	             "a\",\"type\":\"reg\",\"mode\":33188,\"size\":10,\"uid\":1000,\"gid\":100,\"digest\":\"" DA
	             "\",\"offset\":100,\"chunkSize\":4,\"chunkDigest\":\"" DB
	             "\",\"userName\":\"x\",\"unknown\":{\"a\":[1,2.5e3,null]},"
	             "\"xattrs\":{\"user.k\":\"dmFs\",\"security.capability\":\"AAEC\"}},"
	             "{\"name\":\"etc/a\",\"type\":\"chunk\",\"offset\":200,\"chunkOffset\":4},"
	             "{\"name\":\"etc/l\",\"type\":\"symlink\",\"linkName\":\"a\\u00e9\\n\",\"mode\":511},"
	             "{\"name\":\"etc/h\",\"type\":\"hardlink\",\"linkName\":\"etc/a\"},"
	             "{\"name\":\"dev/null\",\"type\":\"char\",\"devMajor\":1,\"devMinor\":3},"
	             "{\"name\":\"dev/b\",\"type\":\"block\",\"devMajor\":8},"
	             "{\"name\":\"p\",\"type\":\"fifo\"},"
	             "{\"name\":\"copy\",\"type\":\"reg\",\"size\":10,\"digest\":\"" DA "\",\"offset\":300},"
	             "{\"name\":\"empty\",\"type\":\"reg\"}]}";
	struct flip_toc *t;
	struct img_node *a, *h;
	struct flip_toc_content *c;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(parse(json, 400, &t, &err), 0);
	assert_int_equal(img_tree_find(t->tree, "/etc")->mtime_s, 1709208000);
	assert_int_equal(img_tree_find(t->tree, "/etc")->mtime_ns, 250000000);
	a = img_tree_find(t->tree, "/etc/a");
	h = img_tree_find(t->tree, "/etc/h");
	assert_int_equal(a->mode, 0644);
	assert_int_equal(a->uid, 1000);
	assert_int_equal(a->n_xattrs, 2);
	assert_string_equal(a->xattrs[1].name, "user.k");
	assert_memory_equal(a->xattrs[1].value, "val", 3);
	assert_int_not_equal(a->link_group, 0);
	assert_int_equal(a->link_group, h->link_group);
	assert_int_equal(h->size, 10);
	assert_ptr_equal(h->user, a->user);
	assert_string_equal(img_tree_find(t->tree, "/etc/l")->target, "a\xc3\xa9\n");
	assert_int_equal(img_tree_find(t->tree, "/dev/null")->minor, 3);
	assert_int_equal(img_tree_find(t->tree, "/p")->type, IMG_FIFO);
	assert_null(img_tree_find(t->tree, "/empty")->user);
	/* The same content twice is kept once. */
	assert_int_equal(t->n_contents, 1);
	assert_int_equal(t->n_chunks, 2);
	assert_ptr_equal(img_tree_find(t->tree, "/copy")->user, a->user);
	c = a->user;
	assert_int_equal(c->size, 10);
	assert_true(t->chunks[c->first_chunk].has_digest);
	assert_int_equal(t->chunks[c->first_chunk].blob_size, 100);
	assert_false(t->chunks[c->first_chunk + 1].has_digest);
	assert_int_equal(t->chunks[c->first_chunk + 1].size, 6);
	assert_int_equal(t->chunks[c->first_chunk + 1].blob_size, 100); /* to where the copy begins */
	flip_toc_free(t);
}

static void what_is_wrong_is_refused_and_named(void **state)
{
#define REG "{\"name\":\"f\",\"type\":\"reg\",\"size\":10,\"digest\":\"" DA "\""
	static const struct {
		const char *entries, *word;
	} bad[] = {
		{ "{\"name\":\"../f\",\"type\":\"dir\"}", "name" },
		{ "{\"name\":\"a/../../f\",\"type\":\"dir\"}", "name" },
		{ "{\"name\":\"a\\u0000b\",\"type\":\"dir\"}", "name" },
		{ "{\"type\":\"dir\"}", "name" },
		{ "{\"name\":\"a\",\"type\":\"door\"}", "type" },
		{ "{\"name\":\"a\",\"type\":\"fifo\"},{\"name\":\"/a\",\"type\":\"fifo\"}", "twice" },
		{ "{\"name\":\"a\",\"type\":\"symlink\",\"linkName\":\"/\"},{\"name\":\"a/b\",\"type\":\"dir\"}",
		  "a/b" },
		{ "{\"name\":\"a\",\"type\":\"symlink\"}", "linkName" },
		{ "{\"name\":\"a\",\"type\":\"hardlink\",\"linkName\":\"b\"}", "linkName" },
		{ "{\"name\":\"a\",\"type\":\"dir\"},{\"name\":\"b\",\"type\":\"hardlink\",\"linkName\":\"a\"}",
		  "linkName" },
		{ "{\"name\":\"a\",\"type\":\"dir\",\"mode\":-1}", "mode" },
		{ "{\"name\":\"a\",\"type\":\"dir\",\"uid\":4294967296}", "uid" },
		{ "{\"name\":\"a\",\"type\":\"dir\",\"modtime\":\"yesterday\"}", "modtime" },
		{ "{\"name\":\"a\",\"type\":\"dir\",\"xattrs\":{\"user.a\":\"a\"}}", "xattrs" },
		{ "{\"name\":\"f\",\"type\":\"reg\",\"size\":10,\"offset\":1}", "digest" },
		{ "{\"name\":\"f\",\"type\":\"reg\",\"size\":10,\"offset\":1,\"digest\":\"md5:00\"}", "digest" },
		{ REG ",\"offset\":1000}", "offset" },
		{ REG ",\"offset\":1,\"chunkSize\":11}", "chunkSize" },
		{ REG ",\"offset\":1,\"chunkSize\":5}", "5 bytes" },
		{ REG ",\"offset\":1,\"chunkOffset\":1}", "chunkOffset" },
		{ REG ",\"offset\":1,\"endOffset\":1}", "endOffset" },
		{ REG ",\"offset\":1,\"endOffset\":1001}", "endOffset" },
		{ REG ",\"offset\":1},{\"type\":\"chunk\",\"offset\":2,\"chunkOffset\":10}", "behind the end" },
		{ REG ",\"offset\":1,\"chunkSize\":5},{\"type\":\"chunk\",\"offset\":2,\"chunkOffset\":4}",
		  "chunkOffset" },
		{ REG ",\"offset\":1,\"chunkSize\":5},{\"type\":\"chunk\",\"offset\":1,\"chunkOffset\":5}",
		  "same bytes" },
		{ REG ",\"offset\":1,\"innerOffset\":9223372036854775807}", "innerOffset" },
		{ "{\"type\":\"chunk\",\"offset\":1}", "chunk of no file" },
		{ REG ",\"offset\":1},{\"name\":\"g\",\"type\":\"reg\",\"size\":9,\"offset\":2,\"digest\":\"" DA "\"}",
		  "sizes differ" },
		{ "{\"name\":\"a\" \"type\":\"dir\"}", "JSON" },
	};
	char json[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct flip_toc *t = NULL;
		struct err err = { 0 };

		(void)snprintf(json, sizeof(json), HEAD "%s]}", bad[i].entries);
		assert_int_equal(parse(json, 1000, &t, &err), -EBADMSG);
		assert_null(t);
		assert_non_null(strstr(err.msg, "blob: "));
		if (!strstr(err.msg, bad[i].word))
			fail_msg("%s: '%s' does not say %s", bad[i].entries, err.msg, bad[i].word);
	}
}

static void documents_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = { "",
		                           "[]",
		                           "{}",
		                           "{\"version\":2,\"entries\":[]}",
		                           HEAD "]} x",
		                           HEAD,
		                           HEAD "{}]}",
		                           "{\"version\":1,\"entries\":[],\"entries\":[]}",
		                           HEAD "],\"flipPrefetch\":[[\"/a\",1]]}",
		                           HEAD "],\"flipPrefetch\":[[\"a\",1,1]]}" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct flip_toc *t = NULL;

		assert_int_equal(parse(bad[i], 1000, &t, NULL), -EBADMSG);
		assert_null(t);
	}
}

static void several_files_share_a_member(void **state)
{
	static const char json[] =
	        HEAD "{\"name\":\"a\",\"type\":\"reg\",\"size\":10,\"digest\":\"" DA "\",\"offset\":5},"
	             "{\"name\":\"b\",\"type\":\"reg\",\"size\":7,\"digest\":\"" DB
	             "\",\"offset\":5,\"innerOffset\":1024}]}";
	struct flip_toc *t;

	(void)state;
	assert_int_equal(parse(json, 90, &t, NULL), 0);
	assert_int_equal(t->chunks[0].blob_size, 85);
	assert_int_equal(t->chunks[1].blob_size, 85);
	assert_int_equal(t->chunks[1].inner_offset, 1024);
	flip_toc_free(t);
}

static void the_landmark_ends_the_prefetch(void **state)
{
	static const char json[] = HEAD
	        "{\"name\":\"a\",\"type\":\"reg\",\"size\":10,\"digest\":\"" DA "\",\"offset\":5},"
	        "{\"name\":\".prefetch.landmark\",\"type\":\"reg\",\"size\":1,\"digest\":\"" DB "\",\"offset\":50},"
	        "{\"name\":\"b\",\"type\":\"reg\",\"size\":9,\"digest\":\"" DB "\",\"offset\":60}]}";
	struct flip_toc *t;

	(void)state;
	assert_int_equal(parse(json, 90, &t, NULL), 0);
	assert_int_equal(t->prefetch_end, 50);
	assert_int_equal(t->n_contents, 2);
	assert_int_equal(t->chunks[0].blob_size, 45);
	assert_int_equal(flip_tree_to_overlay(t->tree, NULL), 0);
	assert_null(img_tree_find(t->tree, "/.prefetch.landmark"));
	flip_toc_free(t);
}

static void our_own_list_names_chunks_in_order(void **state)
{
	static const char json[] =
	        "{\"flipPrefetch\":[[\"/b\",0,1],[\"/a\",5,1],[\"/none\",0,9],[\"/a\",0,18446744073709551615]],"
	        "\"version\":1,\"entries\":["
	        "{\"name\":\"a\",\"type\":\"reg\",\"size\":10,\"digest\":\"" DA "\",\"offset\":5,\"chunkSize\":4},"
	        "{\"type\":\"chunk\",\"offset\":8,\"chunkOffset\":4,\"chunkSize\":4},"
	        "{\"type\":\"chunk\",\"offset\":9,\"chunkOffset\":8},"
	        "{\"name\":\"b\",\"type\":\"reg\",\"size\":9,\"digest\":\"" DB "\",\"offset\":60}]}";
	struct flip_toc *t;

	(void)state;
	assert_int_equal(parse(json, 90, &t, NULL), 0);
	assert_int_equal(t->n_prefetch, 4);
	assert_int_equal(t->prefetch[0], 3);
	assert_int_equal(t->prefetch[1], 1);
	assert_int_equal(t->prefetch[2], 0);
	assert_int_equal(t->prefetch[3], 2);
	flip_toc_free(t);
}

static void whiteouts_become_what_overlayfs_knows(void **state)
{
	static const char json[] =
	        HEAD "{\"name\":\"d\",\"type\":\"dir\",\"mode\":448,\"xattrs\":{\"user.x\":\"eA==\"}},"
	             "{\"name\":\"d/.wh..wh..opq\",\"type\":\"reg\"},"
	             "{\"name\":\"d/.wh.gone\",\"type\":\"reg\"},"
	             "{\"name\":\".wh.top\",\"type\":\"reg\"},"
	             "{\"name\":\".wh.d\",\"type\":\"reg\"},"
	             "{\"name\":\".wh..wh.plnk\",\"type\":\"reg\"}]}";
	struct flip_toc *t;
	struct img_node *n;

	(void)state;
	assert_int_equal(parse(json, 90, &t, NULL), 0);
	assert_int_equal(flip_tree_to_overlay(t->tree, NULL), 0);
	n = img_tree_find(t->tree, "/d/gone");
	assert_non_null(n);
	assert_int_equal(n->type, IMG_CHAR);
	assert_int_equal(n->major | n->minor, 0);
	assert_int_equal(img_tree_find(t->tree, "/top")->type, IMG_CHAR);
	n = img_tree_find(t->tree, "/d");
	assert_int_equal(n->mode, 0700);
	assert_int_equal(n->n_xattrs, 2);
	assert_string_equal(n->xattrs[0].name, "trusted.overlay.opaque");
	assert_int_equal(img_tree_count(t->tree), 4); /* with the root */
	flip_toc_free(t);
}

/* ---- Blobs ------------------------------------------------------------------------------------------------------- */

struct blob {
	struct base_buf data;
	size_t n_reads;
};

static int read_blob(void *arg, uint64_t offset, size_t size, void *data, struct err *err)
{
	struct blob *b = arg;

	b->n_reads++;
	if (offset > b->data.len || size > b->data.len - offset)
		return err_set(err, -EIO, "outside");
	if (size)
		memcpy(data, b->data.data + offset, size);
	return 0;
}

static int tar_to_buf(const void *data, size_t size, void *arg, struct err *err)
{
	(void)err;
	return base_buf_append(arg, data, size);
}

static void put_gzip(struct base_buf *out, const void *data, size_t size)
{
	struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
	size_t bound = libdeflate_gzip_compress_bound(c, size);
	char *packed = malloc(bound);

	base_buf_append(out, packed, libdeflate_gzip_compress(c, data, size, packed, bound));
	free(packed);
	libdeflate_free_compressor(c);
}

static const char doc[] = HEAD "{\"name\":\"a\",\"type\":\"reg\",\"size\":10,\"digest\":\"" DA "\",\"offset\":5}]}";

static void make_estargz(struct blob *b, size_t padding, bool is_old)
{
	struct base_buf tar = BASE_BUF_INIT(1 << 20);
	struct img_tar_out out = { tar_to_buf, &tar, 0 };
	struct img_node n = { .path = "/stargz.index.json", .type = IMG_FILE, .mode = 0444, .size = strlen(doc) };
	struct img_write_opts o = { .clamp_mtime = -1 };
	uint64_t at;

	base_buf_init(&b->data, 8 << 20);
	for (size_t i = 0; i < padding; i++)
		base_buf_putc(&b->data, (char)i);
	at = b->data.len;
	assert_int_equal(img_tar_write_header(&out, &n, NULL, NULL, NULL, &o, NULL), 0);
	base_buf_append(&tar, doc, strlen(doc));
	out.offset += strlen(doc);
	assert_int_equal(img_tar_write_padding(&out, NULL), 0);
	assert_int_equal(img_tar_write_end(&out, NULL), 0);
	put_gzip(&b->data, tar.data, tar.len);
	base_buf_append(&b->data, "\x1f\x8b\x08\x04\0\0\0\0\0\xff", 10);
	base_buf_append(&b->data, is_old ? "\x16\0" : "\x1a\0SG\x16\0", is_old ? 2 : 6);
	base_buf_printf(&b->data, "%016llxSTARGZ", (unsigned long long)at);
	base_buf_append(&b->data, "\x01\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
	base_buf_done(&tar);
}

static void put64(struct base_buf *b, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		base_buf_putc(b, (char)(v >> 8 * i));
}

static void make_zstd(struct blob *b, size_t padding, bool is_new, char position[64])
{
	char packed[4096];
	size_t n = ZSTD_compress(packed, sizeof(packed), doc, strlen(doc), 3);
	uint64_t at;

	base_buf_init(&b->data, 8 << 20);
	for (size_t i = 0; i < padding; i++)
		base_buf_putc(&b->data, (char)i);
	base_buf_append(&b->data, "\x50\x2a\x4d\x18", 4);
	base_buf_append(&b->data, (char[]){ (char)n, (char)(n >> 8), 0, 0 }, 4);
	at = b->data.len;
	base_buf_append(&b->data, packed, n);
	base_buf_append(&b->data, is_new ? "\x50\x2a\x4d\x18\x40\0\0\0" : "\x50\x2a\x4d\x18\x28\0\0\0", 8);
	put64(&b->data, at);
	put64(&b->data, n);
	put64(&b->data, strlen(doc));
	put64(&b->data, 1);
	for (int i = 0; is_new && i < 3; i++)
		put64(&b->data, 0);
	base_buf_puts(&b->data, "GnUlInUx");
	(void)snprintf(position, 64, "%llu:%zu:%zu:1", (unsigned long long)at, n, strlen(doc));
}

static int read_toc(struct blob *b, const char *name, const char *value, struct flip_toc **ret, struct err *err)
{
	struct flip_blob_desc d = {
		.digest = BLOB, .size = b->data.len, .names = &name, .values = &value, .n_annotations = name ? 1 : 0
	};

	b->n_reads = 0;
	return flip_toc_read(&d, read_blob, b, ret, err);
}

static void digest_text(const void *data, size_t size, char text[72])
{
	uint8_t digest[32];
	char hex[65];

	base_sha256_bytes(data, size, digest);
	base_sha256_hex(digest, hex);
	(void)snprintf(text, 72, "sha256:%s", hex);
}

static void estargz_is_found_by_both_footers(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct blob b = { 0 };
		struct flip_toc *t;
		char digest[72];

		make_estargz(&b, i < 2 ? 100 : 5 << 20, i & 1);
		assert_int_equal(read_toc(&b, NULL, NULL, &t, NULL), 0);
		assert_int_equal(b.n_reads, 1);
		assert_int_equal(t->format, FLIP_ESTARGZ);
		assert_int_equal(t->chunks[0].blob_size, (i < 2 ? 100 : 5 << 20) - 5);
		flip_toc_free(t);
		digest_text(doc, strlen(doc), digest);
		assert_int_equal(read_toc(&b, "containerd.io/snapshot/stargz/toc.digest", digest, &t, NULL), 0);
		flip_toc_free(t);
		assert_int_equal(read_toc(&b, "containerd.io/snapshot/stargz/toc.digest", DA, &t, NULL), -EBADMSG);
		base_buf_done(&b.data);
	}
}

static void zstd_chunked_is_found_by_footer_and_annotation(void **state)
{
	static const char *const names[] = { "io.github.containers.zstd-chunked.manifest-position",
		                             "io.containers.zstd-chunked.manifest-position" };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct blob b = { 0 };
		struct flip_toc *t;
		char position[64];

		make_zstd(&b, 1000, i, position);
		assert_int_equal(read_toc(&b, NULL, NULL, &t, NULL), 0);
		assert_int_equal(t->format, FLIP_ZSTD_CHUNKED);
		assert_int_equal(t->chunks[0].blob_size, 995);
		flip_toc_free(t);
		assert_int_equal(read_toc(&b, names[i], position, &t, NULL), 0);
		assert_int_equal(t->n_contents, 1);
		flip_toc_free(t);
		assert_int_equal(read_toc(&b, names[i], "1:2:3", &t, NULL), -EBADMSG);
		assert_int_equal(read_toc(&b, names[i], "1:2:3:2", &t, NULL), -EBADMSG);
		assert_int_equal(read_toc(&b, names[i], "99999:2:3:1", &t, NULL), -EBADMSG);
		assert_int_equal(read_toc(&b, names[i], "10:18446744073709551615:3:1", &t, NULL), -EBADMSG);
		assert_int_equal(read_toc(&b, "io.github.containers.zstd-chunked.manifest-checksum", DA, &t, NULL),
		                 -EBADMSG);
		base_buf_done(&b.data);
	}
}

static void ordinary_layers_are_plain(void **state)
{
	struct blob b = { 0 };
	struct flip_toc *t;

	(void)state;
	for (size_t n = 0; n < 200; n += 13) {
		base_buf_init(&b.data, 1 << 20);
		for (size_t i = 0; i < n; i++)
			base_buf_putc(&b.data, 0x1f);
		assert_int_equal(read_toc(&b, NULL, NULL, &t, NULL), 0);
		assert_int_equal(t->format, FLIP_PLAIN);
		assert_null(t->tree);
		flip_toc_free(t);
		assert_int_equal(read_toc(&b, "containerd.io/snapshot/stargz/toc.digest", DA, &t, NULL), -EBADMSG);
		base_buf_done(&b.data);
	}
}

static void damaged_blobs_are_refused(void **state)
{
	struct blob b = { 0 };
	size_t n_refused = 0;

	(void)state;
	make_estargz(&b, 100, false);
	for (size_t i = 100; i < b.data.len; i++) {
		struct flip_toc *t = NULL;
		int r;

		b.data.data[i] ^= 0x55;
		r = read_toc(&b, NULL, NULL, &t, NULL);
		assert_true(r == 0 || r == -EBADMSG);
		n_refused += r != 0;
		flip_toc_free(t);
		b.data.data[i] ^= 0x55;
	}
	assert_true(n_refused > 50);
	base_buf_done(&b.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_entry_becomes_a_node),
		cmocka_unit_test(what_is_wrong_is_refused_and_named),
		cmocka_unit_test(documents_that_are_none_are_refused),
		cmocka_unit_test(several_files_share_a_member),
		cmocka_unit_test(the_landmark_ends_the_prefetch),
		cmocka_unit_test(our_own_list_names_chunks_in_order),
		cmocka_unit_test(whiteouts_become_what_overlayfs_knows),
		cmocka_unit_test(estargz_is_found_by_both_footers),
		cmocka_unit_test(zstd_chunked_is_found_by_footer_and_annotation),
		cmocka_unit_test(ordinary_layers_are_plain),
		cmocka_unit_test(damaged_blobs_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
