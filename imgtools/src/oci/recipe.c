/* Recipes: INI by inih, each key into the field it names. Names of labels and of layers are the writer's own; every
 * other unknown key is an error, since a misspelt "user" would be an image that runs as root. */
#include "oci/recipe.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "base/words.h"

enum { MAX_FILE = 1 << 20, MAX_VALUE = 1 << 16, MAX_INCLUDES = 8, MAX_ITEMS = 65536 };

/* ---- Birth and death -------------------------------------------------------------------------------------------- */

int img_recipe_new(const struct img_config *config, struct img_recipe **ret_recipe)
{
	struct img_recipe *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->config = config ? img_config_copy(config) : img_config_new();
	if (!r->config) {
		img_recipe_free(r);
		return -ENOMEM;
	}
	*ret_recipe = r;
	return 0;
}

void img_recipe_free(struct img_recipe *r)
{
	if (!r)
		return;
	img_config_free(r->config);
	for (size_t i = 0; i < r->n_annotations; i++) {
		free(r->annotations[i].name);
		free(r->annotations[i].value);
	}
	free(r->annotations);
	img_strings_done(&r->requests);
	img_strings_done(&r->excludes);
	img_strings_done(&r->generate);
	for (size_t i = 0; i < r->n_layers; i++) {
		free(r->layers[i].name);
		img_strings_done(&r->layers[i].requests);
	}
	free(r->layers);
	img_strings_done(&r->defines);
	free(r);
}

/* ---- Variables -------------------------------------------------------------------------------------------------- */

static bool is_name(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)s[i]) && s[i] != '_')
			return false;
	}
	return len > 0;
}

int img_recipe_define(struct img_recipe *r, const char *text, struct err *err)
{
	const char *eq = strchr(text, '=');

	if (!eq || !is_name(text, (size_t)(eq - text)))
		return err_set(err, -EINVAL, "\"%.200s\" is not NAME=VALUE", text);
	return img_strings_add(&r->defines, text) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
}

static const char *define_of(const struct img_recipe *r, const char *name, size_t len)
{
	for (size_t i = r->defines.n; i-- > 0;) {
		const char *d = r->defines.items[i];

		if (strncmp(d, name, len) == 0 && d[len] == '=')
			return d + len + 1;
	}
	return NULL;
}

/* ${NAME} becomes its value, $${ stays ${. */
static int expand(const struct img_recipe *r, const char *text, struct base_buf *out, struct err *err)
{
	for (const char *p = text; *p; p++) {
		const char *end, *value;

		if (strncmp(p, "$${", 3) == 0) {
			(void)base_buf_puts(out, "${");
			p += 2;
		} else if (strncmp(p, "${", 2) == 0) {
			end = strchr(p, '}');
			if (!end || !is_name(p + 2, (size_t)(end - p - 2)))
				return err_set(err, -EINVAL, "\"%.200s\": ${ without NAME}", text);
			value = define_of(r, p + 2, (size_t)(end - p - 2));
			if (!value)
				return err_set(err, -EINVAL, "nothing defines %.*s", (int)(end + 1 - p), p);
			(void)base_buf_puts(out, value);
			p = end;
		} else
			(void)base_buf_putc(out, *p);
	}
	return base_buf_error(out) ? err_set(err, base_buf_error(out), "a value is too long") : 0;
}

/* ---- Fields ----------------------------------------------------------------------------------------------------- */

static int set_text(char **slot, const char *value)
{
	char *copy = value[0] ? strdup(value) : NULL;

	if (value[0] && !copy)
		return -ENOMEM;
	free(*slot);
	*slot = copy;
	return 0;
}

static int add_words(struct img_strings *s, const char *value)
{
	char **words = NULL;
	size_t n = 0;
	int r = base_words_split(value, &words, &n);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = s->n < MAX_ITEMS ? img_strings_add(s, words[i]) : -E2BIG;
	base_words_free(words);
	return r;
}

/* Lists grow; nothing behind the sign empties one, of a recipe that this one includes. */
static int grow_words(struct img_strings *s, const char *value)
{
	if (!value[0])
		img_strings_done(s);
	return add_words(s, value);
}

static int set_words(struct img_strings *s, const char *value)
{
	struct img_strings fresh = { 0 };
	int r = add_words(&fresh, value);

	if (r < 0) {
		img_strings_done(&fresh);
		return r;
	}
	img_strings_done(s);
	*s = fresh;
	return 0;
}

