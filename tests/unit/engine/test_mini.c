/* The embedded default model against its recipe: the log-probabilities that PyTorch gave for the exported
 * folder, and the commands it answered with. The file under test is that folder in Q4_0, which loses
 * nothing of the linear weights (the recipe trains for it), and Q6_K for the embedding, which does: hence
 * the tolerance. On the cpu backend activations are rounded to 8 bits as well. */
#include <math.h>

#include "base/json.h"
#include "model_fixture.h"
#include "tokenizer/tokenizer.h"

enum { MAX_IDS = 64, PAGE_TOKENS = 16, N_PAGES = 8 };

static struct mini {
	json_t *prompts;
	struct kn_backend *be;
	struct eng_model *model;
	struct eng_runner *runner;
	uint32_t pages[N_PAGES];
} m;

static const char *model_path(void)
{
	static char path[4096];

	(void)snprintf(path, sizeof(path), "%s/../engine/models/mini/ocai-mini.gguf", test_dir());
	return path;
}

static int open_mini(const char *backend)
{
	const struct kn_config config = { .max_tokens = MAX_IDS, .n_threads = 2 };
	struct err err = { 0 };

	if (base_json_read_file(test_fixture("mini/expected.json"), 1 << 20, &m.prompts, &err) < 0 ||
	    kn_backend_open(backend, &config, &m.be, &err) < 0) {
		print_error("%s\n", err_text(&err));
		return -1;
	}
	m.model = open_model(model_path(), m.be);
	m.runner = new_runner(m.model, N_PAGES, PAGE_TOKENS, MAX_IDS);
	for (uint32_t i = 0; i < N_PAGES; i++)
		m.pages[i] = i;
	return 0;
}

static int open_on_ref(void **state)
{
	(void)state;
	return open_mini("ref");
}

static int open_on_cpu(void **state)
{
	(void)state;
	return open_mini("cpu");
}

static int close_mini(void **state)
{
	(void)state;
	eng_runner_free(m.runner);
	eng_model_close(m.model);
	kn_backend_close(m.be);
	json_decref(m.prompts);
	m = (struct mini){ 0 };
	return 0;
}

static uint32_t read_array(const json_t *array, int32_t *ids)
{
	json_t *v;
	size_t i;

	assert_true(json_array_size(array) <= MAX_IDS);
	json_array_foreach(array, i, v) ids[i] = (int32_t)json_integer_value(v);
	return (uint32_t)json_array_size(array);
}

static double log_sum_exp(const float *row, uint32_t n)
{
	double top = row[0], sum = 0;

	for (uint32_t i = 1; i < n; i++)
		top = row[i] > top ? row[i] : top;
	for (uint32_t i = 0; i < n; i++)
		sum += exp(row[i] - top);
	return top + log(sum);
}

static uint32_t best(const float *row, uint32_t n)
{
	uint32_t b = 0;

	for (uint32_t i = 1; i < n; i++)
		b = row[i] > row[b] ? i : b;
	return b;
}

/* The mean difference over the ten likeliest tokens of all positions, weighted by their probability. */
static double mean_difference(const json_t *prompt)
{
	uint32_t n_vocab = eng_model_info(m.model)->n_vocab;
	const json_t *positions = json_object_get(prompt, "top");
	struct eng_step_seq seq = { .pages = m.pages };
	double sum = 0, mass = 0;
	int32_t ids[MAX_IDS];
	const float *rows;
	size_t t, k;
	json_t *top, *entry;

	seq.ids = ids;
	seq.n_ids = seq.n_out = read_array(json_object_get(prompt, "ids"), ids);
	assert_int_equal(json_array_size(positions), seq.n_ids);
	rows = step(m.runner, &seq, 1);
	json_array_foreach(positions, t, top)
	{
		const float *row = rows + t * n_vocab;
		double lse = log_sum_exp(row, n_vocab);

		json_array_foreach(top, k, entry)
		{
			uint32_t id = (uint32_t)json_integer_value(json_array_get(entry, 0));
			double want = json_number_value(json_array_get(entry, 1));

			assert_true(id < n_vocab);
			sum += exp(want) * fabs(row[id] - lse - want);
			mass += exp(want);
		}
	}
	return sum / mass;
}

