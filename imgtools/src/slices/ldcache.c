/* /etc/ld.so.cache in the format of glibc 2.2 and later, as its 2.32 and later write it alone (elf/cache.c,
 * dl-cache.h):
 *
 *    0  17  "glibc-ld.so.cache"          17   3  "1.1"
 *   20   4  number of entries            24   4  bytes of strings
 *   28   1  2: little-endian, 3: big     29   3  0
 *   32   4  offset of extensions, 0: none 36 12  0
 *   48  24  each entry: flags (4), offset of the name (4), offset of the path (4), 0 (4), hardware (8)
 *    .   .  strings, each with its 0
 *    .   .  extensions, at a multiple of 4: 0xeaa42174, number of sections, then for each section tag (4), 0 (4),
 * offset (4), bytes (4). Section 1 holds the offsets of the names of processor variants (4 each).
 *
 * Entries stand in falling order of their names, digits compared as numbers, since ld.so searches by halves. Folders:
 * those of /etc/ld.so.conf, then the built-in ones of Debian and of lib64 systems.
 *
 * Variants by processor (DIR/glibc-hwcaps/NAME/, glibc 2.33) stand before the plain library of their name, by their
 * names; their hardware is bit 62 and the number of the variant in section 1. The level that a library itself asks for
 * (its GNU property, bits 32 to 41) is left out: ld.so looks at the property when it loads the file. */
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "elf/elf.h"
#include "slices_internal.h"

enum { HEADER_SIZE = 48, ENTRY_SIZE = 24, MAX_DIRS = 256, MAX_CONF = 1 << 20, MAX_DEPTH = 8, MAX_HWCAPS = 64 };

struct library {
	char *name, *path;
	char *hwcap; /* "x86-64-v3"; NULL for the plain one */
	uint32_t flags;
};

struct maker {
	struct img_tree *t;
	char *dirs[MAX_DIRS];
	size_t n_dirs;
	struct library *libs;
	size_t n_libs, cap_libs;
};

/* ---- Folders ---------------------------------------------------------------------------------------------- */

static int add_dir(struct maker *m, const char *path)
{
	struct img_node *n;

	if (path[0] != '/' || img_tree_resolve(m->t, path, true, &n, NULL, NULL) < 0 || n->type != IMG_DIR)
		return 0;
	for (size_t i = 0; i < m->n_dirs; i++) {
		if (strcmp(m->dirs[i], n->path) == 0)
			return 0;
	}
	if (m->n_dirs == MAX_DIRS)
		return 0;
	m->dirs[m->n_dirs] = strdup(n->path);
	return m->dirs[m->n_dirs++] ? 0 : -ENOMEM;
}

static int read_conf(struct maker *m, const char *path, int depth);

/* "include PATTERN": relative to the folder of the file. */
static int include(struct maker *m, const char *from, const char *pattern, int depth)
{
	char full[IMG_PATH_MAX];
	int r = 0;

	if (pattern[0] == '/')
		(void)snprintf(full, sizeof(full), "%s", pattern);
	else
		(void)snprintf(full, sizeof(full), "%.*s/%s", (int)(strrchr(from, '/') - from), from, pattern);
	for (size_t i = 0; r == 0 && i < img_tree_count(m->t); i++) {
		const struct img_node *n = img_tree_at(m->t, i);

		if (n->type != IMG_DIR && fnmatch(full, n->path, FNM_PATHNAME) == 0)
			r = read_conf(m, n->path, depth + 1);
	}
	return r;
}

static int read_conf(struct maker *m, const char *path, int depth)
{
	struct img_node *n;
	char *text, *line, *next;
	size_t size;
	int r = 0;

	if (depth > MAX_DEPTH || img_tree_resolve(m->t, path, true, &n, NULL, NULL) < 0 || n->type != IMG_FILE ||
	    img_node_read_all(n, MAX_CONF, (void **)&text, &size, NULL) < 0)
		return 0;
	for (line = text; r == 0 && line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		line[strcspn(line, "#")] = 0;
		line += strspn(line, " \t");
		for (char *end = line + strlen(line); end > line && isspace((unsigned char)end[-1]); end--)
			end[-1] = 0;
		if (strncmp(line, "include", 7) == 0 && isspace((unsigned char)line[7]))
			r = include(m, path, line + 8 + strspn(line + 8, " \t"), depth);
		else if (*line)
			r = add_dir(m, line);
	}
	free(text);
	return r;
}