/* NAME=VALUE; the value of a name that is there is replaced. */
static int set_env(struct img_strings *env, const char *value)
{
	const char *eq = strchr(value, '=');
	char *copy;

	if (!value[0])
		img_strings_done(env);
	if (!eq || eq == value)
		return value[0] ? -EINVAL : 0;
	for (size_t i = 0; i < env->n; i++) {
		if (strncmp(env->items[i], value, (size_t)(eq + 1 - value)) != 0)
			continue;
		copy = strdup(value);
		if (!copy)
			return -ENOMEM;
		free(env->items[i]);
		env->items[i] = copy;
		return 0;
	}
	return env->n < MAX_ITEMS ? img_strings_add(env, value) : -E2BIG;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct img_label *)a)->name, ((const struct img_label *)b)->name);
}

static int set_annotation(struct img_recipe *r, const char *name, const char *value)
{
	struct img_label l, *p;

	for (size_t i = 0; i < r->n_annotations; i++) {
		if (strcmp(r->annotations[i].name, name) == 0) {
			char *copy = strdup(value);

			if (!copy)
				return -ENOMEM;
			free(r->annotations[i].value);
			r->annotations[i].value = copy;
			return 0;
		}
	}
	l = (struct img_label){ strdup(name), strdup(value) };
	p = reallocarray(r->annotations, r->n_annotations + 1, sizeof(*p));
	if (p)
		r->annotations = p;
	if (!l.name || !l.value || !p) {
		free(l.name);
		free(l.value);
		return -ENOMEM;
	}
	r->annotations[r->n_annotations++] = l;
	qsort(r->annotations, r->n_annotations, sizeof(l), compare_names);
	return 0;
}

static int add_to_layer(struct img_recipe *r, const char *name, const char *value)
{
	struct img_recipe_layer *p;

	for (size_t i = 0; i < r->n_layers; i++) {
		if (strcmp(r->layers[i].name, name) == 0)
			return add_words(&r->layers[i].requests, value);
	}
	if (r->n_layers >= 64)
		return -E2BIG;
	p = reallocarray(r->layers, r->n_layers + 1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	r->layers = p;
	p[r->n_layers] = (struct img_recipe_layer){ .name = strdup(name) };
	if (!p[r->n_layers].name)
		return -ENOMEM;
	return add_words(&p[r->n_layers++].requests, value);
}

/* ---- Health check ----------------------------------------------------------------------------------------------- */

/* Not in the OCI specification, but read by docker and podman: config.Healthcheck of Docker's image configuration. */
static json_t *healthcheck_of(struct img_config *c)
{
	json_t *run = json_object_get(c->document, "config"), *check;

	if (!json_is_object(run)) {
		(void)json_object_set_new(c->document, "config", json_object());
		run = json_object_get(c->document, "config");
	}
	check = json_object_get(run, "Healthcheck");
	if (!json_is_object(check)) {
		(void)json_object_set_new(run, "Healthcheck", json_object());
		check = json_object_get(run, "Healthcheck");
	}
	return check;
}

/* Words are a command; "none" switches off the one of an image that this is made of. */
static int set_health_test(struct img_config *c, const char *value)
{
	struct img_strings words = { 0 };
	json_t *test = json_array();
	int r = add_words(&words, value);

	if (r == 0 && words.n == 0)
		r = -EINVAL;
	if (r == 0 && words.n == 1 && strcmp(words.items[0], "none") == 0)
		(void)json_array_append_new(test, json_string("NONE"));
	else {
		(void)json_array_append_new(test, json_string("CMD"));
		for (size_t i = 0; i < words.n; i++) {
			json_t *word = json_string(words.items[i]);

			r = r == 0 && !word ? -EINVAL : r; /* no UTF-8 */
			(void)json_array_append_new(test, word);
		}
	}
	img_strings_done(&words);
	if (r < 0)
		json_decref(test);
	return r < 0 ? r : json_object_set_new(healthcheck_of(c), "Test", test) < 0 ? -ENOMEM : 0;
}

/* "500ms", "30s", "2m", "1h" -> nanoseconds. */
static int parse_duration(const char *value, int64_t *ret_ns)
{
	static const struct {
		const char *unit;
		int64_t ns;
	} units[] = { { "ms", 1000000 }, { "s", 1000000000 }, { "m", 60000000000 }, { "h", 3600000000000 } };
	size_t digits = strspn(value, "0123456789");
	unsigned long n = digits && digits < 8 ? strtoul(value, NULL, 10) : 0;

	for (size_t i = 0; n && i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(value + digits, units[i].unit) == 0 && n <= (unsigned long)(INT64_MAX / units[i].ns)) {
			*ret_ns = (int64_t)n * units[i].ns;
			return 0;
		}
	}
	return -EINVAL;
}

