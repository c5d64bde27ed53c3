/* Layers that were converted before: KEY.blob is the layer, KEY.json what is to be known of it, written last. What is
 * found is hashed again before it is believed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mapfile.h"
#include "base/sha256.h"
#include "job.h"

enum { COPY_SIZE = 1 << 20, MAX_NOTE = 64 << 10, REVISION = 1 /* of what the same options give */ };

static int key_of(const struct flip_job *j, const char *source_digest, char ret_hex[BASE_SHA256_HEX_SIZE])
{
	struct base_buf b = BASE_BUF_INIT(1u << 30);
	uint8_t digest[BASE_SHA256_SIZE];
	int r;

	(void)base_buf_printf(&b, "%d %s %d %d %u\n", REVISION, source_digest, (int)j->set.format, j->set.level,
	                      j->set.chunk_bytes);
	if (j->prefetch)
		(void)flip_prefetch_append(j->prefetch, &b);
	r = base_buf_error(&b);
	if (r == 0)
		r = base_sha256_bytes(b.data, b.len, digest);
	if (r == 0)
		base_sha256_hex(digest, ret_hex);
	base_buf_done(&b);
	return r;
}

static char *path_of(const struct flip_job *j, const char *key, const char *suffix)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s%s", j->o->cache_dir, key, suffix) < 0 ? NULL : path;
}

/* The whole of one file to another, hashed. */
static int copy(int from, int to, uint64_t size, char ret_digest[IMG_DIGEST_SIZE], struct err *err)
{
	CLEANUP(freep) char *buf = malloc(COPY_SIZE);
	uint8_t digest[BASE_SHA256_SIZE];
	struct base_sha256 *sha = NULL;
	int r = buf ? base_sha256_new(&sha) : -ENOMEM;

	if (r < 0)
		return err_set(err, r, "out of memory");
	for (uint64_t done = 0; r == 0 && done < size;) {
		ssize_t n = pread(from, buf, COPY_SIZE, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r = err_set(err, n < 0 ? -errno : -EBADMSG, "cannot be read");
			break;
		}
		base_sha256_update(sha, buf, (size_t)n);
		r = img_write_all(to, buf, (size_t)n, err);
		done += (uint64_t)n;
	}
	if (r == 0) {
		base_sha256_final(sha, digest);
		img_digest_set(ret_digest, digest);
	}
	base_sha256_free(sha);
	return r;
}

static bool take_text(const json_t *doc, const char *name, char *slot, size_t size)
{
	const char *text = json_string_value(json_object_get(doc, name));

	if (!text || strlen(text) >= size)
		return false;
	memcpy(slot, text, strlen(text) + 1);
	return true;
}

static bool read_note(const char *path, struct flip_layer_made *m)
{
	json_t *doc = NULL;
	bool is_good;

	if (base_json_read_file(path, MAX_NOTE, &doc, NULL) < 0)
		return false;
	is_good = take_text(doc, "digest", m->digest, sizeof(m->digest)) &&
	          take_text(doc, "diff_id", m->diff_id, sizeof(m->diff_id)) &&
	          take_text(doc, "toc_digest", m->toc_digest, sizeof(m->toc_digest)) &&
	          take_text(doc, "checksum", m->checksum, sizeof(m->checksum)) &&
	          take_text(doc, "position", m->position, sizeof(m->position)) && img_digest_is_valid(m->digest) &&
	          img_digest_is_valid(m->diff_id);
	m->size = (uint64_t)json_integer_value(json_object_get(doc, "size"));
	m->unpacked_size = (uint64_t)json_integer_value(json_object_get(doc, "unpacked_size"));
	m->n_chunks = (uint64_t)json_integer_value(json_object_get(doc, "chunks"));
	json_decref(doc);
	return is_good;
}

int flip_cache_get(const struct flip_job *j, const char *source_digest, struct flip_layer_made *made, struct err *err)
{
	CLEANUP(freep) char *note = NULL, *blob = NULL;
	char key[BASE_SHA256_HEX_SIZE], digest[IMG_DIGEST_SIZE] = "";
	struct flip_layer_made m = { .file = { .fd = -1 } };
	CLEANUP(close_fdp) int fd = -1;
	struct stat st;
	int r;

	if (!j->o->cache_dir || !source_digest[0] || key_of(j, source_digest, key) < 0)
		return 0;
	note = path_of(j, key, ".json");
	blob = path_of(j, key, ".blob");
	if (!note || !blob || !read_note(note, &m))
		return 0;
	fd = open(blob, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size != m.size)
		return 0;
	r = img_temp_open(j->dest.temp_dir, &m.file, err);
	if (r < 0)
		return r;
	if (copy(fd, m.file.fd, m.size, digest, NULL) < 0 || strcmp(digest, m.digest) != 0) {
		img_temp_drop(&m.file); /* damaged: made anew, and replaced */
		return 0;
	}
	memcpy(m.source_digest, source_digest, IMG_DIGEST_SIZE);
	*made = m;
	return 1;
}

static int put(const struct flip_job *j, const struct flip_layer_made *m, struct err *err)
{
	CLEANUP(freep) char *note = NULL, *blob = NULL;
	struct base_buf b = BASE_BUF_INIT(MAX_NOTE);
	char key[BASE_SHA256_HEX_SIZE], digest[IMG_DIGEST_SIZE];
	struct img_temp t;
	json_t *doc;
	int r;

	if (mkdir(j->o->cache_dir, 0755) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", j->o->cache_dir, strerror(errno));
	r = key_of(j, m->source_digest, key);
	note = path_of(j, key, ".json");
	blob = path_of(j, key, ".blob");
	if (r < 0 || !note || !blob)
		return err_set(err, -ENOMEM, "out of memory");
	r = img_temp_open(j->o->cache_dir, &t, err);
	if (r < 0)
		return r;
	r = copy(m->file.fd, t.fd, m->size, digest, err);
	if (r < 0) {
		img_temp_drop(&t);
		return r;
	}
	r = img_temp_publish(&t, blob, false, err);
	if (r < 0)
		return r;
	doc = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "digest", m->digest, "diff_id", m->diff_id,
	                "toc_digest", m->toc_digest, "checksum", m->checksum, "position", m->position, "size",
	                (json_int_t)m->size, "unpacked_size", (json_int_t)m->unpacked_size, "chunks",
	                (json_int_t)m->n_chunks);
	r = doc && base_json_append(&b, doc) == 0 ? base_write_file_atomic(note, b.data, b.len, 0644, err)
	                                          : err_set(err, -ENOMEM, "out of memory");
	json_decref(doc);
	base_buf_done(&b);
	return r;
}

void flip_cache_put(const struct flip_job *j, const struct flip_layer_made *made)
{
	struct err err = { 0 };

	if (j->o->cache_dir && made->source_digest[0] && put(j, made, &err) < 0)
		base_log(BASE_LOG_DEBUG, "not kept for the next conversion: %s", err_text(&err));
}
