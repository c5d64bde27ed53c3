/* How the scheduler computes: by a runner (sched/sched.h, struct eng_exec). */
#include "engine_internal.h"

enum { CHECKPOINT_PAGES = 16 /* of recurrent models: where a chunk of a long prompt ends anyhow */ };

static int exec_begin(void *ctx, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err)
{
	return eng_runner_begin(ctx, seqs, n_seqs, err);
}

static int exec_wait(void *ctx, const float **ret_rows, struct err *err)
{
	return eng_runner_wait(ctx, ret_rows, err);
}

static uint64_t exec_busy_ns(void *ctx)
{
	return eng_runner_busy_ns(ctx);
}

static void exec_row(void *ctx, uint32_t index, struct eng_row *ret_row)
{
	eng_runner_row(ctx, index, ret_row);
}

static void exec_page_read(void *ctx, uint32_t page, void *dst)
{
	eng_runner_page_read(ctx, page, dst);
}

static void exec_page_write(void *ctx, uint32_t page, const void *src)
{
	eng_runner_page_write(ctx, page, src);
}

static void *exec_host_alloc(void *ctx, size_t bytes)
{
	return eng_runner_host_alloc(ctx, bytes);
}

static void exec_host_free(void *ctx, void *p)
{
	eng_runner_host_free(ctx, p);
}

static int exec_page_copy(void *ctx, uint32_t page, void *host, enum kn_way way, uint64_t *ret_ticket)
{
	return eng_runner_page_copy(ctx, page, host, way, ret_ticket);
}

static int exec_copy_poll(void *ctx, uint64_t ticket)
{
	return eng_runner_copy_poll(ctx, ticket);
}

static int exec_copy_wait(void *ctx, uint64_t ticket)
{
	return eng_runner_copy_wait(ctx, ticket);
}

static int exec_copy_fence(void *ctx, uint64_t ticket)
{
	return eng_runner_copy_fence(ctx, ticket);
}

static int exec_copy_follow(void *ctx, uint64_t ticket)
{
	return eng_runner_copy_follow(ctx, ticket);
}

static void exec_state_copy(void *ctx, uint32_t dst, uint32_t src)
{
	eng_runner_state_copy(ctx, dst, src);
}

static void exec_page_discard(void *ctx, uint32_t first, uint32_t n)
{
	eng_runner_page_discard(ctx, first, n);
}

static int exec_page_fetch(void *ctx, uint32_t page, uint32_t from, uint32_t n, uint64_t *ret_ticket)
{
	return eng_runner_page_fetch(ctx, page, from, n, ret_ticket);
}

/* FNV-1a. */
static uint64_t number_of(const char *text, uint64_t h)
{
	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 1099511628211u;
	return h;
}

static uint64_t device_of(const struct kn_backend *backend)
{
	return number_of(backend->device, number_of(backend->ops->name, 14695981039346656037u));
}

void eng_exec_of(struct eng_runner *runner, const struct kn_backend *backend, const struct eng_model_info *m,
                 const struct eng_runner_config *config, struct eng_exec *ret)
{
	*ret = (struct eng_exec){ .ctx = runner,
		                  .begin = exec_begin,
		                  .wait = exec_wait,
		                  .is_async = eng_runner_is_async(runner),
		                  .runs_ahead = eng_runner_runs_ahead(runner),
		                  .busy_ns = eng_runner_is_async(runner) ? exec_busy_ns : NULL,
		                  .row = eng_runner_picks(runner) ? exec_row : NULL,
		                  .n_vocab = m->n_vocab,
		                  .n_embd = m->n_embd,
		                  .n_ctx = config->n_ctx,
		                  .max_tokens = config->max_tokens,
		                  .max_outputs = config->max_outputs,
		                  .n_pages = config->n_pages,
		                  .device = device_of(backend),
		                  .tells_prompts = backend->tells_prompts,
		                  .kv = { .page_tokens = config->page_tokens,
		                          .n_states = config->n_states,
		                          .checkpoint_pages = CHECKPOINT_PAGES,
		                          .keeps_in_step = backend->keeps_states,
		                          .cannot_rewind = config->n_states > 0,
		                          .page_bytes = eng_runner_page_bytes(runner) },
		                  .page_read = exec_page_read,
		                  .page_write = exec_page_write,
		                  .state_copy = exec_state_copy,
		                  .page_discard = exec_page_discard };
	if (eng_runner_copies_pages(runner)) {
		ret->host_alloc = exec_host_alloc;
		ret->host_free = exec_host_free;
		ret->page_copy = exec_page_copy;
		ret->copy_fence = exec_copy_fence;
		ret->copy_follow = exec_copy_follow;
	}
	/* Of a group's pages, too, when they come from another one. */
	ret->copy_poll = exec_copy_poll;
	ret->copy_wait = exec_copy_wait;
}

void eng_exec_fetches(struct eng_exec *exec)
{
	exec->page_fetch = exec_page_fetch;
}
