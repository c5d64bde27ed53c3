/* Fat binaries: what is found, what stays for the chosen architectures, and that nothing but payloads changes. */
#include "../test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mapfile.h"
#include "elf/fatbin.h"

struct entry {
	uint16_t kind;
	uint32_t arch;
	uint32_t size;
};

static void put(struct base_buf *b, uint64_t v, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		(void)base_buf_putc(b, (char)(v >> 8 * i));
}

/* One container; payloads are filled with the low byte of their architecture. */
static void put_container(struct base_buf *b, const struct entry *e, size_t n)
{
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++)
		total += 64 + e[i].size;
	put(b, 0xba55ed50, 4);
	put(b, 1, 2);
	put(b, 16, 2);
	put(b, total, 8);
	for (size_t i = 0; i < n; i++) {
		size_t start = b->len;

		put(b, e[i].kind, 2);
		put(b, 0x101, 2);
		put(b, 64, 4);
		put(b, e[i].size, 8);
		put(b, 0, 8);
		put(b, 0, 4);
		put(b, e[i].arch, 4);
		while (b->len < start + 64)
			put(b, 0, 1);
		for (uint32_t k = 0; k < e[i].size; k++)
			put(b, e[i].arch & 0xff, 1);
	}
}

/* The architectures that stay of one container, as "90 100p" (p: PTX, i: intermediate code). */
struct kept {
	char text[256];
};

static int note_kept(const struct img_fatbin_entry *e, void *arg)
{
	struct kept *k = arg;
	size_t n = strlen(k->text);

	if (e->is_kept)
		(void)snprintf(k->text + n, sizeof(k->text) - n, "%s%u%s", n ? " " : "", e->arch,
		               e->kind == IMG_FATBIN_PTX      ? "p"
		               : e->kind == IMG_FATBIN_LTO_IR ? "i"
		                                              : "");
	return 0;
}

static void check_choice(const struct entry *e, size_t n, const char *archs, enum img_gpu_ptx ptx, const char *expected)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	struct img_gpu_archs a;
	struct img_fatbin_plan p;
	struct kept k = { "" };

	put_container(&b, e, n);
	assert_int_equal(img_gpu_archs_parse(archs, &a, NULL), 0);
	a.ptx = ptx;
	assert_int_equal(img_fatbin_plan(b.data, b.len, &a, note_kept, &k, &p, NULL), 0);
	assert_string_equal(k.text, expected);
	img_fatbin_plan_done(&p);
	base_buf_done(&b);
}

static const struct entry usual[] = { { 2, 75, 8 },  { 2, 80, 8 }, { 2, 86, 8 }, { 2, 90, 8 },
	                              { 2, 100, 8 }, { 1, 80, 8 }, { 1, 120, 8 } };
enum { N_USUAL = sizeof(usual) / sizeof(*usual) };

static void chosen_code_and_one_ptx_it_can_compile_stay(void **state)
{
	check_choice(usual, N_USUAL, "sm_90", IMG_GPU_PTX_ONE, "90 80p");
	check_choice(usual, N_USUAL, "sm_90", IMG_GPU_PTX_NEEDED, "90");
	check_choice(usual, N_USUAL, "sm_80,sm_90", IMG_GPU_PTX_ONE, "80 90 80p");
	check_choice(usual, N_USUAL, "sm_120", IMG_GPU_PTX_ONE, "120p");
}

static void code_of_a_lower_minor_version_serves_where_there_is_no_other(void **state)
{
	check_choice(usual, N_USUAL, "sm_89", IMG_GPU_PTX_NEEDED, "80 86");
	check_choice(usual, N_USUAL, "sm_103", IMG_GPU_PTX_NEEDED, "100");
}

static void a_module_without_code_keeps_what_can_be_compiled(void **state)
{
	static const struct entry only_ptx[] = { { 1, 75, 8 }, { 1, 80, 8 }, { 8, 75, 8 }, { 1, 120, 8 } };

	check_choice(only_ptx, 4, "sm_90", IMG_GPU_PTX_NEEDED, "80p 75i");
	check_choice(only_ptx, 1, "sm_70", IMG_GPU_PTX_ONE, "");
}

static void variants_of_one_architecture_stay_together(void **state)
{
	static const struct entry twice[] = { { 2, 90, 8 }, { 2, 90, 16 }, { 2, 80, 8 } };

	check_choice(twice, 3, "sm_90a", IMG_GPU_PTX_ONE, "90 90");
}

static void containers_are_found_anywhere_and_only_payloads_are_zeroed(void **state)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	struct img_gpu_archs a;
	struct img_fatbin_plan p;
	uint64_t zeroed = 0;

	(void)base_buf_puts(&b, "some code in front of it");
	put_container(&b, usual, N_USUAL);
	(void)base_buf_puts(&b, "P\xed\x55\xba between: a magic number that is no container");
	put_container(&b, usual, 2);
	assert_int_equal(img_gpu_archs_parse("90", &a, NULL), 0);
	assert_int_equal(img_fatbin_plan(b.data, b.len, &a, NULL, NULL, &p, NULL), 0);
	assert_int_equal(p.n_containers, 2);
	assert_int_equal(p.n_entries, N_USUAL + 2);
	assert_int_equal(p.n_zero, p.n_dropped);
	for (size_t i = 0; i < p.n_zero; i++) {
		assert_true(i == 0 || p.zero[i].offset >= p.zero[i - 1].offset + p.zero[i - 1].size_bytes);
		for (uint64_t k = 0; k < p.zero[i].size_bytes; k++)
			assert_int_not_equal((uint8_t)b.data[p.zero[i].offset + k], 90); /* the chosen one's payload */
		zeroed += p.zero[i].size_bytes;
	}
	assert_int_equal(zeroed, p.dropped_bytes);
	assert_int_equal(zeroed, 7 * 8); /* all of 9 but sm_90 and PTX 80 of the first container */
	img_fatbin_plan_done(&p);
	base_buf_done(&b);
}

