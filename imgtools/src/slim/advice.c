/* What packages know of a slim tree, and what they are told about it. */
#include "slim/advice.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "slices/slices.h"

const char *img_advice_origin(struct img_rpm_set *packages, const char *path, char *buf, size_t size)
{
	struct img_rpm *p;
	int32_t file;

	p = packages ? img_rpm_set_owner(packages, path, &file, NULL) : NULL;
	if (!p)
		(void)snprintf(buf, size, "no package");
	else if (file >= 0 && (size_t)file < p->n_files)
		(void)snprintf(buf, size, "package %s, slice %s_%s", p->name, p->name,
		               img_slice_role(p, &p->files[file]));
	else
		(void)snprintf(buf, size, "package %s", p->name);
	return buf;
}

int img_advice_ldcache(struct img_tree *slim, struct err *err)
{
	int r = img_ldcache_add(slim, err);

	return r < 0 ? r : 0;
}

static bool has_file(const struct img_rpm *p, size_t file, void *arg)
{
	struct img_node *n;

	return img_tree_resolve(arg, p->files[file].path, false, &n, NULL, NULL) == 0;
}

/* Whether anything but folders of the package is there. */
static bool is_present(const struct img_rpm *p, struct img_tree *t)
{
	bool only_folders = p->n_files > 0;

	for (size_t i = 0; i < p->n_files; i++) {
		if (p->files[i].type == IMG_DIR)
			continue;
		only_folders = false;
		if (!(p->files[i].flags & IMG_RPMFILE_GHOST) && has_file(p, i, t))
			return true;
	}
	/* a package of folders alone (filesystem) */
	for (size_t i = 0; only_folders && i < p->n_files; i++) {
		if (has_file(p, i, t))
			return true;
	}
	return false;
}

int img_advice_rpmdb(struct img_tree *slim, struct img_rpm_set *packages, const char *mode, int64_t epoch,
                     size_t *ret_n, struct err *err)
{
	struct img_rpmdb_opts o = { .mode = strcmp(mode, "signed") == 0  ? IMG_RPMDB_SIGNED
		                            : strcmp(mode, "short") == 0 ? IMG_RPMDB_SHORT
		                                                         : IMG_RPMDB_MARKED,
		                    .install_time = epoch,
		                    .clamp_mtime = epoch };
	size_t n = img_rpm_set_count(packages);
	CLEANUP(freep) struct img_rpm **present = calloc(n + 1, sizeof(struct img_rpm *));
	const char *path = img_rpm_set_db_path(packages);

	*ret_n = 0;
	if (!present)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		struct img_rpm *p = img_rpm_set_at(packages, i);

		if (is_present(p, slim))
			present[(*ret_n)++] = p;
	}
	if (!path || *ret_n == 0)
		return 0;
	img_tree_remove(slim, path);
	return img_rpmdb_write(present, *ret_n, has_file, slim, &o, path, slim, err);
}

/* The characters that patterns give a meaning to, taken literally. */
static int keep_literally(struct img_policy *policy, const char *path)
{
	char pattern[2 * IMG_PATH_MAX];
	size_t n = 0;

	for (; *path && n + 2 < sizeof(pattern); path++) {
		if (strchr("*?[\\", *path))
			pattern[n++] = '\\';
		pattern[n++] = *path;
	}
	pattern[n] = 0;
	return img_policy_keep(policy, pattern);
}

int img_advice_keep_slice(struct img_rpm_set *packages, const char *slice, struct img_policy *policy, struct err *err)
{
	struct img_rpm *p = packages ? img_rpm_set_find(packages, slice) : NULL;
	const char *role = NULL;
	size_t n = 0;

	/* "libc6_libs": names of packages may hold an underscore too, so the whole name is looked for first */
	if (!p && packages && (role = strrchr(slice, '_'))) {
		char name[256];

		(void)snprintf(name, sizeof(name), "%.*s", (int)(role - slice), slice);
		p = img_rpm_set_find(packages, name);
		role++;
	}
	for (size_t i = 0; p && i < p->n_files; i++) {
		const char *has = img_slice_role(p, &p->files[i]);

		if (p->files[i].type == IMG_DIR || (role && (!has || strcmp(has, role) != 0)))
			continue;
		if (keep_literally(policy, p->files[i].path) < 0)
			return err_set(err, -ENOMEM, "out of memory");
		n++;
	}
	return n ? 0 : err_set(err, -ENOENT, "%.200s: no path, and no package or slice of that name", slice);
}