static int set_health_number(struct img_config *c, const char *key, const char *value)
{
	int64_t n = 0;
	int r = 0;

	if (strcmp(key, "Retries") == 0) {
		const size_t digits = strspn(value, "0123456789");

		n = digits && digits < 6 && !value[digits] ? strtol(value, NULL, 10) : 0;
		r = n > 0 ? 0 : -EINVAL;
	} else
		r = parse_duration(value, &n);
	if (r == 0 && json_object_set_new(healthcheck_of(c), key, json_integer(n)) < 0)
		r = -ENOMEM;
	return r;
}

/* ---- Keys ------------------------------------------------------------------------------------------------------- */

static int set_image(struct img_recipe *r, const char *key, const char *value)
{
	static const struct {
		const char *key, *field;
	} health[] = { { "healthcheck-interval", "Interval" },
		       { "healthcheck-timeout", "Timeout" },
		       { "healthcheck-start-period", "StartPeriod" },
		       { "healthcheck-retries", "Retries" } };
	struct img_config *c = r->config;

	if (strcmp(key, "entrypoint") == 0)
		return set_words(&c->entrypoint, value);
	if (strcmp(key, "cmd") == 0)
		return set_words(&c->cmd, value);
	if (strcmp(key, "user") == 0)
		return set_text(&c->user, value);
	if (strcmp(key, "workdir") == 0)
		return set_text(&c->workdir, value);
	if (strcmp(key, "stop-signal") == 0)
		return set_text(&c->stop_signal, value);
	if (strcmp(key, "author") == 0)
		return set_text(&c->author, value);
	if (strcmp(key, "env") == 0)
		return set_env(&c->env, value);
	if (strcmp(key, "port") == 0)
		return grow_words(&c->exposed_ports, value);
	if (strcmp(key, "volume") == 0)
		return grow_words(&c->volumes, value);
	if (strcmp(key, "healthcheck") == 0)
		return set_health_test(c, value);
	for (size_t i = 0; i < sizeof(health) / sizeof(health[0]); i++) {
		if (strcmp(key, health[i].key) == 0)
			return set_health_number(c, health[i].field, value);
	}
	return -ENOENT;
}

static int set_expanded(struct img_recipe *r, const char *section, const char *key, const char *value)
{
	if (strcmp(section, "image") == 0)
		return set_image(r, key, value);
	if (strcmp(section, "labels") == 0)
		return r->config->n_labels < MAX_ITEMS ? img_config_set_label(r->config, key, value) : -E2BIG;
	if (strcmp(section, "annotations") == 0)
		return r->n_annotations < MAX_ITEMS ? set_annotation(r, key, value) : -E2BIG;
	if (strcmp(section, "layers") == 0)
		return add_to_layer(r, key, value);
	if (strcmp(section, "files") != 0)
		return -ENOENT;
	return strcmp(key, "request") == 0    ? grow_words(&r->requests, value)
	       : strcmp(key, "exclude") == 0  ? grow_words(&r->excludes, value)
	       : strcmp(key, "generate") == 0 ? grow_words(&r->generate, value)
	                                      : -ENOENT;
}

/* All of it goes into JSON. */
static bool is_utf8(const char *text)
{
	json_t *value = json_string(text);

	json_decref(value);
	return value != NULL;
}

int img_recipe_set(struct img_recipe *r, const char *section, const char *key, const char *value, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_VALUE);
	int rc = expand(r, value, &text, err);

	if (rc < 0)
		return rc;
	if (!is_utf8(key) || !is_utf8(base_buf_text(&text)))
		return err_set(err, -EINVAL, "a key or a value is not UTF-8");
	rc = set_expanded(r, section, key, base_buf_text(&text));
	if (rc == -ENOENT)
		return err_set(err, -EINVAL, "there is no key \"%.80s\" in [%.80s]", key, section);
	if (rc < 0)
		return err_set(err, rc, "%.80s = %.200s: %s", key, base_buf_text(&text),
		               rc == -EINVAL   ? "is not what this key takes"
		               : rc == -ENOMEM ? "out of memory"
		                               : "too many");
	return 0;
}

