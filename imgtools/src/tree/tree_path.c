/* Paths: made normal, and followed within a tree as the kernel would follow them with the tree as its root. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tree_internal.h"

int img_path_normalize(const char *text, char ret_path[IMG_PATH_MAX])
{
	char out[IMG_PATH_MAX];
	size_t n = 0;

	while (*text) {
		size_t len = strcspn(text, "/");

		if (len == 2 && text[0] == '.' && text[1] == '.')
			return -EINVAL;
		if (len && !(len == 1 && text[0] == '.')) {
			if (n + 1 + len >= sizeof(out))
				return -ENAMETOOLONG;
			out[n++] = '/';
			memcpy(out + n, text, len);
			n += len;
		}
		text += len;
		text += strspn(text, "/");
	}
	if (n == 0)
		out[n++] = '/';
	memcpy(ret_path, out, n);
	ret_path[n] = '\0';
	return 0;
}

bool img_path_is_normal(const char *path)
{
	const char *p = path;

	if (p[0] != '/' || strnlen(p, IMG_PATH_MAX) == IMG_PATH_MAX)
		return false;
	if (p[1] == '\0')
		return true;
	while (*p == '/') {
		size_t len = strcspn(++p, "/");

		if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += len;
	}
	return true;
}

static struct img_entry *child_of(const struct img_tree *t, const struct img_entry *dir, const char *name, size_t len)
{
	size_t n = dir == t->root ? 0 : strlen(dir->node.path);
	char path[IMG_PATH_MAX];

	if (n + 1 + len >= sizeof(path))
		return NULL;
	memcpy(path, dir->node.path, n);
	path[n] = '/';
	memcpy(path + n + 1, name, len);
	return img_tree_entry(t, path, n + 1 + len);
}

/* What is left to walk becomes the link's target and then the old rest. The two buffers take turns. */
static int put_target_in_front(char **rest, char **spare, const char *target, const char *tail)
{
	int n = snprintf(*spare, IMG_PATH_MAX, "%s%s", target, tail);
	char *swap = *rest;

	if (n < 0 || n >= IMG_PATH_MAX)
		return -ENAMETOOLONG;
	*rest = *spare;
	*spare = swap;
	return 0;
}

int img_tree_resolve(const struct img_tree *t, const char *path, bool follow_last, struct img_node **ret_node,
                     void (*on_link)(struct img_node *link, void *arg), void *arg)
{
	char a[IMG_PATH_MAX], b[IMG_PATH_MAX], *rest = a, *spare = b;
	struct img_entry *cur = t->root;
	const char *p;
	int depth = 0;

	if (!path[0])
		return -ENOENT;
	if (strlen(path) >= IMG_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(rest, path, strlen(path) + 1);
	p = rest;
	for (;;) {
		bool must_be_dir = p > rest ? *p == '/' : false;
		struct img_entry *child;
		size_t len;

		if (must_be_dir && cur->node.type != IMG_DIR)
			return -ENOTDIR;
		p += strspn(p, "/");
		if (!*p)
			break;
		len = strcspn(p, "/");
		if (cur->node.type != IMG_DIR)
			return -ENOTDIR;
		if (len == 1 && p[0] == '.') {
			p += len;
			continue;
		}
		if (len == 2 && p[0] == '.' && p[1] == '.') {
			cur = cur->parent ? cur->parent : cur;
			p += len;
			continue;
		}
		child = child_of(t, cur, p, len);
		if (!child)
			return -ENOENT;
		p += len;
		if (child->node.type == IMG_SYMLINK && (*p || follow_last)) {
			if (++depth > IMG_SYMLINK_DEPTH)
				return -ELOOP;
			if (on_link)
				on_link(&child->node, arg);
			if (put_target_in_front(&rest, &spare, child->node.target, p) < 0)
				return -ENAMETOOLONG;
			p = rest;
			if (*p == '/')
				cur = t->root;
			continue;
		}
		cur = child;
	}
	*ret_node = &cur->node;
	return 0;
}
