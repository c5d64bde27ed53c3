/* Whole models on the cpu backend, at every instruction set that this machine has. How far results may
 * be from float32: float activations differ by the order of sums only; kernels that round activations to
 * bfloat16 (8 bits of mantissa) before each product are off by some 2^-9 per product, and now and then a
 * token takes another expert: hence the median over tokens. A recurrent state does not forget such a token: where
 * there is one, only the first tokens count. */
#include <errno.h>

#include "model_fixture.h"

struct cpu_case {
	const char *isa, *model;
};

static double tolerance(const char *isa)
{
	return strstr(isa, "bf16") ? 2e-2 : 1e-4;
}

static void stays_close_to_the_reference(void **state)
{
	const struct cpu_case *c = *state;
	const struct kn_config config = { .n_threads = 2, .max_tokens = 128, .isa = c->isa };
	struct eng_weights *refs = open_references(c->model);
	struct reference ref;
	struct kn_backend *be;
	struct eng_model *m;
	struct eng_runner *r;
	uint32_t pages[16];
	double differences[MAX_KEPT];

	assert_int_equal(kn_cpu_open(&config, &be, NULL), 0);
	m = open_fixture_model(c->model, be);
	r = new_runner(m, 16, 16, 128);
	for (uint32_t i = 0; i < 16; i++)
		pages[i] = (i * 7 + 2) % 16;
	for (int p = 0; p < N_PROMPTS; p++) {
		struct eng_step_seq seq = { .pages = pages, .ids = ref.ids };
		double d;

		read_reference(refs, p, &ref);
		seq.n_ids = seq.n_out = ref.n_ids;
		if (eng_model_info(m)->state_bytes && strstr(c->isa, "bf16") && ref.n_ids > 3)
			seq.n_ids = seq.n_out = ref.n_ids = 3;
		d = median(differences, kept_differences(step(r, &seq, 1), &ref, differences));
		print_message("%s %s prompt %d: relative %.2e\n", c->isa, c->model, p, d);
		assert_true(d < tolerance(c->isa));
	}
	eng_runner_free(r);
	eng_model_close(m);
	kn_backend_close(be);
	eng_weights_close(refs);
}

int main(void)
{
	enum { MAX_ISAS = 8 };
	static struct cpu_case cases[MAX_ISAS * N_FIXTURE_MODELS];
	static char names[MAX_ISAS * N_FIXTURE_MODELS][64];
	static struct CMUnitTest tests[MAX_ISAS * N_FIXTURE_MODELS];
	const char *const *isas = kn_cpu_isas();
	size_t n = 0;

	for (int i = 0; isas[i] && i < MAX_ISAS; i++) {
		for (int m = 0; m < N_FIXTURE_MODELS; m++, n++) {
			cases[n] = (struct cpu_case){ isas[i], fixture_models[m] };
			(void)snprintf(names[n], sizeof(names[n]), "%s on %s", fixture_models[m], isas[i]);
			tests[n] = (struct CMUnitTest){ .name = names[n],
				                        .test_func = stays_close_to_the_reference,
				                        .initial_state = &cases[n] };
		}
	}
	return _cmocka_run_group_tests("models on cpu", tests, n, NULL, NULL);
}
