/* Prompts on one device and answers on another, on a GPU plugin whose launchers are plain loops: the engine's answers
 * are those of one device, bit by bit in deterministic mode, with K and V in every type, with adapters, and of groups;
 * what cannot be served that way is refused with a reason; and copies between two backends by themselves. On a machine
 * with devices the same is asked of those by OCAI_TEST_DEVICE=cuda, which has OCAI_TEST_DEVICES of them [2]. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "host_plugin.h"
#include "kernels.h"
#include "test.h"

enum { N = 12, MAX_PROMPT = 150, MAX_NEW = 20 };

struct answer {
	uint32_t n;
	int32_t ids[MAX_NEW];
	float logprobs[MAX_NEW];
};

struct answers {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int n_open;
	struct answer a[N];
};

struct call {
	struct answers *all;
	struct answer *a;
};

static void on_event(void *arg, const struct eng_event *ev)
{
	struct call *c = arg;

	(void)pthread_mutex_lock(&c->all->lock);
	if (ev->kind == ENG_EV_TOKEN && c->a->n < MAX_NEW) {
		c->a->logprobs[c->a->n] = ev->logprob;
		c->a->ids[c->a->n++] = ev->id;
	}
	if (ev->kind == ENG_EV_DONE) {
		if (ev->error)
			print_message("%s\n", err_text(ev->error));
		c->all->n_open--;
		(void)pthread_cond_signal(&c->all->cond);
	}
	(void)pthread_mutex_unlock(&c->all->lock);
}

/* The machine's own; 0: the host plays them. */
static int n_devices(void)
{
	const char *n = getenv("OCAI_TEST_DEVICES");

	return !getenv("OCAI_TEST_DEVICE") ? 0 : n ? (int)strtol(n, NULL, 10) : 2;
}

static void use_plugin(void)
{
	if (n_devices() == 0)
		use_host_plugin();
}

