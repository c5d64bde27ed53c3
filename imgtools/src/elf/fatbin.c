/* Finding fat binaries in a file, and choosing what stays of each.
 *
 * Layout, little-endian, as cuobjdump shows it and as the CUDA 11 to 13 libraries have it:
 *   container   u32 0xBA55ED50, u16 version = 1, u16 header size = 16, u64 bytes of all entries
 *   entry       u16 kind, u16 version, u32 header size (64 or more), u64 payload bytes, u32 compressed bytes, u32,
 *               u16 minor, u16 major, u32 architecture, ...; then the payload, then the next entry */
#include "elf/fatbin.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	CONTAINER_HEADER = 16,
	ENTRY_HEADER_MIN = 64,
	ENTRY_HEADER_MAX = 4096,
	ENTRIES_MAX = 1024, /* of one container; more is no container */
	FIRST_RANGES = 256, /* room for this many at first */
};

static const uint8_t magic[4] = { 0x50, 0xed, 0x55, 0xba };

struct plan {
	const uint8_t *bytes;
	size_t size;
	const struct img_gpu_archs *archs;
	int (*on_entry)(const struct img_fatbin_entry *e, void *arg);
	void *arg;
	struct img_fatbin_plan out;
	size_t cap;
	struct img_fatbin_entry entries[ENTRIES_MAX];
	size_t n;
};

static uint64_t get(const uint8_t *p, unsigned int bytes)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

/* The entries of what may be a container at `at`; returns its end, 0 when it is none. */
static uint64_t read_container(struct plan *p, uint64_t at)
{
	uint64_t end, header;

	p->n = 0;
	if (p->size - at < CONTAINER_HEADER || get(p->bytes + at + 4, 2) != 1)
		return 0;
	header = get(p->bytes + at + 6, 2);
	end = get(p->bytes + at + 8, 8);
	if (header != CONTAINER_HEADER || end > p->size - at - header || end == 0)
		return 0;
	end += at + header;
	for (uint64_t e = at + header; e < end;) {
		uint64_t head, payload;

		if (end - e < ENTRY_HEADER_MIN || p->n == ENTRIES_MAX)
			return 0;
		head = get(p->bytes + e + 4, 4);
		payload = get(p->bytes + e + 8, 8);
		if (head < ENTRY_HEADER_MIN || head > ENTRY_HEADER_MAX || head > end - e || payload > end - e - head)
			return 0;
		p->entries[p->n++] = (struct img_fatbin_entry){ .container = at,
			                                        .kind = (uint16_t)get(p->bytes + e, 2),
			                                        .arch = (uint32_t)get(p->bytes + e + 28, 4),
			                                        .offset = e + head,
			                                        .size_bytes = payload,
			                                        .is_kept = true };
		e += head + payload;
	}
	return end;
}

/* Marks the machine code for one architecture; false when there is none. */
static bool keep_cubins(struct plan *p, uint32_t arch)
{
	bool found = false;

	for (size_t i = 0; i < p->n; i++) {
		if (p->entries[i].kind == IMG_FATBIN_CUBIN && p->entries[i].arch == arch)
			found = p->entries[i].is_kept = true;
	}
	if (found)
		return true;
	/* Several lower ones may be variants (a, f) that do not run here: all of them stay. */
	for (size_t i = 0; i < p->n; i++) {
		struct img_fatbin_entry *e = &p->entries[i];

		if (e->kind == IMG_FATBIN_CUBIN && e->arch / 10 == arch / 10 && e->arch < arch)
			found = e->is_kept = true;
	}
	return found;
}

/* Of each kind that is compiled or linked for the GPU at run time: the highest that the architecture can take. */
static void keep_compilable(struct plan *p, uint32_t arch)
{
	for (size_t i = 0; i < p->n; i++) {
		struct img_fatbin_entry *e = &p->entries[i];
		bool is_highest = e->kind != IMG_FATBIN_CUBIN && e->arch <= arch;

		for (size_t k = 0; k < p->n && is_highest; k++)
			is_highest = p->entries[k].kind != e->kind || p->entries[k].arch <= e->arch ||
			             p->entries[k].arch > arch;
		if (is_highest)
			e->is_kept = true;
	}
}

static void choose(struct plan *p)
{
	const struct img_gpu_archs *a = p->archs;

	for (size_t i = 0; i < p->n; i++)
		p->entries[i].is_kept = false;
	for (size_t i = 0; i < a->n; i++) {
		bool has_code = keep_cubins(p, a->arch[i]);

		/* "One" is one per container: that of the newest chosen GPU, unless an older one has nothing else. */
		if (!has_code || (a->ptx == IMG_GPU_PTX_ONE && i + 1 == a->n))
			keep_compilable(p, a->arch[i]);
	}
	for (size_t i = 0; i < p->n && a->drop_ir; i++)
		p->entries[i].is_kept = p->entries[i].is_kept && p->entries[i].kind != IMG_FATBIN_LTO_IR;
}

