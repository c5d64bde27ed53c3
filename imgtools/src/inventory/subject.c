/* An image or a root opened for inspection: the tree, and which package each file came with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "inventory.h"

static int read_packages(struct img_subject *s, struct err *err)
{
	struct img_rpm_set *set = NULL;
	const char *arch = NULL;
	int r = img_rpm_set_new(arch, &set);

	if (r < 0)
		return err_set(err, r, "out of memory");
	r = img_rpm_set_add_tree(set, s->tree, err);
	if (r < 0) {
		img_rpm_set_free(set);
		return r == -ENOENT ? 0 : r;
	}
	s->packages = set;
	return 0;
}

/* The node of a package's file: links among the directories above it are followed, packages name files by either path.
 */
static struct img_node *node_of(const struct img_subject *s, const struct img_rpm_file *f)
{
	struct img_node *n = img_tree_find(s->tree, f->path);

	if (!n && img_tree_resolve(s->tree, f->path, false, &n, NULL, NULL) < 0)
		return NULL;
	return n;
}

static int join_packages(struct img_subject *s, struct err *err)
{
	size_t n_packages = s->packages ? img_rpm_set_count(s->packages) : 0;

	for (size_t i = 0; i < img_tree_count(s->tree); i++) {
		struct img_node *n = img_tree_at(s->tree, i);

		if (!n)
			return err_set(err, -ENOMEM, "out of memory");
		n->package = -1;
	}
	s->n_present = calloc(n_packages + 1, sizeof(*s->n_present));
	s->n_files = calloc(n_packages + 1, sizeof(*s->n_files));
	if (!s->n_present || !s->n_files)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n_packages; i++) {
		struct img_rpm *p = img_rpm_set_at(s->packages, i);
		int r = img_rpm_load(p, err);

		if (r < 0)
			return r;
		for (size_t k = 0; k < p->n_files; k++) {
			struct img_node *n = node_of(s, &p->files[k]);

			if (p->files[k].flags & IMG_RPMFILE_GHOST && !n)
				continue;
			if (p->files[k].type != IMG_DIR)
				s->n_files[i]++;
			if (!n)
				continue;
			if (n->type != IMG_DIR)
				s->n_present[i]++;
			if (n->package < 0)
				n->package = (int32_t)i;
		}
	}
	return 0;
}

int img_subject_open(const char *name, const struct img_open_opts *o, struct img_subject *ret_subject, struct err *err)
{
	struct img_subject s = { .name = strdup(name) };
	struct stat st;
	int r;

	if (!s.name)
		return err_set(err, -ENOMEM, "out of memory");
	if (img_name_is_image(name)) {
		r = img_image_open(name, o, &s.image, err);
		s.tree = s.image ? s.image->tree : NULL;
	} else if (stat(name, &st) == 0 && !S_ISDIR(st.st_mode)) {
		r = err_set(err, -ENOTDIR,
		            "%s: neither a folder nor the name of an image (oci:DIR:TAG, docker-archive:FILE, ...)",
		            name);
	} else {
		r = img_tree_scan(name, &s.tree, err);
	}
	if (r == 0)
		r = read_packages(&s, err);
	if (r == 0)
		r = join_packages(&s, err);
	if (r < 0) {
		img_subject_close(&s);
		return r;
	}
	*ret_subject = s;
	return 0;
}

void img_subject_close(struct img_subject *s)
{
	img_rpm_set_free(s->packages);
	if (s->image)
		img_image_close(s->image);
	else
		img_tree_free(s->tree);
	free(s->n_present);
	free(s->n_files);
	free(s->name);
	*s = (struct img_subject){ 0 };
}
