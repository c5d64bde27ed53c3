/* Stand-ins for libraries are loaded by the real dynamic linker: a program that needs one starts, a call is told by
 * name. */
#include "../test.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mapfile.h"
#include "elf/elf_stub.h"

/* A folder for one test, with libz's stand-in in it. */
struct place {
	char dir[256], lib[300];
};

static bool want_all(const struct img_elf_symbol *s, void *arg)
{
	return true;
}

static bool want_one(const struct img_elf_symbol *s, void *arg)
{
	return strcmp(s->name, arg) == 0;
}

static const char *find_library(const char *name)
{
	static char path[512];
	static const char *const dirs[] = { "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64",
		                            "/usr/lib" };

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dirs[i], name);
		if (access(path, R_OK) == 0)
			return path;
	}
	return NULL;
}

static struct img_elf *read_library(const char *name)
{
	struct base_mapfile map;
	struct err err = { 0 };
	struct img_elf *e = NULL;
	const char *path = find_library(name);

	if (!path)
		skip();
	assert_int_equal(base_mapfile_open(path, &map, &err), 0);
	assert_int_equal(img_elf_parse(map.data, map.size_bytes, name, IMG_ELF_SYMBOLS, &e, &err), 0);
	base_mapfile_close(&map);
	return e;
}

static void write_stub(const struct img_elf_stub *stub, struct place *p)
{
	struct base_buf out = BASE_BUF_INIT(1 << 24);
	struct err err = { 0 };
	const char *tmp = getenv("TMPDIR");

	assert_int_equal(img_elf_stub_write(stub, &out, &err), 0);
	assert_true(img_elf_is_stub(out.data, out.len));
	(void)snprintf(p->dir, sizeof(p->dir), "%s/stub-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(p->dir));
	(void)snprintf(p->lib, sizeof(p->lib), "%s/%s", p->dir, stub->name);
	assert_int_equal(base_write_file_atomic(p->lib, out.data, out.len, 0755, &err), 0);
	base_buf_done(&out);
}

static void remove_place(struct place *p)
{
	(void)unlink(p->lib);
	(void)rmdir(p->dir);
}

static void stub_keeps_soname_and_versions(void **state)
{
	struct img_elf *e = read_library("libz.so.1"), *stub = NULL;
	struct img_elf_stub in = { .original = e, .name = "libz.so.1", .is_wanted = want_all, .message = "m" };
	struct base_buf out = BASE_BUF_INIT(1 << 24);
	size_t n_defined = 0;

	assert_int_equal(img_elf_stub_write(&in, &out, NULL), 0);
	assert_int_equal(img_elf_parse(out.data, out.len, "stub", IMG_ELF_SYMBOLS, &stub, NULL), 0);
	assert_string_equal(stub->soname, e->soname);
	assert_int_equal(stub->n_needed, 0);
	assert_int_equal(stub->n_versions, e->n_versions);
	for (size_t i = 1; i < e->n_versions; i++)
		assert_string_equal(stub->versions[i], e->versions[i]);
	for (size_t i = 0; i < e->n_symbols; i++)
		n_defined += e->symbols[i].is_defined;
	assert_int_equal(stub->n_symbols, n_defined);
	assert_true(n_defined > 50);
	img_elf_free(stub);
	img_elf_free(e);
	base_buf_done(&out);
}

static void dynamic_linker_loads_it_and_finds_every_symbol(void **state)
{
	struct img_elf *e = read_library("libz.so.1");
	struct img_elf_stub in = { .original = e, .name = "libz.so.1", .is_wanted = want_all, .message = "m" };
	struct place p;
	void *lib;

	write_stub(&in, &p);
	lib = dlmopen(LM_ID_NEWLM, p.lib, RTLD_NOW);
	if (!lib)
		fail_msg("%s", dlerror());
	for (size_t i = 0; i < e->n_symbols; i++) {
		const struct img_elf_symbol *s = &e->symbols[i];

		if (s->is_defined && s->version && !dlvsym(lib, s->name, s->version))
			fail_msg("%s@%s: %s", s->name, s->version, dlerror());
		if (s->is_defined && !dlsym(lib, s->name))
			fail_msg("%s: %s", s->name, dlerror());
	}
	assert_int_equal(dlclose(lib), 0);
	img_elf_free(e);
	remove_place(&p);
}

static void symbols_that_are_not_wanted_are_absent(void **state)
{
	struct img_elf *e = read_library("libz.so.1");
	struct img_elf_stub in = {
		.original = e, .name = "libz.so.1", .is_wanted = want_one, .arg = (void *)"crc32", .message = "m"
	};
	struct place p;
	void *lib;

	write_stub(&in, &p);
	lib = dlmopen(LM_ID_NEWLM, p.lib, RTLD_NOW);
	assert_non_null(lib);
	assert_non_null(dlsym(lib, "crc32"));
	assert_null(dlsym(lib, "inflate"));
	(void)dlclose(lib);
	img_elf_free(e);
	remove_place(&p);
}

/* The child calls a function of the stub; its standard error is what we read. */
static void call_names_library_and_function_and_aborts(void **state)
{
	struct img_elf *e = read_library("libz.so.1");
	struct img_elf_stub in = {
		.original = e, .name = "libz.so.1", .is_wanted = want_all, .message = "libz.so.1 was left out; called: "
	};
	struct place p;
	int fds[2], status;
	char said[256];
	ssize_t n;
	pid_t pid;

	write_stub(&in, &p);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		void *lib = dlmopen(LM_ID_NEWLM, p.lib, RTLD_NOW);
		unsigned long (*call)(unsigned long, const void *, unsigned int);

		(void)signal(SIGABRT, SIG_DFL);
		(void)dup2(fds[1], 2);
		*(void **)&call = lib ? dlsym(lib, "adler32") : NULL;
		_exit(call ? (int)call(0, NULL, 0) : 3);
	}
	(void)close(fds[1]);
	n = read(fds[0], said, sizeof(said) - 1);
	for (ssize_t more; n > 0 && (more = read(fds[0], said + n, sizeof(said) - 1 - (size_t)n)) > 0;)
		n += more;
	said[n > 0 ? n : 0] = 0;
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_string_equal(said, "libz.so.1 was left out; called: adler32\n");
	img_elf_free(e);
	remove_place(&p);
}

