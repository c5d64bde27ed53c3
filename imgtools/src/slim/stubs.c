/* Which loaded libraries nobody uses, and stubs in their place.
 *
 * A file uses another when a symbol of it was bound to the other, and it does not define that symbol itself (C++ puts
 * the same inline functions into many libraries: whichever comes first is taken, none is needed for that). What is
 * reached by that relation from programs and from modules that were opened by dlopen() stays. The rest was loaded, and
 * its constructors ran, for nothing.
 *
 * A stub offers the names that files which stay refer to and that nothing else defines: lazily bound functions that the
 * run never called. They end the program by a message that says what to keep. */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "elf/elf.h"
#include "elf/elf_stub.h"
#include "slim/bindings.h"

enum { STUB_MAX = 64 << 20 };

struct file {
	struct img_node *node;
	struct img_elf *elf; /* with symbols */
	bool is_loaded;      /* by the runs that were watched */
	bool is_used;
	struct names {
		const char **v; /* sorted, of `elf` */
		size_t n;
	} defined;
};

struct stubs {
	struct img_tree *tree;
	const struct img_bindings *b;
	struct file *files;
	size_t n;
	struct names undefined, defined; /* of all files that stay, sorted */
	struct img_stub_result *result;
	struct err *err;
};

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has_name(const struct names *l, const char *name)
{
	return l->n && bsearch(&name, l->v, l->n, sizeof(*l->v), compare_names);
}

static int names_of(const struct img_elf *e, bool defined, struct names *l)
{
	const char **more = reallocarray(l->v, l->n + e->n_symbols + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	l->v = more;
	for (size_t i = 0; i < e->n_symbols; i++) {
		if (e->symbols[i].is_defined == defined)
			l->v[l->n++] = e->symbols[i].name;
	}
	return 0;
}

static void sort_names(struct names *l)
{
	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), compare_names);
}

/* All dynamic ELF files of the tree. */
static int read_files(struct stubs *s)
{
	size_t n = img_tree_count(s->tree);

	s->files = calloc(n + 1, sizeof(*s->files));
	if (!s->files)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct img_node *node = img_tree_at(s->tree, i);
		struct file *f = &s->files[s->n];
		int r;

		node->user = NULL;
		if (!img_elf_is(node) || img_elf_read(node, IMG_ELF_SYMBOLS, &f->elf, NULL) < 0)
			continue;
		f->node = node;
		s->n++;
		r = names_of(f->elf, true, &f->defined);
		if (r < 0)
			return r;
		sort_names(&f->defined);
	}
	for (size_t i = 0; i < s->n; i++)
		s->files[i].node->user = &s->files[i];
	return 0;
}

/* The file that ld.so meant. A program goes by what it was called. */
static struct file *file_of(const struct stubs *s, uint32_t name)
{
	const char *path = s->b->text.data + name;
	struct img_node *n;

	if (path[0] != '/' || img_tree_resolve(s->tree, path, true, &n, NULL, NULL) < 0)
		return NULL;
	return n->user;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Part of what every program is: these are never replaced. */
static bool is_basic(const char *name)
{
	static const char *const names[] = { "ld-linux",   "libc.so",  "libc-",     "libm.so",    "libdl.so",
		                             "libpthread", "librt.so", "libresolv", "libutil.so", "libgcc_s",
		                             "libstdc++",  "libnss_",  "ld-musl",   "libanl.so",  "libBrokenLocale" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (strncmp(name, names[i], strlen(names[i])) == 0)
			return true;
	}
	return false;
}

static void mark_loaded(struct stubs *s)
{
	for (size_t i = 0; i < s->b->n_loaded; i++) {
		struct file *f = file_of(s, s->b->loaded[i]);

		if (f)
			f->is_loaded = true;
	}
	for (size_t i = 0; i < s->b->n_uses; i++) {
		struct file *from = file_of(s, s->b->uses[i].from), *to = file_of(s, s->b->uses[i].to);

		if (from)
			from->is_loaded = true;
		if (to)
			to->is_loaded = true;
	}
}

/* Programs, modules that were opened, and what must stay; what no run loaded is not ours to judge. */
static void mark_roots(struct stubs *s, bool (*is_kept)(const struct img_node *n, void *arg), void *arg)
{
	for (size_t i = 0; i < s->n; i++) {
		struct file *f = &s->files[i];

		f->is_used = !f->is_loaded || !strstr(base_name(f->node->path), ".so") ||
		             is_basic(base_name(f->node->path)) || !f->elf->is_dynamic || f->elf->type != ET_DYN ||
		             (is_kept && is_kept(f->node, arg));
	}
	for (size_t i = 0; i < s->b->n_opened; i++) {
		const char *name = base_name(s->b->text.data + s->b->opened[i]);

		/* by name: "libfoo.so.1" was searched for, and is listed by its path elsewhere */
		for (size_t k = 0; k < s->b->n_loaded; k++) {
			struct file *f = strcmp(base_name(s->b->text.data + s->b->loaded[k]), name) == 0
			                         ? file_of(s, s->b->loaded[k])
			                         : NULL;

			if (f)
				f->is_used = true;
		}
	}
}

/* Rounds until nothing is added; each binding is looked at once per round, which is few. */
static void reach(struct stubs *s)
{
	bool more = true;

	while (more) {
		more = false;
		for (size_t i = 0; i < s->b->n_uses; i++) {
			const struct img_binding *u = &s->b->uses[i];
			const char *from_name = s->b->text.data + u->from;
			struct file *from = file_of(s, u->from), *to = file_of(s, u->to);

			/* a name that is no path, or is nowhere: the program by its argv[0] */
			if (!to || to->is_used || (from && !from->is_used) ||
			    (!from && from_name[0] == '/' && strstr(from_name, ".so")))
				continue;
			if (from && has_name(&from->defined, s->b->text.data + u->symbol))
				continue;
			to->is_used = true;
			more = true;
		}
	}
}

static int collect_names(struct stubs *s)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->n; i++) {
		if (!s->files[i].is_used)
			continue;
		r = names_of(s->files[i].elf, false, &s->undefined);
		if (r == 0)
			r = names_of(s->files[i].elf, true, &s->defined);
	}
	sort_names(&s->undefined);
	sort_names(&s->defined);
	return r;
}

