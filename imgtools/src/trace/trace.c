/* The records of a trace in memory: one entry per (path, access, process), found by hash, kept in the order of the
 * first touch. A trace of a long run repeats itself a lot, so the strings of a path are stored once whatever is done to
 * it and by whom. */
#include "trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trace_internal.h"
#include "tree/tree.h"

static const char *const access_names[IMG_N_ACCESS] = {
	[IMG_ACCESS_OPEN] = "open",       [IMG_ACCESS_CREATE] = "create", [IMG_ACCESS_EXEC] = "exec",
	[IMG_ACCESS_KERNEL] = "kernel",   [IMG_ACCESS_STAT] = "stat",     [IMG_ACCESS_READLINK] = "readlink",
	[IMG_ACCESS_READDIR] = "readdir", [IMG_ACCESS_MISS] = "miss",     [IMG_ACCESS_CONNECT] = "connect",
};

/* One distinct path; what was done to it hangs below. */
struct path {
	struct path *next; /* in its bucket */
	struct record *records;
	uint32_t hash;
	char text[];
};

struct record {
	struct img_trace_record r; /* r.path is the path's text */
	struct record *next;       /* of the same path */
	uint64_t serial;           /* order of arrival: breaks ties of first_ns */
};

struct img_trace {
	struct path **buckets; /* a power of two; NULL until the first record */
	size_t n_buckets, n_paths;
	struct record **records; /* by first_ns, then by arrival */
	size_t n_records, cap_records;
	struct img_trace_process *processes; /* by number; program and cmdline are owned */
	size_t n_processes, cap_processes;
	uint64_t next_serial;
};

const char *img_access_name(enum img_access a)
{
	return (unsigned)a < IMG_N_ACCESS ? access_names[a] : "unknown";
}

struct img_trace *img_trace_new(void)
{
	return calloc(1, sizeof(struct img_trace));
}

void img_trace_free(struct img_trace *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_buckets; i++) {
		for (struct path *p = t->buckets[i], *next; p; p = next) {
			next = p->next;
			free(p);
		}
	}
	for (size_t i = 0; i < t->n_records; i++)
		free(t->records[i]);
	for (size_t i = 0; i < t->n_processes; i++) {
		free((char *)t->processes[i].program);
		free((char *)t->processes[i].cmdline);
	}
	free(t->buckets);
	free(t->records);
	free(t->processes);
	free(t);
}

static uint32_t hash_text(const char *text, size_t len)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)text[i]) * 16777619u;
	return h;
}

