/* Any bytes as a trace file; one that is accepted is written and read again and is the same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace/trace.h"
#include "trace/trace_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(const struct img_trace *a, const struct img_trace *b)
{
	if (img_trace_count(a) != img_trace_count(b) || img_trace_n_processes(a) != img_trace_n_processes(b))
		abort();
	for (size_t i = 0; i < img_trace_count(a); i++) {
		const struct img_trace_record *x = img_trace_at(a, i), *y = img_trace_at(b, i);

		if (strcmp(x->path, y->path) != 0 || x->access != y->access || x->pid != y->pid ||
		    x->count != y->count || x->first_ns != y->first_ns || x->last_ns != y->last_ns ||
		    x->size != y->size || x->error != y->error)
			abort();
		if (i > 0 && x->first_ns < img_trace_at(a, i - 1)->first_ns)
			abort();
	}
	for (size_t i = 0; i < img_trace_n_processes(a); i++) {
		const struct img_trace_process *x = img_trace_process_at(a, i), *y = img_trace_process_at(b, i);

		if (x->pid != y->pid || x->parent != y->parent || x->exit_code != y->exit_code ||
		    strcmp(x->program, y->program) != 0 || strcmp(x->cmdline, y->cmdline) != 0)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf text = BASE_BUF_INIT(64u << 20);
	struct img_trace *t = NULL, *back = NULL;

	if (img_trace_parse((const char *)data, size, "input", &t, NULL) < 0)
		return 0;
	if (img_trace_print(t, &text) == 0) {
		if (img_trace_parse(base_buf_text(&text), text.len, "output", &back, NULL) < 0)
			abort();
		compare(t, back);
		(void)img_trace_merge(back, t);
	}
	base_buf_done(&text);
	img_trace_free(t);
	img_trace_free(back);
	return 0;
}
