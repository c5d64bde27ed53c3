/* Weights that the backend reads from their files by itself: what arrives is what is in the file, in any order of
 * matrices, more pieces than there is room for, cached or not; a file that was replaced is not read, one that became
 * shorter is an error and not the end of the process. The backend reads by pthreads of its own. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mapfile.h"
#include "gpu/backend.h"
#include "gpu/open.h"
#include "test.h"

enum { FILE_BYTES = 60 << 20, N_SMALL = 300 };

static char path[4300];
static struct kn_backend *be;

/* In the folder of this program: /tmp is often memory, of which nothing is read directly. */
static int make_file(void **state)
{
	const struct kn_config config = { .max_tokens = 16 };
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	uint32_t *block = malloc(1 << 20);
	uint32_t s = 1;
	struct err err = { 0 };
	int fd;

	(void)state;
	if (n <= 0 || !block)
		return -1;
	exe[n] = '\0';
	(void)snprintf(path, sizeof(path), "%s/source-XXXXXX", dirname(exe));
	fd = mkstemp(path);
	if (fd < 0)
		return -1;
	for (int i = 0; i < FILE_BYTES >> 20; i++) {
		for (size_t k = 0; k < (1 << 20) / sizeof(*block); k++) {
			s = s * 1664525u + 1013904223u;
			block[k] = (s & 0x807f807fu) | 0x3f003f00u; /* as bfloat16: 0.5 .. 1 */
		}
		if (write(fd, block, 1 << 20) != 1 << 20)
			return -1;
	}
	free(block);
	(void)close(fd);
	return gpu_backend_open("gpu-test", &config, NULL, &be, &err);
}

static int remove_file(void **state)
{
	(void)state;
	kn_backend_close(be);
	return unlink(path);
}

static void map_and_tell(struct base_mapfile *map)
{
	struct err err = { 0 };
	struct kn_source source;

	if (base_mapfile_open(path, map, &err) < 0)
		fail_msg("%s", err_text(&err));
	source = (struct kn_source){
		.data = map->data, .bytes = map->size_bytes, .path = path, .dev = map->dev, .ino = map->ino
	};
	assert_int_equal(be->ops->source(be, &source), 0);
}

/* Out of the page cache, as far as the system goes along. */
static void forget_cached(void)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	(void)fdatasync(fd);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	(void)close(fd);
}

static const void *values_of(const struct kn_mat *m)
{
	return ((const struct gpu_mat *)m->packed)->m.values;
}

static void check_all(bool is_cached)
{
	static struct kn_mat mats[N_SMALL + 2];
	struct base_mapfile map;
	size_t n = 0;

	map_and_tell(&map);
	if (is_cached) {
		for (size_t i = 0; i < map.size_bytes; i += 4096)
			(void)*(const volatile uint8_t *)(map.data + i);
	} else {
		forget_cached();
	}
	/* One of several pieces, at an odd place; small ones all over the file; one of a type that is packed. */
	mats[n++] = (struct kn_mat){ .dtype = KN_BF16, .rows = 5000, .cols = 4096, .data = map.data + 778 };
	for (uint32_t i = 0; i < N_SMALL; i++)
		mats[n++] = (struct kn_mat){ .dtype = KN_BF16,
			                     .rows = 1 + i % 7,
			                     .cols = 64,
			                     .data = map.data + ((size_t)i * 2654435761u) % (FILE_BYTES - 4096) };
	mats[n++] = (struct kn_mat){ .dtype = KN_Q8_0, .rows = 3000, .cols = 8192, .data = map.data + 2 };
	for (size_t i = 0; i < n; i++)
		assert_int_equal(be->ops->mat_init(be, &mats[i]), 0);
	assert_int_equal(be->ops->source(be, NULL), 0);
	for (size_t i = 0; i < n; i++) /* launch_plain.c keeps what is packed as it was */
		assert_memory_equal(values_of(&mats[i]), mats[i].data,
		                    mats[i].rows * kn_row_bytes(mats[i].dtype, mats[i].cols));
	for (size_t i = 0; i < n; i++)
		be->ops->mat_done(be, &mats[i]);
	base_mapfile_close(&map);
}

static void what_is_cached_arrives(void **state)
{
	(void)state;
	check_all(true);
}

static void what_is_not_cached_arrives(void **state)
{
	(void)state;
	check_all(false);
}

/* Matrices that are given up while their bytes are on the way, and memory that is in no file. */
static void what_is_dropped_early_does_no_harm(void **state)
{
	struct base_mapfile map;
	uint16_t own[64 * 64];
	struct kn_mat a, b;

	(void)state;
	memset(own, 0x3f, sizeof(own));
	map_and_tell(&map);
	for (int i = 0; i < 20; i++) {
		a = (struct kn_mat){ .dtype = KN_BF16, .rows = 2000, .cols = 4096, .data = map.data + 4096 * i };
		b = (struct kn_mat){ .dtype = KN_BF16, .rows = 64, .cols = 64, .data = own };
		assert_int_equal(be->ops->mat_init(be, &a), 0);
		assert_int_equal(be->ops->mat_init(be, &b), 0);
		be->ops->mat_done(be, &a);
		assert_memory_equal(values_of(&b), own, sizeof(own));
		be->ops->mat_done(be, &b);
	}
	assert_int_equal(be->ops->source(be, NULL), 0);
	assert_int_equal(be->ops->source(be, NULL), 0); /* nothing is there to be withdrawn */
	base_mapfile_close(&map);
}

static void another_file_of_that_name_is_not_read(void **state)
{
	struct base_mapfile map;
	struct kn_source source;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(base_mapfile_open(path, &map, &err), 0);
	source = (struct kn_source){
		.data = map.data, .bytes = map.size_bytes, .path = path, .dev = map.dev, .ino = map.ino + 1
	};
	assert_int_equal(be->ops->source(be, &source), -ESTALE);
	source.path = "/none";
	assert_int_equal(be->ops->source(be, &source), -ENOENT);
	base_mapfile_close(&map);
}

static void a_file_that_shrinks_is_an_error(void **state)
{
	struct base_mapfile map;
	struct kn_mat m = { .dtype = KN_BF16, .rows = 1000, .cols = 1024 };
	int r;

	(void)state;
	map_and_tell(&map);
	m.data = map.data + FILE_BYTES - (4 << 20);
	assert_int_equal(truncate(path, FILE_BYTES - (3 << 20)), 0);
	r = be->ops->mat_init(be, &m);
	assert_true(r == 0 || r == -EIO);
	assert_int_equal(be->ops->source(be, NULL), -EIO);
	be->ops->mat_done(be, &m);
	base_mapfile_close(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_cached_arrives),
		cmocka_unit_test(what_is_not_cached_arrives),
		cmocka_unit_test(what_is_dropped_early_does_no_harm),
		cmocka_unit_test(another_file_of_that_name_is_not_read),
		cmocka_unit_test(a_file_that_shrinks_is_an_error), /* the last one: the file is shorter now */
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
