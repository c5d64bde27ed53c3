/* The plan: roots from the image's configuration, from traces, from what the user names; then policy; then the tree of
 * what the graph keeps. */
#include "slim/slim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"
#include "base/cleanup.h"
#include "oci/oci.h"

/* ---- Roots of the configuration ------------------------------------------------------------------------------ */

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* A program by path, by working folder, or by PATH of the image; 0 also when there is none. */
static int add_program(struct img_slim_plan *p, const char *name, const char *what)
{
	const struct img_config *c = p->o.config;
	const char *list = c ? img_config_env(c, "PATH") : NULL, *cwd = c && c->workdir ? c->workdir : "/";
	char path[IMG_PATH_MAX];
	struct img_node *n;
	int r;

	if (!name[0])
		return 0;
	if (strchr(name, '/')) {
		if (snprintf(path, sizeof(path), "%s%s%s", name[0] == '/' ? "" : cwd, name[0] == '/' ? "" : "/",
		             name) >= (int)sizeof(path))
			return 0;
		r = img_graph_add_path(p->graph, path, IMG_REASON_ENTRY, what);
		return r == -ENOMEM ? r : 0;
	}
	for (const char *d = list ? list : default_path; *d;) {
		size_t len = strcspn(d, ":");

		if (snprintf(path, sizeof(path), "%.*s/%s", (int)len, d, name) < (int)sizeof(path) &&
		    img_tree_resolve(p->o.tree, path, true, &n, NULL, NULL) == 0 && n->type == IMG_FILE &&
		    (n->mode & 0111))
			return img_graph_add_path(p->graph, path, IMG_REASON_ENTRY, what);
		d += len;
		d += *d == ':';
	}
	return 0;
}

struct shell_arg {
	struct img_slim_plan *p;
	const char *what;
};

static int on_shell_command(const char *name, void *arg)
{
	struct shell_arg *x = arg;

	return add_program(x->p, name, x->what);
}

static bool is_shell(const char *word)
{
	const char *slash = strrchr(word, '/');

	word = slash ? slash + 1 : word;
	return strcmp(word, "sh") == 0 || strcmp(word, "bash") == 0 || strcmp(word, "ash") == 0 ||
	       strcmp(word, "dash") == 0;
}

/* A command line: its program; the commands of `sh -c TEXT`; arguments that are paths of the tree. */
static int add_command(struct img_slim_plan *p, char *const *words, size_t n, const char *what)
{
	struct shell_arg x = { p, what };
	int r = n ? add_program(p, words[0], what) : 0;

	for (size_t i = 1; r == 0 && i < n; i++) {
		struct img_node *node;

		if (is_shell(words[0]) && strcmp(words[i], "-c") == 0 && i + 1 < n) {
			r = img_shell_commands(words[i + 1], strlen(words[i + 1]), on_shell_command, &x);
			i++;
		} else if (strcmp(words[i], "-m") == 0 && i + 1 < n) {
			i++; /* a Python module: a trace shows it; without one the whole site is walked by weak edges */
		} else if (img_tree_resolve(p->o.tree, words[i], true, &node, NULL, NULL) == 0 &&
		           node->type == IMG_FILE && words[i][0] == '/') {
			r = add_program(p, words[i], what);
		} else if (words[i][0] != '-' && words[i][0] != '/' && strchr(words[i], '.')) {
			char relative[IMG_PATH_MAX]; /* "server.py" in the working folder */

			if (snprintf(relative, sizeof(relative), "./%s", words[i]) < (int)sizeof(relative))
				r = add_program(p, relative, what);
		}
	}
	return r;
}

