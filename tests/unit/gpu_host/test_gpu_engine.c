/* The whole engine on a GPU plugin whose launchers are plain loops: loaded, planned by what the device says is free,
 * scheduled; greedy requests come back as ids, others as logits. Compared with the reference backend. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "host_plugin.h"
#include "test.h"

enum { N_REQUESTS = 9, MAX_IDS = 24 };

struct answer {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int n_open;
	bool has_adapter; /* for the second of three */
	int32_t ids[N_REQUESTS][MAX_IDS];
	float logprobs[N_REQUESTS][MAX_IDS];
	uint32_t n[N_REQUESTS];
};

struct call {
	struct answer *a;
	int i;
};

static void on_event(void *arg, const struct eng_event *ev)
{
	struct call *c = arg;

	(void)pthread_mutex_lock(&c->a->lock);
	if (ev->kind == ENG_EV_TOKEN && c->a->n[c->i] < MAX_IDS) {
		c->a->logprobs[c->i][c->a->n[c->i]] = ev->logprob;
		c->a->ids[c->i][c->a->n[c->i]++] = ev->id;
	}
	if (ev->kind == ENG_EV_DONE) {
		if (ev->error)
			print_message("%s\n", err_text(ev->error));
		c->a->n_open--;
		(void)pthread_cond_signal(&c->a->cond);
	}
	(void)pthread_mutex_unlock(&c->a->lock);
}

static void submit(struct eng_engine *e, struct call *call)
{
	static const int32_t prompt[] = { 5, 80, 13, 200, 41, 7, 99, 300, 12, 6 };
	struct eng_request req = { .ids = prompt + call->i % 3,
		                   .n_ids = 7,
		                   .max_new = MAX_IDS - (uint32_t)call->i,
		                   .ignore_eos = true,
		                   .logprob_start = -1,
		                   .adapter = call->a->has_adapter && call->i % 3 == 1,
		                   .on_event = on_event,
		                   .arg = call,
		                   .sampling = { .top_p = 1, .repetition_penalty = 1 } };
	struct err err = { 0 };
	uint64_t id;

	req.logprobs = call->i == 4;
	if (call->i >= 5) {
		req.sampling.temperature = 0.8f;
		req.sampling.has_seed = true;
		req.sampling.seed = 3;
	}
	if (call->i >= 6) {
		req.sampling.temperature = 1.5f;
		req.sampling.top_p = 0.9f;
		req.sampling.top_k = call->i == 7 ? 40 : 0;
		req.sampling.min_p = call->i == 8 ? 0.05f : 0;
	}
	(void)pthread_mutex_lock(&call->a->lock);
	call->a->n_open++;
	(void)pthread_mutex_unlock(&call->a->lock);
	assert_int_equal(eng_submit(e, &req, &id, &err), 0);
}

/* Three greedy ones, then one more beside one with log-probabilities and one that draws, then three that draw from
 * some.
 */
static void ask_engine(const struct eng_options *o, struct answer *a, struct eng_stats *ret_stats)
{
	struct eng_engine *e = NULL;
	struct call calls[N_REQUESTS];
	struct err err = { 0 };

	*a = (struct answer){ .lock = PTHREAD_MUTEX_INITIALIZER,
		              .cond = PTHREAD_COND_INITIALIZER,
		              .has_adapter = o->n_loras > 0 };
	if (eng_engine_open(o, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_string_equal(eng_engine_info(e)->backend, o->backend);
	for (int first = 0; first < N_REQUESTS; first += 3) {
		for (int i = first; i < first + 3; i++) {
			calls[i] = (struct call){ a, i };
			submit(e, &calls[i]);
		}
		(void)pthread_mutex_lock(&a->lock);
		while (a->n_open > 0)
			(void)pthread_cond_wait(&a->cond, &a->lock);
		(void)pthread_mutex_unlock(&a->lock);
	}
	eng_engine_stats(e, ret_stats);
	eng_engine_close(e);
}

static void ask_devices(const char *model, const char *backend, const char *kv_dtype, uint32_t n_devices,
                        bool by_expert, bool no_ahead, struct answer *a, struct eng_stats *ret_stats)
{
	const struct eng_options o = { .model_path = test_fixture(model),
		                       .backend = backend,
		                       .kv_dtype = kv_dtype,
		                       .tensor_parallel = n_devices,
		                       .expert_parallel = by_expert,
		                       .no_ahead = no_ahead };

	ask_engine(&o, a, ret_stats);
}

static void ask(const char *backend, const char *kv_dtype, bool no_ahead, struct answer *a, struct eng_stats *ret_stats)
{
	ask_devices("models/qwen3", backend, kv_dtype, 0, false, no_ahead, a, ret_stats);
}

/* Through the scheduler, one step ahead: every device knows what was drawn. */
static void several_devices_answer_as_one(void **state)
{
	static const struct {
		const char *model;
		uint32_t n;
		bool by_expert;
	} cases[] = { { "models/qwen3", 2, false }, { "models/qwen3", 4, false }, { "models/qwen3_moe", 2, true } };
	static struct answer want, got;
	struct eng_stats none, ahead;

	(void)state;
	use_host_plugin();
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		ask_devices(cases[c].model, "ref", NULL, 0, false, false, &want, &none);
		ask_devices(cases[c].model, "cuda", NULL, cases[c].n, cases[c].by_expert, false, &got, &ahead);
		assert_true(ahead.n_steps_ahead > ahead.n_steps / 2);
		for (int i = 0; i < N_REQUESTS; i++) {
			assert_int_equal(want.n[i], got.n[i]);
			assert_memory_equal(want.ids[i], got.ids[i], got.n[i] * sizeof(got.ids[i][0]));
		}
	}
}

static void devices_that_make_no_sense_are_refused(void **state)
{
	static const struct {
		const char *backend, *devices;
		uint32_t n;
		bool lora;
		int error;
		const char *words;
	} cases[] = {
		{ "cpu", NULL, 2, false, -ENOTSUP, "backend cpu computes on the host" },
		{ "cuda", "0,", 0, false, -EINVAL, "expected numbers" },
		{ "cuda", "a", 0, false, -EINVAL, "expected numbers" },
		{ "cuda", "0,1", 3, false, -EINVAL, "2 of them, 3 were asked for" },
		{ "cuda", "1,1", 0, false, -EINVAL, "device 1 twice" },
		{ "cuda", NULL, 99, false, -EINVAL, "at most 16" },
		{ "cuda", NULL, 3, false, -ENOTSUP, "cannot be divided among 3 devices" },
		{ "cuda", NULL, 2, true, -ENOTSUP, "adapters are computed on one device" },
	};

	(void)state;
	use_host_plugin();
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		const struct eng_lora lora = { .name = "a", .folder = test_fixture("formats/qwen3-lora/adapter") };
		struct eng_options o = { .model_path = test_fixture("models/qwen3"),
			                 .backend = cases[c].backend,
			                 .devices = cases[c].devices,
			                 .tensor_parallel = cases[c].n,
			                 .loras = &lora,
			                 .n_loras = cases[c].lora };

		engine_is_refused(&o, cases[c].error, cases[c].words);
	}
}