int img_recipe_set_text(struct img_recipe *r, const char *text, struct err *err)
{
	CLEANUP(freep) char *copy = strdup(text);
	char *eq = copy ? strchr(copy, '=') : NULL, *dot = copy ? strchr(copy, '.') : NULL;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	/* An annotation's name may hold '='; no section or key of ours does, so the first one ends the key. */
	if (!eq || !dot || dot > eq || dot + 1 == eq)
		return err_set(err, -EINVAL, "\"%.200s\" is not SECTION.KEY=VALUE", text);
	*eq = *dot = 0;
	return img_recipe_set(r, copy, dot + 1, eq + 1, err);
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

struct parse {
	struct img_recipe *recipe;
	const char *name, *dir;
	const char *text, *end; /* what is not yet read */
	unsigned line;          /* the line last handed to inih */
	unsigned depth;
	int error;
	struct err *err;
};

static int parse_text(struct img_recipe *r, const char *name, const char *dir, const char *text, size_t size,
                      unsigned depth, struct err *err);

/* The folder that a file is in. */
static char *dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

static int read_file(struct img_recipe *r, const char *path, unsigned depth, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_FILE);
	CLEANUP(freep) char *dir = dir_of(path);
	int rc = base_read_file(path, &text, err);

	if (rc < 0)
		return rc;
	return dir ? parse_text(r, path, dir, base_buf_text(&text), text.len, depth, err)
	           : err_set(err, -ENOMEM, "out of memory");
}

static int include(struct parse *p, const char *value)
{
	char path[PATH_MAX];

	if (!p->dir || p->depth >= MAX_INCLUDES)
		return err_set(p->err, -EINVAL, "include = %.200s: %s", value,
		               p->dir ? "files include each other" : "not from here");
	if (snprintf(path, sizeof(path), "%s%s%s", value[0] == '/' ? "" : p->dir, value[0] == '/' ? "" : "/", value) >=
	    (int)sizeof(path))
		return err_set(p->err, -ENAMETOOLONG, "include: the path is too long");
	return read_file(p->recipe, path, p->depth + 1, p->err);
}

/* inih's fgets(). Blanks in front go: a line that begins with them is no continuation. */
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
	for (; len && (*p->text == ' ' || *p->text == '\t'); len--)
		p->text++;
	if (memchr(p->text, '\0', len) || len + 1 >= (size_t)size) {
		p->error = err_set(p->err, -EINVAL, "%s:%u: %s", p->name, p->line,
		                   len + 1 >= (size_t)size ? "the line is too long (at most 198 bytes)" : "a NUL byte");
		return NULL;
	}
	memcpy(buf, p->text, len);
	buf[len] = '\0';
	p->text = newline ? newline + 1 : p->end;
	return buf;
}

/* Called by inih for each key; 1 to go on. */
static int on_value(void *arg, const char *section, const char *name, const char *value)
{
	struct parse *p = arg;

	if (strcmp(section, "recipe") == 0 && strcmp(name, "include") == 0)
		p->error = include(p, value);
	else
		p->error = img_recipe_set(p->recipe, section, name, value, p->err);
	if (p->error < 0)
		(void)err_prefix(p->err, p->error, "%s:%u: ", p->name, p->line);
	return p->error == 0;
}

static int parse_text(struct img_recipe *r, const char *name, const char *dir, const char *text, size_t size,
                      unsigned depth, struct err *err)
{
	struct parse p = {
		.recipe = r, .name = name, .dir = dir, .text = text, .end = text + size, .depth = depth, .err = err
	};
	int line = ini_parse_stream(read_line, &p, on_value, &p);

	if (p.error < 0)
		return p.error;
	if (line > 0)
		return err_set(err, -EINVAL, "%s:%d: neither '[section]' nor 'key = value'", name, line);
	return line < 0 ? err_set(err, -ENOMEM, "%s: out of memory", name) : 0;
}

int img_recipe_read(struct img_recipe *r, const char *path, struct err *err)
{
	return read_file(r, path, 0, err);
}

int img_recipe_parse(struct img_recipe *r, const char *name, const char *dir, const char *text, size_t size,
                     struct err *err)
{
	return parse_text(r, name, dir, text, size, 0, err);
}
