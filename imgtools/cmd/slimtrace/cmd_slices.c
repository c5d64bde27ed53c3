/* slimtrace slices: what a repository's packages consist of, as text; or the table of roles. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "commands.h"
#include "packages.h"

struct slices {
	struct packages_opts from;
	const char *output;
	bool headers_only, roles, list;
};

const struct opt slices_opts[] = {
	PACKAGES_OPTS(struct slices),
	{ "output", 'o', OPT_STR, offsetof(struct slices, output), "FILE", "write the database here [standard output]",
	  NULL },
	{ "headers-only", 0, OPT_FLAG, offsetof(struct slices, headers_only), NULL,
	  "needs from package headers alone: nothing is unpacked", NULL },
	{ "list", 'l', OPT_FLAG, offsetof(struct slices, list), NULL, "names of slices with files and bytes only",
	  NULL },
	{ "roles", 0, OPT_FLAG, offsetof(struct slices, roles), NULL, "the roles that slices are named by", NULL },
	{ 0 },
};

static int print_roles(void)
{
	const char *help;

	for (size_t i = 0; img_slice_role_at(i, &help); i++)
		(void)printf("%-10s %s%s\n", img_slice_role_at(i, NULL), help,
		             img_slice_role_is_runtime(img_slice_role_at(i, NULL)) ? "" : " (only when asked for)");
	return 0;
}

/* The packages named, or all. */
static int choose(const struct packages *p, int n_args, char **args, struct img_rpm ***ret_list, size_t *ret_n,
                  struct err *err)
{
	const size_t n_all = img_rpm_set_count(p->set);
	struct img_rpm **list = calloc(n_all + 1, sizeof(struct img_rpm *));
	size_t n = 0;

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n_all; i++) {
		struct img_rpm *one = img_rpm_set_at(p->set, i);
		bool is_named = n_args == 0;

		for (int k = 0; k < n_args; k++)
			is_named |= strcmp(args[k], one->name) == 0;
		if (is_named)
			list[n++] = one;
	}
	for (int k = 0; k < n_args; k++) {
		if (!img_rpm_set_find(p->set, args[k])) {
			free(list);
			return err_set(err, -ENOENT, "%s: there is no such package", args[k]);
		}
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}

/* Lines "package" and "slice" of the database, for people. */
static void print_list(const char *text)
{
	char package[256] = "";
	char size[32];

	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char role[64];
		unsigned long files;
		unsigned long long bytes;

		if (sscanf(line, "package\t%255[^\t]", package) == 1)
			continue;
		if (sscanf(line, "slice\t%63[^\t]\t%lu\t%llu", role, &files, &bytes) == 3)
			(void)printf("%s_%s\t%lu files\t%s\n", package, role, files, packages_size(bytes, size));
	}
}

static int run(const struct slices *o, int n_args, char **args, struct err *err)
{
	CLEANUP(packages_close) struct packages p = { 0 };
	CLEANUP(freep) struct img_rpm **list = NULL;
	struct base_buf out = BASE_BUF_INIT((size_t)1 << 31);
	struct img_world_opts wo = { .kind = o->headers_only ? IMG_WORLD_HEADERS : IMG_WORLD_FILES };
	struct img_world *w = NULL;
	size_t n = 0;
	int r;

	r = packages_open(&o->from, &p, err);
	if (r == 0)
		r = choose(&p, n_args, args, &list, &n, err);
	wo.rules = p.rules;
	wo.root = o->from.root;
	wo.spool = p.spool;
	wo.progress = packages_progress();
	if (r == 0)
		r = img_world_new(p.set, &wo, &w, err);
	if (r == 0)
		r = o->headers_only ? img_world_load(w, list, n, err) : img_world_open(w, list, n, err);
	if (r == 0)
		r = img_slices_write(w, list, n, &out, err);
	if (r == 0 && o->list)
		print_list(base_buf_text(&out));
	else if (r == 0 && o->output) {
		packages_write_begin();
		r = base_write_file_atomic(o->output, out.data, out.len, 0644, err);
		packages_write_end();
	} else if (r == 0)
		(void)fwrite(out.data, 1, out.len, stdout);
	base_buf_done(&out);
	img_world_free(w);
	return r;
}

int cmd_slices(int argc, char **argv)
{
	struct slices o = { 0 };
	struct err err = { 0 };
	int n, rc = slimtrace_options(argc, argv, &o, &n);

	if (rc < 0 && o.roles)
		rc = print_roles();
	else if (rc < 0 && !o.from.repos.n && !o.from.rpms.n && !o.from.root) {
		/* `slimtrace slices DIR [PACKAGE]...`: the first argument is the repository. */
		if (n == 0) {
			(void)err_set(&err, -EINVAL, "no repository is given");
			rc = slimtrace_usage("slices", &err);
		} else {
			static const char *dirs[1];

			dirs[0] = argv[0];
			o.from.repos = (struct opt_list){ dirs, 1 };
			rc = run(&o, n - 1, argv + 1, &err) < 0 ? slimtrace_fail(&err) : 0;
			o.from.repos = (struct opt_list){ 0 };
		}
	} else if (rc < 0)
		rc = run(&o, n, argv, &err) < 0 ? slimtrace_fail(&err) : 0;
	packages_opts_done(&o.from);
	return rc;
}
