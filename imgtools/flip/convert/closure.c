/* What the entrypoint of an image needs before it can do anything: the program, its interpreter, its libraries, and the
 * links that lead there. It is what goes first when nobody recorded a start.
 *
 * The layers are passed over once, and only what such needs are found in is kept, in files of the work folder: ELF
 * files, scripts, and what lies in /etc (the linker's configuration). Being wrong here costs speed, not truth: what is
 * first is still the whole image; so a broken file has no needs, and a whiteout takes away what came before it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analyze/analyze.h"
#include "base/cleanup.h"
#include "feed.h"
#include "job.h"
#include "tree/tar.h"

enum { COPY_SIZE = 64 << 10, MAX_KEPT = 256 << 20, MAX_FILES = 4096, MAX_CONFIG = 64 << 10 };
static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct closure {
	struct flip_job *j;
	struct img_tree *tree;
	struct img_analyze *analyze;
	struct img_node **found; /* in the order of the search, each once */
	size_t n_found;
	unsigned n_kept;
	char *buf;
};

/* ---- The tree ---- */

/* The content into a file of ours, when it begins like one that has needs. */
static int keep_content(struct closure *c, struct img_tar_in *tar, struct img_node *n, char *path, size_t size)
{
	ssize_t got = img_tar_read(tar, c->buf, COPY_SIZE, c->j->err);
	CLEANUP(close_fdp) int fd = -1;
	int r = 0;

	if (got < 0)
		return (int)got;
	if (n->size > MAX_KEPT || got < 4 ||
	    (memcmp(c->buf, "\177ELF", 4) != 0 && memcmp(c->buf, "#!", 2) != 0 &&
	     !(strncmp(n->path, "/etc/", 5) == 0 && n->size <= MAX_CONFIG))) {
		n->size = 0; /* passed over */
		return 0;
	}
	(void)snprintf(path, size, "%s/kept-%u", c->j->work.path, c->n_kept++);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(c->j->err, -errno, "%s: %s", path, strerror(errno));
	while (r == 0 && got > 0) {
		r = img_write_all(fd, c->buf, (size_t)got, c->j->err);
		if (r == 0)
			got = img_tar_read(tar, c->buf, COPY_SIZE, c->j->err);
	}
	n->source = path;
	return r < 0 ? r : got < 0 ? (int)got : 0;
}

static void take_whiteout(struct closure *c, char *path)
{
	char *name = strrchr(path, '/') + 1;

	if (strcmp(name, ".wh..wh..opq") == 0) {
		name[name - path > 1 ? -1 : 0] = '\0';
		img_tree_empty(c->tree, path);
	} else {
		memmove(name, name + 4, strlen(name + 4) + 1);
		img_tree_remove(c->tree, path);
	}
}

static int take_entry(struct closure *c, struct img_tar_in *tar, const struct img_tar_entry *te)
{
	char path[IMG_PATH_MAX], target[IMG_PATH_MAX], kept[IMG_PATH_MAX];
	struct img_node n = te->node;
	const struct img_node *of;
	int r = 0;

	if (img_path_normalize(te->name, path) < 0)
		return 0;
	if (strncmp(strrchr(path, '/') + 1, ".wh.", 4) == 0) {
		take_whiteout(c, path);
		return 0;
	}
	n.path = path;
	n.xattrs = NULL;
	n.n_xattrs = 0;
	if (te->is_hardlink) {
		of = img_path_normalize(te->linkname, target) == 0 ? img_tree_find(c->tree, target) : NULL;
		if (!of)
			return 0;
		n = *of;
		n.path = path;
	} else if (n.type == IMG_SYMLINK) {
		n.target = (char *)te->linkname;
	} else if (n.type == IMG_FILE && n.size) {
		r = keep_content(c, tar, &n, kept, sizeof(kept));
	}
	if (r == 0 && img_tree_add(c->tree, &n, NULL, NULL) == -ENOMEM)
		r = err_set(c->j->err, -ENOMEM, "out of memory");
	return r; /* what the tree does not take is nothing that a start needs */
}

static int read_layer(struct closure *c, struct flip_job_layer *l)
{
	const struct img_tar_entry *te;
	struct flip_feed *feed = NULL;
	struct img_tar_in *tar = NULL;
	int r = 0;

	if (c->j->source.ops && !l->blob.path && !l->blob.data)
		r = c->j->source.ops->blob(c->j->source.state, &l->desc, &l->blob, c->j->err);
	if (r == 0)
		r = flip_feed_open(&l->blob, NULL, &feed, c->j->err);
	if (r == 0 && img_tar_in_new(flip_feed_read, feed, &tar) < 0)
		r = err_set(c->j->err, -ENOMEM, "out of memory");
	while (r == 0 && (r = img_tar_next(tar, &te, c->j->err)) > 0)
		r = take_entry(c, tar, te);
	img_tar_in_free(tar);
	flip_feed_close(feed);
	return r;
}

