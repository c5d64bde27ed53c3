/* Objects of the store: put, written in parts, shared, kept over closing. */
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include "store_test.h"

static void a_put_object_is_there_read_only_and_put_once(void **state)
{
	struct home *h = *state;
	uint8_t digest[32];
	uint8_t *data = content(1, 10000, digest);
	uint64_t size = 0;
	struct stat st;
	bool was_there = true;

	home_open(h, NULL);
	assert_false(flip_store_has(h->store, digest, &size));
	assert_int_equal(flip_store_put(h->store, digest, data, 10000, &was_there, NULL), 0);
	assert_false(was_there);
	assert_int_equal(flip_store_put(h->store, digest, data, 10000, &was_there, NULL), 0);
	assert_true(was_there);
	assert_true(flip_store_has(h->store, digest, &size));
	assert_int_equal(size, 10000);
	assert_true(file_is(object_path(h, "objects", digest), data, 10000));
	assert_int_equal(stat(object_path(h, "objects", digest), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0444);
	free(data);
}

static void an_object_written_in_parts_becomes_complete(void **state)
{
	struct home *h = *state;
	enum { SIZE = 5 * 4096 + 100 };
	uint64_t offset, size;
	struct flip_object *o;
	uint8_t digest[32];
	uint8_t *data = content(2, SIZE, digest);
	uint8_t back[SIZE];
	int fd;

	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digest, SIZE, &o, NULL), 0);
	assert_false(flip_object_is_complete(o));
	assert_int_equal(flip_object_next_missing(o, 0, &offset, &size), 1);
	assert_int_equal(offset, 0);
	assert_int_equal(size, SIZE);
	fd = flip_object_fd(o);
	assert_true(fd >= 0);
	assert_int_equal(flip_object_write(o, data + 4096, 8192, 4096, true, NULL), 0);
	assert_true(flip_object_has(o, 4096, 8192));
	assert_false(flip_object_has(o, 0, 4097));
	assert_int_equal(flip_object_next_missing(o, 4096, &offset, &size), 1);
	assert_int_equal(offset, 3 * 4096);
	assert_int_equal(size, SIZE - 3 * 4096);
	assert_int_equal(flip_object_write(o, data + 3 * 4096, SIZE - 3 * 4096, 3 * 4096, false, NULL), 0);
	assert_false(flip_object_is_complete(o));
	assert_true(flip_object_has(o, 4096, UINT64_MAX)); /* what lies behind the end counts as there */
	assert_int_equal(flip_object_write(o, data, 4096, 0, true, NULL), 0);
	assert_true(flip_object_is_complete(o));
	assert_int_equal(flip_object_next_missing(o, 0, &offset, &size), 0);
	assert_int_equal(flip_object_fd(o), fd);
	assert_int_equal(pread(fd, back, SIZE, 0), SIZE);
	assert_memory_equal(back, data, SIZE);
	assert_true(file_is(object_path(h, "objects", digest), data, SIZE));
	assert_int_equal(access(object_path(h, "partial", digest), F_OK), -1);
	flip_object_unref(o);
	free(data);
}

static void parts_of_blocks_are_joined(void **state)
{
	struct home *h = *state;
	enum { SIZE = 40000 };
	struct flip_object *o;
	uint8_t digest[32];
	uint8_t *data = content(3, SIZE, digest);
	size_t order[] = { 7, 0, 3, 1, 6, 2, 5, 4 };

	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digest, SIZE, &o, NULL), 0);
	for (size_t i = 0; i < 8; i++) { /* chunks of 5000 bytes: no border but the first at a block's */
		size_t at = order[i] * 5000;

		assert_false(flip_object_is_complete(o));
		assert_int_equal(flip_object_write(o, data + at, 5000, at, true, NULL), 0);
	}
	assert_true(flip_object_is_complete(o));
	assert_true(file_is(object_path(h, "objects", digest), data, SIZE));
	flip_object_unref(o);

	free(data);
	data = content(4, 4096, digest); /* within one block, smallest pieces, from the end */
	assert_int_equal(flip_object_open(h->store, digest, 4096, &o, NULL), 0);
	for (size_t at = 4096; at > 0; at -= 2) {
		assert_false(flip_object_is_complete(o));
		assert_int_equal(flip_object_write(o, data + at - 2, 2, at - 2, true, NULL), 0);
	}
	assert_true(flip_object_is_complete(o));
	assert_true(file_is(object_path(h, "objects", digest), data, 4096));
	flip_object_unref(o);
	free(data);
}