static int grow_buckets(struct img_trace *t)
{
	size_t n = t->n_buckets ? t->n_buckets * 2 : 256;
	struct path **buckets;

	if (t->n_buckets && t->n_paths < t->n_buckets)
		return 0;
	buckets = calloc(n, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < t->n_buckets; i++) {
		for (struct path *p = t->buckets[i], *next; p; p = next) {
			next = p->next;
			p->next = buckets[p->hash & (n - 1)];
			buckets[p->hash & (n - 1)] = p;
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->n_buckets = n;
	return 0;
}

static struct path *get_path(struct img_trace *t, const char *text)
{
	size_t len = strlen(text);
	uint32_t hash = hash_text(text, len);
	struct path *p;

	if (grow_buckets(t) < 0)
		return NULL;
	for (p = t->buckets[hash & (t->n_buckets - 1)]; p; p = p->next) {
		if (p->hash == hash && strcmp(p->text, text) == 0)
			return p;
	}
	p = malloc(sizeof(*p) + len + 1);
	if (!p)
		return NULL;
	memcpy(p->text, text, len + 1);
	p->hash = hash;
	p->records = NULL;
	p->next = t->buckets[hash & (t->n_buckets - 1)];
	t->buckets[hash & (t->n_buckets - 1)] = p;
	t->n_paths++;
	return p;
}

/* The same thing again. */
static void add_to(struct record *have, const struct img_trace_record *r)
{
	uint32_t count = r->count ? r->count : 1;

	have->r.count = have->r.count > UINT32_MAX - count ? UINT32_MAX : have->r.count + count;
	if (r->last_ns > have->r.last_ns)
		have->r.last_ns = r->last_ns;
	if (!have->r.size)
		have->r.size = r->size;
}

static bool is_before(const struct record *a, const struct record *b)
{
	if (a->r.first_ns != b->r.first_ns)
		return a->r.first_ns < b->r.first_ns;
	return a->serial < b->serial;
}

static int compare_records(const void *a, const void *b)
{
	const struct record *x = *(struct record *const *)a, *y = *(struct record *const *)b;

	return is_before(x, y) ? -1 : is_before(y, x);
}

void img_trace_sort(struct img_trace *t)
{
	if (t->n_records)
		qsort(t->records, t->n_records, sizeof(*t->records), compare_records);
}

/* Puts the record behind all others, wherever it belongs. */
static int append(struct img_trace *t, struct record *rec)
{
	if (t->n_records >= IMG_TRACE_MAX_RECORDS)
		return -E2BIG;
	if (t->n_records == t->cap_records) {
		size_t cap = t->cap_records ? t->cap_records * 2 : 256;
		struct record **records = realloc(t->records, cap * sizeof(*records));

		if (!records)
			return -ENOMEM;
		t->records = records;
		t->cap_records = cap;
	}
	rec->serial = t->next_serial++;
	t->records[t->n_records++] = rec;
	return 0;
}

/* The last record moves to where its time belongs; nearly always it stays. */
static void settle_last(struct img_trace *t)
{
	struct record *rec = t->records[t->n_records - 1];
	size_t lo = 0, hi = t->n_records - 1;

	if (hi == 0 || !is_before(rec, t->records[hi - 1]))
		return;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (is_before(rec, t->records[mid]))
			hi = mid;
		else
			lo = mid + 1;
	}
	memmove(t->records + lo + 1, t->records + lo, (t->n_records - 1 - lo) * sizeof(*t->records));
	t->records[lo] = rec;
}

int img_trace_append(struct img_trace *t, const struct img_trace_record *r)
{
	struct path *p;
	struct record *rec;
	int n;

	if (!r->path || (unsigned)r->access >= IMG_N_ACCESS || !img_path_is_normal(r->path))
		return -EINVAL;
	p = get_path(t, r->path);
	if (!p)
		return -ENOMEM;
	for (rec = p->records; rec; rec = rec->next) {
		if (rec->r.pid == r->pid && rec->r.access == r->access) {
			/* Merged traces overlap in time: whoever was first decides. */
			bool moved = r->first_ns < rec->r.first_ns;

			add_to(rec, r);
			if (moved)
				rec->r.first_ns = r->first_ns;
			return moved ? IMG_TRACE_MOVED : 0;
		}
	}
	rec = malloc(sizeof(*rec));
	if (!rec)
		return -ENOMEM;
	rec->r = *r;
	rec->r.path = p->text;
	if (rec->r.count == 0)
		rec->r.count = 1;
	if (rec->r.last_ns < rec->r.first_ns)
		rec->r.last_ns = rec->r.first_ns;
	n = append(t, rec);
	if (n < 0) {
		free(rec);
		return n;
	}
	rec->next = p->records;
	p->records = rec;
	return IMG_TRACE_ADDED;
}

int img_trace_add(struct img_trace *t, const struct img_trace_record *r)
{
	int n = img_trace_append(t, r);

	if (n == IMG_TRACE_ADDED)
		settle_last(t);
	else if (n == IMG_TRACE_MOVED)
		img_trace_sort(t);
	return n < 0 ? n : 0;
}

/* Processes are few and come in the order of their numbers. */
static struct img_trace_process *find_process(const struct img_trace *t, uint32_t pid, size_t *ret_at)
{
	size_t lo = 0, hi = t->n_processes;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (t->processes[mid].pid < pid)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_at = lo;
	return lo < t->n_processes && t->processes[lo].pid == pid ? &t->processes[lo] : NULL;
}

int img_trace_add_process(struct img_trace *t, const struct img_trace_process *p)
{
	char *program = strdup(p->program ? p->program : "");
	char *cmdline = strdup(p->cmdline ? p->cmdline : "");
	struct img_trace_process *have;
	size_t at;

	if (!program || !cmdline)
		goto no_memory;
	have = find_process(t, p->pid, &at);
	if (have) {
		free((char *)have->program);
		free((char *)have->cmdline);
	} else {
		if (t->n_processes >= IMG_TRACE_MAX_PROCESSES) {
			free(program);
			free(cmdline);
			return -E2BIG;
		}
		if (t->n_processes == t->cap_processes) {
			size_t cap = t->cap_processes ? t->cap_processes * 2 : 16;
			struct img_trace_process *list = realloc(t->processes, cap * sizeof(*list));

			if (!list)
				goto no_memory;
			t->processes = list;
			t->cap_processes = cap;
		}
		have = &t->processes[at];
		memmove(have + 1, have, (t->n_processes - at) * sizeof(*have));
		t->n_processes++;
	}
	*have = *p;
	have->program = program;
	have->cmdline = cmdline;
	return 0;

no_memory:
	free(program);
	free(cmdline);
	return -ENOMEM;
}

size_t img_trace_count(const struct img_trace *t)
{
	return t->n_records;
}

const struct img_trace_record *img_trace_at(const struct img_trace *t, size_t i)
{
	return &t->records[i]->r;
}

size_t img_trace_n_processes(const struct img_trace *t)
{
	return t->n_processes;
}

const struct img_trace_process *img_trace_process_at(const struct img_trace *t, size_t i)
{
	return &t->processes[i];
}

/* The highest number in use, by a process or by a record without one. */
static uint32_t highest_pid(const struct img_trace *t)
{
	uint32_t max = t->n_processes ? t->processes[t->n_processes - 1].pid : 0;

	for (size_t i = 0; i < t->n_records; i++) {
		if (t->records[i]->r.pid > max)
			max = t->records[i]->r.pid;
	}
	return max;
}

int img_trace_merge(struct img_trace *t, const struct img_trace *from)
{
	uint32_t base = highest_pid(t);
	int r = 0;

	if (t == from)
		return -EINVAL;
	if (highest_pid(from) > UINT32_MAX - base)
		return -ERANGE;
	for (size_t i = 0; r >= 0 && i < from->n_processes; i++) {
		struct img_trace_process p = from->processes[i];

		p.pid += base;
		if (p.parent)
			p.parent += base;
		r = img_trace_add_process(t, &p);
	}
	for (size_t i = 0; r >= 0 && i < from->n_records; i++) {
		struct img_trace_record rec = from->records[i]->r;

		rec.pid += base;
		r = img_trace_append(t, &rec);
	}
	img_trace_sort(t);
	return r < 0 ? r : 0;
}
