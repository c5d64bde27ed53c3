/* Opening a device, its memory, and copies to and from it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/comm.h"
#include "gpu/gemm.h"
#include "gpu/open.h"

enum { DEFAULT_MAX_TOKENS = 512, ROW_SLACK = 128 };

/* As measured on an H100; biased: chosen, not measured. */
static const struct kn_gpu_rows library_rows = { .eight_bits = 17, .widened = 65, .biased = 256, .own = 17 };

void gpu_fail(struct gpu_backend *be, int error, const char *op)
{
	/* What was launched of a step has to end on the other devices, though this one does not come to it. While a
	 * graph is captured nothing runs. */
	if (be->comm && !be->capturing)
		gpu_comm_break(be->comm);
	if (be->error)
		return;
	be->error = error;
	(void)snprintf(be->error_op, sizeof(be->error_op), "%s", op);
}

/* ---- Copies ---- */

/* Through the two pinned buffers in turn: one arrives while the other is emptied. */
static int receive(struct gpu_backend *be, char *dst, const char *src, size_t bytes)
{
	size_t sent = 0, taken = 0;
	unsigned turn = 0;
	int r = 0;

	while (taken < bytes && r == 0) {
		while (sent < bytes && sent < taken + 2 * (size_t)STAGING_BYTES && r == 0) {
			size_t n = bytes - sent < STAGING_BYTES ? bytes - sent : STAGING_BYTES;
			unsigned b = (unsigned)(sent / STAGING_BYTES) % 2;

			r = gpu_rt_to_host(&be->rt, be->staging[b], src + sent, n);
			r = r < 0 ? r : gpu_rt_event_record(&be->rt, be->staged[b]);
			sent += n;
		}
		if (r == 0)
			r = gpu_rt_event_wait(&be->rt, be->staged[turn]);
		if (r == 0) {
			size_t n = bytes - taken < STAGING_BYTES ? bytes - taken : STAGING_BYTES;

			memcpy(dst + taken, be->staging[turn], n);
			taken += n;
			turn ^= 1;
		}
	}
	return r;
}

int gpu_send(struct gpu_backend *be, char *dst, const char *src, size_t bytes)
{
	int r = 0;

	for (unsigned turn = 0; bytes > 0 && r == 0; turn ^= 1) {
		size_t n = bytes < STAGING_BYTES ? bytes : STAGING_BYTES;

		r = gpu_rt_event_wait(&be->rt, be->staged[turn]);
		if (r == 0) {
			memcpy(be->staging[turn], src, n);
			r = gpu_rt_to_device(&be->rt, dst, be->staging[turn], n);
		}
		if (r == 0)
			r = gpu_rt_event_record(&be->rt, be->staged[turn]);
		dst += n;
		src += n;
		bytes -= n;
	}
	return r;
}

static void widen(float *dst, const uint16_t *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = (uint32_t)src[i] << 16;

		memcpy(&dst[i], &bits, sizeof(bits));
	}
}

/* n values of a bfloat16 allocation from element `off` on. */
static int receive_bf16(struct gpu_backend *be, float *dst, const struct gpu_alloc *a, size_t off, size_t n)
{
	uint16_t *narrow = malloc(n * sizeof(*narrow));
	int r = narrow ? receive(be, (char *)narrow, a->base + off * 2, n * 2) : -ENOMEM;

	if (r == 0)
		widen(dst, narrow, n);
	free(narrow);
	return r;
}

/* The same where its rows are in another allocation's: all of the rows that hold them. */
static int receive_placed(struct gpu_backend *be, float *dst, const struct gpu_alloc *a, size_t off, size_t n)
{
	const struct gpu_alloc *home = &be->heap.allocs[a->home];
	size_t first = off / a->width, n_rows = (off + n + a->width - 1) / a->width - first;
	size_t room = home->bytes / 2 / a->home_ld;
	float *rows;
	int r;

	/* What lies beyond the home's rows was never written. */
	n_rows = first + n_rows <= room ? n_rows : first < room ? room - first : 0;
	rows = malloc((n_rows ? n_rows : 1) * a->home_ld * sizeof(*rows));
	r = rows ? receive_bf16(be, rows, home, first * a->home_ld, n_rows * a->home_ld) : -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++) {
		size_t row = (off + i) / a->width - first;

		dst[i] = row < n_rows ? rows[row * a->home_ld + a->column + (off + i) % a->width] : 0;
	}
	free(rows);
	return r;
}

