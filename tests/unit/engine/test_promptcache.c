/* The prompt cache on disk: what comes back is what went in, or nothing. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "promptcache/folder.h"
#include "promptcache/index.h"
#include "promptcache/promptcache.h"
#include "test.h"

enum { PAGE = 8, BYTES = 1000 };

static char dir[64];

static void remove_all(const char *path)
{
	char cmd[256];

	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", path);
	assert_int_equal(system(cmd), 0);
}

static int make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/ocai-promptcache-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	remove_all(dir);
	return 0;
}

static struct eng_pc_config config_of(uint8_t model, uint64_t n_pages)
{
	struct eng_pc_config c = { .dir = dir, .page_tokens = PAGE, .page_bytes = BYTES };

	memset(c.identity.b, model, sizeof(c.identity.b));
	c.budget_bytes = n_pages * (eng_pc_header_bytes(PAGE) + BYTES);
	return c;
}

static struct eng_pc *open_cache(uint8_t model, uint64_t n_pages)
{
	struct eng_pc_config c = config_of(model, n_pages);
	struct eng_pc *pc;
	struct err err = { 0 };

	if (eng_pc_open(&c, &pc, &err) < 0)
		fail_msg("%s", err_text(&err));
	return pc;
}

static struct eng_pc_stats stats_of(struct eng_pc *pc)
{
	struct eng_pc_stats st;

	eng_pc_get_stats(pc, &st);
	return st;
}

/* Page i of prompt p: its ids, and bytes that belong to nothing else. */
static void ids_of(int p, int i, int32_t ids[PAGE])
{
	for (int k = 0; k < PAGE; k++)
		ids[k] = p * 10000 + i * 100 + k;
}

static void key_of(struct eng_pc *pc, int p, int i, struct eng_pc_key *parent, struct eng_pc_key *key)
{
	int32_t ids[PAGE];

	memset(parent, 0, sizeof(*parent));
	for (int k = 0;; k++) {
		ids_of(p, k, ids);
		assert_int_equal(eng_pc_key(pc, parent, ids, key), 0);
		if (k == i)
			return;
		*parent = *key;
	}
}

static void store(struct eng_pc *pc, int p, int i)
{
	struct eng_pc_key parent, key;
	int32_t ids[PAGE];
	uint8_t *slot;

	key_of(pc, p, i, &parent, &key);
	ids_of(p, i, ids);
	while (!(slot = eng_pc_store_slot(pc)))
		(void)usleep(100);
	for (int k = 0; k < BYTES; k++)
		slot[k] = (uint8_t)(p * 7 + i * 13 + k);
	eng_pc_store(pc, slot, &parent, ids, 12345);
}

static bool has(struct eng_pc *pc, int p, int i)
{
	struct eng_pc_key parent, key;

	key_of(pc, p, i, &parent, &key);
	return eng_pc_has(pc, &key);
}

/* False when it could not be read; wrong bytes fail the test. */
static bool load(struct eng_pc *pc, int p, int i)
{
	struct eng_pc_key parent, key;
	struct eng_pc_loaded got;
	const uint8_t *page;

	key_of(pc, p, i, &parent, &key);
	assert_true(eng_pc_load(pc, &parent, &key, (uint64_t)(p * 100 + i)));
	while (!eng_pc_take(pc, &got))
		(void)usleep(100);
	assert_int_equal(got.tag, p * 100 + i);
	page = got.page;
	if (page) {
		assert_int_equal(got.compute_ns, 12345);
		for (int k = 0; k < BYTES; k++)
			assert_int_equal(page[k], (uint8_t)(p * 7 + i * 13 + k));
	}
	eng_pc_release(pc, &got);
	return page != NULL;
}

static void model_path(uint8_t model, char path[256])
{
	int n = snprintf(path, 256, "%s/", dir);

	for (int i = 0; i < ENG_PC_NAME_BYTES; i++)
		n += snprintf(path + n, 256 - (size_t)n, "%02x", model);
}

/* Calls fn for every page file; how many there are. */
static int each_file(uint8_t model, void (*fn)(const char *path, void *arg), void *arg)
{
	char folder[256], path[600];
	struct dirent *d;
	int n = 0;
	DIR *list;

	model_path(model, folder);
	list = opendir(folder);
	assert_non_null(list);
	while ((d = readdir(list))) {
		if (!strstr(d->d_name, ".kv"))
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", folder, d->d_name);
		n++;
		if (fn)
			fn(path, arg);
	}
	(void)closedir(list);
	return n;
}

