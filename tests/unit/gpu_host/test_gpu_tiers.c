/* The engine on a GPU plugin whose launchers are plain loops, with a K/V pool that holds little more than one prompt:
 * with a cache in host memory, and on disk behind it, the same answers as without, bit by bit in deterministic mode;
 * and the backend's copies by themselves. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "host_plugin.h"
#include "kernels.h"
#include "test.h"

enum { N_PROMPTS = 4, PROMPT = 170, N_NEW = 12, ROUNDS = 3, PAGE = 32, N_PAGES = 9 };

struct asked {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_done;
	uint32_t n;
	int32_t ids[N_NEW];
	float logprobs[N_NEW];
};

struct answers {
	struct asked a[ROUNDS][N_PROMPTS];
};

static void on_event(void *arg, const struct eng_event *ev)
{
	struct asked *a = arg;

	(void)pthread_mutex_lock(&a->lock);
	if (ev->kind == ENG_EV_TOKEN && a->n < N_NEW) {
		a->logprobs[a->n] = ev->logprob;
		a->ids[a->n++] = ev->id;
	}
	if (ev->kind == ENG_EV_DONE) {
		if (ev->error)
			print_message("%s\n", err_text(ev->error));
		a->is_done = true;
		(void)pthread_cond_signal(&a->cond);
	}
	(void)pthread_mutex_unlock(&a->lock);
}

static void ask(struct eng_engine *e, int prompt, struct asked *a)
{
	int32_t ids[PROMPT];
	struct eng_request req = { .ids = ids,
		                   .n_ids = PROMPT,
		                   .max_new = N_NEW,
		                   .ignore_eos = true,
		                   .logprob_start = -1,
		                   .logprobs = true,
		                   .on_event = on_event,
		                   .arg = a,
		                   .sampling = { .top_p = 1, .repetition_penalty = 1 } };
	struct err err = { 0 };
	uint64_t id;

	for (int i = 0; i < PROMPT; i++)
		ids[i] = (i * 7 + prompt * 31 + i * i % 11) % 250;
	*a = (struct asked){ .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	if (eng_submit(e, &req, &id, &err) < 0)
		fail_msg("%s", err_text(&err));
	(void)pthread_mutex_lock(&a->lock);
	while (!a->is_done)
		(void)pthread_cond_wait(&a->cond, &a->lock);
	(void)pthread_mutex_unlock(&a->lock);
	assert_int_equal(a->n, N_NEW);
}

static void tell(void *arg, const char *text)
{
	(void)arg;
	print_message("%s\n", text);
}

/* All prompts in turn, round after round; what one needs has given way to the others by then. */
static void run(struct eng_options o, uint64_t page_bytes, struct answers *ret, struct eng_stats *ret_stats)
{
	struct eng_engine *e = NULL;
	struct err err = { 0 };

	o.model_path = test_fixture("models/qwen3");
	o.backend = "cuda";
	o.n_ctx = 256;
	o.on_note = tell;
	o.kv_bytes = N_PAGES * page_bytes;
	if (eng_engine_open(&o, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	for (int ms = 0; o.host_cache_bytes && ms < 10000; ms++) {
		eng_engine_stats(e, ret_stats);
		if (ret_stats->host_pages_total == o.host_cache_bytes / page_bytes)
			break;
		(void)usleep(1000);
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < N_PROMPTS; i++)
			ask(e, i, &ret->a[round][i]);
	}
	eng_engine_stats(e, ret_stats);
	assert_int_equal(ret_stats->kv_pages_total, N_PAGES);
	eng_engine_close(e);
}

/* Of a page; with on_plan the pool's size is known before it is taken. */
static void note_plan(void *arg, const struct eng_memory_plan *plan)
{
	*(uint64_t *)arg = plan->kv_bytes / plan->kv_pages;
}

static uint64_t page_bytes_of(struct eng_options o)
{
	struct eng_engine *e = NULL;
	uint64_t bytes = 0;

	o.model_path = test_fixture("models/qwen3");
	o.backend = "cuda";
	o.on_plan = note_plan;
	o.plan_arg = &bytes;
	assert_int_equal(eng_engine_open(&o, &e, NULL), 0);
	eng_engine_close(e);
	return bytes;
}

static void expect_same(const struct answers *want, const struct answers *got, bool bitwise)
{
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < N_PROMPTS; i++) {
			const struct asked *a = &want->a[r][i], *b = &got->a[r][i];

			assert_memory_equal(a->ids, b->ids, sizeof(a->ids));
			if (bitwise)
				assert_memory_equal(a->logprobs, b->logprobs, sizeof(a->logprobs));
		}
	}
}