static int receive_narrow(struct gpu_backend *be, float *dst, const struct gpu_alloc *a, size_t off, size_t n)
{
	return a->home_ld ? receive_placed(be, dst, a, off, n) : receive_bf16(be, dst, a, off, n);
}

int gpu_settle(struct gpu_backend *be, uint32_t home)
{
	int r = 0;

	for (uint32_t i = 0; i < be->heap.n && r == 0; i++) {
		const struct gpu_alloc *a = &be->heap.allocs[i];

		if (i != home && a->home_ld && a->home == home)
			r = gpu_expand(be, i);
	}
	return r;
}

int gpu_expand(struct gpu_backend *be, uint32_t i)
{
	struct gpu_alloc *a = &be->heap.allocs[i];
	size_t n = a->bytes / sizeof(float);
	float *wide;
	int r = gpu_settle(be, i);

	if (r < 0)
		return r;
	wide = malloc(n * sizeof(*wide));
	r = wide ? receive_narrow(be, wide, a, 0, n) : -ENOMEM;

	r = r < 0 ? r : gpu_send(be, a->base, (const char *)wide, n * sizeof(*wide));
	free(wide);
	a->is_bf16 = false;
	a->home_ld = 0;
	a->stays_f32 = true;
	return r;
}

static void upload(struct kn_backend *base, void *dst, const void *host, size_t bytes)
{
	struct gpu_backend *be = gpu_of(base);
	uint32_t i = gpu_heap_find(&be->heap, dst);
	struct gpu_alloc *a;
	int r = 0;

	gpu_flush(be);
	if (i == UINT32_MAX) {
		gpu_fail(be, -EFAULT, "upload");
		return;
	}
	a = &be->heap.allocs[i];
	r = gpu_settle(be, i);
	if (r == 0 && a->is_bf16)
		r = gpu_expand(be, i);
	if (!a->stays_f32) {
		a->stays_f32 = true;
		be->is_stale |= be->n_programs > 0;
	}
	r = r < 0 ? r : gpu_send(be, dst, host, bytes);
	if (r < 0)
		gpu_fail(be, r, "upload");
}

static void download(struct kn_backend *base, void *host, const void *src, size_t bytes)
{
	struct gpu_backend *be = gpu_of(base);
	uint32_t i = gpu_heap_find(&be->heap, src);
	const struct gpu_alloc *a;
	int r;

	gpu_flush(be);
	if (i == UINT32_MAX) {
		gpu_fail(be, -EFAULT, "download");
		return;
	}
	a = &be->heap.allocs[i];
	if (a->is_bf16)
		r = receive_narrow(be, host, a, (size_t)((const char *)src - a->base) / sizeof(float),
		                   bytes / sizeof(float));
	else
		r = receive(be, host, src, bytes);
	if (r < 0)
		gpu_fail(be, r, "download");
}

/* Of float32 allocations: recurrent states, which no program keeps otherwise. */
static void copy(struct kn_backend *base, void *dst, const void *src, size_t bytes)
{
	struct gpu_backend *be = gpu_of(base);
	uint32_t to = gpu_heap_find(&be->heap, dst), from = gpu_heap_find(&be->heap, src);
	int r = 0;

	gpu_flush(be);
	if (to == UINT32_MAX || from == UINT32_MAX)
		r = -EFAULT;
	else if (be->heap.allocs[to].is_bf16 != be->heap.allocs[from].is_bf16 || be->heap.allocs[to].is_bf16)
		r = -ENOTSUP;
	r = r < 0 ? r : gpu_rt_copy(&be->rt, dst, src, bytes);
	if (r < 0)
		gpu_fail(be, r, "copy");
}

/* ---- What is under way ---- */

int gpu_flight_begin(struct gpu_backend *be)
{
	struct gpu_flight *f = &be->flights[be->n_submitted % KN_MAX_AHEAD];

	if (f->has_begin || be->n_submitted - be->n_waited == KN_MAX_AHEAD)
		return 0;
	f->has_begin = true;
	return gpu_rt_event_record(&be->rt, f->begin);
}

/* The oldest has landed. */
static void count_flight(struct gpu_backend *be)
{
	struct gpu_flight *f = &be->flights[be->n_waited++ % KN_MAX_AHEAD];
	uint64_t ns;

	if (f->has_begin && gpu_rt_elapsed(&be->rt, f->begin, f->end, &ns) == 0)
		be->busy_ns += ns;
	f->has_begin = false;
}

