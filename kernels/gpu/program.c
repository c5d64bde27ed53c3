/* What was recorded is run: compiled at its first sight, launched, and from its second sight on replayed as a graph. A
 * program is known by its form, the records and the bounds of the step's numbers; it is compared in full. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/comm.h"

enum { HEADER_WORDS = 4 };

/* ---- The form ---- */

static size_t form_words(const struct gpu_step *s)
{
	return HEADER_WORDS + s->n_rows + s->n_ints + (size_t)s->n_batches * 3;
}

static void write_form(const struct gpu_step *s, uint64_t *to)
{
	*to++ = s->n_rows;
	*to++ = s->n_ints;
	*to++ = s->n_batches;
	*to++ = 0;
	for (uint32_t i = 0; i < s->n_rows; i++)
		*to++ = s->rows[i].bound;
	for (uint32_t i = 0; i < s->n_ints; i++)
		*to++ = s->ints[i].rows;
	for (uint32_t i = 0; i < s->n_batches; i++) {
		const struct gpu_batch_slot *b = &s->batch[i];

		*to++ = (uint64_t)b->max_rows << 32 | b->max_seqs;
		*to++ = (uint64_t)b->max_few << 32 | b->max_many;
		*to++ = (uint64_t)b->max_merge << 32 | b->max_pages;
	}
}

static uint64_t hash_words(const uint64_t *w, size_t n)
{
	uint64_t a = n, b = 0x9e3779b97f4a7c15ull;

	for (size_t i = 0; i < n; i++) {
		a = (a ^ w[i]) * 0xbf58476d1ce4e5b9ull;
		a ^= a >> 31;
		b += a;
	}
	return b ^ a;
}

/* ---- The programs that are kept ---- */

static void program_free(struct gpu_backend *be, struct gpu_program *p)
{
	if (!p)
		return;
	gpu_rt_graph_free(&be->rt, p->graph);
	free(p->key);
	free(p->recs);
	free(p->is_bf16);
	free(p->reads_first);
	free(p->writes);
	free(p->place);
	free(p->launches);
	free(p->batches);
	free(p->messages);
	free(p);
}

void gpu_programs_forget(struct gpu_backend *be)
{
	for (uint32_t i = 0; i < be->n_programs; i++)
		program_free(be, be->programs[i]);
	be->n_programs = 0;
	be->last_program = NULL;
}

static struct gpu_program *find(struct gpu_backend *be, uint64_t hash, const uint64_t *key, size_t words)
{
	for (uint32_t i = 0; i < be->n_programs; i++) {
		struct gpu_program *p = be->programs[i];

		if (p->hash == hash && p->key_words == words && memcmp(p->key, key, words * sizeof(*key)) == 0)
			return p;
	}
	return NULL;
}

/* The place of the one that was not used for longest, when all are taken. */
static uint32_t free_place(struct gpu_backend *be)
{
	uint32_t oldest = 0;

	if (be->n_programs < MAX_PROGRAMS)
		return be->n_programs++;
	for (uint32_t i = 1; i < MAX_PROGRAMS; i++) {
		if (be->programs[i]->last_used < be->programs[oldest]->last_used)
			oldest = i;
	}
	(void)gpu_rt_sync(&be->rt); /* its graph may be running */
	be->last_program = NULL;
	program_free(be, be->programs[oldest]);
	be->programs[oldest] = NULL;
	return oldest;
}

static int index_records(struct gpu_program *p, size_t from)
{
	uint32_t n = 0;

	for (size_t at = from; at < p->key_words; at += ((struct rec_head *)(p->key + at))->words)
		n++;
	p->recs = calloc(n ? n : 1, sizeof(*p->recs));
	p->launches = calloc(n ? n : 1, sizeof(*p->launches));
	p->batches = calloc(n ? n : 1, sizeof(*p->batches));
	if (!p->recs || !p->launches || !p->batches)
		return -ENOMEM;
	for (size_t at = from; at < p->key_words; at += ((struct rec_head *)(p->key + at))->words)
		p->recs[p->n_recs++] = (const union gpu_rec *)(p->key + at);
	return 0;
}

