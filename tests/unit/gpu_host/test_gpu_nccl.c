/* Large messages between devices by the vendor's library: opened at run time, here one in plain loops that has its
 * name. With devices that reach each other it takes what is large, with others everything; what it does comes to the
 * same. */
#include <errno.h>
#include <libgen.h>
#include <pthread.h>
#include <unistd.h>

#include "../gpu/gpu_models.h"
#include "gpu/rt.h"

extern bool gpu_rt_host_streams, gpu_rt_host_apart;

static void name_library(const char *folder)
{
	char exe[4096], path[4200];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	assert_true(n > 0);
	exe[n] = '\0';
	(void)snprintf(path, sizeof(path), "%s/../../%s", dirname(exe), folder);
	assert_int_equal(setenv("OCAI_GPU_LIBS", path, 1), 0);
	gpu_rt_host_streams = true;
}

static void all_goes_by_the_library_where_devices_are_apart(void **state)
{
	static const char *const models[] = { "qwen3", "olmo2", "deepseek_v3", "gpt_oss" };

	(void)state;
	name_library("nccl-plain");
	gpu_rt_host_apart = true;
	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
		struct gpu_case c = { .model = models[i],
			              .exact = true,
			              .max_piece = 20,
			              .n_seqs = 3,
			              .max_tokens = 24,
			              .tolerance = 1e-4,
			              .n_devices = 2 };

		check_model(&c);
		c.exact = false;
		c.tolerance = 5e-2;
		check_model(&c);
	}
	gpu_rt_host_apart = false;
}

/* A sum of some rows by way of a backend of two devices, larger than what goes our own way. */
struct large {
	struct kn_backend *be;
	size_t n_rows, dim;
	float *got;
	int result;
};

static void *sum_large(void *arg)
{
	struct large *l = arg;
	const struct kn_ops *ops = l->be->ops;
	size_t bytes = l->n_rows * l->dim * sizeof(float);
	float *x = ops->alloc(l->be, bytes);

	for (size_t i = 0; i < l->n_rows * l->dim; i++)
		l->got[i] = (float)((i + l->be->rank * 3) % 17);
	ops->upload(l->be, x, l->got, bytes);
	ops->all_reduce(l->be, x, l->dim, l->n_rows, l->dim);
	l->result = ops->sync(l->be);
	ops->download(l->be, l->got, x, bytes);
	ops->free(l->be, x);
	return NULL;
}

static void what_is_large_goes_by_the_library(void **state)
{
	struct gpu_case c = { .exact = true, .n_devices = 2 };
	struct large l[2] = { { .n_rows = 128, .dim = 8192 }, { .n_rows = 128, .dim = 8192 } };
	struct kn_backend *be;
	pthread_t threads[2];

	(void)state;
	name_library("nccl-plain");
	be = open_gpu(&c);
	for (int i = 0; i < 2; i++) {
		l[i].be = be->ranks[i];
		l[i].got = malloc(l[i].n_rows * l[i].dim * sizeof(float));
		assert_int_equal(pthread_create(&threads[i], NULL, sum_large, &l[i]), 0);
	}
	for (int i = 0; i < 2; i++) {
		(void)pthread_join(threads[i], NULL);
		assert_int_equal(l[i].result, 0);
		for (size_t k = 0; k < l[i].n_rows * l[i].dim; k++)
			assert_true(l[i].got[k] == (float)(k % 17 + (k + 3) % 17));
	}
	for (int i = 0; i < 2; i++)
		free(l[i].got);
	kn_backend_close(be);
}

/* The other rank never comes: an abort lets go who waits in the library. */
static void *break_group(void *arg)
{
	struct kn_backend *other = arg;
	float nowhere[4];

	(void)usleep(20000);
	other->ops->clear(other, nowhere, 4, 1, 4);
	return NULL;
}

static void who_waits_in_the_library_is_let_go(void **state)
{
	struct gpu_case c = { .exact = true, .n_devices = 2 };
	struct large l = { .n_rows = 128, .dim = 8192 };
	struct kn_backend *be;
	pthread_t thread;

	(void)state;
	name_library("nccl-plain");
	be = open_gpu(&c);
	l.be = be;
	l.got = malloc(l.n_rows * l.dim * sizeof(float));
	assert_int_equal(pthread_create(&thread, NULL, break_group, be->ranks[1]), 0);
	(void)sum_large(&l);
	(void)pthread_join(thread, NULL);
	assert_true(l.result < 0);
	free(l.got);
	kn_backend_close(be);
}

static char noted[256];

static void on_note(const char *backend, const char *text)
{
	(void)backend;
	(void)snprintf(noted, sizeof(noted), "%s", text);
}

static void without_the_library_there_is_our_own_way_or_a_reason(void **state)
{
	static const uint32_t devices[] = { 0, 1 };
	const struct kn_config config = { .max_tokens = 8, .exact = true, .devices = devices, .n_devices = 2 };
	const struct gpu_open how = { .on_note = on_note };
	struct kn_backend *be = NULL;
	struct err err = { 0 };

	(void)state;
	gpu_rt_host_streams = true;
	assert_int_equal(setenv("OCAI_GPU_NCCL", "0", 1), 0);
	assert_int_equal(gpu_backend_open("gpu-test", &config, &how, &be, &err), 0);
	assert_non_null(strstr(noted, "OCAI_GPU_NCCL is 0: prompts go from device to device by kernels of our own"));
	kn_backend_close(be);
	be = NULL;
	gpu_rt_host_apart = true;
	assert_int_equal(gpu_backend_open("gpu-test", &config, &how, &be, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "its devices cannot read each other's memory, and OCAI_GPU_NCCL is 0"));
	assert_null(be);
	gpu_rt_host_apart = false;
	assert_int_equal(unsetenv("OCAI_GPU_NCCL"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_goes_by_the_library_where_devices_are_apart),
		cmocka_unit_test(what_is_large_goes_by_the_library),
		cmocka_unit_test(who_waits_in_the_library_is_let_go),
		cmocka_unit_test(without_the_library_there_is_our_own_way_or_a_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