static bool is_wanted(const struct img_elf_symbol *y, void *arg)
{
	const struct stubs *s = arg;

	return has_name(&s->undefined, y->name) && !has_name(&s->defined, y->name);
}

static int replace(struct stubs *s, struct file *f)
{
	struct base_buf out = BASE_BUF_INIT(STUB_MAX);
	char message[IMG_PATH_MAX + 256];
	struct img_elf_stub stub = { .original = f->elf,
		                     .name = base_name(f->node->path),
		                     .is_wanted = is_wanted,
		                     .arg = s,
		                     .message = message };
	struct err why = { 0 };
	struct img_node *n = f->node;
	char *data;
	int r;

	(void)snprintf(message, sizeof(message),
	               "slimtrace: %s was left out of this image because the traced runs did not use it; "
	               "\"--keep %s\" brings it back. Called: ",
	               stub.name, n->path);
	r = img_elf_stub_write(&stub, &out, &why);
	if (r == -ENOMEM || (r == 0 && out.len >= n->size)) {
		base_buf_done(&out);
		return r;
	}
	if (r < 0) {
		if (s->result->n_refused++ == 0)
			(void)snprintf(s->result->first_refused, sizeof(s->result->first_refused), "%s", why.msg);
		base_buf_done(&out);
		return 0;
	}
	s->result->n_stubs++;
	s->result->bytes_before += n->size;
	s->result->bytes_after += out.len;
	n->size = out.len;
	data = base_buf_take(&out);
	free(n->data);
	free(n->source);
	n->source = NULL;
	n->data = data;
	n->link_group = 0;
	return data ? 0 : -ENOMEM;
}

static void stubs_done(struct stubs *s)
{
	for (size_t i = 0; i < s->n; i++) {
		img_elf_free(s->files[i].elf);
		free(s->files[i].defined.v);
		s->files[i].node->user = NULL;
	}
	free(s->files);
	free(s->undefined.v);
	free(s->defined.v);
}

int img_slim_stub_unbound(struct img_tree *slim, const struct img_bindings *b,
                          bool (*is_kept)(const struct img_node *n, void *arg), void *arg,
                          struct img_stub_result *ret_result, struct err *err)
{
	CLEANUP(stubs_done) struct stubs s = { .tree = slim, .b = b, .result = ret_result, .err = err };
	int r;

	*ret_result = (struct img_stub_result){ 0 };
	if (b->n_uses == 0)
		return err_set(err, -ENODATA, "no bindings were recorded: is the program static, or not glibc's?");
	r = read_files(&s);
	if (r == 0) {
		mark_loaded(&s);
		mark_roots(&s, is_kept, arg);
		reach(&s);
		r = collect_names(&s);
	}
	for (size_t i = 0; r == 0 && i < s.n; i++) {
		ret_result->n_loaded += s.files[i].is_loaded;
		ret_result->n_bound += s.files[i].is_loaded && s.files[i].is_used;
		/* a name that points into a file that is shared by hard links would change them all */
		if (!s.files[i].is_used && !s.files[i].node->link_group)
			r = replace(&s, &s.files[i]);
	}
	return r < 0 ? err_set(err, r, "%s", strerror(-r)) : 0;
}