int gpu_flights_end(struct gpu_backend *be)
{
	int r;

	gpu_comm_says(be, COMM_WAITS);
	r = gpu_rt_sync(&be->rt);
	gpu_comm_says(be, COMM_IDLE);
	while (be->n_waited < be->n_submitted)
		count_flight(be);
	be->flights[be->n_submitted % KN_MAX_AHEAD].has_begin = false;
	gpu_picks_deliver(be, UINT64_MAX);
	return r;
}

/* Why something failed: the device's own words where it has some. */
static const char *reason_of(int r)
{
	switch (r) {
	case -EIO:
		return *gk_error_text() ? gk_error_text() : gpu_rt_error();
	case -ENOMEM:
		return "the device has no memory left for it";
	case -ENOTSUP:
	case -EINVAL:
		return "no kernel takes what it was given";
	case -EPROTO:
		return "the devices of the group have come with different sums";
	default:
		return strerror(-r);
	}
}

/* r: of the waiting itself. */
static int report(struct gpu_backend *be, int r)
{
	if (r < 0)
		gpu_fail(be, r, gpu_rt_error());
	r = be->error;
	if (r < 0)
		be->on_failure(be->ops.name, be->error_op, reason_of(r));
	be->error = 0;
	return r;
}

static void submit(struct kn_backend *base)
{
	struct gpu_backend *be = gpu_of(base);
	int r = 0;

	gpu_flush(be);
	if (be->n_submitted - be->n_waited == KN_MAX_AHEAD)
		r = gpu_flights_end(be);
	if (r == 0)
		r = gpu_rt_event_record(&be->rt, be->flights[be->n_submitted % KN_MAX_AHEAD].end);
	if (r < 0)
		gpu_fail(be, r, "submit");
	be->n_submitted++;
}

static int wait_oldest(struct kn_backend *base)
{
	struct gpu_backend *be = gpu_of(base);
	int r = 0;

	if (be->n_waited < be->n_submitted) {
		gpu_comm_says(be, COMM_WAITS);
		r = gpu_rt_event_wait(&be->rt, be->flights[be->n_waited % KN_MAX_AHEAD].end);
		gpu_comm_says(be, COMM_IDLE);
		count_flight(be);
		gpu_picks_deliver(be, be->n_waited);
	}
	return report(be, r);
}

static uint64_t busy_ns(struct kn_backend *base)
{
	return gpu_of(base)->busy_ns;
}

static int sync_device(struct kn_backend *base)
{
	struct gpu_backend *be = gpu_of(base);

	gpu_flush(be);
	return report(be, gpu_flights_end(be));
}

/* ---- Memory ---- */

static void *alloc(struct kn_backend *base, size_t bytes)
{
	struct gpu_backend *be = gpu_of(base);
	void *p;

	gpu_flush(be);
	bytes = bytes ? (bytes + 255) & ~(size_t)255 : 256;
	p = gpu_rt_alloc(&be->rt, bytes);
	if (!p)
		return NULL;
	gpu_programs_forget(be); /* they name allocations by number */
	if (gpu_heap_add(&be->heap, p, bytes) < 0) {
		gpu_rt_free(&be->rt, p);
		return NULL;
	}
	return p;
}

static void free_memory(struct kn_backend *base, void *p)
{
	struct gpu_backend *be = gpu_of(base);
	uint32_t i = gpu_heap_find(&be->heap, p);

	if (!p || i == UINT32_MAX)
		return;
	gpu_flush(be);
	if (gpu_settle(be, i) < 0)
		gpu_fail(be, -ENOMEM, "free");
	(void)gpu_rt_sync(&be->rt);
	gpu_programs_forget(be);
	gpu_heap_remove(&be->heap, i);
	gpu_rt_free(&be->rt, p);
}

static uint64_t free_bytes(struct kn_backend *base)
{
	uint64_t f = 0, total = 0;

	(void)gpu_rt_memory(&gpu_of(base)->rt, &f, &total);
	return f;
}

static bool takes(const struct kn_backend *base, enum kn_dtype dtype)
{
	(void)base;
	return dtype == KN_FP8_128 || dtype == KN_MXFP4;
}

/* ---- Open and close ---- */