/* state: what K and V are kept in. */
static void answers_are_those_of_the_reference(void **state)
{
	static struct answer want, got, behind;
	struct eng_stats none, ahead, one_by_one;

	use_host_plugin();
	ask("ref", *state, false, &want, &none);
	ask("cuda", *state, false, &got, &ahead);
	ask("cuda", *state, true, &behind, &one_by_one);
	assert_int_equal(none.n_steps_ahead, 0);
	assert_true(ahead.n_steps_ahead > ahead.n_steps / 2);
	assert_int_equal(one_by_one.n_steps_ahead, 0);
	assert_true(ahead.device_busy_ns > 0 && ahead.device_busy_ns <= ahead.active_ns);
	for (int i = 0; i < N_REQUESTS; i++) {
		assert_int_equal(got.n[i], MAX_IDS - i);
		assert_int_equal(want.n[i], got.n[i]);
		assert_memory_equal(want.ids[i], got.ids[i], got.n[i] * sizeof(got.ids[i][0]));
		assert_memory_equal(behind.ids[i], got.ids[i], got.n[i] * sizeof(got.ids[i][0]));
	}
	for (uint32_t k = 0; k < got.n[4]; k++) {
		float d = want.logprobs[4][k] - got.logprobs[4][k];

		assert_true(d < 1e-3f && d > -1e-3f && got.logprobs[4][k] < 0);
	}
}

/* Products of an adapter's rows end before the rows of the next sequence, which kernels that round them up would touch.
 */
static void adapters_leave_their_neighbours_alone(void **state)
{
	static struct answer want, got;
	struct eng_stats stats;
	char folder[4096], model[4096]; /* test_fixture() has room for one */
	const struct eng_lora lora = { .name = "a", .folder = folder };
	struct eng_options o = { .model_path = model, .backend = "ref", .loras = &lora, .n_loras = 1 };

	(void)state;
	use_host_plugin();
	(void)snprintf(folder, sizeof(folder), "%s", test_fixture("formats/qwen3-lora/adapter"));
	(void)snprintf(model, sizeof(model), "%s", test_fixture("models/qwen3"));
	ask_engine(&o, &want, &stats);
	o.backend = "cuda";
	ask_engine(&o, &got, &stats);
	for (int i = 0; i < N_REQUESTS; i++) {
		assert_int_equal(want.n[i], got.n[i]);
		assert_memory_equal(want.ids[i], got.ids[i], got.n[i] * sizeof(got.ids[i][0]));
	}
}

static void a_type_of_keys_that_a_backend_has_not_is_refused(void **state)
{
	struct eng_options o = { .model_path = test_fixture("models/qwen3"), .backend = "cpu", .kv_dtype = "f8" };
	struct eng_engine *e = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(eng_engine_open(&o, &e, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "F8_E4M3"));
	o.kv_dtype = "f7";
	assert_int_equal(eng_engine_open(&o, &e, &err), -EINVAL);
	assert_null(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(answers_are_those_of_the_reference, NULL),
		cmocka_unit_test_prestate(answers_are_those_of_the_reference, "f8"),
		cmocka_unit_test(several_devices_answer_as_one),
		cmocka_unit_test(devices_that_make_no_sense_are_refused),
		cmocka_unit_test(adapters_leave_their_neighbours_alone),
		cmocka_unit_test(a_type_of_keys_that_a_backend_has_not_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
