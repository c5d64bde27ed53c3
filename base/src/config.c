/* The configuration loader. inih splits the lines; the reader handed to it decides what a line is: leading blanks
 * are dropped (so an indented key is a key and not the continuation that inih would see), and a line longer than
 * inih's own buffer, which it would quietly parse as two, is an error. That buffer is 200 bytes in the builds that
 * distributions ship. */
#include "config_internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mapfile.h"
#include "options_internal.h"

enum { MAX_FILE = 1 << 20 };

struct base_config {
	const struct base_config_key *keys; /* borrowed */
	char **sources;                     /* per key; NULL: built-in */
	char **strings;                     /* everything that *dest points to */
	size_t n_strings;
};

static size_t count_keys(const struct base_config_key *keys)
{
	size_t n = 0;

	while (keys[n].key)
		n++;
	return n;
}

int base_config_new(const struct base_config_key *keys, struct base_config **ret_config)
{
	struct base_config *config = calloc(1, sizeof(*config));

	if (!config)
		return -ENOMEM;
	config->keys = keys;
	config->sources = calloc(count_keys(keys) + 1, sizeof(*config->sources));
	if (!config->sources) {
		base_config_free(config);
		return -ENOMEM;
	}
	*ret_config = config;
	return 0;
}

void base_config_free(struct base_config *config)
{
	if (!config)
		return;
	for (size_t i = 0; config->sources && i < count_keys(config->keys); i++)
		free(config->sources[i]);
	for (size_t i = 0; i < config->n_strings; i++)
		free(config->strings[i]);
	free(config->sources);
	free(config->strings);
	free(config);
}

/* A copy that lives as long as the config; NULL when out of memory. */
static const char *keep(struct base_config *config, const char *text, size_t len)
{
	char **strings = reallocarray(config->strings, config->n_strings + 1, sizeof(*strings));

	if (!strings)
		return NULL;
	config->strings = strings;
	strings[config->n_strings] = strndup(text, len);
	return strings[config->n_strings] ? strings[config->n_strings++] : NULL;
}

static int set_list(struct base_config *config, const struct base_config_key *key, const char *text, void *field,
                    struct err *err)
{
	const char *pos = NULL, *piece;
	size_t len;
	int r;

	opt_list_done(field);
	while (base_option_next_choice(text, &pos, &piece, &len)) {
		for (; len && (*piece == ' ' || *piece == '\t'); len--)
			piece++;
		while (len && (piece[len - 1] == ' ' || piece[len - 1] == '\t'))
			len--;
		if (len == 0)
			continue;
		piece = keep(config, piece, len);
		if (!piece)
			return err_set(err, -ENOMEM, "%s: out of memory", key->key);
		r = base_option_set(OPT_LIST, NULL, key->key, piece, field, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* `source` says where the value comes from, in words. */
static int set_value(struct base_config *config, size_t i, const char *text, const char *source, void *dest,
                     struct err *err)
{
	const struct base_config_key *key = &config->keys[i];
	char *field = (char *)dest + key->offset;
	char *copy;
	int r;

	if (key->type == OPT_LIST) {
		r = set_list(config, key, text, field, err);
	} else {
		if (key->type == OPT_STR || key->type == OPT_CHOICE)
			text = keep(config, text, strlen(text));
		r = text ? base_option_set(key->type, key->choices, key->key, text, field, err)
		         : err_set(err, -ENOMEM, "%s: out of memory", key->key);
	}
	if (r < 0)
		return err_prefix(err, r, "%s: ", source);
	copy = strdup(source);
	if (!copy)
		return err_set(err, -ENOMEM, "%s: out of memory", source);
	free(config->sources[i]);
	config->sources[i] = copy;
	return 0;
}

/* ---- One file ------------------------------------------------------------------------------------------ */

struct parse {
	struct base_config *config;
	const char *path;
	const char *text, *end; /* what is not yet read */
	unsigned line;          /* the line last handed to inih */
	void *dest;
	int error;
	struct err *err;
};

static void fail(struct parse *p, const char *words)
{
	if (p->error == 0)
		p->error = err_set(p->err, -EINVAL, "%s:%u: %s", p->path, p->line, words);
}

/* inih's fgets(). */
static char *read_line(char *buf, int size, void *arg)
{
	struct parse *p = arg;
	const char *newline;
	size_t len;

	if (p->text == p->end || p->error < 0)
		return NULL;
	newline = memchr(p->text, '\n', (size_t)(p->end - p->text));
	len = (size_t)((newline ? newline : p->end) - p->text);
	p->line++;
	if (memchr(p->text, '\0', len))
		fail(p, "a NUL byte");
	for (; len && (*p->text == ' ' || *p->text == '\t'); len--)
		p->text++;
	if (len + 1 >= (size_t)size)
		fail(p, "the line is too long (at most 198 bytes)");
	if (p->error < 0)
		return NULL;
	memcpy(buf, p->text, len);
	buf[len] = '\0';
	p->text = newline ? newline + 1 : p->end;
	return buf;
}

/* Called by inih per key; 1 to go on. */
static int on_value(void *arg, const char *section, const char *name, const char *value)
{
	struct parse *p = arg;
	char source[4200];
	int r;

	for (size_t i = 0; p->config->keys[i].key; i++) {
		const struct base_config_key *key = &p->config->keys[i];

		if (strcmp(key->key, name) != 0 || strcmp(key->section, section) != 0)
			continue;
		(void)snprintf(source, sizeof(source), "%s:%u", p->path, p->line);
		r = set_value(p->config, i, value, source, p->dest, p->err);
		if (r < 0)
			p->error = r;
		return r == 0;
	}
	base_log(BASE_LOG_WARN, "%s:%u: unknown key '%s' in section [%s], ignored", p->path, p->line, name, section);
	return 1;
}

int base_config_parse(struct base_config *config, const char *path, const char *text, size_t len, void *dest,
                      struct err *err)
{
	struct parse p = { .config = config, .path = path, .text = text, .end = text + len, .dest = dest, .err = err };
	int line;

	line = ini_parse_stream(read_line, &p, on_value, &p);
	if (p.error < 0)
		return p.error;
	if (line > 0)
		return err_set(err, -EINVAL, "%s:%d: neither '[section]' nor 'key = value'", path, line);
	return line < 0 ? err_set(err, -ENOMEM, "%s: out of memory", path) : 0;
}

static int apply_file(struct base_config *config, const char *path, void *dest, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_FILE);
	int r;

	r = base_read_file(path, &text, err);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return r;
	return base_config_parse(config, path, base_buf_text(&text), text.len, dest, err);
}

/* ---- Layers -------------------------------------------------------------------------------------------- */

struct drop_in {
	char *name;
	char *path;
};

struct drop_ins {
	struct drop_in *items;
	size_t n;
};

static void drop_ins_done(struct drop_ins *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->items[i].name);
		free(list->items[i].path);
	}
	free(list->items);
}

