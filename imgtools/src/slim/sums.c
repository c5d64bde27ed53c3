/* What was kept and dropped: by kind of file, and by package. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "slim/slim.h"

/* First match counts. */
static const struct {
	const char *pattern, *category;
} categories[] = {
	{ "/usr/share/doc/*/copyright", "licences" },
	{ "/usr/share/licenses/**", "licences" },
	{ "/usr/share/man/**", "manual pages" },
	{ "/usr/share/info/**", "manual pages" },
	{ "/usr/share/doc/**", "documentation" },
	{ "/usr/share/gtk-doc/**", "documentation" },
	{ "**/LC_MESSAGES/**", "translations" },
	{ "/usr/share/locale/**", "translations" },
	{ "/usr/lib/locale/**", "locales" },
	{ "/usr/share/i18n/**", "locales" },
	{ "**/gconv/**", "character sets" },
	{ "/usr/share/zoneinfo/**", "time zones" },
	{ "**/terminfo/**", "terminals" },
	{ "/usr/include/**", "headers" },
	{ "**/include/**.h", "headers" },
	{ "**.a", "static libraries" },
	{ "**/pkgconfig/**", "headers" },
	{ "**/bash-completion/**", "shell completions" },
	{ "/usr/share/zsh/**", "shell completions" },
	{ "**/__pycache__/**", "Python byte code" },
	{ "**.pyc", "Python byte code" },
	{ "**/test/**.py", "Python tests" },
	{ "**/tests/**", "Python tests" },
	{ "**.py", "Python sources" },
	{ "**/*-packages/**.so", "Python extensions" },
	{ "**/lib-dynload/**", "Python extensions" },
	{ "**/*-packages/**", "Python data" },
	{ "**.so", "libraries" },
	{ "**.so.*", "libraries" },
	{ "/usr/bin/**", "programs" },
	{ "/usr/sbin/**", "programs" },
	{ "/bin/**", "programs" },
	{ "/sbin/**", "programs" },
	{ "/usr/local/bin/**", "programs" },
	{ "/usr/libexec/**", "programs" },
	{ "/usr/share/fonts/**", "fonts and icons" },
	{ "/usr/share/icons/**", "fonts and icons" },
	{ "/var/lib/rpm/**", "package database" },
	{ "/usr/lib/sysimage/rpm/**", "package database" },
	{ "/var/lib/dpkg/**", "package database" },
	{ "/root/.rpmdb/**", "package database" },
	{ "/var/lib/dnf/**", "caches and logs" },
	{ "/var/cache/**", "caches and logs" },
	{ "/var/log/**", "caches and logs" },
	{ "**/certs/**", "certificates" },
	{ "/usr/share/ca-certificates/**", "certificates" },
	{ "/etc/**", "configuration" },
	{ "/usr/share/**", "shared data" },
};

const char *img_slim_category(const struct img_node *n)
{
	for (size_t i = 0; i < sizeof(categories) / sizeof(*categories); i++) {
		if (img_path_matches(categories[i].pattern, n->path))
			return categories[i].category;
	}
	return "other";
}

static struct img_slim_sum *sum_of(struct img_slim_sum **list, size_t *n, size_t *cap, const char *name)
{
	for (size_t i = 0; i < *n; i++) {
		if ((*list)[i].name == name || strcmp((*list)[i].name, name) == 0)
			return &(*list)[i];
	}
	if (*n == *cap) {
		struct img_slim_sum *more = reallocarray(*list, 2 * *cap + 16, sizeof(*more));

		if (!more)
			return NULL;
		*list = more;
		*cap = 2 * *cap + 16;
	}
	(*list)[*n] = (struct img_slim_sum){ .name = name };
	return &(*list)[(*n)++];
}

static void add(struct img_slim_sum *s, uint64_t kept, uint64_t full, bool is_kept)
{
	s->kept_bytes += kept;
	s->dropped_bytes += full > kept ? full - kept : 0;
	s->n_kept += is_kept;
	s->n_dropped += !is_kept;
}

static int compare_sums(const void *a, const void *b)
{
	const struct img_slim_sum *x = a, *y = b;

	if (x->dropped_bytes != y->dropped_bytes)
		return x->dropped_bytes < y->dropped_bytes ? 1 : -1;
	return strcmp(x->name, y->name);
}

void img_slim_sums_done(struct img_slim_sums *s)
{
	free(s->categories);
	free(s->packages);
	*s = (struct img_slim_sums){ 0 };
}

int img_slim_sums(const struct img_slim_plan *p, struct img_tree *slim, struct img_slim_sums *ret_sums)
{
	CLEANUP(freep) uint8_t *seen = NULL; /* link groups: 1 do not count a dropped name, 2 nor a kept one */
	uint32_t n_groups = 0;
	struct img_slim_sums s = { .all = { .name = "all" } };
	size_t n = img_tree_count(p->o.tree), cap_categories = 0, cap_packages = 0;

	for (size_t i = 0; i < n; i++) {
		const struct img_node *node = img_graph_node(p->graph, (uint32_t)i);

		n_groups = node->link_group > n_groups ? node->link_group : n_groups;
	}
	seen = calloc((size_t)n_groups + 1, 1);
	if (!seen)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) { /* groups of which a name is kept do not count as dropped */
		const struct img_node *node = img_graph_node(p->graph, (uint32_t)i);

		if (node->link_group && img_tree_find(slim, node->path))
			seen[node->link_group] = 1;
	}
	for (size_t i = 0; i < n; i++) {
		const struct img_node *node = img_graph_node(p->graph, (uint32_t)i),
		                      *made = img_tree_find(slim, node->path);
		uint64_t full = node->size, kept = made ? made->size : 0;
		const char *package = "no package";
		struct img_slim_sum *c, *k;
		struct img_rpm *rpm;
		int32_t file;

		if (node->type == IMG_DIR) {
			s.n_dirs += made != NULL;
			continue;
		}
		if (node->type != IMG_FILE)
			full = kept = 0;
		/* A file of several names counts once: with the first that is kept, else with the first. */
		if (node->link_group) {
			uint8_t *told = &seen[node->link_group];

			if (made) {
				full = kept = *told & 2 ? 0 : full;
				*told |= 2;
			} else {
				full = *told & 1 ? 0 : full;
				*told |= 1;
			}
		}
		rpm = p->o.packages ? img_rpm_set_owner(p->o.packages, node->path, &file, NULL) : NULL;
		package = rpm ? rpm->name : package;
		c = sum_of(&s.categories, &s.n_categories, &cap_categories, img_slim_category(node));
		k = sum_of(&s.packages, &s.n_packages, &cap_packages, package);
		if (!c || !k) {
			img_slim_sums_done(&s);
			return -ENOMEM;
		}
		add(c, kept, full, made != NULL);
		add(k, kept, full, made != NULL);
		add(&s.all, kept, full, made != NULL);
	}
	if (s.n_categories)
		qsort(s.categories, s.n_categories, sizeof(*s.categories), compare_sums);
	if (s.n_packages)
		qsort(s.packages, s.n_packages, sizeof(*s.packages), compare_sums);
	*ret_sums = s;
	return 0;
}