static int add_range(struct plan *p, uint64_t offset, uint64_t size)
{
	if (size == 0)
		return 0;
	if (p->out.n_zero == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : FIRST_RANGES;
		struct img_range *more = reallocarray(p->out.zero, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		p->out.zero = more;
		p->cap = cap;
	}
	p->out.zero[p->out.n_zero++] = (struct img_range){ offset, size };
	return 0;
}

static int take_container(struct plan *p)
{
	int r = 0;

	if (p->archs)
		choose(p);
	p->out.n_containers++;
	for (size_t i = 0; i < p->n && r >= 0; i++) {
		const struct img_fatbin_entry *e = &p->entries[i];

		p->out.n_entries++;
		p->out.payload_bytes += e->size_bytes;
		if (!e->is_kept) {
			p->out.n_dropped++;
			p->out.dropped_bytes += e->size_bytes;
			r = add_range(p, e->offset, e->size_bytes);
		}
		if (r >= 0 && p->on_entry)
			r = p->on_entry(e, p->arg);
	}
	return r < 0 ? r : 0;
}

int img_fatbin_plan(const void *bytes, size_t size, const struct img_gpu_archs *archs,
                    int (*on_entry)(const struct img_fatbin_entry *e, void *arg), void *arg,
                    struct img_fatbin_plan *ret_plan, struct err *err)
{
	struct plan *p = calloc(1, sizeof(*p));
	const uint8_t *at = bytes, *end = at + size;
	int r = p ? 0 : -ENOMEM;

	if (p)
		*p = (struct plan){ .bytes = bytes, .size = size, .archs = archs, .on_entry = on_entry, .arg = arg };
	while (r == 0 && at && (size_t)(end - at) >= CONTAINER_HEADER) {
		uint64_t after;

		at = memmem(at, (size_t)(end - at), magic, sizeof(magic));
		if (!at)
			break;
		after = read_container(p, (uint64_t)(at - p->bytes));
		if (after)
			r = take_container(p);
		at = after ? p->bytes + after : at + 1;
	}
	if (r == 0) {
		*ret_plan = p->out;
	} else if (p) {
		free(p->out.zero);
	}
	free(p);
	return r == -ENOMEM ? err_set(err, r, "fat binaries: out of memory") : r;
}

void img_fatbin_plan_done(struct img_fatbin_plan *p)
{
	free(p->zero);
	*p = (struct img_fatbin_plan){ 0 };
}

/* ---- The choice ---- */

/* "sm_90a", "compute_90", "90", "9.0", "12.1" -> 90, 90, 90, 90, 121; 0 when it is none of these. */
static uint32_t parse_arch(const char *word, size_t len)
{
	char text[32];
	const char *p = text;
	char *end;
	unsigned long v;

	if (len >= sizeof(text))
		return 0;
	memcpy(text, word, len);
	text[len] = 0;
	if (strncmp(p, "sm_", 3) == 0)
		p += 3;
	else if (strncmp(p, "compute_", 8) == 0)
		p += 8;
	if (!isdigit((unsigned char)*p))
		return 0;
	v = strtoul(p, &end, 10);
	if (*end == '.' && isdigit((unsigned char)end[1]) && !isdigit((unsigned char)end[2]) && v < 100) {
		v = v * 10 + (unsigned long)(end[1] - '0');
		end += 2;
	}
	if ((*end == 'a' || *end == 'f') && end[1] == 0)
		end++;
	return *end == 0 && v >= 10 && v < 1000 ? (uint32_t)v : 0;
}

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

int img_gpu_archs_parse(const char *text, struct img_gpu_archs *ret_archs, struct err *err)
{
	struct img_gpu_archs a = { .ptx = IMG_GPU_PTX_ONE };
	size_t n = 0;

	for (const char *p = text; *p; p += *p == ',') {
		size_t len = strcspn(p, ",");
		uint32_t arch = parse_arch(p, len);

		if (arch == 0)
			return err_set(err, -EINVAL, "GPU architecture '%.*s': not of the form sm_90",
			               (int)(len > 64 ? 64 : len), p);
		if (a.n == IMG_GPU_MAX_ARCHS)
			return err_set(err, -EINVAL, "more than %d GPU architectures", IMG_GPU_MAX_ARCHS);
		a.arch[a.n++] = arch;
		p += len;
	}
	if (a.n == 0)
		return err_set(err, -EINVAL, "no GPU architecture is given");
	qsort(a.arch, a.n, sizeof(*a.arch), by_number);
	for (size_t i = 0; i < a.n; i++) {
		if (n == 0 || a.arch[n - 1] != a.arch[i])
			a.arch[n++] = a.arch[i];
	}
	a.n = n;
	*ret_archs = a;
	return 0;
}
