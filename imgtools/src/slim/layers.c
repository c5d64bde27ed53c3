/* Which layer each path goes into. A layer is worth something when another image, or the next build of the same, has it
 * bit for bit: so large packages stand alone, small ones that every image has come first, what changes with every build
 * comes last. Packages are put by name, not by size rank, so that one package more does not move the others.
 *
 * Slim images hold parts of packages, and not the same parts: of all files only the C library and its loader are in
 * every one that is not static. These are the first layer. Packages that nearly every image has are the second: images
 * that do alike have alike parts of them. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "slim/slim.h"

enum {
	OWN_LAYER = 4 << 20, /* a package of this size stands alone */
	OWN_MAX = 24,        /* layers of their own; the largest get them */
};

/* What nearly every root holds: one layer that all images share as long as these do not change. */
static const char *const common[] = { "filesystem",   "base-files", "base-passwd",     "setup",       "glibc",
	                              "libc6",        "libc-bin",   "glibc-common",    "libgcc",      "libgcc-s1",
	                              "gcc-12-base",  "tzdata",     "libstdc++6",      "libstdc++",   "bash",
	                              "zlib1g",       "zlib",       "ca-certificates", "libtinfo6",   "ncurses-libs",
	                              "ncurses-base", "netbase",    "media-types",     "debianutils", "dash" };

static bool is_common(const char *name)
{
	for (size_t i = 0; i < sizeof(common) / sizeof(*common); i++) {
		if (strcmp(common[i], name) == 0)
			return true;
	}
	return false;
}

/* The C library and its loader, by themselves and by links to them. */
static bool is_core(const struct img_node *n)
{
	static const char *const names[] = { "ld-linux*.so.*", "ld64.so.*", "ld-[0-9]*.so", "libc.so.6",
		                             "libc-[0-9]*.so" };
	const char *base = strrchr(n->path, '/') + 1;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if ((n->type == IMG_FILE || n->type == IMG_SYMLINK) && fnmatch(names[i], base, 0) == 0)
			return true;
	}
	return false;
}

struct size_of {
	struct img_rpm *p;
	uint64_t bytes;
	int32_t layer;
};

static int by_size(const void *a, const void *b)
{
	const struct size_of *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return x->p->index < y->p->index ? -1 : x->p->index > y->p->index;
}

static int by_index(const void *a, const void *b)
{
	const struct size_of *x = a, *y = b;

	return x->p->index < y->p->index ? -1 : x->p->index > y->p->index;
}

void img_slim_layers_done(struct img_slim_layers *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->names[i]);
	free(l->names);
	*l = (struct img_slim_layers){ 0 };
}

static int add_layer(struct img_slim_layers *l, const char *name)
{
	char **more = reallocarray(l->names, l->n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	l->names = more;
	l->names[l->n] = strdup(name);
	return l->names[l->n] ? (int)l->n++ : -ENOMEM;
}

static int one(struct img_tree *t, struct img_slim_layers *l)
{
	for (size_t i = 0; i < img_tree_count(t); i++)
		img_tree_at(t, i)->layer = 0;
	return add_layer(l, "all files");
}

static int keep(struct img_tree *t, size_t n_layers, struct img_slim_layers *l)
{
	char name[64];
	int r = 0;

	for (size_t i = 0; i < img_tree_count(t); i++) {
		struct img_node *n = img_tree_at(t, i);

		if (n->layer < 0 || (size_t)n->layer >= n_layers)
			n->layer = (int32_t)n_layers - 1;
	}
	for (size_t i = 0; r >= 0 && i < n_layers; i++) {
		(void)snprintf(name, sizeof(name), "files of layer %zu", i + 1);
		r = add_layer(l, name);
	}
	return r;
}

static int plan(struct img_tree *t, struct img_rpm_set *packages, struct img_slim_layers *l, struct err *err)
{
	size_t n_packages = img_rpm_set_count(packages), n_own = 0;
	CLEANUP(freep) struct size_of *sizes = calloc(n_packages + 1, sizeof(*sizes));
	CLEANUP(freep) struct img_rpm **owners = calloc(img_tree_count(t) + 1, sizeof(struct img_rpm *));
	int core = add_layer(l, "C library"), shared = add_layer(l, "packages that all images have"), r, rest, own;

	if (!sizes || !owners || core < 0 || shared < 0)
		return -ENOMEM;
	r = 0;
	for (size_t i = 0; i < n_packages; i++)
		sizes[i].p = img_rpm_set_at(packages, i);
	for (size_t i = 0; i < n_packages; i++)
		sizes[i].p->index = (int32_t)i;
	for (size_t i = 0; i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);
		int32_t file;

		owners[i] = img_rpm_set_owner(packages, n->path, &file, err);
		if (owners[i] && n->type == IMG_FILE)
			sizes[owners[i]->index].bytes += n->size;
	}
	qsort(sizes, n_packages, sizeof(*sizes), by_size);
	while (n_own < n_packages && n_own < OWN_MAX && sizes[n_own].bytes >= OWN_LAYER)
		n_own++;
	for (size_t i = 0; i < n_packages; i++)
		sizes[i].layer = is_common(sizes[i].p->name) ? shared : i < n_own ? -1 : -2;
	qsort(sizes, n_packages, sizeof(*sizes), by_index);
	for (size_t i = 0; r >= 0 && i < n_packages; i++) {
		char name[512];

		if (sizes[i].layer != -1)
			continue;
		r = add_layer(l, img_rpm_nevra(sizes[i].p, name, sizeof(name)));
		sizes[i].layer = r;
	}
	rest = r < 0 ? r : add_layer(l, "small packages");
	own = rest < 0 ? rest : add_layer(l, "files of no package");
	if (own < 0)
		return own;
	for (size_t i = 0; i < img_tree_count(t); i++) {
		struct img_node *n = img_tree_at(t, i);
		int32_t layer = owners[i] ? sizes[owners[i]->index].layer : own;

		/* folders go where they are needed; this is where the empty ones go */
		n->layer = is_core(n) ? core : layer == -2 ? rest : layer;
	}
	return 0;
}

int img_slim_layers(struct img_tree *slim, struct img_rpm_set *packages, enum img_layers mode, size_t n_full_layers,
                    struct img_slim_layers *ret_layers, struct err *err)
{
	struct img_slim_layers l = { 0 };
	int r;

	if (mode == IMG_LAYERS_PLAN && packages && img_rpm_set_count(packages) > 0)
		r = plan(slim, packages, &l, err);
	else if (mode == IMG_LAYERS_KEEP && n_full_layers > 0)
		r = keep(slim, n_full_layers, &l);
	else
		r = one(slim, &l);
	if (r < 0) {
		img_slim_layers_done(&l);
		return err_set(err, r, "%s", strerror(-r));
	}
	*ret_layers = l;
	return 0;
}