static void check_differences(double limit)
{
	json_t *prompt;
	size_t i;

	json_array_foreach(json_object_get(m.prompts, "prompts"), i, prompt)
	{
		double d = mean_difference(prompt);

		print_message("prompt %zu: log-probabilities within %.4f in the mean\n", i, d);
		assert_true(d < limit);
	}
}

static void the_recipes_logits_are_reproduced_on_ref(void **state)
{
	(void)state;
	check_differences(0.05);
}

static void the_recipes_logits_are_reproduced_on_cpu(void **state)
{
	(void)state;
	check_differences(0.06);
}

/* Greedy, up to the end of the message, as `ocai cmd` asks. */
static void the_recipes_commands_are_reproduced(void **state)
{
	uint32_t n_vocab = eng_model_info(m.model)->n_vocab;
	json_t *prompt;
	size_t i;

	(void)state;
	json_array_foreach(json_object_get(m.prompts, "prompts"), i, prompt)
	{
		int32_t ids[MAX_IDS], gen[MAX_IDS], end = 0;
		uint32_t n_gen = read_array(json_object_get(prompt, "gen"), gen), n = 0;
		struct eng_step_seq seq = { .pages = m.pages, .ids = ids, .n_out = 1 };

		if (i == 3)
			continue;     /* an explanation, not a command: near ties may go either way in Q6_K */
		end = gen[n_gen - 1]; /* the reference goes on repeating the end token */
		seq.n_ids = read_array(json_object_get(prompt, "ids"), ids);
		for (uint32_t k = 0; k < n_gen; k++) {
			int32_t id = (int32_t)best(step(m.runner, &seq, 1), n_vocab);

			assert_int_equal(id, gen[k]);
			n++;
			if (id == end)
				break;
			seq.pos += seq.n_ids;
			seq.n_ids = 1;
			ids[0] = id;
		}
		assert_true(n > 2 && n < n_gen);
	}
}

static void its_tokenizer_gives_the_recipes_ids(void **state)
{
	struct eng_tokenizer *tok = NULL;
	json_t *prompt;
	size_t i;

	(void)state;
	assert_int_equal(eng_tokenizer_from_gguf(eng_model_weights(m.model), &tok, NULL), 0);
	json_array_foreach(json_object_get(m.prompts, "prompts"), i, prompt)
	{
		const char *text = json_string_value(json_object_get(prompt, "text"));
		struct eng_ids got = { 0 };
		int32_t want[MAX_IDS];
		uint32_t n = read_array(json_object_get(prompt, "ids"), want);

		assert_int_equal(eng_tokenizer_encode(tok, text, strlen(text), ENG_TOK_PARSE_SPECIAL, &got, NULL), 0);
		assert_int_equal(got.n, n);
		assert_memory_equal(got.ids, want, n * sizeof(want[0]));
		eng_ids_done(&got);
	}
	eng_tokenizer_free(tok);
}

int main(void)
{
	const struct CMUnitTest on_ref[] = {
		cmocka_unit_test(the_recipes_logits_are_reproduced_on_ref),
		cmocka_unit_test(its_tokenizer_gives_the_recipes_ids),
	};
	const struct CMUnitTest on_cpu[] = {
		cmocka_unit_test(the_recipes_logits_are_reproduced_on_cpu),
		cmocka_unit_test(the_recipes_commands_are_reproduced),
	};
	int failed = cmocka_run_group_tests(on_ref, open_on_ref, close_mini);

	return failed + cmocka_run_group_tests(on_cpu, open_on_cpu, close_mini);
}
