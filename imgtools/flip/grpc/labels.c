/* Labels of snapshots: copied, and changed as a field mask says. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/pb.h"
#include "grpc/snapshots_internal.h"

void flip_labels_free(struct flip_label *labels, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(labels[i].name);
		free(labels[i].value);
	}
	free(labels);
}

static int add_label(struct flip_label *labels, size_t *n, const char *name, const char *value)
{
	struct flip_label l = { .name = strdup(name), .value = strdup(value ? value : "") };

	if (!l.name || !l.value) {
		free(l.name);
		free(l.value);
		return -ENOMEM;
	}
	labels[(*n)++] = l;
	return 0;
}

int flip_labels_copy(const struct flip_label *labels, size_t n, struct flip_label **ret_labels)
{
	struct flip_label *out = calloc(n ? n : 1, sizeof(*out));
	size_t n_out = 0;

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (add_label(out, &n_out, labels[i].name, labels[i].value) < 0) {
			flip_labels_free(out, n_out);
			return -ENOMEM;
		}
	}
	*ret_labels = out;
	return 0;
}

/* The label that a path names, or NULL for all. */
static const char *label_of_path(const char *path)
{
	return path[strlen("labels")] == '.' ? path + strlen("labels.") : NULL;
}

int flip_labels_check_paths(const char *const *paths, size_t n_paths, struct err *err)
{
	if (n_paths > FLIP_MAX_LABELS)
		return err_set(err, -EINVAL, "more than %d paths of fields", FLIP_MAX_LABELS);
	for (size_t i = 0; i < n_paths; i++) {
		if (strcmp(paths[i], "labels") != 0 && (strncmp(paths[i], "labels.", 7) != 0 || !paths[i][7]))
			return err_set(err, -EINVAL, "the field \"%.200s\" of a snapshot cannot be changed", paths[i]);
	}
	return 0;
}

static const struct flip_label *find_label(const struct flip_label *labels, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(labels[i].name, name) == 0)
			return &labels[i];
	}
	return NULL;
}

static bool is_named(const char *const *paths, size_t n_paths, const char *name)
{
	for (size_t i = 0; i < n_paths; i++) {
		const char *label = label_of_path(paths[i]);

		if (label && strcmp(label, name) == 0)
			return true;
	}
	return false;
}

static bool are_all_named(const char *const *paths, size_t n_paths)
{
	for (size_t i = 0; i < n_paths; i++) {
		if (!label_of_path(paths[i]))
			return true;
	}
	return n_paths == 0;
}

int flip_labels_merge(const struct flip_label *now, size_t n_now, const struct flip_label *wanted, size_t n_wanted,
                      const char *const *paths, size_t n_paths, struct flip_label **ret_labels, size_t *ret_n,
                      struct err *err)
{
	struct flip_label *out;
	bool replace_all;
	size_t n = 0;
	int r = flip_labels_check_paths(paths, n_paths, err);

	if (r < 0)
		return r;
	replace_all = are_all_named(paths, n_paths);
	out = calloc(n_now + n_wanted + 1, sizeof(*out));
	if (!out)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n_now && r == 0; i++) {
		if (!replace_all && !is_named(paths, n_paths, now[i].name))
			r = add_label(out, &n, now[i].name, now[i].value);
	}
	for (size_t i = 0; i < n_wanted && r == 0; i++) {
		if (find_label(out, n, wanted[i].name)) /* twice, or not to be changed */
			continue;
		if (replace_all || (wanted[i].value[0] && is_named(paths, n_paths, wanted[i].name)))
			r = add_label(out, &n, wanted[i].name, wanted[i].value);
	}
	if (r < 0) {
		flip_labels_free(out, n);
		return err_set(err, r, "out of memory");
	}
	*ret_labels = out;
	*ret_n = n;
	return 0;
}