struct variant {
	const char *name, *kv_dtype;
	bool deterministic, write_through, on_disk;
	uint32_t n_devices;
};

static void answers_are_the_same_with_tiers(void **state)
{
	const struct variant *v = *state;
	struct eng_options o = { .kv_dtype = v->kv_dtype,
		                 .deterministic = v->deterministic,
		                 .tensor_parallel = v->n_devices,
		                 .no_speculation = true };
	static struct answers want, got;
	struct eng_stats st, none;
	char dir[] = "/tmp/ocai-gpu-tiers-XXXXXX", cmd[128];
	uint64_t page_bytes;

	use_host_plugin();
	page_bytes = page_bytes_of(o);
	run(o, page_bytes, &want, &none);
	assert_int_equal(none.host_pages_total, 0);
	assert_true(none.kv_evictions > 0);
	o.host_cache_bytes = 40 * page_bytes;
	o.host_write_through = v->write_through;
	o.cache_dir = v->on_disk ? mkdtemp(dir) : NULL;
	for (int life = 0; life <= v->on_disk; life++) {
		run(o, page_bytes, &got, &st);
		expect_same(&want, &got, v->deterministic);
		print_message(
		        "%s: %llu tokens computed, %llu from the host, %llu from disk; %llu loads refused, %llu pages "
		        "lost\n",
		        v->name, (unsigned long long)st.prompt_tokens, (unsigned long long)st.host_tokens,
		        (unsigned long long)st.disk_tokens, (unsigned long long)st.n_loads_refused,
		        (unsigned long long)st.host_pages_lost);
		assert_int_equal(st.host_pages_damaged + st.disk_pages_damaged, 0);
		assert_true(st.host_bytes_in > 0 && st.host_tokens + st.disk_tokens > 0);
		assert_true(life > 0 || st.host_bytes_out > 0);
		assert_true(st.prompt_tokens < none.prompt_tokens);
	}
	if (v->on_disk) {
		assert_true(st.disk_tokens > 0);
		(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
		assert_int_equal(system(cmd), 0);
	}
}

/* ---- The backend's copies ---- */

static void pieces_go_to_the_host_and_back(void **state)
{
	enum { ROWS = 7, ROW = 300, BYTES = 4096 };
	const struct kn_config config = { .max_tokens = 16 };
	struct kn_backend *be = NULL;
	const struct kn_ops *ops;
	struct kn_piece pieces[ROWS + 1];
	struct err err = { 0 };
	uint64_t out, in;
	char *pool, *other, *host, *bytes = malloc(BYTES), *back = malloc(BYTES);

	(void)state;
	use_host_plugin();
	if (kn_backend_open("cuda", &config, &be, &err) < 0)
		fail_msg("%s", err_text(&err));
	ops = be->ops;
	pool = ops->alloc(be, BYTES);
	other = ops->alloc(be, BYTES);
	host = ops->host_alloc(be, BYTES);
	assert_true(pool && other && host && bytes && back);
	for (int i = 0; i < BYTES; i++)
		bytes[i] = (char)(i * 37 + i / 256);
	ops->upload(be, pool, bytes, BYTES);
	assert_int_equal(ops->sync(be), 0);
	/* Rows at equal distances, which are one copy, and one that is not. */
	for (int i = 0; i < ROWS; i++)
		pieces[i] = (struct kn_piece){ pool + 100 + i * 512, host + i * ROW, ROW };
	pieces[ROWS] = (struct kn_piece){ pool + 4000, host + ROWS * ROW, 90 };
	assert_int_equal(ops->copy_begin(be, KN_TO_HOST, pieces, ROWS + 1, &out), 0);
	assert_int_equal(ops->copy_fence(be, out), 0);
	assert_int_equal(ops->copy_wait(be, out), 0);
	assert_int_equal(ops->copy_poll(be, out), 1);
	for (int i = 0; i < ROWS; i++)
		assert_memory_equal(host + i * ROW, bytes + 100 + i * 512, ROW);
	assert_memory_equal(host + ROWS * ROW, bytes + 4000, 90);
	ops->upload(be, other, bytes, BYTES);
	for (int i = 0; i < ROWS; i++) /* the other way round */
		pieces[i].device = other + 100 + (ROWS - 1 - i) * 512;
	pieces[ROWS].device = other + 3900;
	assert_int_equal(ops->copy_begin(be, KN_TO_DEVICE, pieces, ROWS + 1, &in), 0);
	assert_int_equal(ops->copy_wait(be, in), 0);
	ops->download(be, back, other, BYTES);
	assert_int_equal(ops->sync(be), 0);
	for (int i = 0; i <= ROWS; i++) {
		char *at = bytes + ((char *)pieces[i].device - other);

		memcpy(at, pieces[i].host, pieces[i].bytes);
	}
	assert_memory_equal(back, bytes, BYTES);
	/* Beyond an allocation, and many at a time. */
	pieces[0] = (struct kn_piece){ pool + BYTES - 8, host, 9 };
	assert_int_equal(ops->copy_begin(be, KN_TO_HOST, pieces, 1, &out), -EFAULT);
	pieces[0].device = bytes;
	assert_int_equal(ops->copy_begin(be, KN_TO_HOST, pieces, 1, &out), -EFAULT);
	pieces[0].device = pool;
	for (int i = 0; i < 2000; i++)
		assert_int_equal(ops->copy_begin(be, i % 2 ? KN_TO_HOST : KN_TO_DEVICE, pieces, 1, &out), 0);
	assert_int_equal(ops->copy_wait(be, out), 0);
	ops->host_free(be, host);
	ops->free(be, pool);
	ops->free(be, other);
	kn_backend_close(be);
	free(bytes);
	free(back);
}

int main(void)
{
	static const struct variant variants[] = {
		{ .name = "write-back" },
		{ .name = "write-through, bf16", .kv_dtype = "bf16", .write_through = true },
		{ .name = "e4m3", .kv_dtype = "f8" },
		{ .name = "deterministic", .kv_dtype = "bf16", .deterministic = true },
		{ .name = "deterministic, write-through, disk",
		  .deterministic = true,
		  .write_through = true,
		  .on_disk = true },
		{ .name = "write-back, disk", .on_disk = true },
		{ .name = "two devices, disk", .on_disk = true, .n_devices = 2 },
		{ .name = "two devices, deterministic", .deterministic = true, .write_through = true, .n_devices = 2 },
	};
	enum { N = sizeof(variants) / sizeof(variants[0]) };
	struct CMUnitTest tests[N + 1] = { cmocka_unit_test(pieces_go_to_the_host_and_back) };

	for (int i = 0; i < N; i++)
		tests[i + 1] = (struct CMUnitTest){ .name = variants[i].name,
			                            .test_func = answers_are_the_same_with_tiers,
			                            .initial_state = (void *)&variants[i] };
	return _cmocka_run_group_tests("tiers", tests, N + 1, NULL, NULL);
}