/* Takes key. */
static int compile(struct gpu_backend *be, uint64_t hash, uint64_t *key, size_t words, struct gpu_program **ret)
{
	struct gpu_program *p = calloc(1, sizeof(*p));
	uint32_t n = be->heap.n ? be->heap.n : 1;
	int r = -ENOMEM;

	if (!p) {
		free(key);
		return -ENOMEM;
	}
	p->hash = hash;
	p->key = key;
	p->key_words = words;
	p->n_allocs = be->heap.n;
	p->is_bf16 = calloc(n, sizeof(*p->is_bf16));
	p->reads_first = calloc(n, sizeof(*p->reads_first));
	p->writes = calloc(n, sizeof(*p->writes));
	p->place = calloc(n, sizeof(*p->place));
	if (p->is_bf16 && p->reads_first && p->writes && p->place)
		r = index_records(p, form_words(&be->step));
	if (r == 0) {
		gpu_choose_types(be, p);
		gpu_join_outputs(be, p);
		r = gpu_fuse(be, p);
		r = r < 0 ? r : gpu_comm_plan(be, p);
	}
	if (r < 0) {
		program_free(be, p);
		return r;
	}
	*ret = p;
	return 0;
}

/* The program of the step before, as nearly always when tokens are generated: compared without a key being made. */
static struct gpu_program *same_as_last(const struct gpu_backend *be)
{
	uint64_t form[HEADER_WORDS + MAX_ROW_SLOTS + MAX_INT_SLOTS + 3 * MAX_BATCH_SLOTS];
	size_t n = form_words(&be->step);
	struct gpu_program *p = be->last_program;

	if (!p || p->key_words != n + be->n_words)
		return NULL;
	write_form(&be->step, form);
	return memcmp(p->key, form, n * sizeof(*form)) == 0 &&
	                       memcmp(p->key + n, be->words, be->n_words * sizeof(*form)) == 0
	               ? p
	               : NULL;
}

static int get(struct gpu_backend *be, struct gpu_program **ret)
{
	size_t form = form_words(&be->step), words = form + be->n_words;
	uint64_t *key, hash;
	uint32_t place;
	int r;

	*ret = same_as_last(be);
	if (*ret)
		return 0;
	key = malloc(words * sizeof(*key));
	if (!key)
		return -ENOMEM;
	write_form(&be->step, key);
	memcpy(key + form, be->words, be->n_words * sizeof(*key));
	hash = hash_words(key, words);
	*ret = find(be, hash, key, words);
	if (*ret) {
		free(key);
		be->last_program = *ret;
		return 0;
	}
	r = compile(be, hash, key, words, ret);
	if (r < 0)
		return r;
	place = free_place(be);
	be->programs[place] = be->last_program = *ret;
	return 0;
}

/* ---- Running ---- */

static int scratch_room(struct gpu_backend *be)
{
	size_t bytes;
	int r;

	if (memcmp(&be->limits, &be->scratch_for, sizeof(be->limits)) == 0)
		return 0;
	be->scratch_for = be->limits;
	bytes = gk_scratch_bytes(&be->ctx, &be->limits);
	if (bytes <= be->ctx.scratch_bytes)
		return 0;
	r = gpu_rt_sync(&be->rt);
	if (r < 0)
		return r;
	gpu_programs_forget(be);
	gpu_rt_free(&be->rt, be->ctx.scratch);
	be->ctx.scratch_bytes = 0;
	be->ctx.scratch = gpu_rt_alloc(&be->rt, bytes);
	if (!be->ctx.scratch)
		return -ENOMEM;
	be->ctx.scratch_bytes = bytes;
	return 0;
}

/* What this program reads and another one left in bfloat16 becomes float32, and stays so; so does what lies in memory
 * that it writes. */
