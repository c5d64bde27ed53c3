/* Locales for a cut root. A locale is a folder of tables below /usr/lib/locale. Where a package has it compiled
 * (C.utf8 of glibc's own package, language packs of Red Hat), the package's files are it: cut.c chooses them as it
 * chooses other files. Else the packages' own localedef makes it of the packages' own sources (/usr/share/i18n), in a
 * root that is cut for that: its version of the tables is the one that the root's C library reads. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "assembly.h"
#include "base/buf.h"
#include "base/mapfile.h"
#include "runtime/runtime.h"

#define PLACE "/.slimtrace"

enum { TIMEOUT_MS = 300000, MAX_CHARMAP = 64 << 20, WORK_MAX = 512 };

static const char prefix[] = "locale:";

/* ---- Names ------------------------------------------------------------------------------------------------ */

bool img_locale_is(const char *generator)
{
	return strcmp(generator, "locale") == 0 || strncmp(generator, prefix, sizeof(prefix) - 1) == 0;
}

/* As glibc does: letters in small, digits, nothing else; digits alone are of ISO. */
static void normal_codeset(const char *codeset, size_t len, char ret[64])
{
	bool has_letter = false;
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		has_letter |= isalpha((unsigned char)codeset[i]) != 0;
	if (!has_letter) {
		memcpy(ret, "iso", 3);
		n = 3;
	}
	for (size_t i = 0; i < len && n < 63; i++) {
		if (isalnum((unsigned char)codeset[i]))
			ret[n++] = (char)tolower((unsigned char)codeset[i]);
	}
	ret[n] = 0;
}

static int parse_name(const char *text, size_t len, struct img_locale *l)
{
	const char *dot, *at;
	size_t base, codeset;
	char normal[64];

	if (len == 0 || len >= sizeof(l->name) - 8 || !isalpha((unsigned char)text[0]))
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)text[i]) && !strchr("_.-@", text[i]))
			return -EINVAL;
	}
	(void)snprintf(l->name, sizeof(l->name), "%.*s", (int)len, text);
	dot = strchr(l->name, '.');
	at = strchr(l->name, '@');
	if (!dot || (at && at < dot))
		return -EINVAL;
	base = (size_t)(dot - l->name);
	codeset = at ? (size_t)(at - dot) - 1 : strlen(dot + 1);
	if (base == 0 || codeset == 0 || memchr(dot + 1, '.', strlen(dot + 1)))
		return -EINVAL;
	normal_codeset(dot + 1, codeset, normal);
	(void)snprintf(l->source, sizeof(l->source), "%.*s%s", (int)base, l->name, at ? at : "");
	(void)snprintf(l->charmap, sizeof(l->charmap), "%.*s", (int)codeset, dot + 1);
	(void)snprintf(l->dir, sizeof(l->dir), "/usr/lib/locale/%.*s.%s%s", (int)base, l->name, normal, at ? at : "");
	return 0;
}

int img_locale_next(const char *generator, const char **cursor, struct img_locale *ret_l, struct err *err)
{
	const char *text = *cursor;
	size_t len;

	if (!text)
		text = generator[sizeof(prefix) - 2] == ':' ? generator + sizeof(prefix) - 1 : "C.UTF-8";
	if (!*text)
		return 0;
	len = strcspn(text, ",");
	*cursor = text + len + (text[len] == ',');
	if (parse_name(text, len, ret_l) < 0)
		return err_set(err, -EINVAL,
		               "%.100s: \"%.*s\" is no name of a locale with its character set, such as de_DE.UTF-8",
		               generator, (int)(len < 64 ? len : 64), text);
	return 1;
}

struct img_rpm *img_locale_owner(struct img_rpm_set *set, const struct img_locale *l, struct err *err)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/LC_CTYPE", l->dir);
	return img_rpm_set_owner(set, path, NULL, err);
}

/* ---- localedef -------------------------------------------------------------------------------------------- */

