/* Every fixture model through the HTTP front: /tokenize gives the stored ids, /generate's
 * log-probabilities agree with the log-softmax of the stored logits, greedy output is the stored one. */
#include <math.h>

#include "http_test.h"
#include "model_fixture.h"

/* The largest and the middle difference of a log-probability that are accepted.
 * ref: the logits agree within 1e-3. cpu, scalar: K and V are float16. cpu, the best instruction set: where
 * the machine has bfloat16 products, activations are rounded to it; a rounded router may then choose another
 * expert, which changes everything behind it, so only the middle is bounded. */
struct variant {
	const char *backend, *isa, *precision;
	double largest, middle;
};

struct differences {
	double v[16384];
	size_t n;
};

static void add(struct differences *d, double v)
{
	assert_true(d->n < sizeof(d->v) / sizeof(d->v[0]));
	d->v[d->n++] = v;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

struct row {
	const float *logits;
	uint32_t n;
	double log_sum;
};

/* False where the reference does not keep the logits after token t. */
static bool row_of(const struct reference *ref, uint32_t t, struct row *ret)
{
	double max = -INFINITY, sum = 0;

	ret->logits = reference_row(ref, t);
	if (!ret->logits)
		return false;
	ret->n = ref->n_vocab;
	for (uint32_t i = 0; i < ret->n; i++)
		max = fmax(max, ret->logits[i]);
	for (uint32_t i = 0; i < ret->n; i++)
		sum += exp(ret->logits[i] - max);
	ret->log_sum = max + log(sum);
	return true;
}

static double logprob_of(const struct row *r, int64_t id)
{
	assert_in_range(id, 0, r->n - 1);
	return r->logits[id] - r->log_sum;
}

/* One [logprob, id, text] triple against the row that predicted it; NULL: a row that is not kept. */
static void check_triple(json_t *triple, const struct row *r, int64_t expect_id, struct differences *d)
{
	int64_t id = json_integer_value(json_array_get(triple, 1));

	if (expect_id >= 0)
		assert_int_equal(id, expect_id);
	if (r)
		add(d, fabs(json_number_value(json_array_get(triple, 0)) - logprob_of(r, id)));
}

static void check_input(json_t *meta, const struct reference *ref, struct differences *d)
{
	json_t *one = at(meta, "input_token_logprobs"), *top = at(meta, "input_top_logprobs");

	assert_int_equal(json_array_size(one), ref->n_ids);
	assert_int_equal(json_array_size(top), ref->n_ids);
	assert_true(json_is_null(at(one, "0.0")));
	assert_true(json_is_null(json_array_get(top, 0)));
	for (uint32_t t = 1; t < ref->n_ids; t++) {
		json_t *tops = json_array_get(top, t);
		struct row row;
		const struct row *r = row_of(ref, t - 1, &row) ? &row : NULL;

		check_triple(json_array_get(one, t), r, ref->ids[t], d);
		assert_int_equal(json_array_size(tops), 20);
		for (size_t k = 0; k < 20; k++) {
			check_triple(json_array_get(tops, k), r, -1, d);
			assert_true(k == 0 || json_number_value(at(json_array_get(tops, k - 1), "0")) >=
			                              json_number_value(at(json_array_get(tops, k), "0")));
		}
	}
}

static json_t *ids_json(const struct reference *ref)
{
	json_t *ids = json_array();

	for (uint32_t i = 0; i < ref->n_ids; i++)
		(void)json_array_append_new(ids, json_integer(ref->ids[i]));
	return ids;
}

static void check_generate(struct served *s, const struct reference *ref, bool exact, struct differences *d)
{
	json_t *req = json_pack("{s:o, s:{s:i, s:f, s:b}, s:b, s:i, s:i}", "input_ids", ids_json(ref),
	                        "sampling_params", "max_new_tokens", (int)ref->n_gen, "temperature", 0.0, "ignore_eos",
	                        1, "return_logprob", 1, "logprob_start_len", 0, "top_logprobs_num", 20);
	char *body = json_dumps(req, 0);
	struct answer a;
	struct row last;

	ask_ok(s, "/generate", body, &a);
	assert_int_equal(int_at(a.json, "meta_info.prompt_tokens"), ref->n_ids);
	assert_int_equal(int_at(a.json, "meta_info.completion_tokens"), ref->n_gen);
	assert_int_equal(json_array_size(at(a.json, "meta_info.output_token_logprobs")), ref->n_gen);
	check_input(at(a.json, "meta_info"), ref, d);
	assert_true(row_of(ref, ref->n_ids - 1, &last));
	check_triple(at(a.json, "meta_info.output_token_logprobs.0"), &last, -1, d);
	for (uint32_t i = 0; i < ref->n_gen && exact; i++)
		assert_int_equal(json_integer_value(json_array_get(at(a.json, "output_ids"), i)), ref->gen[i]);
	answer_done(&a);
	free(body);
	json_decref(req);
}

static void check_tokenize(struct served *s, const struct reference *ref, const char *text)
{
	json_t *req = json_pack("{s:s}", "content", text);
	char *body = json_dumps(req, 0);
	struct answer a;
	size_t n;

	ask_ok(s, "/tokenize", body, &a);
	/* The longest prompt repeats its text and is cut; its ids repeat those of the text. */
	n = json_array_size(at(a.json, "tokens"));
	assert_in_range(n, 1, ref->n_ids);
	assert_true(n == ref->n_ids || ref->n_ids == 70);
	for (uint32_t i = 0; i < ref->n_ids; i++)
		assert_int_equal(json_integer_value(json_array_get(at(a.json, "tokens"), i % n)), ref->ids[i]);
	answer_done(&a);
	free(body);
	json_decref(req);
}

/* The rendered chat of expected.json, where it has one: its tokens are those of /tokenize of the messages. */
static void check_chat(struct served *s, json_t *expected)
{
	json_t *chat = json_object_get(expected, "chat"), *by_messages, *by_text;
	struct base_buf text = BASE_BUF_INIT(1 << 20);
	struct answer a, b;
	char *body;

	if (!chat)
		return;
	assert_int_equal(eng_render_chat(s->engine, at(chat, "messages"), NULL, NULL, true, &text, NULL), 0);
	assert_string_equal(base_buf_text(&text), str_at(chat, "text"));
	base_buf_done(&text);
	by_messages = json_pack("{s:O}", "messages", at(chat, "messages"));
	by_text = json_pack("{s:O}", "content", at(chat, "text"));
	body = json_dumps(by_messages, 0);
	ask_ok(s, "/tokenize", body, &a);
	free(body);
	body = json_dumps(by_text, 0);
	ask_ok(s, "/tokenize", body, &b);
	free(body);
	assert_true(json_equal(at(a.json, "tokens"), at(b.json, "tokens")));
	answer_done(&a);
	answer_done(&b);
	json_decref(by_messages);
	json_decref(by_text);
}

static void check_model(const char *name, const struct variant *v)
{
	static struct differences d;
	struct eng_weights *stored = NULL;
	json_t *expected = NULL;
	struct err err = { 0 };
	struct served s;
	char path[256];

	d.n = 0;
	(void)snprintf(path, sizeof(path), "%s%s", fixture_folder(name), name);
	serve_model_as(&s, path, v->backend, v->isa, v->precision);
	(void)snprintf(path, sizeof(path), "%s%s/expected.safetensors", fixture_folder(name), name);
	assert_int_equal(eng_weights_open(test_fixture(path), &stored, &err), 0);
	(void)snprintf(path, sizeof(path), "%s%s/expected.json", fixture_folder(name), name);
	assert_int_equal(base_json_read_file(test_fixture(path), 1 << 24, &expected, &err), 0);
	for (int k = 0; k < N_PROMPTS; k++) {
		const char *text = json_string_value(
		        json_object_get(json_array_get(json_object_get(expected, "prompts"), (size_t)k), "text"));
		struct reference ref;

		read_reference(stored, k, &ref);
		check_tokenize(&s, &ref, text);
		check_generate(&s, &ref, strcmp(v->backend, "ref") == 0, &d);
	}
	check_chat(&s, expected);
	qsort(d.v, d.n, sizeof(d.v[0]), compare_doubles);
	print_message("%s on %s %s %s: log-probabilities within %.2g, the middle %.2g\n", name, v->backend,
	              v->isa ? v->isa : "", v->precision ? v->precision : "", d.v[d.n - 1], d.v[d.n / 2]);
	assert_true(d.v[d.n - 1] <= v->largest);
	assert_true(d.v[d.n / 2] <= v->middle);
	json_decref(expected);
	eng_weights_close(stored);
	serve_end(&s);
}

static void check_all(const struct variant *v)
{
	for (size_t i = 0; i < N_FIXTURE_MODELS; i++)
		check_model(fixture_models[i], v);
}

static void every_model_agrees_through_http_on_ref(void **state)
{
	(void)state;
	check_all(&(struct variant){ .backend = "ref", .largest = 1e-3, .middle = 1e-4 });
}

static void every_model_agrees_through_http_on_cpu_without_vectors(void **state)
{
	(void)state;
	check_all(&(struct variant){ .backend = "cpu", .isa = "scalar", .largest = 1e-3, .middle = 1e-4 });
}

/* What a user gets who names nothing: small folders are computed exactly. */
static void every_model_agrees_through_http_by_default(void **state)
{
	(void)state;
	check_all(&(struct variant){ .backend = "auto", .largest = 1e-3, .middle = 1e-4 });
}

/* Activations of 8 significant bits; a token whose router flips to another expert may be far off. */
static void every_model_agrees_through_http_when_fast(void **state)
{
	(void)state;
	check_all(&(struct variant){ .backend = "cpu", .precision = "fast", .largest = INFINITY, .middle = 0.03 });
}

static void the_embedding_model_agrees_through_http(void **state)
{
	const char *model = *state;
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/expected.json", model);
	for (size_t b = 0; b < 2; b++) {
		json_t *expected = NULL, *item;
		struct err err = { 0 };
		struct served s;
		size_t i;

		serve_model(&s, model, b == 0 ? "ref" : "cpu");
		assert_int_equal(base_json_read_file(test_fixture(path), 1 << 24, &expected, &err), 0);
		json_array_foreach(expected, i, item)
		{
			json_t *req = json_pack("{s:O}", "input", at(item, "text")), *want = at(item, "embedding"),
			       *got;
			char *body = json_dumps(req, 0);
			struct answer a;

			ask_ok(&s, "/v1/embeddings", body, &a);
			got = at(a.json, "data.0.embedding");
			assert_int_equal(int_at(a.json, "usage.prompt_tokens"), json_array_size(at(item, "ids")));
			assert_int_equal(json_array_size(got), json_array_size(want));
			for (size_t k = 0; k < json_array_size(want); k++)
				assert_float_equal(json_number_value(json_array_get(got, k)),
				                   json_number_value(json_array_get(want, k)), b == 0 ? 1e-4 : 1e-2);
			answer_done(&a);
			free(body);
			json_decref(req);
		}
		json_decref(expected);
		serve_end(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_model_agrees_through_http_on_ref),
		cmocka_unit_test(every_model_agrees_through_http_on_cpu_without_vectors),
		cmocka_unit_test(every_model_agrees_through_http_by_default),
		cmocka_unit_test(every_model_agrees_through_http_when_fast),
		{ "qwen3-embedding", the_embedding_model_agrees_through_http, NULL, NULL, "formats/qwen3-embedding" },
		{ "bert-embedding", the_embedding_model_agrees_through_http, NULL, NULL, "formats/bert-embedding" },
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
