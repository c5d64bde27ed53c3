/* Tables of contents. Without arguments: how long one of 23,500 files in 60,000 chunks takes to parse, and the memory.
 * With FILE [DIGEST] of a layer (and what its annotation says): reads its table, decodes and verifies every chunk, and
 * compares each content with its digest; fails when one is wrong. JSON lines. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "lazy/toc.h"
#include "lazy/index.h"

enum { N_FILES = 23500, N_CHUNKS = 60000, CHUNK = 65536 };

static long rss_kib(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss;
}

static void put_digest(struct base_buf *b, const char *name, unsigned n)
{
	uint8_t digest[32];
	char hex[65];

	base_sha256_bytes(&n, sizeof(n), digest);
	base_sha256_hex(digest, hex);
	base_buf_printf(b, ",\"%s\":\"sha256:%s\"", name, hex);
}

/* Every file has a chunk; what chunks are left are those of large files, one in fifty. */
static void make_document(struct base_buf *b)
{
	unsigned n = 0, extra = (N_CHUNKS - N_FILES) / (N_FILES / 50);

	base_buf_puts(b, "{\"version\":1,\"entries\":[");
	for (unsigned i = 0; i < N_FILES; i++) {
		unsigned n_more = i % 50 ? 0 : extra, size = n_more ? (n_more + 1) * CHUNK : 5000;

		base_buf_printf(
		        b,
		        "%s{\"name\":\"usr/lib/python3/dist-packages/package%u/module_number_%u.py\",\"type\":\"reg\","
		        "\"size\":%u,\"modtime\":\"2024-01-01T00:00:00Z\",\"mode\":420,\"offset\":%u",
		        i ? ",\n" : "", i / 40, i, size, 1 + n * 3000);
		put_digest(b, "digest", n++);
		put_digest(b, "chunkDigest", n_more ? 1000000 + n : n - 1);
		base_buf_printf(b, n_more ? ",\"chunkSize\":%u}" : "}", CHUNK);
		for (unsigned k = 1; k <= n_more; k++) {
			base_buf_printf(b, ",\n{\"type\":\"chunk\",\"offset\":%u,\"chunkOffset\":%u,\"chunkSize\":%u",
			                1 + n * 3000, k * CHUNK, CHUNK);
			put_digest(b, "chunkDigest", n++);
			base_buf_putc(b, '}');
		}
	}
	base_buf_puts(b, "]}");
}

static int bench_parse(void)
{
	struct base_buf b = BASE_BUF_INIT(1u << 28);
	double best = 1e9;
	size_t n_chunks = 0;
	long before;

	make_document(&b);
	before = rss_kib();
	for (int i = 0; i < 7; i++) {
		double begin = base_now_s();
		struct flip_toc *t;

		if (flip_toc_parse(FLIP_ESTARGZ, b.data, b.len, 1u << 30, "made up", &t, NULL) < 0)
			return 1;
		best = base_now_s() - begin < best ? base_now_s() - begin : best;
		n_chunks = t->n_chunks;
		flip_toc_free(t);
	}
	printf("{\"bench\":\"flip_toc\",\"case\":\"parse %d files, %zu chunks, %zu "
	       "bytes\",\"value\":%.1f,\"unit\":\"ms\","
	       "\"limit\":null,\"share\":null,\"peer\":null,\"ratio\":null}\n",
	       N_FILES, n_chunks, b.len, best * 1e3);
	printf("{\"bench\":\"flip_toc\",\"case\":\"memory of it beside the document\",\"value\":%.1f,\"unit\":\"MB\","
	       "\"limit\":null,\"share\":null,\"peer\":null,\"ratio\":null}\n",
	       (double)(rss_kib() - before) * 1024 / 1e6);
	base_buf_done(&b);
	return 0;
}

static int read_fd(void *arg, uint64_t offset, size_t size, void *data, struct err *err)
{
	ssize_t n = pread(*(int *)arg, data, size, (off_t)offset);

	return n == (ssize_t)size ? 0 : err_set(err, -5, "short read");
}

static int verify_object(const struct flip_index *ix, const struct flip_index_object *o, int fd, struct err *err)
{
	struct base_sha256 *sha;
	uint8_t digest[32];
	int r = base_sha256_new(&sha);

	for (uint32_t k = 0; r == 0 && k < o->n_chunks; k++) {
		const struct flip_index_chunk *c = flip_index_chunk(ix, o->first_chunk + k);
		char *packed = malloc(c->blob_size), *out = malloc(c->size);

		r = read_fd(&fd, c->blob_offset, c->blob_size, packed, err);
		if (r == 0)
			r = flip_chunk_decode(flip_index_format(ix), c, packed, c->blob_size, out, err);
		if (r == 0)
			base_sha256_update(sha, out, c->size);
		free(packed);
		free(out);
	}
	base_sha256_final(sha, digest);
	base_sha256_free(sha);
	if (r == 0 && memcmp(digest, o->digest, 32) != 0)
		r = err_set(err, -74, "a content is not what its digest says");
	return r;
}

static int verify(const char *path, const char *toc_digest)
{
	static const char *const name = "containerd.io/snapshot/stargz/toc.digest";
	char index[] = "/tmp/flip-toc-XXXXXX";
	struct flip_blob_desc d = {
		.digest = "sha256:0", .names = &name, .values = &toc_digest, .n_annotations = toc_digest ? 1 : 0
	};
	int fd = open(path, O_RDONLY | O_CLOEXEC), tmp = mkstemp(index), r;
	struct flip_index *ix = NULL;
	struct flip_toc *t = NULL;
	struct err err = { 0 };
	struct stat st;

	if (fd < 0 || tmp < 0 || fstat(fd, &st) < 0)
		return 1;
	close(tmp);
	d.size = (uint64_t)st.st_size;
	r = flip_toc_read(&d, read_fd, &fd, &t, &err);
	if (r == 0 && t->format == FLIP_PLAIN)
		r = err_set(&err, -22, "no table of contents");
	if (r == 0)
		r = flip_index_write(t, d.digest, d.size, index, &err);
	if (r == 0)
		r = flip_index_open(index, &ix, &err);
	for (size_t i = 0; r == 0 && i < flip_index_n_objects(ix); i++)
		r = verify_object(ix, flip_index_object(ix, i), fd, &err);
	if (r == 0)
		printf("{\"file\":\"%s\",\"format\":%d,\"nodes\":%zu,\"objects\":%zu,\"chunks\":%zu,\"prefetch\":%zu,"
		       "\"prefetch_end\":%llu}\n",
		       path, (int)t->format, img_tree_count(t->tree), t->n_contents, t->n_chunks, t->n_prefetch,
		       (unsigned long long)t->prefetch_end);
	else
		fprintf(stderr, "%s: %s\n", path, err_text(&err));
	flip_index_close(ix);
	flip_toc_free(t);
	unlink(index);
	close(fd);
	return r < 0;
}

int main(int argc, char **argv)
{
	return argc > 1 ? verify(argv[1], argc > 2 ? argv[2] : NULL) : bench_parse();
}