/* ---- Libraries -------------------------------------------------------------------------------------------- */

/* What ld.so compares with its own idea of a fitting library; 0: no library of a machine that is known here. */
static uint32_t flags_of(const struct img_elf *e)
{
	enum { ELF_LIBC6 = 3 };
	static const struct {
		uint16_t machine;
		uint8_t elf_class;
		uint32_t flags;
	} table[] = { { 62, 2, 0x0300 },  /* x86-64 */
		      { 62, 1, 0x0800 },  /* x32 */
		      { 3, 1, 0x0000 },   /* i386 */
		      { 183, 2, 0x0a00 }, /* AArch64 */
		      { 21, 2, 0x0500 },  /* PowerPC 64 */
		      { 22, 2, 0x0400 },  /* S/390 64 */
		      { 243, 2, 0x1000 }, /* RISC-V, doubles in registers */
		      { 258, 2, 0x1200 } /* LoongArch, likewise */ };

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].machine == e->machine && table[i].elf_class == e->elf_class)
			return table[i].flags | ELF_LIBC6;
	}
	return 0;
}

static int compare_hwcaps(const char *a, const char *b)
{
	return !a || !b ? (a == NULL) - (b == NULL) : strcmp(a, b);
}

static int add_library(struct maker *m, const char *name, const char *path, const char *hwcap, uint32_t flags)
{
	struct library *l;

	/* The first folder wins. */
	for (size_t i = 0; i < m->n_libs; i++) {
		if (m->libs[i].flags == flags && strcmp(m->libs[i].name, name) == 0 &&
		    compare_hwcaps(m->libs[i].hwcap, hwcap) == 0)
			return 0;
	}
	if (m->n_libs == m->cap_libs) {
		const size_t cap = m->cap_libs ? m->cap_libs * 2 : 64;
		struct library *grown = reallocarray(m->libs, cap, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		m->libs = grown;
		m->cap_libs = cap;
	}
	l = &m->libs[m->n_libs++];
	*l = (struct library){ strdup(name), strdup(path), hwcap ? strdup(hwcap) : NULL, flags };
	return l->name && l->path && (l->hwcap || !hwcap) ? 0 : -ENOMEM;
}

static bool is_library_name(const char *base)
{
	return (strncmp(base, "lib", 3) == 0 && strstr(base, ".so")) ||
	       (strncmp(base, "ld-", 3) == 0 && strstr(base, ".so"));
}

/* One name in a folder: its soname is what programs ask for; a link "libx.so" may be asked for by dlopen. */
static int look_at(struct maker *m, const struct img_node *n, const char *hwcap)
{
	const char *base = strrchr(n->path, '/') + 1, *name;
	const size_t len = strlen(base);
	struct img_node *real, *by_name;
	struct img_elf *e = NULL;
	char path[IMG_PATH_MAX];
	int r = 0;

	if (!is_library_name(base) || (n->type != IMG_FILE && n->type != IMG_SYMLINK) ||
	    img_tree_resolve(m->t, n->path, true, &real, NULL, NULL) < 0 || real->type != IMG_FILE)
		return 0;
	r = img_elf_read(real, IMG_ELF_HEADER, &e, NULL);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	name = e->soname && !strchr(e->soname, '/') ? e->soname : base;
	if (n->type == IMG_SYMLINK && len > 3 && strcmp(base + len - 3, ".so") == 0)
		name = base;
	(void)snprintf(path, sizeof(path), "%.*s%s", (int)(base - n->path), n->path, name);
	if (img_tree_resolve(m->t, path, true, &by_name, NULL, NULL) < 0 || by_name != real)
		(void)snprintf(path, sizeof(path), "%s", n->path);
	if (flags_of(e) && e->is_dynamic)
		r = add_library(m, name, path, hwcap, flags_of(e));
	img_elf_free(e);
	return r;
}

/* A folder, and its variants by processor. */
static int look_in(struct maker *m, const char *dir)
{
	static const char hwcaps[] = "glibc-hwcaps/";
	const size_t len = strlen(dir);
	int r = 0;

	for (size_t i = 0; r == 0 && i < img_tree_count(m->t); i++) {
		const struct img_node *n = img_tree_at(m->t, i);
		const char *rest = n->path + len + 1, *slash;
		char name[64];

		if (strncmp(n->path, dir, len) != 0 || n->path[len] != '/')
			continue;
		slash = strchr(rest, '/');
		if (!slash) {
			r = look_at(m, n, NULL);
			continue;
		}
		if (strncmp(rest, hwcaps, sizeof(hwcaps) - 1) != 0)
			continue;
		rest += sizeof(hwcaps) - 1;
		slash = strchr(rest, '/');
		if (!slash || slash == rest || (size_t)(slash - rest) >= sizeof(name) || strchr(slash + 1, '/'))
			continue;
		(void)snprintf(name, sizeof(name), "%.*s", (int)(slash - rest), rest);
		r = look_at(m, n, name);
	}
	return r;
}

/* ---- The file --------------------------------------------------------------------------------------------- */

/* Digits as one number, and greater than everything else. */
static int compare_names(const char *a, const char *b)
{
	while (*a) {
		if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
			char *end_a, *end_b;
			const unsigned long x = strtoul(a, &end_a, 10), y = strtoul(b, &end_b, 10);

			if (x != y)
				return x < y ? -1 : 1;
			a = end_a;
			b = end_b;
		} else if (isdigit((unsigned char)*a)) {
			return 1;
		} else if (isdigit((unsigned char)*b)) {
			return -1;
		} else if (*a != *b) {
			return *a - *b;
		} else {
			a++;
			b++;
		}
	}
	return *a - *b;
}

