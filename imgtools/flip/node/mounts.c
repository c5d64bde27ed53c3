/* How a chain of layers becomes one overlay mount, and mounts performed by ourselves.
 *
 * With EROFS metadata the lower layers are followed by two data-only ones: the store's complete objects, which
 * overlayfs reads as ordinary files, and the FUSE folder of those still arriving. overlayfs looks an object up when its
 * file is first opened, in that order, so what has become complete meanwhile is found in the store: a warm image never
 * asks the daemon. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "node/node_internal.h"

enum { MAX_OPTIONS = 4096 - 1 /* a page, what mount(2) takes */ };

static int add_option(struct flip_mount *m, const char *text)
{
	char **p = reallocarray(m->options, m->n_options + 1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	m->options = p;
	m->options[m->n_options] = strdup(text);
	return m->options[m->n_options++] ? 0 : -ENOMEM;
}

static int bind(struct flip_mount *m, const char *path, bool read_only)
{
	m->type = strdup("bind");
	m->source = strdup(path);
	if (!m->type || !m->source)
		return -ENOMEM;
	return add_option(m, read_only ? "ro" : "rw") < 0 ? -ENOMEM : add_option(m, "rbind");
}

static int lower_option(struct flip_node *node, const struct node_lower *lowers, size_t n, bool has_metadata,
                        struct base_buf *text)
{
	(void)base_buf_puts(text, "lowerdir=");
	for (size_t i = 0; i < n; i++) {
		char path[NODE_PATH + 128];

		if (lowers[i].layer)
			node_layer_lower(lowers[i].layer, path, sizeof(path));
		else
			(void)snprintf(path, sizeof(path), "%s", lowers[i].path);
		(void)base_buf_printf(text, "%s%s", i ? ":" : "", path);
	}
	if (has_metadata)
		(void)base_buf_printf(text, "::%s::%s/objects", node->objects_dir, node->fuse_dir);
	return base_buf_error(text);
}

static int overlay(struct flip_node *node, const struct node_lower *lowers, size_t n, const char *upper,
                   const char *work, struct flip_mount *m, struct err *err)
{
	struct base_buf lower = BASE_BUF_INIT(MAX_OPTIONS);
	char text[NODE_PATH + 64];
	bool has_metadata = false;
	int r;

	for (size_t i = 0; i < n; i++)
		has_metadata = has_metadata || (lowers[i].layer && node->use_erofs);
	m->type = strdup("overlay");
	m->source = strdup("overlay");
	r = m->type && m->source ? lower_option(node, lowers, n, has_metadata, &lower) : -ENOMEM;
	if (r == 0 && upper) {
		(void)snprintf(text, sizeof(text), "workdir=%s", work);
		r = add_option(m, text);
		(void)snprintf(text, sizeof(text), "upperdir=%s", upper);
		if (r == 0)
			r = add_option(m, text);
	}
	if (r == 0 && !upper)
		r = add_option(m, "ro");
	if (r == 0)
		r = add_option(m, base_buf_text(&lower));
	if (r == 0 && has_metadata && (add_option(m, "metacopy=on") < 0 || add_option(m, "redirect_dir=on") < 0))
		r = -ENOMEM;
	base_buf_done(&lower);
	if (r == -EFBIG)
		return err_set(err, r, "%zu layers make the mount's options longer than a page; a shorter root helps",
		               n);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

int node_compose_mount(struct flip_node *node, const struct node_lower *lowers, size_t n, const char *upper,
                       const char *work, struct flip_mounts *ret_mounts, struct err *err)
{
	struct flip_mounts m = { calloc(1, sizeof(*m.items)), 1 };
	bool is_tree = n == 1 && (!lowers[0].layer || !node->use_erofs);
	int r = m.items ? 0 : err_set(err, -ENOMEM, "out of memory");

	for (size_t i = 0; r == 0 && i < n; i++) {
		if (lowers[i].layer)
			r = node_layer_mount(lowers[i].layer, err);
	}
	if (r < 0)
		goto out;
	if (n == 0) {
		r = bind(&m.items[0], upper, false);
	} else if (!upper && is_tree) {
		char path[NODE_PATH + 128];

		if (lowers[0].layer)
			node_layer_lower(lowers[0].layer, path, sizeof(path));
		else
			(void)snprintf(path, sizeof(path), "%s", lowers[0].path);
		r = bind(&m.items[0], path, true);
	} else {
		r = overlay(node, lowers, n, upper, work, &m.items[0], err);
	}
	if (r == -ENOMEM)
		(void)err_set(err, r, "out of memory");
out:
	if (r < 0) {
		flip_mounts_done(&m);
		return r;
	}
	*ret_mounts = m;
	return 0;
}

/* mount(2) in a process of its own: an overlay asks the layers below at once, and those are answered by this process.
 * Killed while it waits for itself it could not end, and nobody would take its place. The child holds nothing that a
 * successor needs, and is done when that one answers. */
static int mount_apart(const struct flip_mount *m, const char *target, unsigned long flags, const char *data,
                       bool remount_read_only)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		(void)close_range(0, ~0U, 0);
		if (mount(m->source, target, m->type, flags, data) < 0 ||
		    (remount_read_only && mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0))
			_exit(errno);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

int node_do_mount(const struct flip_mounts *mounts, const char *target, struct err *err)
{
	for (size_t i = 0; i < mounts->n; i++) {
		const struct flip_mount *m = &mounts->items[i];
		struct base_buf data = BASE_BUF_INIT(MAX_OPTIONS);
		bool is_bind = strcmp(m->type, "bind") == 0;
		unsigned long flags = is_bind ? MS_BIND | MS_REC : 0;
		bool read_only = false;
		int r;

		for (size_t k = 0; k < m->n_options; k++) {
			const char *o = m->options[k];

			if (strcmp(o, "ro") == 0)
				read_only = true;
			else if (strcmp(o, "rw") != 0 && strcmp(o, "bind") != 0 && strcmp(o, "rbind") != 0)
				(void)base_buf_printf(&data, "%s%s", data.len ? "," : "", o);
		}
		r = base_buf_error(&data);
		if (r == 0)
			r = mount_apart(m, target, flags | (read_only ? MS_RDONLY : 0), base_buf_text(&data),
			                is_bind && read_only);
		base_buf_done(&data);
		if (r < 0)
			return err_set(err, r, "%s: mount %s: %s", target, m->type, strerror(-r));
	}
	return 0;
}