/* Adds a file, or replaces the path of one of the same name: the later folder hides the earlier. */
static int add_drop_in(struct drop_ins *list, const char *dir, const char *name)
{
	struct drop_in item = { NULL, NULL }, *items;

	if (asprintf(&item.path, "%s/%s", dir, name) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < list->n; i++) {
		if (strcmp(list->items[i].name, name) == 0) {
			free(list->items[i].path);
			list->items[i].path = item.path;
			return 0;
		}
	}
	item.name = strdup(name);
	items = item.name ? reallocarray(list->items, list->n + 1, sizeof(*items)) : NULL;
	if (!items) {
		free(item.name);
		free(item.path);
		return -ENOMEM;
	}
	items[list->n++] = item;
	list->items = items;
	return 0;
}

static int scan_drop_ins(struct drop_ins *list, const char *dir, struct err *err)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	int r = 0;

	if (!d)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_set(err, -errno, "%s: %s", dir, strerror(errno));
	while (r == 0 && (de = readdir(d))) {
		size_t len = strlen(de->d_name);

		if (de->d_name[0] != '.' && len > 5 && strcmp(de->d_name + len - 5, ".conf") == 0)
			r = add_drop_in(list, dir, de->d_name);
	}
	(void)closedir(d);
	return r < 0 ? err_set(err, r, "%s: out of memory", dir) : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct drop_in *)a)->name, ((const struct drop_in *)b)->name);
}

/* <dir>/<program>.conf of each folder in turn, then the drop-ins of all folders together. */
static int apply_folders(struct base_config *config, const char *const *dirs, size_t n_dirs, const char *program,
                         void *dest, struct err *err)
{
	CLEANUP(drop_ins_done) struct drop_ins list = { NULL, 0 };
	int r = 0;

	for (size_t i = 0; i < n_dirs && r == 0; i++) {
		CLEANUP(freep) char *path = NULL;

		if (asprintf(&path, "%s/%s.conf", dirs[i], program) < 0) {
			path = NULL;
			return err_set(err, -ENOMEM, "%s: out of memory", dirs[i]);
		}
		r = apply_file(config, path, dest, err);
	}
	for (size_t i = 0; i < n_dirs && r == 0; i++) {
		CLEANUP(freep) char *path = NULL;

		if (asprintf(&path, "%s/%s.conf.d", dirs[i], program) < 0) {
			path = NULL;
			return err_set(err, -ENOMEM, "%s: out of memory", dirs[i]);
		}
		r = scan_drop_ins(&list, path, err);
	}
	if (list.n)
		qsort(list.items, list.n, sizeof(*list.items), by_name);
	for (size_t i = 0; i < list.n && r == 0; i++)
		r = apply_file(config, list.items[i].path, dest, err);
	return r;
}