/* The character map, packed or not, as packages have it. */
static int find_charmap(struct img_assembly *a, const struct img_locale *l, char ret_path[160])
{
	static const char *const ends[] = { "", ".gz" };

	for (size_t i = 0; i < 2; i++) {
		struct err e = { 0 };

		(void)snprintf(ret_path, 160, "/usr/share/i18n/charmaps/%s%s", l->charmap, ends[i]);
		if (img_rpm_set_owner(img_world_set(a->w), ret_path, NULL, &e))
			return 0;
		if (e.code)
			return err_set(a->err, e.code, "%s", e.msg);
	}
	return err_set(a->err, -ENOENT, "locale %s: no package has /usr/share/i18n/charmaps/%s", l->name, l->charmap);
}

/* A root with localedef, all sources (they include each other) and the character map, written to the folder. */
static int make_root(struct img_assembly *a, const struct img_locale *l, const char *charmap, const char *dir)
{
	const struct img_world_opts *mine = img_world_options(a->w);
	struct img_world_opts wo = {
		.kind = IMG_WORLD_FILES, .rules = mine->rules, .root = mine->root, .spool = mine->spool
	};
	const char *requests[] = { "/usr/bin/localedef", "/usr/share/i18n/locales/*", charmap };
	const struct img_cut_opts co = {
		.rules = mine->rules, .requests = requests, .n_requests = 3, .ignore_missing = true
	};
	const struct img_cut_write_opts cwo = { .no_db = true, .no_manifest = true, .epoch = a->o->epoch };
	const struct img_write_opts to = { .clamp_mtime = -1 };
	struct img_cut_stats stats = { 0 };
	struct img_world *w = NULL;
	struct img_cut *cut = NULL;
	struct img_tree *t = NULL;
	size_t n_skipped;
	int r;

	r = img_world_new(img_world_set(a->w), &wo, &w, a->err);
	if (r == 0)
		r = img_cut_resolve(w, &co, &cut, a->err);
	if (r == 0)
		r = img_cut_tree(w, cut, &cwo, &t, &stats, a->err);
	if (r == 0)
		r = img_tree_write_dir(t, dir, &to, &n_skipped, a->err);
	img_tree_free(t);
	img_cut_free(cut);
	img_world_free(w);
	return r < 0 ? err_prefix(a->err, r, "locale %s: ", l->name) : 0;
}

/* localedef would have gzip unpack it, which need not be there. */
static int unpack_charmap(struct img_assembly *a, const char *root, const char *charmap)
{
	struct base_buf text = BASE_BUF_INIT(MAX_CHARMAP);
	char path[WORK_MAX + 192], block[1 << 14];
	const size_t len = strlen(charmap);
	gzFile f;
	int n = 0, r;

	if (len < 3 || strcmp(charmap + len - 3, ".gz") != 0)
		return 0;
	(void)snprintf(path, sizeof(path), "%s%s", root, charmap);
	f = gzopen(path, "rbe");
	if (!f)
		return err_set(a->err, -EIO, "%s: cannot be opened", path);
	while ((n = gzread(f, block, sizeof(block))) > 0)
		(void)base_buf_append(&text, block, (size_t)n);
	(void)gzclose_r(f);
	path[strlen(path) - 3] = 0;
	r = n < 0 ? err_set(a->err, -EBADMSG, "%s: cannot be unpacked", charmap) : base_buf_error(&text);
	if (r == 0)
		r = base_write_file_atomic(path, base_buf_text(&text), text.len, 0644, a->err);
	base_buf_done(&text);
	return r;
}