static int compare_libraries(const void *a, const void *b)
{
	const struct library *x = a, *y = b;
	int r = compare_names(y->name, x->name);

	if (r == 0)
		r = x->flags < y->flags ? 1 : x->flags > y->flags ? -1 : 0;
	if (r == 0)
		r = compare_hwcaps(x->hwcap, y->hwcap);
	return r ? r : strcmp(x->name, y->name);
}

static void put32(struct base_buf *b, uint32_t v)
{
	const uint8_t bytes[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

	(void)base_buf_append(b, bytes, sizeof(bytes));
}

/* The names of processor variants, sorted, each once: their places are their numbers. */
static int list_hwcaps(const struct maker *m, const char *ret_names[MAX_HWCAPS], size_t *ret_n)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_libs; i++) {
		const char *name = m->libs[i].hwcap;
		size_t at = 0;

		if (!name)
			continue;
		while (at < n && strcmp(ret_names[at], name) < 0)
			at++;
		if (at < n && strcmp(ret_names[at], name) == 0)
			continue;
		if (n == MAX_HWCAPS)
			return -E2BIG;
		memmove(&ret_names[at + 1], &ret_names[at], (n - at) * sizeof(*ret_names));
		ret_names[at] = name;
		n++;
	}
	*ret_n = n;
	return 0;
}

static void put_hardware(struct base_buf *out, const struct library *l, const char *const *names)
{
	uint32_t number = 0;

	while (l->hwcap && strcmp(names[number], l->hwcap) != 0)
		number++;
	put32(out, number);
	put32(out, l->hwcap ? 1u << 30 : 0); /* bit 62 */
}

/* Section 1; `strings` is where the names are. */
static void put_extensions(struct base_buf *out, const char *const *names, size_t n, uint32_t strings)
{
	const uint32_t pad = 0;

	(void)base_buf_append(out, &pad, -out->len & 3);
	put32(out, 0xeaa42174);
	put32(out, 1);
	put32(out, 1);
	put32(out, 0);
	put32(out, (uint32_t)out->len + 8);
	put32(out, (uint32_t)n * 4);
	for (size_t i = 0; i < n; i++) {
		put32(out, strings);
		strings += (uint32_t)strlen(names[i]) + 1;
	}
}

