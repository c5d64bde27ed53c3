/* slimtrace gpu: what GPU code files carry, and copies of them without what chosen GPUs cannot use. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "commands.h"
#include "elf/fatbin.h"

struct gpu {
	const char *archs, *out, *ptx;
	bool drop_ir, json;
};

const struct opt gpu_opts[] = {
	{ "gpu-arch", 0, OPT_STR, offsetof(struct gpu, archs), "LIST", "architectures to keep: sm_90,sm_100", NULL },
	{ "gpu-ptx", 0, OPT_CHOICE, offsetof(struct gpu, ptx), "WHICH",
	  "PTX and IR to keep: the newest that a kept GPU can compile, or only where code is missing [one]",
	  "one,needed" },
	{ "drop-ir", 0, OPT_FLAG, offsetof(struct gpu, drop_ir), NULL,
	  "drop intermediate code for linking at run time too", NULL },
	{ "output", 'o', OPT_STR, offsetof(struct gpu, out), "DIR", "write copies without the rest into this folder",
	  NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct gpu, json), NULL, "one JSON object per line", NULL },
	{ 0 },
};

enum { MAX_ROWS = 256 };

struct table { /* bytes by architecture and kind */
	struct row {
		uint32_t arch;
		uint16_t kind;
		uint64_t n, size_bytes, kept_bytes;
	} rows[MAX_ROWS];
	size_t n;
};

static int count_entry(const struct img_fatbin_entry *e, void *arg)
{
	struct table *t = arg;
	size_t i = 0;

	while (i < t->n && (t->rows[i].arch != e->arch || t->rows[i].kind != e->kind))
		i++;
	if (i == MAX_ROWS)
		return 0; /* the sums of the plan still hold */
	if (i == t->n)
		t->rows[t->n++] = (struct row){ .arch = e->arch, .kind = e->kind };
	t->rows[i].n++;
	t->rows[i].size_bytes += e->size_bytes;
	t->rows[i].kept_bytes += e->is_kept ? e->size_bytes : 0;
	return 0;
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->arch != y->arch)
		return x->arch < y->arch ? -1 : 1;
	return x->kind < y->kind ? -1 : x->kind > y->kind;
}

static const char *kind_name(uint16_t kind, char buf[16])
{
	switch (kind) {
	case IMG_FATBIN_PTX:
		return "ptx";
	case IMG_FATBIN_CUBIN:
		return "cubin";
	case IMG_FATBIN_LTO_IR:
		return "lto-ir";
	default:
		(void)snprintf(buf, 16, "kind-%u", kind);
		return buf;
	}
}

static void print_json(const char *path, size_t size, const struct img_fatbin_plan *p)
{
	json_t *o = json_pack("{s:s%, s:I, s:I, s:I, s:I}", "file", path, strlen(path), "size", (json_int_t)size,
	                      "containers", (json_int_t)p->n_containers, "gpu_bytes", (json_int_t)p->payload_bytes,
	                      "dropped_bytes", (json_int_t)p->dropped_bytes);

	if (!o) /* a name that is not UTF-8 has no place in JSON */
		o = json_pack("{s:n, s:I, s:I}", "file", "size", (json_int_t)size, "dropped_bytes",
		              (json_int_t)p->dropped_bytes);
	(void)json_dumpf(o, stdout, JSON_COMPACT);
	(void)putchar('\n');
	json_decref(o);
}

static void print_file(const struct gpu *o, const char *path, size_t size, const struct img_fatbin_plan *p,
                       struct table *t)
{
	char buf[16];

	qsort(t->rows, t->n, sizeof(*t->rows), compare_rows);
	if (o->json) {
		print_json(path, size, p);
		return;
	}
	printf("%s: %.1f MB, GPU code %.1f MB in %llu entries", path, (double)size / 1e6,
	       (double)p->payload_bytes / 1e6, (unsigned long long)p->n_entries);
	if (o->archs)
		printf(", %.1f MB dropped", (double)p->dropped_bytes / 1e6);
	printf("\n");
	for (size_t i = 0; i < t->n; i++) {
		const struct row *r = &t->rows[i];

		printf("  sm_%-4u %-7s %6llu entries %9.2f MB", r->arch, kind_name(r->kind, buf),
		       (unsigned long long)r->n, (double)r->size_bytes / 1e6);
		if (o->archs)
			printf("  %9.2f kept", (double)r->kept_bytes / 1e6);
		printf("\n");
	}
}

static int one_file(const struct gpu *o, const struct img_gpu_archs *archs, const char *path, struct err *err)
{
	CLEANUP(base_mapfile_close) struct base_mapfile map = { 0 };
	CLEANUP(img_fatbin_plan_done) struct img_fatbin_plan plan = { 0 };
	CLEANUP(freep) struct table *t = calloc(1, sizeof(*t));
	CLEANUP(freep) char *to = NULL;
	const char *slash = strrchr(path, '/');
	int r;

	if (!t)
		return err_set(err, -ENOMEM, "out of memory");
	r = base_mapfile_open(path, &map, err);
	if (r == 0)
		r = img_fatbin_plan(map.data, map.size_bytes, o->archs ? archs : NULL, count_entry, t, &plan, err);
	if (r < 0)
		return r;
	if (o->out) {
		if (asprintf(&to, "%s/%s", o->out, slash ? slash + 1 : path) < 0)
			return err_set(err, -ENOMEM, "out of memory");
		r = img_fatbin_copy(path, to, &plan, err);
		if (r < 0)
			return r;
	}
	print_file(o, path, map.size_bytes, &plan, t);
	return 0;
}

int cmd_gpu(int argc, char **argv)
{
	struct gpu o = { .ptx = "one" };
	struct img_gpu_archs archs = { 0 };
	struct err err = { 0 };
	int n, rc = slimtrace_options(argc, argv, &o, &n);

	if (rc >= 0)
		return rc;
	if (n == 0 || (o.out && !o.archs)) {
		(void)err_set(&err, -EINVAL, n == 0 ? "no file is given" : "--output needs --gpu-arch");
		return slimtrace_usage(argv[0], &err);
	}
	if (o.archs && img_gpu_archs_parse(o.archs, &archs, &err) < 0)
		return slimtrace_usage(argv[0], &err);
	archs.ptx = strcmp(o.ptx, "needed") == 0 ? IMG_GPU_PTX_NEEDED : IMG_GPU_PTX_ONE;
	archs.drop_ir = o.drop_ir;
	for (int i = 0; i < n; i++) {
		if (one_file(&o, &archs, argv[i], &err) < 0)
			return slimtrace_fail(&err);
	}
	return 0;
}