/* It warns by exit status 1 and goes on (--force); what it wrote then counts. */
static int run_localedef(struct img_assembly *a, const struct img_locale *l, const char *root, const char *out)
{
	const char *argv[] = { "/usr/bin/localedef", "--no-archive",  "--force", "-i", l->source, "-f",
		               l->charmap,           PLACE "/locale", NULL };
	const char *env[] = { "PATH=/usr/bin:/bin", "LC_ALL=C", NULL };
	const struct img_run_mount mount = { .source = out, .target = PLACE };
	const struct img_run run = { .argv = argv,
		                     .env = env,
		                     .roots = &root,
		                     .n_roots = 1,
		                     .mounts = &mount,
		                     .n_mounts = 1,
		                     .timeout_ms = TIMEOUT_MS,
		                     .capture = true,
		                     .null_stdin = true };
	struct img_run_result result = { 0 };
	char made[WORK_MAX + 32];
	int r = img_run(&run, &result, a->err);

	if (r < 0)
		return err_prefix(a->err, r,
		                  "locale %s: no package has it compiled, and localedef cannot be run: ", l->name);
	(void)snprintf(made, sizeof(made), "%s/locale/LC_CTYPE", out);
	if (result.exit_code > 1 || access(made, F_OK) < 0)
		r = err_set(a->err, -EIO, "locale %s: localedef ended with %d: %.200s", l->name, result.exit_code,
		            base_buf_text(&result.errors));
	img_run_result_done(&result);
	return r;
}

static int take_files(struct img_assembly *a, const struct img_locale *l, const char *out)
{
	char dir[WORK_MAX + 32], path[IMG_PATH_MAX];
	struct img_tree *made;
	int r;

	(void)snprintf(dir, sizeof(dir), "%s/locale", out);
	r = img_tree_scan(dir, &made, a->err);
	for (size_t i = 0; r == 0 && i < img_tree_count(made); i++) {
		const struct img_node *n = img_tree_at(made, i);
		size_t size;
		void *data;

		if (n->type != IMG_FILE)
			continue;
		r = img_node_read_all(n, MAX_CHARMAP, &data, &size, a->err);
		if (r < 0)
			break;
		(void)snprintf(path, sizeof(path), "%s%s", l->dir, n->path);
		r = img_cut_add_text(a, path, data, size);
		free(data);
	}
	img_tree_free(made);
	return r;
}

static int compile(struct img_assembly *a, const struct img_locale *l, const char *work)
{
	char root[WORK_MAX + 8], out[WORK_MAX + 8], charmap[160], source[128];
	struct err e = { 0 };
	int r;

	(void)snprintf(source, sizeof(source), "/usr/share/i18n/locales/%s", l->source);
	if (!img_rpm_set_owner(img_world_set(a->w), source, NULL, &e))
		return err_set(a->err, e.code ? e.code : -ENOENT, "locale %s: no package has it, or its source %s",
		               l->name, source);
	(void)snprintf(root, sizeof(root), "%s/root", work);
	(void)snprintf(out, sizeof(out), "%s/out", work);
	if (mkdir(out, 0755) < 0)
		return err_set(a->err, -errno, "%s: %s", out, strerror(errno));
	r = find_charmap(a, l, charmap);
	if (r == 0)
		r = make_root(a, l, charmap, root);
	if (r == 0)
		r = unpack_charmap(a, root, charmap);
	if (r == 0)
		r = run_localedef(a, l, root, out);
	return r < 0 ? r : take_files(a, l, out);
}

int img_cut_make_locale(struct img_assembly *a, const char *generator)
{
	const char *cursor = NULL, *spool = img_world_options(a->w)->spool, *tmp = getenv("TMPDIR");
	struct img_locale l;
	int r;

	while ((r = img_locale_next(generator, &cursor, &l, a->err)) == 1) {
		char work[WORK_MAX], path[128];

		(void)snprintf(path, sizeof(path), "%s/LC_CTYPE", l.dir);
		if (img_tree_find(a->to, path))
			continue;
		if (snprintf(work, sizeof(work), "%s/locale-XXXXXX",
		             spool         ? spool
		             : tmp && *tmp ? tmp
		                           : "/tmp") >= (int)sizeof(work))
			return err_set(a->err, -ENAMETOOLONG, "%s: too long", tmp);
		if (!mkdtemp(work))
			return err_set(a->err, -errno, "%s: %s", work, strerror(errno));
		r = compile(a, &l, work);
		img_run_remove_tree(work);
		if (r < 0)
			return r;
	}
	return r;
}