static int expand_inputs(struct gpu_backend *be, const struct gpu_program *p, bool *ret_changed)
{
	int r = 0;

	*ret_changed = false;
	for (uint32_t a = 0; a < p->n_allocs && r == 0; a++) {
		const struct gpu_alloc *at = &be->heap.allocs[a];
		bool lost = at->home_ld && at->home != a && p->writes[at->home] && !p->writes[a];

		if (!lost && (!p->reads_first[a] || !at->is_bf16))
			continue;
		r = gpu_expand(be, a);
		*ret_changed = true;
	}
	return r;
}

/* At its second sight a program becomes a graph, which is not launched yet; one that cannot is launched as the first
 * time from then on. */
static void capture(struct gpu_backend *be, struct gpu_program *p)
{
	void *graph = NULL;
	int r, end;

	if (p->graph || p->n_runs == 0 || p->no_graph || p->by_library || !be->rt.has_graphs)
		return;
	r = gpu_rt_capture_begin(&be->rt);
	if (r == 0) {
		be->capturing = true;
		r = gpu_issue(be, p);
		be->capturing = false;
		end = gpu_rt_capture_end(&be->rt, &graph);
		r = r < 0 ? r : end;
	}
	if (r == 0) {
		p->graph = graph;
		return;
	}
	gpu_rt_graph_free(&be->rt, graph); /* that of the launches before the one that failed */
	p->no_graph = true;
	be->error = 0; /* of the attempt */
}

static int run(struct gpu_backend *be, struct gpu_program *p, bool one_by_one)
{
	return p->graph && !one_by_one ? gpu_rt_graph_launch(&be->rt, p->graph) : gpu_issue(be, p);
}

static int prepare(struct gpu_backend *be, struct gpu_program **ret)
{
	bool changed;
	int r = gpu_step_layout(be);

	r = r < 0 ? r : scratch_room(be);
	r = r < 0 ? r : get(be, ret);
	r = r < 0 ? r : expand_inputs(be, *ret, &changed);
	if (r == 0 && changed) {
		gpu_programs_forget(be);
		r = get(be, ret);
	}
	return r < 0 ? r : gpu_step_send(be);
}

void gpu_flush(struct gpu_backend *be)
{
	struct gpu_program *p;
	bool one_by_one = false;
	int r;

	gpu_record_finish(be);
	if (be->n_words && !be->error) {
		r = gpu_sources_finish(be);
		r = r < 0 ? r : prepare(be, &p);
		if (r == 0)
			capture(be, p);
		if (r == 0 && p->n_messages > 0)
			r = gpu_comm_meet(be, p, &one_by_one);
		r = r < 0 ? r : gpu_picks_send(be);
		r = r < 0 ? r : gpu_flight_begin(be);
		if (r == 0)
			gpu_comm_runs(be, p);
		r = r < 0 ? r : run(be, p, one_by_one);
		r = r < 0 ? r : gpu_picks_fetch(be);
		gpu_comm_says(be, COMM_IDLE);
		if (r < 0) {
			gpu_fail(be, r, "what a step needs beside its launches");
		} else {
			for (uint32_t a = 0; a < p->n_allocs; a++) {
				struct gpu_alloc *to = &be->heap.allocs[a];

				if (!p->writes[a])
					continue;
				to->is_bf16 = p->is_bf16[a];
				to->home = p->place[a].home;
				to->column = p->place[a].column;
				to->home_ld = p->place[a].ld;
				to->width = p->place[a].width;
			}
			p->n_runs++;
			p->last_used = ++be->clock;
		}
		if (be->is_stale) {
			(void)gpu_rt_sync(&be->rt);
			gpu_programs_forget(be);
			be->is_stale = false;
		}
	}
	gpu_picks_drop(be);
	be->n_words = 0;
	be->last_rec = UINT32_MAX;
	gpu_step_reset(be);
}