/* ld.so walks the definitions when there is a DT_VERDEF, even for none: it must not be there. */
static void library_without_versions_is_loaded_too(void **state)
{
	struct img_elf *e = read_library("libz.so.1");
	struct img_elf_stub in = {
		.original = e, .name = "libz.so.1", .is_wanted = want_one, .arg = (void *)"crc32", .message = "m"
	};
	struct place p;
	void *lib;

	e->n_versions = 0;
	e->soname = "libz.so.1";
	write_stub(&in, &p);
	lib = dlmopen(LM_ID_NEWLM, p.lib, RTLD_NOW);
	if (!lib)
		fail_msg("%s", dlerror());
	assert_non_null(dlsym(lib, "crc32"));
	(void)dlclose(lib);
	img_elf_free(e);
	remove_place(&p);
}

static void library_of_another_machine_is_refused(void **state)
{
	struct img_elf *e = read_library("libz.so.1");
	struct img_elf_stub in = { .original = e, .name = "libz.so.1", .message = "m" };
	struct base_buf out = BASE_BUF_INIT(1 << 24);
	struct err err = { 0 };

	e->machine = 183;
	assert_int_equal(img_elf_stub_write(&in, &out, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "x86-64"));
	img_elf_free(e);
	base_buf_done(&out);
}

static void stub_is_a_small_part_of_a_library(void **state)
{
	struct img_elf *e = read_library("libsqlite3.so.0");
	struct img_elf_stub in = { .original = e, .name = "libsqlite3.so.0", .message = "m" };
	struct base_buf out = BASE_BUF_INIT(1 << 24);

	assert_int_equal(img_elf_stub_write(&in, &out, NULL), 0);
	assert_true(out.len < 2048);
	img_elf_free(e);
	base_buf_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stub_keeps_soname_and_versions),
		cmocka_unit_test(dynamic_linker_loads_it_and_finds_every_symbol),
		cmocka_unit_test(symbols_that_are_not_wanted_are_absent),
		cmocka_unit_test(call_names_library_and_function_and_aborts),
		cmocka_unit_test(library_without_versions_is_loaded_too),
		cmocka_unit_test(library_of_another_machine_is_refused),
		cmocka_unit_test(stub_is_a_small_part_of_a_library),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