static void pages_survive_a_restart(void **state)
{
	struct eng_pc *pc = open_cache(1, 100);
	char folder[256];
	struct stat st;

	(void)state;
	for (int p = 0; p < 3; p++) {
		for (int i = 0; i < 5; i++)
			store(pc, p, i);
	}
	eng_pc_close(pc); /* finishes them */
	assert_int_equal(each_file(1, NULL, NULL), 15);
	model_path(1, folder);
	assert_int_equal(stat(folder, &st), 0);
	assert_int_equal(st.st_mode & 077, 0); /* what people asked is nobody else's business */
	pc = open_cache(1, 100);
	for (int p = 0; p < 3; p++) {
		for (int i = 0; i < 5; i++)
			assert_true(has(pc, p, i) && load(pc, p, i));
		assert_false(has(pc, p, 5));
	}
	assert_int_equal(stats_of(pc).pages_read, 15);
	assert_true(stats_of(pc).read_ns == 0); /* that tells little */
	assert_true(load(pc, 0, 0));
	assert_true(stats_of(pc).read_ns > 0);
	eng_pc_close(pc);
}

static void many_pages_are_read_at_a_time_and_come_in_their_order(void **state)
{
	enum { MANY = 30 };
	struct eng_pc *pc = open_cache(1, 100);
	static uint8_t into[MANY][BYTES];
	struct eng_pc_loaded got;

	(void)state;
	for (int i = 0; i < MANY; i++)
		store(pc, 0, i);
	eng_pc_close(pc);
	pc = open_cache(1, 100);
	for (int round = 0; round < 20; round++) {
		memset(into, 0, sizeof(into));
		for (int i = 0; i < MANY; i++) {
			struct eng_pc_key parent, key;

			key_of(pc, 0, MANY - 1 - i, &parent, &key);
			assert_true(eng_pc_load_into(pc, &parent, &key, (uint64_t)i, into[i]));
		}
		for (int i = 0; i < MANY; i++) {
			while (!eng_pc_take(pc, &got))
				(void)sched_yield();
			assert_int_equal(got.tag, i);
			assert_ptr_equal(got.page, into[i]);
			for (int k = 0; k < BYTES; k++)
				assert_int_equal(into[i][k], (uint8_t)((MANY - 1 - i) * 13 + k));
			eng_pc_release(pc, &got);
		}
	}
	assert_int_equal(stats_of(pc).pages_read, 20 * MANY);
	eng_pc_close(pc);
}

static void another_model_has_pages_of_its_own(void **state)
{
	struct eng_pc *a = open_cache(1, 100), *b = open_cache(2, 100);

	(void)state;
	store(a, 1, 0);
	eng_pc_close(a);
	assert_false(has(b, 1, 0));
	eng_pc_close(b);
}

static void a_second_process_is_refused(void **state)
{
	struct eng_pc_config c = config_of(1, 10);
	struct eng_pc *a = open_cache(1, 10), *b = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(eng_pc_open(&c, &b, &err), -EBUSY);
	assert_null(b);
	c.budget_bytes = 100;
	assert_int_equal(eng_pc_open(&c, &b, &err), -EINVAL);
	eng_pc_close(a);
}

static void the_budget_holds_and_prefixes_are_cut_from_the_end(void **state)
{
	struct eng_pc *pc = open_cache(1, 6);

	(void)state;
	for (int i = 0; i < 4; i++)
		store(pc, 1, i);
	for (int i = 0; i < 4; i++)
		store(pc, 2, i);
	eng_pc_close(pc);
	pc = open_cache(1, 6);
	assert_true(stats_of(pc).bytes <= 6 * (eng_pc_header_bytes(PAGE) + BYTES));
	for (int i = 0; i < 4; i++)
		assert_true(has(pc, 2, i));
	assert_true(has(pc, 1, 0) && has(pc, 1, 1) && !has(pc, 1, 2) && !has(pc, 1, 3));
	/* Used again, the older prompt is the newer one. */
	assert_true(load(pc, 1, 1));
	store(pc, 3, 0);
	eng_pc_close(pc);
	pc = open_cache(1, 6);
	assert_true(has(pc, 1, 1) && !has(pc, 2, 3) && has(pc, 2, 2) && has(pc, 3, 0));
	eng_pc_close(pc);
	/* A smaller budget takes effect at once. */
	pc = open_cache(1, 2);
	(void)has(pc, 1, 0);
	assert_int_equal(stats_of(pc).bytes, 2 * (eng_pc_header_bytes(PAGE) + BYTES));
	assert_int_equal(each_file(1, NULL, NULL), 2);
	eng_pc_close(pc);
}