static void containers_whose_sizes_do_not_add_up_are_left_alone(void **state)
{
	struct img_gpu_archs a;
	struct img_fatbin_plan p;

	assert_int_equal(img_gpu_archs_parse("90", &a, NULL), 0);
	for (size_t at = 4; at < 32; at++) {
		struct base_buf b = BASE_BUF_INIT(1 << 20);

		put_container(&b, usual, 1);
		b.data[at] = (char)(b.data[at] ^ 0x55);
		assert_int_equal(img_fatbin_plan(b.data, b.len, &a, NULL, NULL, &p, NULL), 0);
		/* the kind, the entry's version and what nobody reads here may change */
		if (at < 16 || (at >= 20 && at < 32))
			assert_int_equal(p.n_containers, 0);
		img_fatbin_plan_done(&p);
		base_buf_done(&b);
	}
}

static void truncated_files_are_read_without_going_beyond(void **state)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	struct img_gpu_archs a;

	put_container(&b, usual, N_USUAL);
	assert_int_equal(img_gpu_archs_parse("90", &a, NULL), 0);
	for (size_t n = 0; n < b.len; n++) {
		struct img_fatbin_plan p;
		char *exact = malloc(n + 1); /* for the address sanitizer */

		memcpy(exact, b.data, n);
		exact = realloc(exact, n ? n : 1);
		assert_int_equal(img_fatbin_plan(exact, n, &a, NULL, NULL, &p, NULL), 0);
		assert_int_equal(p.n_containers, 0);
		free(exact);
	}
	base_buf_done(&b);
}

static void copy_has_the_same_size_and_holes_where_code_was(void **state)
{
	static const struct entry large[] = { { 2, 80, 1 << 20 }, { 2, 90, 4096 } };
	struct base_buf b = BASE_BUF_INIT(4 << 20), got = BASE_BUF_INIT(4 << 20);
	struct img_gpu_archs a;
	struct img_fatbin_plan p;
	struct err err = { 0 };
	struct stat st;
	char dir[256], from[300], to[300];
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(dir, sizeof(dir), "%s/fatbin-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(from, sizeof(from), "%s/from", dir);
	(void)snprintf(to, sizeof(to), "%s/to", dir);
	put_container(&b, large, 2);
	assert_int_equal(base_write_file_atomic(from, b.data, b.len, 0755, &err), 0);
	assert_int_equal(img_gpu_archs_parse("90", &a, NULL), 0);
	assert_int_equal(img_fatbin_plan(b.data, b.len, &a, NULL, NULL, &p, NULL), 0);
	assert_int_equal(img_fatbin_copy(from, to, &p, &err), 0);
	assert_int_equal(base_read_file(to, &got, &err), 0);
	assert_int_equal(got.len, b.len);
	for (size_t i = 0; i < p.n_zero; i++)
		memset(b.data + p.zero[i].offset, 0, p.zero[i].size_bytes);
	assert_memory_equal(got.data, b.data, b.len);
	assert_int_equal(stat(to, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_true((uint64_t)st.st_blocks * 512 < b.len / 2);
	img_fatbin_plan_done(&p);
	base_buf_done(&b);
	base_buf_done(&got);
	(void)unlink(from);
	(void)unlink(to);
	(void)rmdir(dir);
}

static void architectures_are_read_in_all_their_spellings(void **state)
{
	struct img_gpu_archs a;
	struct err err = { 0 };

	assert_int_equal(img_gpu_archs_parse("sm_90a,compute_80,8.0,12.1,100f,75", &a, &err), 0);
	assert_int_equal(a.n, 5);
	assert_int_equal(a.arch[0], 75);
	assert_int_equal(a.arch[1], 80);
	assert_int_equal(a.arch[2], 90);
	assert_int_equal(a.arch[3], 100);
	assert_int_equal(a.arch[4], 121);
	assert_int_equal(img_gpu_archs_parse("sm_90,gfx942", &a, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "gfx942"));
	assert_int_equal(img_gpu_archs_parse("", &a, &err), -EINVAL);
	assert_int_equal(img_gpu_archs_parse("90b", &a, &err), -EINVAL);
	assert_int_equal(img_gpu_archs_parse("sm_", &a, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chosen_code_and_one_ptx_it_can_compile_stay),
		cmocka_unit_test(code_of_a_lower_minor_version_serves_where_there_is_no_other),
		cmocka_unit_test(a_module_without_code_keeps_what_can_be_compiled),
		cmocka_unit_test(variants_of_one_architecture_stay_together),
		cmocka_unit_test(containers_are_found_anywhere_and_only_payloads_are_zeroed),
		cmocka_unit_test(containers_whose_sizes_do_not_add_up_are_left_alone),
		cmocka_unit_test(truncated_files_are_read_without_going_beyond),
		cmocka_unit_test(copy_has_the_same_size_and_holes_where_code_was),
		cmocka_unit_test(architectures_are_read_in_all_their_spellings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