/* ---- The search ---- */

static void add_found(struct closure *c, struct img_node *n)
{
	if (!n || n->user || c->n_found == MAX_FILES)
		return;
	n->user = c;
	c->found[c->n_found++] = n;
}

static void on_link(struct img_node *link, void *arg)
{
	add_found(arg, link);
}

static int on_need(const struct img_need *need, void *arg)
{
	struct closure *c = arg;

	switch (need->kind) {
	case IMG_NEED_INTERP:
	case IMG_NEED_SONAME:
	case IMG_NEED_SHEBANG:
	case IMG_NEED_LINK:
		add_found(c, need->to);
		return 0;
	default:
		return 0;
	}
}

/* The file of a program's name; its links are found too. NULL: not there. */
static struct img_node *find_program(struct closure *c, const char *name, const char *workdir, const char *path)
{
	struct img_node *n = NULL;
	char text[IMG_PATH_MAX];

	if (strchr(name, '/')) {
		int len = snprintf(text, sizeof(text), "%s%s%s", name[0] == '/' ? "" : workdir,
		                   name[0] == '/' ? "" : "/", name);

		if (len < 0 || (size_t)len >= sizeof(text) || img_tree_resolve(c->tree, text, true, &n, on_link, c) < 0)
			return NULL;
		return n->type == IMG_FILE ? n : NULL;
	}
	for (const char *p = path; *p;) {
		size_t len = strcspn(p, ":");
		int total = snprintf(text, sizeof(text), "%.*s/%s", (int)len, p, name);

		if (len && total > 0 && (size_t)total < sizeof(text) &&
		    img_tree_resolve(c->tree, text, true, &n, NULL, NULL) == 0 && n->type == IMG_FILE) {
			(void)img_tree_resolve(c->tree, text, true, &n, on_link, c);
			return n;
		}
		p += len + (p[len] == ':');
	}
	return NULL;
}

static const char *first_text(const json_t *config, const char *key)
{
	return json_string_value(json_array_get(json_object_get(config, key), 0));
}

static const char *path_of_env(const json_t *config)
{
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(config, "Env"), i, item)
	{
		const char *text = json_string_value(item);

		if (text && strncmp(text, "PATH=", 5) == 0)
			return text + 5;
	}
	return default_path;
}

/* ENTRYPOINT's program, and CMD's, which an entrypoint script usually ends with. */
static int search(struct closure *c, const struct flip_job_image *image)
{
	const json_t *config = json_object_get(image->config, "config");
	const char *names[] = { first_text(config, "Entrypoint"), first_text(config, "Cmd") };
	const char *workdir = json_string_value(json_object_get(config, "WorkingDir"));
	int r = img_analyze_new(c->tree, &c->analyze, c->j->err);

	for (size_t i = 0; r == 0 && i < 2; i++) {
		if (names[i] && names[i][0])
			add_found(c, find_program(c, names[i], workdir ? workdir : "", path_of_env(config)));
	}
	for (size_t i = 0; r == 0 && i < c->n_found; i++) {
		if (c->found[i]->type == IMG_FILE && c->found[i]->size)
			r = img_analyze_file(c->analyze, c->found[i], on_need, c, NULL, c->j->err);
	}
	for (size_t i = 0; r == 0 && i < c->n_found; i++) {
		r = flip_prefetch_add(&c->j->closure, c->found[i]->path, 0, UINT64_MAX);
		r = r == -EINVAL ? 0 : r; /* a name that no list can hold */
	}
	return r;
}

static int find_closure(struct closure *c, const struct flip_job_image *image)
{
	int r = 0;

	c->tree = img_tree_new();
	c->found = calloc(MAX_FILES, sizeof(struct img_node *));
	c->buf = malloc(COPY_SIZE);
	if (!c->tree || !c->found || !c->buf)
		return err_set(c->j->err, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < image->n_layers; i++)
		r = read_layer(c, &c->j->layers[image->layers[i]]);
	return r < 0 ? r : search(c, image);
}

int flip_job_closure(struct flip_job *j)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->n_images; i++) {
		struct closure c = { .j = j };

		r = find_closure(&c, &j->images[i]);
		img_analyze_free(c.analyze);
		img_tree_free(c.tree);
		free(c.found);
		free(c.buf);
		for (unsigned k = 0; k < c.n_kept; k++) {
			char path[IMG_PATH_MAX];

			(void)snprintf(path, sizeof(path), "%s/kept-%u", j->work.path, k);
			(void)unlink(path);
		}
	}
	return r;
}