static void other_models_leave_half_of_the_budget(void **state)
{
	struct eng_pc *pc;

	(void)state;
	for (uint8_t model = 1; model <= 3; model++) {
		pc = open_cache(model, 100);
		for (int i = 0; i < 4; i++)
			store(pc, 1, i);
		eng_pc_close(pc);
		(void)usleep(20000); /* their times differ */
	}
	pc = open_cache(4, 10);
	for (int i = 0; i < 10; i++)
		store(pc, 1, i);
	eng_pc_close(pc);
	assert_int_equal(each_file(3, NULL, NULL), 4);
	assert_int_equal(each_file(4, NULL, NULL), 6);
}

static void flip_byte(const char *path, void *arg)
{
	long at = *(long *)arg;
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	(void)close(fd);
}

static void any_damage_is_noticed_and_removed(void **state)
{
	long size = (long)(eng_pc_header_bytes(PAGE) + BYTES);

	(void)state;
	for (long at = 0; at < size; at += at < 260 ? 3 : 97) {
		struct eng_pc *pc = open_cache(1, 10);

		store(pc, 1, 0);
		eng_pc_close(pc);
		assert_int_equal(each_file(1, flip_byte, &at), 1);
		pc = open_cache(1, 10);
		assert_true(has(pc, 1, 0));
		assert_false(load(pc, 1, 0));
		assert_false(has(pc, 1, 0));
		assert_int_equal(stats_of(pc).n_damaged, 1);
		eng_pc_close(pc);
		assert_int_equal(each_file(1, NULL, NULL), 0);
	}
}

static void cut_short(const char *path, void *arg)
{
	assert_int_equal(truncate(path, *(long *)arg), 0);
}

static void touch(const char *folder, const char *name, const char *text)
{
	char path[600];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
}

