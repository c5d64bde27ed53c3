/* Any bytes as a command line, as rules and as text to mask: bounded, no crash, and the verdict never milder than the
 * class. A line that the parser refuses is never read-only. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gate/gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ag_gate_context context = { "/home/me", "/home/me/src", "/dev/sda2 / xfs rw 0 0\n" };
	const char *text = (const char *)data;
	const char *cut = size ? memchr(text, '\0', size) : NULL;
	struct ag_gate_decision *d = NULL;
	struct ag_gate_rules *rules = NULL;
	struct ag_gate_tree *tree = NULL;
	struct base_buf masked = BASE_BUF_INIT(4 * 1024 * 1024);
	size_t n_rules = cut ? (size_t)(cut - text) : 0; /* rules stand before the first NUL */
	size_t from = cut ? n_rules + 1 : 0;

	if (ag_gate_rules_new(&rules) < 0)
		return 0;
	(void)ag_gate_rules_parse(rules, text, n_rules, "fuzz", NULL);
	if (ag_gate_decide(rules, text + from, size - from, &context, &d) == 0) {
		bool parses = ag_gate_parse(text + from, size - from, &tree, NULL) == 0;

		check(d->reason && d->permit);
		check(parses || (d->risk->class != AG_GATE_READ && d->verdict >= AG_GATE_ASK_TWICE));
		check(!(d->risk->flags & AG_GATE_HARD) || d->verdict == AG_GATE_DENY);
		check(n_rules || d->risk->class == AG_GATE_READ || d->verdict != AG_GATE_RUN);
		for (size_t i = 0; i < d->risk->n_commands; i++)
			check(d->risk->commands[i].class <= d->risk->class);
		ag_gate_tree_free(tree);
	}
	(void)ag_gate_mask(text, size, &masked);
	base_buf_done(&masked);
	ag_gate_decision_free(d);
	ag_gate_rules_free(rules);
	return 0;
}