static int apply_system(struct base_config *config, const struct base_config_paths *paths, void *dest, struct err *err)
{
	CLEANUP(freep) char *vendor = NULL;
	CLEANUP(freep) char *etc = NULL;
	const char *root = paths->root ? paths->root : "";

	if (asprintf(&vendor, "%s/usr/lib/%s", root, paths->product) < 0)
		vendor = NULL;
	if (asprintf(&etc, "%s/etc/%s", root, paths->product) < 0)
		etc = NULL;
	if (!vendor || !etc)
		return err_set(err, -ENOMEM, "configuration: out of memory");
	return apply_folders(config, (const char *const[]){ vendor, etc }, 2, paths->program, dest, err);
}

static int apply_user(struct base_config *config, const struct base_config_paths *paths, void *dest, struct err *err)
{
	CLEANUP(freep) char *dir = NULL;
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	int n;

	if (xdg && *xdg)
		n = asprintf(&dir, "%s/%s", xdg, paths->product);
	else if (home && *home)
		n = asprintf(&dir, "%s/.config/%s", home, paths->product);
	else
		return 0;
	if (n < 0) {
		dir = NULL;
		return err_set(err, -ENOMEM, "configuration: out of memory");
	}
	return apply_folders(config, (const char *const[]){ dir }, 1, paths->program, dest, err);
}

static int apply_environment(struct base_config *config, void *dest, struct err *err)
{
	char source[256];
	int r = 0;

	for (size_t i = 0; config->keys[i].key && r == 0; i++) {
		const char *name = config->keys[i].env, *text = name ? getenv(name) : NULL;

		if (!text || !*text)
			continue;
		(void)snprintf(source, sizeof(source), "environment %s", name);
		r = set_value(config, i, text, source, dest, err);
	}
	return r;
}

int base_config_load(const struct base_config_paths *paths, const struct base_config_key *keys, void *dest,
                     struct base_config **ret_config, struct err *err)
{
	struct base_config *config = NULL;
	int r;

	r = base_config_new(keys, &config);
	if (r < 0)
		return err_set(err, r, "configuration: out of memory");
	r = apply_system(config, paths, dest, err);
	if (r == 0 && paths->user)
		r = apply_user(config, paths, dest, err);
	if (r == 0)
		r = apply_environment(config, dest, err);
	if (r < 0) {
		base_config_free(config);
		return r;
	}
	*ret_config = config;
	return 0;
}

/* ---- --show-config --------------------------------------------------------------------------------------- */

static void show_value(enum opt_type type, const void *field, FILE *out)
{
	const struct opt_list *list = field;
	const char *text;

	switch (type) {
	case OPT_FLAG:
		(void)fputs(*(const bool *)field ? "true" : "false", out);
		break;
	case OPT_STR:
	case OPT_CHOICE:
		text = *(const char *const *)field;
		(void)fputs(text ? text : "", out);
		break;
	case OPT_UINT:
		(void)fprintf(out, "%" PRIu32, *(const uint32_t *)field);
		break;
	case OPT_U64:
	case OPT_SIZE:
		(void)fprintf(out, "%" PRIu64, *(const uint64_t *)field);
		break;
	case OPT_DOUBLE:
		(void)fprintf(out, "%g", *(const double *)field);
		break;
	case OPT_LIST:
		for (size_t i = 0; i < list->n; i++)
			(void)fprintf(out, "%s%s", i ? ", " : "", list->items[i]);
		break;
	}
}

/* In the format of the files, sources as comments: what is shown can be read back. */
void base_config_show(const struct base_config *config, const void *dest, FILE *out)
{
	const char *section = NULL;

	for (size_t i = 0; config->keys[i].key; i++) {
		const struct base_config_key *key = &config->keys[i];

		if (!section || strcmp(section, key->section) != 0)
			(void)fprintf(out, "%s[%s]\n", section ? "\n" : "", key->section);
		section = key->section;
		(void)fprintf(out, "%s = ", key->key);
		show_value(key->type, (const char *)dest + key->offset, out);
		(void)fprintf(out, "  ; %s\n", config->sources[i] ? config->sources[i] : "built-in");
	}
}