/* "Healthcheck": {"Test": ["CMD", ...] or ["CMD-SHELL", "text"]} lies in the document as it was read. */
static int add_health_check(struct img_slim_plan *p)
{
	const json_t *test = json_object_get(
	        json_object_get(json_object_get(p->o.config->document, "config"), "Healthcheck"), "Test");
	struct shell_arg x = { p, "health check" };
	const char *kind = json_string_value(json_array_get(test, 0)),
	           *text = json_string_value(json_array_get(test, 1));

	if (!kind || !text)
		return 0;
	if (strcmp(kind, "CMD-SHELL") == 0) {
		int r = add_program(p, "/bin/sh", x.what);

		return r < 0 ? r : img_shell_commands(text, strlen(text), on_shell_command, &x);
	}
	return strcmp(kind, "CMD") == 0 ? add_program(p, text, x.what) : 0;
}

/* The folder that the image works in: without a trace nothing tells which of its files are wanted, so all that belong
 * to no package are. */
static int add_workdir(struct img_slim_plan *p)
{
	const struct img_config *c = p->o.config;
	char below[IMG_PATH_MAX];
	int r;

	if (!c || !c->workdir || !c->workdir[0] || strcmp(c->workdir, "/") == 0)
		return 0;
	r = img_graph_add_path(p->graph, c->workdir, IMG_REASON_ENTRY, "working folder");
	if (r == -ENOMEM || p->o.n_traces || snprintf(below, sizeof(below), "%s/", c->workdir) >= (int)sizeof(below))
		return r == -ENOMEM ? r : 0;
	for (size_t i = 0; i < img_tree_count(p->o.tree); i++) {
		struct img_node *n = img_tree_at(p->o.tree, i);
		int32_t file;

		if (!img_path_matches(below, n->path) ||
		    (p->o.packages && img_rpm_set_owner(p->o.packages, n->path, &file, NULL)))
			continue;
		r = img_graph_add_root(p->graph, n, IMG_REASON_ENTRY, "in the working folder");
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_config(struct img_slim_plan *p)
{
	const struct img_config *c = p->o.config;
	char **words;
	size_t n = 0;
	int r;

	if (!c)
		return 0;
	words = calloc(c->entrypoint.n + c->cmd.n + 1, sizeof(*words));
	if (!words)
		return -ENOMEM;
	for (size_t i = 0; i < c->entrypoint.n; i++)
		words[n++] = c->entrypoint.items[i];
	for (size_t i = 0; i < c->cmd.n; i++)
		words[n++] = c->cmd.items[i];
	r = add_command(p, words, n, c->entrypoint.n ? "entry point" : "command");
	free(words);
	if (r == 0)
		r = add_health_check(p);
	for (size_t i = 0; r == 0 && i < c->volumes.n; i++) {
		r = img_graph_add_path(p->graph, c->volumes.items[i], IMG_REASON_ENTRY, "volume");
		r = r == -ENOMEM ? r : 0;
	}
	return r < 0 ? r : add_workdir(p);
}

/* ---- Plan ---------------------------------------------------------------------------------------------------- */

static bool is_dropped(const struct img_node *n, void *arg)
{
	return img_policy_drops(arg, n->path);
}

static int add_roots(struct img_slim_plan *p, struct err *err)
{
	int r = add_config(p);

	for (size_t i = 0; r == 0 && i < p->o.n_entries; i++)
		r = add_program(p, p->o.entries[i], p->o.entries[i]);
	for (size_t i = 0; r == 0 && i < p->o.n_traces; i++)
		r = img_graph_add_trace(p->graph, p->o.traces[i], err);
	for (size_t i = 0; r == 0 && i < p->o.n_repairs; i++) {
		r = img_graph_add_path(p->graph, p->o.repairs[i], IMG_REASON_REPAIR, p->o.repairs[i]);
		r = r == -ENOMEM ? r : 0;
	}
	return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
}

int img_slim_plan_new(const struct img_slim_opts *o, struct img_slim_plan **ret_plan, struct err *err)
{
	const char *weak = img_policy_get(o->policy, IMG_POLICY_WEAK);
	struct img_slim_plan *p = calloc(1, sizeof(*p));
	struct img_graph_opts go = { .packages = o->packages,
		                     .is_dropped = is_dropped,
		                     .arg = (void *)(uintptr_t)o->policy };
	const char **env = NULL;
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->o = *o;
	p->follows_weak = strcmp(weak, "yes") == 0 || (strcmp(weak, "auto") == 0 && o->n_traces == 0);
	go.follow_weak = p->follows_weak;
	r = img_policy_prepare(o->policy, o->tree, err);
	if (r == 0)
		r = img_graph_new(o->tree, &go, &p->graph, err);
	if (r == 0)
		r = add_roots(p, err);
	if (r == 0 && o->config) {
		env = calloc(o->config->env.n + 1, sizeof(*env));
		for (size_t i = 0; env && i < o->config->env.n; i++)
			env[i] = o->config->env.items[i];
	}
	if (r == 0)
		r = img_policy_apply(o->policy, p->graph, o->tree, env, err);
	free(env);
	if (r < 0) {
		img_slim_plan_free(p);
		return r;
	}
	*ret_plan = p;
	return 0;
}

void img_slim_plan_free(struct img_slim_plan *p)
{
	if (!p)
		return;
	img_graph_free(p->graph);
	free(p);
}

/* ---- Tree ---------------------------------------------------------------------------------------------------- */

/* How many kept names each hard-link group has. */
static uint32_t *count_groups(const struct img_slim_plan *p, uint32_t *ret_n)
{
	uint32_t max = 0, *counts;
	size_t n = img_tree_count(p->o.tree);

	for (size_t i = 0; i < n; i++) {
		const struct img_node *node = img_graph_node(p->graph, (uint32_t)i);

		max = node->link_group > max ? node->link_group : max;
	}
	counts = calloc((size_t)max + 1, sizeof(*counts));
	for (size_t i = 0; counts && i < n; i++) {
		if (img_graph_keeps(p->graph, (uint32_t)i))
			counts[img_graph_node(p->graph, (uint32_t)i)->link_group]++;
	}
	*ret_n = max + 1;
	return counts;
}

int img_slim_tree(const struct img_slim_plan *p, struct img_tree **ret_tree, struct err *err)
{
	CLEANUP(freep) uint32_t *groups = NULL;
	struct img_tree *t = img_tree_new();
	size_t n = img_tree_count(p->o.tree);
	uint32_t n_groups;
	int r = 0;

	groups = count_groups(p, &n_groups);
	if (!t || !groups) {
		img_tree_free(t);
		return err_set(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct img_node copy = *img_graph_node(p->graph, (uint32_t)i);

		if (!img_graph_keeps(p->graph, (uint32_t)i) && i != 0)
			continue;
		copy.user = NULL;
		if (copy.link_group && groups[copy.link_group] < 2)
			copy.link_group = 0;
		r = img_tree_add(t, &copy, NULL, err);
	}
	if (r < 0) {
		img_tree_free(t);
		return r;
	}
	*ret_tree = t;
	return 0;
}

uint64_t img_tree_bytes(struct img_tree *t, uint64_t *ret_n_files, uint64_t *ret_n_links)
{
	CLEANUP(freep) uint8_t *seen = NULL;
	uint64_t bytes = 0;
	uint32_t max = 0;
	size_t n = img_tree_count(t);

	*ret_n_files = *ret_n_links = 0;
	for (size_t i = 0; i < n; i++)
		max = img_tree_at(t, i)->link_group > max ? img_tree_at(t, i)->link_group : max;
	seen = calloc((size_t)max + 1, 1);
	for (size_t i = 0; i < n; i++) {
		const struct img_node *node = img_tree_at(t, i);

		*ret_n_links += node->type == IMG_SYMLINK;
		*ret_n_files += node->type == IMG_FILE;
		if (node->type != IMG_FILE || (node->link_group && seen && seen[node->link_group]))
			continue;
		if (seen)
			seen[node->link_group] = node->link_group != 0;
		bytes += node->size;
	}
	return bytes;
}