static int write_cache(struct maker *m, struct err *err)
{
	struct img_node n = { .path = "/etc/ld.so.cache", .type = IMG_FILE, .mode = 0644, .package = -1, .layer = -1 };
	struct base_buf out = BASE_BUF_INIT(64u << 20);
	uint32_t at = HEADER_SIZE + (uint32_t)m->n_libs * ENTRY_SIZE, strings = 0, names_at;
	const char *names[MAX_HWCAPS + 1] = { NULL };
	size_t n_names = 0;
	int r = list_hwcaps(m, names, &n_names);

	if (r < 0)
		return err_set(err, r, "ld.so.cache: more than %d variants by processor", MAX_HWCAPS);
	if (m->n_libs)
		qsort(m->libs, m->n_libs, sizeof(*m->libs), compare_libraries);
	for (size_t i = 0; i < m->n_libs; i++)
		strings += (uint32_t)(strlen(m->libs[i].name) + strlen(m->libs[i].path) + 2);
	names_at = at + strings;
	for (size_t i = 0; i < n_names; i++)
		strings += (uint32_t)strlen(names[i]) + 1;
	(void)base_buf_append(&out, "glibc-ld.so.cache1.1", 20);
	put32(&out, (uint32_t)m->n_libs);
	put32(&out, strings);
	put32(&out, 2); /* little-endian; every machine of the table but s390x is */
	put32(&out, n_names ? (at + strings + 3) & ~3u : 0);
	for (int i = 0; i < 3; i++)
		put32(&out, 0);
	for (size_t i = 0; i < m->n_libs; i++) {
		put32(&out, m->libs[i].flags);
		put32(&out, at);
		at += (uint32_t)strlen(m->libs[i].name) + 1;
		put32(&out, at);
		at += (uint32_t)strlen(m->libs[i].path) + 1;
		put32(&out, 0);
		put_hardware(&out, &m->libs[i], names);
	}
	for (size_t i = 0; i < m->n_libs; i++) {
		(void)base_buf_append(&out, m->libs[i].name, strlen(m->libs[i].name) + 1);
		(void)base_buf_append(&out, m->libs[i].path, strlen(m->libs[i].path) + 1);
	}
	for (size_t i = 0; i < n_names; i++)
		(void)base_buf_append(&out, names[i], strlen(names[i]) + 1);
	if (n_names)
		put_extensions(&out, names, n_names, names_at);
	n.data = out.data;
	n.size = out.len;
	r = base_buf_error(&out) ? base_buf_error(&out) : img_tree_add(m->t, &n, NULL, err);
	base_buf_done(&out);
	return r;
}

static bool is_big_endian_or_absent(struct maker *m)
{
	static const char *const linkers[] = { "ld-linux*.so.*", "ld64.so.2" };

	for (size_t i = 0; i < img_tree_count(m->t); i++) {
		const struct img_node *n = img_tree_at(m->t, i);
		const char *base = strrchr(n->path, '/') + 1;

		for (size_t k = 0; k < 2; k++) {
			if (n->type == IMG_FILE && fnmatch(linkers[k], base, 0) == 0)
				return false;
		}
	}
	return true;
}

int img_ldcache_add(struct img_tree *t, struct err *err)
{
	static const char *const built_in[] = { "/lib/x86_64-linux-gnu",
		                                "/usr/lib/x86_64-linux-gnu",
		                                "/lib/aarch64-linux-gnu",
		                                "/usr/lib/aarch64-linux-gnu",
		                                "/lib64",
		                                "/usr/lib64",
		                                "/lib",
		                                "/usr/lib" };
	struct maker m = { .t = t };
	int r = 0;

	if (is_big_endian_or_absent(&m))
		return 1;
	r = read_conf(&m, "/etc/ld.so.conf", 0);
	for (size_t i = 0; r == 0 && i < sizeof(built_in) / sizeof(built_in[0]); i++)
		r = add_dir(&m, built_in[i]);
	for (size_t i = 0; r == 0 && i < m.n_dirs; i++)
		r = look_in(&m, m.dirs[i]);
	if (r == 0)
		r = write_cache(&m, err);
	for (size_t i = 0; i < m.n_dirs; i++)
		free(m.dirs[i]);
	for (size_t i = 0; i < m.n_libs; i++) {
		free(m.libs[i].name);
		free(m.libs[i].path);
		free(m.libs[i].hwcap);
	}
	free(m.libs);
	return r;
}
