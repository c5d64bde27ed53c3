/* GPU plugins that are not there, are none, are of another version, or find no device: each is refused with its reason,
 * and the engine then computes on the processor. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine.h"
#include "kernel_plugin.h"
#include "test.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/ocai-plugin-XXXXXX");
	return mkdtemp(folder) ? setenv("OCAI_PLUGIN_DIR", folder, 1) : -1;
}

static int remove_folder(void **state)
{
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/libocai-engine-cuda.so", folder);
	(void)unlink(path);
	return rmdir(folder);
}

/* $(B)/..., from $(B)/tests/unit/kernels/test_plugin. */
static void built(const char *what, char *path, size_t bytes)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	assert_true(n > 0);
	exe[n] = '\0';
	(void)snprintf(path, bytes, "%s/../../../%s", dirname(exe), what);
}

static int open_kind(const char *kind, struct err *err)
{
	const struct kn_config config = { .max_tokens = 16 };
	struct kn_backend *be = NULL;
	int r = kn_backend_open(kind, &config, &be, err);

	kn_backend_close(be);
	return r;
}

static void a_plugin_that_is_not_installed_is_named(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(open_kind("cuda", &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "libocai-engine-cuda.so is not installed"));
	assert_int_equal(open_kind("hip", &err), -ENOENT);
}

static void a_file_that_is_no_library_is_refused(void **state)
{
	struct err err = { 0 };
	char path[128];
	int fd;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/libocai-engine-cuda.so", folder);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "plugin\n", 7), 7);
	assert_int_equal(close(fd), 0);
	assert_int_equal(open_kind("cuda", &err), -ELIBACC);
	assert_non_null(strstr(err_text(&err), path));
	assert_int_equal(unlink(path), 0);
}

static void another_version_is_refused(void **state)
{
	struct err err = { 0 };
	char path[4200];

	(void)state;
	built("tests/plugin-other", path, sizeof(path));
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", path, 1), 0);
	assert_int_equal(open_kind("cuda", &err), -ELIBACC);
	assert_non_null(strstr(err_text(&err), "is of another version"));
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", folder, 1), 0);
}

static void take_note(void *arg, const char *text)
{
	(void)snprintf(arg, 512, "%s", text);
}

static void auto_is_the_processor_and_says_why(void **state)
{
	char note[512] = "", path[4200];
	struct eng_options o = { .backend = "auto", .on_note = take_note, .plan_arg = note };
	struct eng_engine *e = NULL;
	struct err err = { 0 };

	(void)state;
	built("tests/plugin-other", path, sizeof(path));
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", path, 1), 0);
	o.model_path = test_fixture("models/llama");
	if (eng_engine_open(&o, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_string_equal(eng_engine_info(e)->backend, "cpu");
	assert_non_null(strstr(note, "is of another version"));
	eng_engine_close(e);
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", folder, 1), 0);
}

/* The plugin that this tree has built, if it has: it loads without a driver, and without a device says so. */
static void the_plugin_loads_anywhere(void **state)
{
	struct err err = { 0 };
	char path[4200];
	int r;

	(void)state;
	built("plugins/libocai-engine-cuda.so", path, sizeof(path));
	if (access(path, R_OK) < 0)
		skip();
	*strrchr(path, '/') = '\0';
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", path, 1), 0);
	r = open_kind("cuda", &err);
	print_message("%s\n", r < 0 ? err_text(&err) : "there is a device");
	assert_true(r == 0 || r == -ENODEV);
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", folder, 1), 0);
}

/* The one for AMD wants ROCm's runtime before it can be loaded at all. */
static void the_plugin_for_amd_says_what_is_missing(void **state)
{
	struct err err = { 0 };
	char path[4200];
	int r;

	(void)state;
	built("plugins/libocai-engine-hip.so", path, sizeof(path));
	if (access(path, R_OK) < 0)
		skip();
	*strrchr(path, '/') = '\0';
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", path, 1), 0);
	r = open_kind("hip", &err);
	print_message("%s\n", r < 0 ? err_text(&err) : "there is a device");
	assert_true(r == 0 || r == -ENODEV || (r == -ELIBACC && strstr(err_text(&err), "no ROCm here")));
	assert_int_equal(setenv("OCAI_PLUGIN_DIR", folder, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plugin_that_is_not_installed_is_named),
		cmocka_unit_test(a_file_that_is_no_library_is_refused),
		cmocka_unit_test(another_version_is_refused),
		cmocka_unit_test(auto_is_the_processor_and_says_why),
		cmocka_unit_test(the_plugin_loads_anywhere),
		cmocka_unit_test(the_plugin_for_amd_says_what_is_missing),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