/* Long and short prompts, some alike at their beginnings, greedy and drawn, all at once; with adapters every third. */
static void ask_all(struct eng_options o, struct answers *ret, struct eng_stats *ret_stats)
{
	static int32_t ids[N][MAX_PROMPT];
	struct call calls[N];
	struct eng_engine *e = NULL;
	struct err err = { 0 };

	*ret = (struct answers){ .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .n_open = N };
	o.backend = "cuda";
	o.n_ctx = 256;
	if (eng_engine_open(&o, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	for (int i = 0; i < N; i++) {
		struct eng_request req = { .ids = ids[i],
			                   .n_ids = i % 3 ? MAX_PROMPT - 7 * (size_t)i : 5 + (size_t)i,
			                   .max_new = MAX_NEW - (uint32_t)i % 4,
			                   .ignore_eos = true,
			                   .logprob_start = -1,
			                   .logprobs = i % 2 == 0,
			                   .adapter = o.n_loras ? i % 3 == 1 : 0,
			                   .on_event = on_event,
			                   .arg = &calls[i],
			                   .sampling = { .top_p = 1, .repetition_penalty = 1 } };
		uint64_t id;

		calls[i] = (struct call){ ret, &ret->a[i] };
		for (int k = 0; k < MAX_PROMPT; k++)
			ids[i][k] = (k * 7 + (k < 40 ? i % 2 : i) * 31 + k * k % 11) % 250;
		if (i % 4 == 3) {
			req.sampling.temperature = 0.8f;
			req.sampling.has_seed = true;
			req.sampling.seed = (uint64_t)i;
		}
		assert_int_equal(eng_submit(e, &req, &id, &err), 0);
	}
	(void)pthread_mutex_lock(&ret->lock);
	while (ret->n_open > 0)
		(void)pthread_cond_wait(&ret->cond, &ret->lock);
	(void)pthread_mutex_unlock(&ret->lock);
	eng_engine_drain(e, 10000);
	eng_engine_stats(e, ret_stats);
	assert_int_equal(ret_stats->kv_pages_used, 0);
	assert_int_equal(ret_stats->n_failed, 0);
	eng_engine_close(e);
}

struct variant {
	const char *name, *model, *kv_dtype, *precision, *prompts, *answers;
	bool deterministic, no_ahead, lora;
};

static void answers_are_those_of_one_device(void **state)
{
	const struct variant *v = *state;
	char folder[4096], model[4096]; /* test_fixture() has room for one */
	const struct eng_lora lora = { .name = "a", .folder = folder };
	struct eng_options o = { .model_path = model,
		                 .kv_dtype = v->kv_dtype,
		                 .precision = v->precision,
		                 .deterministic = v->deterministic,
		                 .no_ahead = v->no_ahead,
		                 .no_speculation = true,
		                 .loras = &lora,
		                 .n_loras = v->lora };
	static struct answers want, got;
	struct eng_stats one, two;

	if (n_devices() > 0 && n_devices() < 4 && strchr(v->prompts, ','))
		skip();
	(void)snprintf(folder, sizeof(folder), "%s", test_fixture("formats/qwen3-lora/adapter"));
	(void)snprintf(model, sizeof(model), "%s", test_fixture(v->model));
	use_plugin();
	ask_all(o, &want, &one);
	assert_int_equal(one.n_handed, 0);
	o.prefill_devices = n_devices() == 1 ? "0" : v->prompts;
	o.decode_devices = n_devices() == 1 ? "0" : v->answers;
	o.kv_bytes = strcmp(o.prefill_devices, o.decode_devices) == 0 ? 8 << 20 : 0;
	ask_all(o, &got, &two);
	assert_int_equal(two.n_handed, N);
	assert_true(two.handed_bytes > 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(want.a[i].n, MAX_NEW - i % 4);
		assert_int_equal(got.a[i].n, want.a[i].n);
		assert_memory_equal(got.a[i].ids, want.a[i].ids, want.a[i].n * sizeof(want.a[i].ids[0]));
		if (v->deterministic)
			assert_memory_equal(got.a[i].logprobs, want.a[i].logprobs,
			                    want.a[i].n * sizeof(want.a[i].logprobs[0]));
	}
	print_message("%s: %llu of %llu steps ahead, %llu bytes handed over\n", v->name,
	              (unsigned long long)two.n_steps_ahead, (unsigned long long)two.n_steps,
	              (unsigned long long)two.handed_bytes);
}

/* Weights that come while the engine serves: on both. */
static void other_weights_are_on_both_sides(void **state)
{
	static struct answers got;
	char model[4096];
	struct eng_options o = { .model_path = model, .no_speculation = true };
	struct eng_engine *e = NULL;
	struct err err = { 0 };
	struct eng_stats st;
	int32_t prompt[40];
	struct call call = { &got, &got.a[0] };
	struct eng_request req = { .ids = prompt,
		                   .n_ids = 40,
		                   .max_new = MAX_NEW,
		                   .ignore_eos = true,
		                   .logprob_start = -1,
		                   .on_event = on_event,
		                   .arg = &call,
		                   .sampling = { .top_p = 1, .repetition_penalty = 1 } };
	uint64_t id;

	(void)state;
	use_plugin();
	(void)snprintf(model, sizeof(model), "%s", test_fixture("models/qwen3"));
	got = (struct answers){ .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	for (int k = 0; k < 40; k++)
		prompt[k] = (k * 7 + k * k % 11) % 250;
	o.backend = "cuda";
	o.n_ctx = 256;
	o.prefill_devices = n_devices() == 1 ? "0" : "1";
	o.decode_devices = "0";
	o.kv_bytes = n_devices() == 1 ? 8 << 20 : 0;
	if (eng_engine_open(&o, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	for (int round = 0; round < 3; round++) {
		struct answer before = got.a[0];

		got.a[0].n = 0;
		got.n_open = 1;
		assert_int_equal(eng_submit(e, &req, &id, &err), 0);
		(void)pthread_mutex_lock(&got.lock);
		while (got.n_open > 0)
			(void)pthread_cond_wait(&got.cond, &got.lock);
		(void)pthread_mutex_unlock(&got.lock);
		assert_int_equal(got.a[0].n, MAX_NEW);
		if (round > 0)
			assert_memory_equal(got.a[0].ids, before.ids, sizeof(before.ids));
		if (eng_update_weights(e, o.model_path, "again", &err) < 0)
			fail_msg("%s", err_text(&err));
		eng_engine_stats(e, &st);
		assert_int_equal(st.kv_pages_cached, 0);
		assert_int_equal(st.n_handed, round + 1);
	}
	assert_int_equal(eng_update_weights(e, test_fixture("models/olmo2"), NULL, &err), -EINVAL);
	eng_engine_close(e);
}

static void what_makes_no_sense_is_refused(void **state)
{
	static const struct {
		const char *model, *backend, *prompts, *answers, *devices;
		uint32_t n;
		int error;
		const char *words;
	} cases[] = {
		{ "models/qwen3", "cuda", "0", NULL, NULL, 0, -EINVAL, "decode-devices is missing" },
		{ "models/qwen3", "cuda", NULL, "1", NULL, 0, -EINVAL, "prefill-devices is missing" },
		{ "models/qwen3", "cuda", "0", "0", NULL, 0, -EINVAL, "both sides on one need kv-bytes" },
		{ "models/qwen3", "cuda", "0,1", "2,1", NULL, 0, -EINVAL, "device 1 is among" },
		{ "models/qwen3", "cuda", "0,1", "2", NULL, 0, -ENOTSUP, "as many are needed" },
		{ "models/qwen3", "cuda", "0", "x", NULL, 0, -EINVAL, "decode-devices \"x\"" },
		{ "models/qwen3", "cuda", "0", "1", "0,1", 0, -EINVAL, "do not go with them" },
		{ "models/qwen3", "cuda", "0", "1", NULL, 2, -EINVAL, "do not go with them" },
		{ "models/qwen3", "cpu", "0", "1", NULL, 0, -ENOTSUP, "has no devices to choose" },
		{ "formats/qwen3_next", "cuda", "0", "1", NULL, 0, -ENOTSUP, "recurrent layers" },
		{ "formats/bert-embedding", "cuda", "0", "1", NULL, 0, -ENOTSUP, "embedding model" },
	};

	(void)state;
	if (n_devices() > 0)
		skip();
	use_plugin();
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		struct eng_options o = { .model_path = test_fixture(cases[c].model),
			                 .backend = cases[c].backend,
			                 .prefill_devices = cases[c].prompts,
			                 .decode_devices = cases[c].answers,
			                 .devices = cases[c].devices,
			                 .tensor_parallel = cases[c].n };

		engine_is_refused(&o, cases[c].error, cases[c].words);
	}
}

/* ---- The backend's copies ---- */

static void pieces_come_from_another_device(void **state)
{
	enum { ROWS = 6, ROW = 512, BYTES = 8192 };
	static const uint32_t numbers[] = { 0, 1 };
	struct kn_config config = { .max_tokens = 16, .n_devices = 1 };
	struct kn_backend *be[2] = { NULL };
	struct kn_piece pieces[ROWS];
	struct err err = { 0 };
	uint64_t ticket = 0, other = 0;
	char *pools[2], *bytes = malloc(BYTES), *back = malloc(BYTES);
	int reached;

	(void)state;
	use_plugin();
	for (int i = 0; i < 2; i++) {
		config.devices = &numbers[n_devices() == 1 ? 0 : i]; /* better than nothing */
		if (kn_backend_open("cuda", &config, &be[i], &err) < 0)
			fail_msg("%s", err_text(&err));
		pools[i] = be[i]->ops->alloc(be[i], BYTES);
		assert_non_null(pools[i]);
	}
	assert_non_null(bytes);
	assert_non_null(back);
	for (int i = 0; i < BYTES; i++)
		bytes[i] = (char)(i * 37 + i / 256);
	be[0]->ops->upload(be[0], pools[0], bytes, BYTES);
	assert_int_equal(be[0]->ops->sync(be[0]), 0);
	memset(back, 1, BYTES);
	be[1]->ops->upload(be[1], pools[1], back, BYTES);
	reached = be[1]->ops->copy_from(be[1], be[0]);
	assert_true(reached >= 0);
	print_message("directly: %d\n", reached);
	for (int i = 0; i < ROWS; i++)
		pieces[i] = (struct kn_piece){ pools[1] + 1024 + i * 1024, pools[0] + i * 768, ROW };
	assert_int_equal(be[1]->ops->copy_begin(be[1], KN_FROM_PEER, pieces, ROWS, &ticket), 0);
	pieces[0] = (struct kn_piece){ pools[1], pools[0] + 8000, 96 };
	assert_int_equal(be[1]->ops->copy_begin(be[1], KN_FROM_PEER, pieces, 1, &other), 0);
	assert_int_equal(be[1]->ops->copy_wait(be[1], other), 0);
	assert_int_equal(be[1]->ops->copy_poll(be[1], ticket), 1);
	be[1]->ops->download(be[1], back, pools[1], BYTES);
	assert_int_equal(be[1]->ops->sync(be[1]), 0);
	assert_memory_equal(back, bytes + 8000, 96);
	assert_int_equal(back[96], 1);
	for (int i = 0; i < ROWS; i++) {
		assert_memory_equal(back + 1024 + i * 1024, bytes + i * 768, ROW);
		assert_int_equal(back[1024 + i * 1024 + ROW], 1);
	}
	/* Beyond what is there. */
	pieces[0] = (struct kn_piece){ pools[1] + BYTES - 8, pools[0], 16 };
	assert_int_equal(be[1]->ops->copy_begin(be[1], KN_FROM_PEER, pieces, 1, &ticket), -EFAULT);
	for (int i = 1; i >= 0; i--) {
		be[i]->ops->free(be[i], pools[i]);
		kn_backend_close(be[i]);
	}
	free(bytes);
	free(back);
}

int main(int argc, char **argv)
{
	static const struct variant variants[] = {
		{ "float32", "models/qwen3", "f32", "exact", "0", "1", false, false, false },
		{ "bf16", "models/qwen3", "bf16", "exact", "1", "0", false, false, false },
		{ "e4m3", "models/qwen3", "f8", "exact", "0", "1", false, false, false },
		{ "both on one", "models/qwen3", "bf16", "exact", "1", "1", false, false, false },
		{ "one by one", "models/qwen3", "bf16", "exact", "0", "1", false, true, false },
		{ "deterministic", "models/qwen3", "bf16", "fast", "0", "1", true, false, false },
		{ "latent attention", "models/deepseek_v3", NULL, "exact", "0", "1", false, false, false },
		{ "windows and sinks", "models/gpt_oss", NULL, "exact", "0", "1", false, false, false },
		{ "adapters", "models/qwen3", NULL, "exact", "0", "1", false, false, true },
		{ "groups", "models/qwen3", NULL, "exact", "0,1", "2,3", false, false, false },
		{ "groups by experts", "models/qwen3_moe", NULL, "exact", "3,1", "2,0", false, false, false },
	};
	enum { N_VARIANTS = sizeof(variants) / sizeof(variants[0]) };
	struct CMUnitTest tests[N_VARIANTS + 3] = { cmocka_unit_test(pieces_come_from_another_device),
		                                    cmocka_unit_test(what_makes_no_sense_is_refused),
		                                    cmocka_unit_test(other_weights_are_on_both_sides) };

	for (int i = 0; i < N_VARIANTS; i++)
		tests[i + 3] = (struct CMUnitTest){ .name = variants[i].name,
			                            .test_func = answers_are_those_of_one_device,
			                            .initial_state = (void *)&variants[i] };
	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* one by name, with * and ? */
	return _cmocka_run_group_tests("split", tests, N_VARIANTS + 3, NULL, NULL);
}