static void what_was_written_is_there_after_closing(void **state)
{
	struct home *h = *state;
	enum { SIZE = 300 * 4096 + 1 };
	uint64_t offset, size;
	struct flip_object *o;
	uint8_t digest[32];
	uint8_t *data = content(5, SIZE, digest);

	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digest, SIZE, &o, NULL), 0);
	assert_int_equal(flip_object_write(o, data + 8192, 200 * 4096, 8192, true, NULL), 0);
	flip_object_unref(o);
	home_close(h);

	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digest, SIZE, &o, NULL), 0);
	assert_int_equal(flip_object_next_missing(o, 8192, &offset, &size), 1);
	assert_int_equal(offset, 202 * 4096);
	assert_int_equal(flip_object_write(o, data, 8192, 0, true, NULL), 0);
	assert_int_equal(flip_object_write(o, data + 202 * 4096, SIZE - 202 * 4096, 202 * 4096, true, NULL), 0);
	assert_true(flip_object_is_complete(o));
	assert_true(file_is(object_path(h, "objects", digest), data, SIZE));
	flip_object_unref(o);
	free(data);
}

static void all_who_open_one_digest_share_it(void **state)
{
	struct home *h = *state;
	struct flip_object *a, *b, *c = NULL;
	uint8_t digest[32];
	uint8_t *data = content(6, 9000, digest);
	bool was_there;

	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digest, 9000, &a, NULL), 0);
	assert_int_equal(flip_object_open(h->store, digest, 9000, &b, NULL), 0);
	assert_ptr_equal(a, b);
	assert_int_equal(flip_object_open(h->store, digest, 9001, &c, NULL), -EBADMSG);
	assert_null(c);
	assert_int_equal(flip_store_put(h->store, digest, data, 9000, &was_there, NULL), 0);
	assert_true(flip_object_is_complete(a)); /* those who wait see what somebody else put */
	assert_true(flip_object_fd(a) >= 0);
	flip_object_unref(a);
	flip_object_unref(b);
	assert_int_equal(flip_object_open(h->store, digest, 9001, &c, NULL), -EBADMSG);
	free(data);
}

static void wrong_ranges_and_empty_contents(void **state)
{
	struct home *h = *state;
	struct flip_object *o = NULL;
	uint8_t digest[32], empty[32];

	free(content(7, 100, digest));
	free(content(7, 0, empty));
	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digest, 100, &o, NULL), 0);
	assert_int_equal(flip_object_write(o, digest, 32, 90, true, NULL), -EINVAL);
	assert_int_equal(flip_object_write(o, digest, 32, UINT64_MAX - 8, true, NULL), -EINVAL);
	flip_object_unref(o);
	o = NULL;
	assert_int_equal(flip_object_open(h->store, digest, 0, &o, NULL), -EBADMSG);
	assert_null(o);
	assert_int_equal(flip_object_open(h->store, digest, UINT64_MAX, &o, NULL), -EFBIG);
	assert_int_equal(flip_object_open(h->store, empty, 0, &o, NULL), 0);
	assert_true(flip_object_is_complete(o));
	flip_object_unref(o);
}