static void close_device(struct kn_backend *base)
{
	struct gpu_backend *be = gpu_of(base);

	/* A kernel that waits for another rank would wait for ever once that is closed. */
	if (be->comm && be->base.rank == 0)
		gpu_comm_free(be->comm);
	for (uint32_t i = 1; be->base.rank == 0 && i < be->base.n_ranks; i++)
		close_device(be->group[i]);
	if (be->rt.stream || be->step.device)
		(void)gpu_rt_sync(&be->rt);
	(void)gpu_source(base, NULL);
	gpu_programs_forget(be);
	gpu_gemm_close(be->gemm);
	gpu_step_close(be);
	gpu_picks_close(be);
	gpu_copies_close(be);
	gpu_mats_close(be);
	for (uint32_t i = 0; i < be->heap.n; i++)
		gpu_rt_free(&be->rt, be->heap.allocs[i].base);
	free(be->heap.allocs);
	for (int i = 0; i < 2; i++) {
		gpu_rt_host_free(&be->rt, be->staging[i]);
		gpu_rt_event_free(&be->rt, be->staged[i]);
		gpu_rt_event_free(&be->rt, be->step.copied[i]);
	}
	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		gpu_rt_event_free(&be->rt, be->flights[i].begin);
		gpu_rt_event_free(&be->rt, be->flights[i].end);
	}
	gpu_rt_free(&be->rt, be->xbuf);
	gpu_rt_free(&be->rt, be->wbuf);
	gpu_rt_free(&be->rt, be->qbuf);
	gpu_rt_free(&be->rt, be->handed);
	gpu_rt_free(&be->rt, be->ctx.scratch);
	gpu_rt_free(&be->rt, be->ctx.counters);
	gpu_rt_close(&be->rt);
	free(be->words);
	free(be);
}

static void silent(const char *backend, const char *op, const char *text)
{
	(void)backend;
	(void)op;
	(void)text;
}

static int open_memory(struct gpu_backend *be)
{
	const size_t counters = GK_COUNTERS * sizeof(*be->ctx.counters);
	int r = 0;

	be->ctx.counters = gpu_rt_alloc(&be->rt, counters);
	r = be->ctx.counters ? gpu_rt_clear(&be->rt, be->ctx.counters, counters) : -ENOMEM;
	for (int i = 0; i < KN_MAX_AHEAD && r == 0; i++) {
		r = gpu_rt_timer_new(&be->rt, &be->flights[i].begin);
		r = r < 0 ? r : gpu_rt_timer_new(&be->rt, &be->flights[i].end);
	}
	for (int i = 0; i < 2 && r == 0; i++) {
		r = gpu_rt_event_new(&be->rt, &be->step.copied[i]);
		r = r < 0 ? r : gpu_rt_event_record(&be->rt, be->step.copied[i]);
	}
	for (int i = 0; i < 2 && r == 0; i++) {
		be->staging[i] = gpu_rt_host_alloc(&be->rt, STAGING_BYTES);
		r = be->staging[i] ? gpu_rt_event_new(&be->rt, &be->staged[i]) : -ENOMEM;
		r = r < 0 ? r : gpu_rt_event_record(&be->rt, be->staged[i]);
	}
	return r;
}

static void name_device(struct gpu_backend *be, uint32_t n_devices)
{
	uint64_t f = 0, total = 0;

	(void)gpu_rt_memory(&be->rt, &f, &total);
	(void)snprintf(be->base.device, sizeof(be->base.device), "%u x %u multiprocessors, %llu MiB",
	               n_devices ? n_devices : 1, be->ctx.n_sm, (unsigned long long)(total >> 20));
}

static int open_rank(const char *kind, const struct kn_config *config, const struct gpu_open *o, uint32_t device,
                     struct gpu_backend **ret_backend, struct err *err)
{
	struct gpu_backend *be = calloc(1, sizeof(*be));
	char reason[256] = "";
	int r;