static void truncated_and_stray_files_are_swept(void **state)
{
	struct eng_pc *pc = open_cache(1, 10);
	char folder[256], path[600];
	long n = 100;

	(void)state;
	for (int i = 0; i < 3; i++)
		store(pc, 1, i);
	eng_pc_close(pc);
	(void)each_file(1, cut_short, &n);
	model_path(1, folder);
	touch(folder, "tmp", "half a page of a process that was killed");
	touch(folder, "notes.txt", "somebody's own");
	pc = open_cache(1, 10);
	assert_false(has(pc, 1, 0));
	eng_pc_close(pc);
	assert_int_equal(each_file(1, NULL, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/tmp", folder);
	assert_int_equal(access(path, F_OK), -1);
	(void)snprintf(path, sizeof(path), "%s/notes.txt", folder);
	assert_int_equal(access(path, F_OK), 0);
}

static void rename_to(const char *path, void *arg)
{
	assert_int_equal(rename(path, arg), 0);
}

/* A good page of another prefix under this one's name. */
static void a_page_under_a_wrong_name_is_refused(void **state)
{
	struct eng_pc *pc = open_cache(1, 10);
	struct eng_pc_key parent, key;
	struct eng_pc_name name, up;
	char folder[256], file[ENG_PC_FILE_NAME], path[600];

	(void)state;
	store(pc, 1, 0);
	key_of(pc, 2, 0, &parent, &key);
	eng_pc_close(pc);
	memcpy(name.b, key.b, sizeof(name.b));
	memcpy(up.b, parent.b, sizeof(up.b));
	eng_pc_file_name(&name, &up, file);
	model_path(1, folder);
	(void)snprintf(path, sizeof(path), "%s/%s", folder, file);
	assert_int_equal(each_file(1, rename_to, path), 1);
	pc = open_cache(1, 10);
	assert_true(has(pc, 2, 0));
	assert_false(load(pc, 2, 0));
	assert_int_equal(stats_of(pc).n_damaged, 1);
	eng_pc_close(pc);
	assert_int_equal(each_file(1, NULL, NULL), 0);
}

/* A limit on file sizes stands for a full disk: writing fails halfway. */
static void a_full_disk_loses_the_page_and_nothing_else(void **state)
{
	struct eng_pc *pc = open_cache(1, 10);
	struct rlimit old, small;
	char path[600], folder[256];

	(void)state;
	store(pc, 1, 0);
	while (!has(pc, 1, 0))
		(void)usleep(100);
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){ .rlim_cur = 500, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	store(pc, 1, 1);
	while (stats_of(pc).n_write_errors == 0)
		(void)usleep(100);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(load(pc, 1, 0));
	assert_false(has(pc, 1, 1));
	store(pc, 1, 2); /* not now: it would be tried in vain */
	eng_pc_close(pc);
	assert_int_equal(each_file(1, NULL, NULL), 1);
	model_path(1, folder);
	(void)snprintf(path, sizeof(path), "%s/tmp", folder);
	assert_int_equal(access(path, F_OK), -1);
}

static void a_page_without_its_beginning_is_not_kept(void **state)
{
	struct eng_pc *pc = open_cache(1, 10);

	(void)state;
	store(pc, 1, 3);
	eng_pc_close(pc);
	assert_int_equal(each_file(1, NULL, NULL), 0);
}

/* ---- The index ---- */

static struct eng_pc_name name_of(uint32_t n)
{
	struct eng_pc_name name = { 0 };

	memcpy(name.b + 4, &n, sizeof(n));
	name.b[0] = (uint8_t)(n % 5); /* chains */
	return name;
}

static void count_gone(void *arg, const struct eng_pc_name *name, const struct eng_pc_name *parent)
{
	(void)name;
	(void)parent;
	++*(uint32_t *)arg;
}

/* Node n hangs on n / 3; 1 and 2 on nothing. */
static void random_use_keeps_the_index_sound(void **state)
{
	enum { N = 900 };
	static const struct eng_pc_name none;
	struct eng_pc_index *ix;

	(void)state;
	for (unsigned seed = 1; seed <= 3; seed++) {
		bool in[N] = { 0 };
		size_t n_in = 0;

		print_message("index, seed %u\n", seed);
		srand(seed);
		assert_int_equal(eng_pc_index_new(&ix), 0);
		for (int step = 0; step < 4000; step++) {
			uint32_t n = 1 + (uint32_t)rand() % (N - 1), gone = 0;
			struct eng_pc_name name = name_of(n), up = n / 3 ? name_of(n / 3) : none, out, out_up;
			int r;

			switch (rand() % 8) {
			case 0:
				if (eng_pc_index_pop(ix, NULL, &out, &out_up)) {
					memcpy(&n, out.b + 4, sizeof(n));
					assert_true(in[n]);
					in[n] = false;
					n_in--;
				}
				break;
			case 1:
				eng_pc_index_use(ix, &name);
				break;
			case 2:
				if (rand() % 10)
					break;
				eng_pc_index_remove(ix, &name, count_gone, &gone);
				for (uint32_t k = 1; k < N; k++) {
					uint32_t at = k;

					while (at > n)
						at /= 3;
					if (at == n && in[k]) {
						in[k] = false;
						n_in--;
						gone--;
					}
				}
				assert_int_equal(gone, 0);
				break;
			default:
				r = eng_pc_index_add(ix, &name, &up);
				assert_int_equal(r, in[n] ? -EEXIST : n / 3 && !in[n / 3] ? -ENOENT : 0);
				n_in += r == 0;
				in[n] = true && (r == 0 || r == -EEXIST);
			}
			assert_int_equal(eng_pc_index_count(ix), n_in);
			assert_true(eng_pc_index_is_sound(ix));
		}
		for (uint32_t n = 1; n < N; n++) {
			struct eng_pc_name name = name_of(n);

			assert_int_equal(eng_pc_index_has(ix, &name), in[n]);
		}
		eng_pc_index_free(ix);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pages_survive_a_restart, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(many_pages_are_read_at_a_time_and_come_in_their_order, make_dir,
		                                remove_dir),
		cmocka_unit_test_setup_teardown(another_model_has_pages_of_its_own, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_second_process_is_refused, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(the_budget_holds_and_prefixes_are_cut_from_the_end, make_dir,
		                                remove_dir),
		cmocka_unit_test_setup_teardown(other_models_leave_half_of_the_budget, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(any_damage_is_noticed_and_removed, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(truncated_and_stray_files_are_swept, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_page_under_a_wrong_name_is_refused, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_full_disk_loses_the_page_and_nothing_else, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_page_without_its_beginning_is_not_kept, make_dir, remove_dir),
		cmocka_unit_test(random_use_keeps_the_index_sound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