static void a_file_is_taken_by_renaming(void **state)
{
	struct home *h = *state;
	uint8_t digest[32];
	uint8_t *data = content(8, 12345, digest);
	struct stat before, after;
	bool was_there;
	char path[256];
	FILE *f;

	home_open(h, NULL);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(flip_store_tmp(h->store, path, sizeof(path), NULL), 0);
		f = fopen(path, "wx");
		assert_non_null(f);
		assert_int_equal(fwrite(data, 1, 12345, f), 12345);
		assert_int_equal(fclose(f), 0);
		assert_int_equal(stat(path, &before), 0);
		assert_int_equal(flip_store_put_file(h->store, digest, path, &was_there, NULL), 0);
		assert_int_equal(was_there, round == 1);
		assert_int_equal(access(path, F_OK), -1);
		if (round == 0) {
			assert_int_equal(stat(object_path(h, "objects", digest), &after), 0);
			assert_int_equal(before.st_ino, after.st_ino);
			assert_int_equal(after.st_mode & 07777, 0444);
		}
	}
	assert_true(file_is(object_path(h, "objects", digest), data, 12345));
	assert_int_equal(flip_store_put_file(h->store, digest, path, &was_there, NULL), -ENOENT);
	free(data);
}

/* Pages of the file that are in memory. */
static size_t resident(int fd, size_t size)
{
	size_t n_pages = (size + 4095) / 4096, n = 0;
	unsigned char *in_core = malloc(n_pages);
	void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mincore(p, size, in_core), 0);
	for (size_t i = 0; i < n_pages; i++)
		n += in_core[i] & 1;
	(void)munmap(p, size);
	free(in_core);
	return n;
}

static void what_was_handed_on_is_cached_there_alone(void **state)
{
	struct home *h = *state;
	enum { SIZE = 512 << 10, HALF = SIZE / 2 };
	uint8_t digest[32];
	uint8_t *data = content(7, SIZE, digest), *back = malloc(SIZE);
	struct flip_object *o;
	struct statfs st;
	int fd;

	assert_int_equal(statfs(h->dir, &st), 0);
	if (st.f_type == TMPFS_MAGIC) { /* its pages are the file */
		(void)rmdir(h->dir);
		(void)snprintf(h->dir, sizeof(h->dir), "/var/tmp/flip-store-XXXXXX");
		assert_non_null(mkdtemp(h->dir));
		(void)snprintf(h->path, sizeof(h->path), "%s/store", h->dir);
		if (statfs(h->dir, &st) < 0 || st.f_type == TMPFS_MAGIC)
			skip();
	}
	home_open(h, NULL);
	assert_int_equal(flip_object_open(h->store, digest, SIZE, &o, NULL), 0);
	assert_int_equal(flip_object_write(o, data, HALF, 0, true, NULL), 0);
	fd = flip_object_fd(o);
	assert_int_equal(resident(fd, SIZE), HALF / 4096);
	/* Not on the disk yet: with the next sync, and only when it was asked for. */
	assert_int_equal(flip_store_sync(h->store, NULL), 0);
	assert_int_equal(resident(fd, SIZE), HALF / 4096);
	assert_int_equal(flip_object_write(o, data + HALF, 4096, HALF, true, NULL), 0);
	flip_object_handed_on(o, 0, 8192);
	assert_int_equal(resident(fd, SIZE), HALF / 4096 + 1);
	assert_int_equal(flip_store_sync(h->store, NULL), 0);
	assert_int_equal(resident(fd, SIZE), 0);
	/* On the disk: at once, and no more is read than asked for. */
	assert_int_equal(pread(fd, back, HALF / 2, 0), HALF / 2);
	assert_memory_equal(back, data, HALF / 2);
	assert_int_equal(resident(fd, SIZE), HALF / 2 / 4096);
	flip_object_handed_on(o, 0, 16384);
	assert_int_equal(resident(fd, SIZE), HALF / 2 / 4096 - 4);
	/* What is complete is read by the next one here. */
	assert_int_equal(flip_object_write(o, data + HALF, HALF, HALF, true, NULL), 0);
	assert_true(flip_object_is_complete(o));
	flip_object_handed_on(o, 0, SIZE);
	assert_int_equal(resident(fd, SIZE), SIZE / 4096);
	flip_object_unref(o);
	free(back);
	free(data);
}