	if (!be)
		return err_set(err, -ENOMEM, "backend %s: no memory", kind);
	be->ops = (struct kn_ops){ .name = kind,
		                   .close = close_device,
		                   .sync = sync_device,
		                   .submit = submit,
		                   .wait = wait_oldest,
		                   .busy_ns = busy_ns,
		                   .alloc = alloc,
		                   .free = free_memory,
		                   .upload = upload,
		                   .download = download,
		                   .copy = copy,
		                   .mat_init = gpu_mat_init,
		                   .mat_done = gpu_mat_done,
		                   .source = gpu_source,
		                   .free_bytes = free_bytes,
		                   .takes = takes };
	gpu_record_ops(&be->ops);
	gpu_copies_ops(&be->ops);
	be->base.ops = &be->ops;
	be->base.keeps_states = true;
	/* In float32 every row is computed by itself. */
	be->base.tells_prompts = config->deterministic && !config->exact;
	be->base.n_answer_rows = UINT32_MAX;
	be->exact = config->exact;
	be->deterministic = config->deterministic;
	be->library_rows = (struct kn_gpu_rows){
		.eight_bits = config->gpu_rows.eight_bits ? config->gpu_rows.eight_bits : library_rows.eight_bits,
		.widened = config->gpu_rows.widened ? config->gpu_rows.widened : library_rows.widened,
		.biased = config->gpu_rows.biased ? config->gpu_rows.biased : library_rows.biased,
		.own = config->gpu_rows.own ? config->gpu_rows.own : library_rows.own,
	};
	be->no_fusion = o && o->no_fusion;
	be->on_failure = o && o->on_failure ? o->on_failure : silent;
	be->max_tokens = config->max_tokens ? config->max_tokens : DEFAULT_MAX_TOKENS;
	be->limits.max_rows = be->max_tokens + ROW_SLACK;
	be->last_rec = UINT32_MAX;
	be->scale_chunk = UINT32_MAX;
	r = gpu_rt_open(&be->rt, device, reason, sizeof(reason));
	if (r < 0) {
		close_device(&be->base);
		return err_set(err, r, "backend %s: %s", kind, reason);
	}
	be->rt.in_order = config->n_devices > 1;
	r = gk_ctx_init(&be->ctx, be->rt.device);
	if (r < 0) {
		close_device(&be->base);
		return err_set(err, r, "backend %s: the device cannot run its kernels: %s", kind, gk_error_text());
	}
	be->ctx.stream = be->rt.stream;
	name_device(be, config->n_devices);
	be->ctx.fixed = be->deterministic;
	be->ctx.bytes = be->ctx.bytes && !be->exact; /* 15 bits of a value are too few there */
	r = open_memory(be);
	if (r < 0) {
		close_device(&be->base);
		return err_set(err, r, "backend %s: no memory: %s", kind, gpu_rt_error());
	}
	if (!be->exact && (!be->deterministic || gpu_gemm_is_steady())) {
		be->gemm = gpu_gemm_open(be, reason, sizeof(reason));
		if (!be->gemm && o && o->on_note && be->rt.device == (int)(config->n_devices ? config->devices[0] : 0))
			o->on_note(kind, reason);
	}
	*ret_backend = be;
	return 0;
}

static int check_devices(const char *kind, const struct kn_config *config, struct err *err)
{
	if (config->n_devices > KN_MAX_RANKS)
		return err_set(err, -EINVAL, "backend %s: %u devices, at most %d", kind, config->n_devices,
		               KN_MAX_RANKS);
	for (uint32_t i = 1; i < config->n_devices; i++) {
		for (uint32_t k = 0; k < i; k++) {
			if (config->devices[i] == config->devices[k])
				return err_set(err, -EINVAL, "backend %s: device %u twice", kind, config->devices[i]);
		}
	}
	return 0;
}

/* The others, and what all of them know of each other. */
static int open_group(struct gpu_backend *first, const char *kind, const struct kn_config *config,
                      const struct gpu_open *o, struct err *err)
{
	struct gpu_backend *ranks[KN_MAX_RANKS] = { first };
	int r = 0;

	first->group[0] = &first->base;
	first->base.ranks = first->group;
	first->base.by_expert = config->by_expert;
	first->base.n_ranks = 1;
	for (uint32_t i = 1; i < config->n_devices && r == 0; i++) {
		r = open_rank(kind, config, o, config->devices[i], &ranks[i], err);
		if (r < 0)
			break;
		ranks[i]->base.rank = i;
		ranks[i]->base.ranks = first->group;
		ranks[i]->base.n_ranks = config->n_devices;
		ranks[i]->base.by_expert = config->by_expert;
		first->group[i] = &ranks[i]->base;
		first->base.n_ranks = i + 1;
	}
	return r < 0 ? r : gpu_comm_new(ranks, config->n_devices, o, err);
}

int gpu_backend_open(const char *kind, const struct kn_config *config, const struct gpu_open *o,
                     struct kn_backend **ret_backend, struct err *err)
{
	struct gpu_backend *be = NULL;
	int r = check_devices(kind, config, err);

	if (r == 0 && config->n_devices > 1)
		gpu_rt_several();
	r = r < 0 ? r : open_rank(kind, config, o, config->n_devices ? config->devices[0] : 0, &be, err);
	if (r == 0 && config->n_devices > 1) {
		r = open_group(be, kind, config, o, err);
		if (r < 0)
			close_device(&be->base);
	}
	if (r == 0)
		*ret_backend = &be->base;
	return r;
}
