/* What people ask for, and which packages that concerns: a slice (bash_bins), a package (bash), a path, a glob of
 * paths, a Python module (python:json). */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "slices_internal.h"

static const char python_prefix[] = "python:";

bool img_request_is_glob(const char *s)
{
	return strncmp(s, python_prefix, sizeof(python_prefix) - 1) == 0 || (s[0] == '/' && strpbrk(s, "*?["));
}

/* "python:os.path": the module's file where interpreters look for it. */
static bool is_module(const char *name, const char *path)
{
	static const char *const dirs[] = { "", "site-packages/", "dist-packages/", "lib-dynload/" };
	static const char *const ends[] = { ".py", "/__init__.py", ".so", ".*.so" };
	char pattern[1024];

	for (size_t i = 0; i < 4; i++) {
		for (size_t k = 0; k < 4; k++) {
			char *start;
			int n = snprintf(pattern, sizeof(pattern), "/usr/lib*/python3*/%s", dirs[i]);

			start = pattern + n;
			if (snprintf(start, sizeof(pattern) - (size_t)n, "%s%s", name, ends[k]) >=
			    (int)(sizeof(pattern) - (size_t)n))
				return false;
			for (char *dot = start; dot < start + strlen(name); dot++)
				*dot = *dot == '.' ? '/' : *dot;
			if (fnmatch(pattern, path, FNM_PATHNAME) == 0)
				return true;
		}
	}
	return false;
}

bool img_request_fits(const char *pattern, const char *path)
{
	if (strncmp(pattern, python_prefix, sizeof(python_prefix) - 1) == 0)
		return is_module(pattern + sizeof(python_prefix) - 1, path);
	return fnmatch(pattern, path, 0) == 0;
}

struct img_rpm *img_request_slice(struct img_world *w, const char *name, const char **ret_role)
{
	const char *split = img_slice_split(name);
	struct img_rpm *p = img_rpm_set_find(img_world_set(w), name);
	char package[256];

	*ret_role = NULL;
	if (p || !split || split - name >= (ptrdiff_t)sizeof(package))
		return p;
	memcpy(package, name, (size_t)(split - name));
	package[split - name] = 0;
	*ret_role = split + 1;
	return img_rpm_set_find(img_world_set(w), package);
}

struct package_list {
	struct img_rpm **v; /* has room for all there are */
	size_t n;
};

static void list_package(struct package_list *l, struct img_rpm *p)
{
	if (p && !p->is_preferred) {
		p->is_preferred = true;
		l->v[l->n++] = p;
	}
}

/* Packages that have what is to be generated. */
static int list_for_generator(struct img_world *w, const char *generator, struct package_list *l, struct err *err)
{
	const char *cursor = NULL;
	struct img_locale locale;
	int r = 0;

	while (img_locale_is(generator) && (r = img_locale_next(generator, &cursor, &locale, err)) == 1) {
		struct err e = { 0 };

		list_package(l, img_locale_owner(img_world_set(w), &locale, &e));
		if (e.code)
			return err_set(err, e.code, "%s", e.msg);
	}
	return r;
}

/* The same for what rules want generated for a slice, or for those that matter of a package. */
static int list_for_rules(struct img_world *w, const struct img_cut_opts *o, const char *request,
                          struct package_list *l, struct err *err)
{
	const char *values[64], *role;
	struct img_rpm *p = img_request_slice(w, request, &role);
	int r = 0;

	for (size_t i = 0; r == 0 && p && o->rules && (role ? i < 1 : img_slice_role_at(i, NULL) != NULL); i++) {
		char name[512];
		size_t n;

		(void)snprintf(name, sizeof(name), "%s_%s", p->name, role ? role : img_slice_role_at(i, NULL));
		if (!role && !img_slice_role_is_runtime(img_slice_role_at(i, NULL)))
			continue;
		n = img_rules_slice_lines(o->rules, name, "generate", values, 64);
		for (size_t k = 0; r == 0 && k < n; k++)
			r = list_for_generator(w, values[k], l, err);
	}
	return r;
}

int img_request_packages(struct img_world *w, const struct img_cut_opts *o, struct img_rpm ***ret_packages,
                         size_t *ret_n, struct err *err)
{
	const size_t n_all = img_rpm_set_count(img_world_set(w));
	struct package_list list = { .v = calloc(n_all + 1, sizeof(struct img_rpm *)) };
	int r = list.v ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < n_all; i++)
		img_rpm_set_at(img_world_set(w), i)->is_preferred = false;
	for (size_t i = 0; r == 0 && i < o->n_requests; i++) {
		struct img_file_id id = { 0 };
		const char *role;

		if (o->requests[i][0] != '/' && !img_request_is_glob(o->requests[i])) {
			id.package = img_request_slice(w, o->requests[i], &role);
			r = list_for_rules(w, o, o->requests[i], &list, err);
		} else if (img_request_is_glob(o->requests[i])) {
			/* Who has such a path is known only when all packages are. */
			for (size_t k = 0; r == 0 && k < n_all; k++) {
				struct img_rpm *p = img_rpm_set_at(img_world_set(w), k);
				bool has = false;

				r = img_rpm_load(p, err);
				for (size_t f = 0; r == 0 && f < p->n_files && !has; f++)
					has = img_request_fits(o->requests[i], p->files[f].path);
				if (has)
					list_package(&list, p);
			}
		} else {
			r = img_world_find(w, o->requests[i], &id, NULL, NULL, err);
		}
		if (r == 0)
			list_package(&list, id.package);
		if (r == 0 && !id.package && !img_request_is_glob(o->requests[i]))
			r = err_set(err, -ENOENT, "%s: %s", o->requests[i],
			            o->requests[i][0] == '/' ? "no package has this path" : "there is no such package");
	}
	for (size_t i = 0; r == 0 && i < o->n_generate; i++)
		r = list_for_generator(w, o->generate[i], &list, err);
	if (r < 0) {
		free(list.v);
		return r;
	}
	*ret_packages = list.v;
	*ret_n = list.n;
	return 0;
}