/* Its parts are seen by nobody who asks for the digest, over a restart too; all of it is the object. */
static void what_is_verified_as_a_whole_lies_apart(void **state)
{
	struct home *h = *state;
	struct flip_store *s = home_open(h, NULL);
	struct flip_object *o, *other;
	uint8_t digest[FLIP_DIGEST_SIZE], *data = content(70, 20000, digest);
	struct flip_fsck_result fsck;

	assert_int_equal(flip_object_open_unverified(s, digest, 20000, &o, NULL), 0);
	assert_int_equal(flip_object_write(o, data, 8192, 0, true, NULL), 0);
	assert_true(flip_object_has(o, 0, 8192));
	assert_int_equal(flip_object_open(s, digest, 20000, &other, NULL), 0);
	assert_false(flip_object_has(other, 0, 1));
	flip_object_unref(other);
	flip_object_unref(o);
	home_close(h);
	s = home_open(h, NULL);
	assert_int_equal(flip_object_open_unverified(s, digest, 20000, &o, NULL), 0);
	assert_true(flip_object_has(o, 0, 8192));
	assert_int_equal(flip_object_write(o, data + 8192, 20000 - 8192, 8192, true, NULL), 0);
	assert_true(flip_object_is_complete(o));
	assert_true(flip_store_has(s, digest, NULL));
	flip_object_unref(o);
	assert_int_equal(flip_object_open_unverified(s, digest, 20000, &o, NULL), 0);
	assert_true(flip_object_is_complete(o));
	free(data);
	data = malloc(20000);
	assert_int_equal(pread(flip_object_fd(o), data, 20000, 0), 20000);
	flip_object_unref(o);
	free(data);
	assert_int_equal(flip_store_fsck(s, true, NULL, NULL, &fsck, NULL), 0);
	assert_int_equal(fsck.n_checked, 1);
	assert_int_equal(fsck.n_bad + fsck.n_leftover, 0);
}

static void what_is_wrong_as_a_whole_is_begun_anew(void **state)
{
	struct home *h = *state;
	struct flip_store *s = home_open(h, NULL);
	struct flip_object *o, *held;
	uint8_t digest[FLIP_DIGEST_SIZE], *data = content(71, 20000, digest);
	struct err err = { 0 };

	assert_int_equal(flip_object_open_unverified(s, digest, 20000, &o, NULL), 0);
	held = flip_object_ref(o); /* a reader */
	data[3] ^= 1;
	assert_int_equal(flip_object_write(o, data, 16384, 0, true, NULL), 0);
	assert_int_equal(flip_object_write(o, data + 16384, 20000 - 16384, 16384, true, &err), -EBADMSG);
	assert_non_null(strstr(err_text(&err), "not what its digest says"));
	assert_false(flip_object_is_complete(held));
	flip_object_unref(o);
	data[3] ^= 1;
	assert_int_equal(flip_object_open_unverified(s, digest, 20000, &o, NULL), 0);
	assert_false(flip_object_has(o, 16384, 1));
	assert_int_equal(flip_object_write(o, data, 16384, 0, true, NULL), 0);
	assert_int_equal(flip_object_write(o, data + 16384, 20000 - 16384, 16384, true, &err), 0);
	assert_true(flip_object_is_complete(o));
	assert_false(flip_object_is_complete(held));
	flip_object_unref(held);
	flip_object_unref(o);
	free(data);
	assert_true(flip_store_has(s, digest, NULL));
}

int main(void)
{
#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, home_setup, home_teardown)
	const struct CMUnitTest tests[] = {
		ON_STORE(a_put_object_is_there_read_only_and_put_once),
		ON_STORE(an_object_written_in_parts_becomes_complete),
		ON_STORE(parts_of_blocks_are_joined),
		ON_STORE(what_was_written_is_there_after_closing),
		ON_STORE(all_who_open_one_digest_share_it),
		ON_STORE(wrong_ranges_and_empty_contents),
		ON_STORE(a_file_is_taken_by_renaming),
		ON_STORE(what_was_handed_on_is_cached_there_alone),
		ON_STORE(what_is_verified_as_a_whole_lies_apart),
		ON_STORE(what_is_wrong_as_a_whole_is_begun_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
