/* The configuration of an image (OCI image specification, config.md; Docker's differs in fields that we keep as they
 * are). The document that was read stays beside the struct: writing puts the known fields into a copy of it, so that
 * what we do not know (HEALTHCHECK, OnBuild, what comes after us) survives. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "oci_internal.h"

enum { MAX_STRINGS = 65536, MAX_HISTORY = 65536 };

/* ---- Lists ------------------------------------------------------------------------------------------------------ */

int img_strings_add(struct img_strings *s, const char *text)
{
	char *copy = strdup(text), **p;

	if (!copy)
		return -ENOMEM;
	p = reallocarray(s->items, s->n + 1, sizeof(*p));
	if (!p) {
		free(copy);
		return -ENOMEM;
	}
	s->items = p;
	s->items[s->n++] = copy;
	return 0;
}

void img_strings_done(struct img_strings *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->items[i]);
	free(s->items);
	*s = (struct img_strings){ 0 };
}

static int compare_labels(const void *a, const void *b)
{
	return strcmp(((const struct img_label *)a)->name, ((const struct img_label *)b)->name);
}

static void remove_label(struct img_config *c, size_t i)
{
	free(c->labels[i].name);
	free(c->labels[i].value);
	memmove(&c->labels[i], &c->labels[i + 1], (c->n_labels - i - 1) * sizeof(*c->labels));
	c->n_labels--;
}

int img_config_set_label(struct img_config *c, const char *name, const char *value)
{
	struct img_label l = { 0 }, *p;

	if (value) {
		l = (struct img_label){ strdup(name), strdup(value) };
		p = reallocarray(c->labels, c->n_labels + 1, sizeof(*p));
		if (p)
			c->labels = p;
		if (!l.name || !l.value || !p) {
			free(l.name);
			free(l.value);
			return -ENOMEM;
		}
	}
	for (size_t i = 0; i < c->n_labels; i++) {
		if (strcmp(c->labels[i].name, name) == 0)
			remove_label(c, i--);
	}
	if (value) {
		c->labels[c->n_labels++] = l;
		qsort(c->labels, c->n_labels, sizeof(*c->labels), compare_labels);
	}
	return 0;
}

const char *img_config_env(const struct img_config *c, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = c->env.n; i-- > 0;) {
		if (strncmp(c->env.items[i], name, len) == 0 && c->env.items[i][len] == '=')
			return c->env.items[i] + len + 1;
	}
	return NULL;
}

/* ---- Birth and death -------------------------------------------------------------------------------------------- */

struct img_config *img_config_new(void)
{
	struct img_config *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->arch = strdup(img_host_arch());
	c->os = strdup("linux");
	c->document = json_object();
	if (!c->arch || !c->os || !c->document) {
		img_config_free(c);
		return NULL;
	}
	return c;
}

static void history_done(struct img_history *h)
{
	free(h->created);
	free(h->created_by);
	free(h->author);
	free(h->comment);
}

void img_config_free(struct img_config *c)
{
	if (!c)
		return;
	free(c->created);
	free(c->author);
	free(c->arch);
	free(c->os);
	free(c->variant);
	free(c->user);
	free(c->workdir);
	free(c->stop_signal);
	img_strings_done(&c->env);
	img_strings_done(&c->entrypoint);
	img_strings_done(&c->cmd);
	img_strings_done(&c->exposed_ports);
	img_strings_done(&c->volumes);
	img_strings_done(&c->diff_ids);
	while (c->n_labels)
		remove_label(c, c->n_labels - 1);
	free(c->labels);
	for (size_t i = 0; i < c->n_history; i++)
		history_done(&c->history[i]);
	free(c->history);
	json_decref(c->document);
	free(c);
}

struct img_config *img_config_copy(const struct img_config *c)
{
	struct base_buf b = BASE_BUF_INIT(IMG_MAX_JSON);
	struct img_config *copy = NULL;

	if (img_config_append(c, &b) == 0)
		(void)img_config_parse(b.data, b.len, "config", &copy, NULL);
	base_buf_done(&b);
	return copy;
}

/* ---- Reading ---- */

static int take_text(const json_t *obj, const char *where, const char *key, char **slot, struct err *err)
{
	const char *text = NULL;
	int r = base_json_opt_string(obj, where, key, &text, err);

	if (r <= 0 || !text[0])
		return r < 0 ? r : 0;
	*slot = strdup(text);
	return *slot ? 0 : err_set(err, -ENOMEM, "%s: out of memory", where);
}

static int take_list(const json_t *obj, const char *where, const char *key, struct img_strings *s, struct err *err)
{
	const json_t *list = json_object_get(obj, key), *item;
	size_t i;

	if (!list || json_is_null(list))
		return 0;
	if (json_is_string(list)) /* the shell form that very old builders wrote */
		return img_strings_add(s, json_string_value(list));
	if (!json_is_array(list) || json_array_size(list) > MAX_STRINGS)
		return err_set(err, -EBADMSG, "%s: %s: expected a list, got %s", where, key, base_json_type_name(list));
	json_array_foreach(list, i, item)
	{
		if (!json_is_string(item))
			return err_set(err, -EBADMSG, "%s: %s: expected a string, got %s", where, key,
			               base_json_type_name(item));
		if (img_strings_add(s, json_string_value(item)) < 0)
			return err_set(err, -ENOMEM, "%s: out of memory", where);
	}
	return 0;
}

/* {"80/tcp": {}, ...} */
static int take_keys(json_t *obj, const char *where, const char *key, struct img_strings *s, struct err *err)
{
	json_t *set = NULL, *value;
	const char *name;
	int r = base_json_opt_object(obj, where, key, &set, err);

	if (r <= 0)
		return r;
	json_object_foreach(set, name, value)
	{
		if (img_strings_add(s, name) < 0)
			return err_set(err, -ENOMEM, "%s: out of memory", where);
	}
	return 0;
}

static int take_labels(json_t *obj, const char *where, struct img_config *c, struct err *err)
{
	json_t *labels = NULL, *value;
	const char *name;
	int r = base_json_opt_object(obj, where, "Labels", &labels, err);

	if (r <= 0)
		return r;
	if (json_object_size(labels) > 4096)
		return err_set(err, -EBADMSG, "%s: Labels: more than are taken", where);
	json_object_foreach(labels, name, value)
	{
		if (!json_is_string(value))
			return err_set(err, -EBADMSG, "%s: Labels: %.80s: expected a string, got %s", where, name,
			               base_json_type_name(value));
		if (img_config_set_label(c, name, json_string_value(value)) < 0)
			return err_set(err, -ENOMEM, "%s: out of memory", where);
	}
	return 0;
}

static int take_history(const json_t *doc, const char *where, struct img_config *c, struct err *err)
{
	const json_t *item;
	json_t *list = NULL;
	size_t i;
	int r = base_json_opt_array(doc, where, "history", &list, err);

	if (r <= 0)
		return r;
	if (json_array_size(list) > MAX_HISTORY)
		return err_set(err, -EBADMSG, "%s: history: longer than is taken", where);
	c->history = calloc(json_array_size(list) + 1, sizeof(*c->history));
	if (!c->history)
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	json_array_foreach(list, i, item)
	{
		struct img_history *h = &c->history[i];

		if (!json_is_object(item))
			return err_set(err, -EBADMSG, "%s: history: expected an object, got %s", where,
			               base_json_type_name(item));
		c->n_history = i + 1;
		if ((r = take_text(item, where, "created", &h->created, err)) < 0 ||
		    (r = take_text(item, where, "created_by", &h->created_by, err)) < 0 ||
		    (r = take_text(item, where, "author", &h->author, err)) < 0 ||
		    (r = take_text(item, where, "comment", &h->comment, err)) < 0 ||
		    (r = base_json_opt_bool(item, where, "empty_layer", &h->empty_layer, err)) < 0)
			return r;
	}
	return 0;
}

static int take_rootfs(const json_t *doc, const char *where, struct img_config *c, struct err *err)
{
	json_t *rootfs = NULL;
	int r = base_json_opt_object(doc, where, "rootfs", &rootfs, err);

	if (r <= 0)
		return r;
	r = take_list(rootfs, where, "diff_ids", &c->diff_ids, err);
	for (size_t i = 0; r == 0 && i < c->diff_ids.n; i++) {
		if (!img_digest_is_valid(c->diff_ids.items[i]))
			return err_set(err, -EBADMSG, "%s: rootfs.diff_ids: \"%.80s\" is no SHA-256 digest", where,
			               c->diff_ids.items[i]);
	}
	return r;
}

static int take_run(json_t *run, const char *where, struct img_config *c, struct err *err)
{
	int r;

	if ((r = take_text(run, where, "User", &c->user, err)) < 0 ||
	    (r = take_text(run, where, "WorkingDir", &c->workdir, err)) < 0 ||
	    (r = take_text(run, where, "StopSignal", &c->stop_signal, err)) < 0 ||
	    (r = take_list(run, where, "Env", &c->env, err)) < 0 ||
	    (r = take_list(run, where, "Entrypoint", &c->entrypoint, err)) < 0 ||
	    (r = take_list(run, where, "Cmd", &c->cmd, err)) < 0 ||
	    (r = take_keys(run, where, "ExposedPorts", &c->exposed_ports, err)) < 0 ||
	    (r = take_keys(run, where, "Volumes", &c->volumes, err)) < 0)
		return r;
	return take_labels(run, where, c, err);
}

static int take_all(struct img_config *c, const char *where, struct err *err)
{
	json_t *doc = c->document, *run = NULL;
	int r;

	if ((r = take_text(doc, where, "created", &c->created, err)) < 0 ||
	    (r = take_text(doc, where, "author", &c->author, err)) < 0 ||
	    (r = take_text(doc, where, "architecture", &c->arch, err)) < 0 ||
	    (r = take_text(doc, where, "os", &c->os, err)) < 0 ||
	    (r = take_text(doc, where, "variant", &c->variant, err)) < 0 ||
	    (r = base_json_opt_object(doc, where, "config", &run, err)) < 0)
		return r;
	if (run && (r = take_run(run, where, c, err)) < 0)
		return r;
	r = take_history(doc, where, c, err);
	return r < 0 ? r : take_rootfs(doc, where, c, err);
}

int img_config_parse(const void *data, size_t size, const char *where, struct img_config **ret_config, struct err *err)
{
	struct img_config *c;
	json_t *doc = NULL;
	int r = base_json_parse(where, data, size, &doc, err);

	if (r < 0)
		return r;
	c = json_is_object(doc) ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		r = json_is_object(doc)
		            ? err_set(err, -ENOMEM, "%s: out of memory", where)
		            : err_set(err, -EBADMSG, "%s: expected an object, got %s", where, base_json_type_name(doc));
		json_decref(doc);
		return r;
	}
	c->document = doc;
	r = take_all(c, where, err);
	if (r < 0) {
		img_config_free(c);
		if (r == -EINVAL || r == -ENOENT)
			r = err ? (err->code = -EBADMSG) : -EBADMSG;
		return r;
	}
	*ret_config = c;
	return 0;
}

/* ---- Writing ---- */

static void put_text(json_t *obj, const char *key, const char *text)
{
	if (text)
		(void)json_object_set_new(obj, key, json_string(text));
	else
		(void)json_object_del(obj, key);
}

static json_t *list_of(const struct img_strings *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n; i++)
		(void)json_array_append_new(list, json_string(s->items[i]));
	return list;
}

static void put_list(json_t *obj, const char *key, const struct img_strings *s)
{
	if (s->n)
		(void)json_object_set_new(obj, key, list_of(s));
	else
		(void)json_object_del(obj, key);
}

static void put_keys(json_t *obj, const char *key, const struct img_strings *s)
{
	json_t *set;

	if (!s->n) {
		(void)json_object_del(obj, key);
		return;
	}
	set = json_object();
	for (size_t i = 0; i < s->n; i++)
		(void)json_object_set_new(set, s->items[i], json_object());
	(void)json_object_set_new(obj, key, set);
}

static void put_labels(json_t *obj, const struct img_config *c)
{
	json_t *set;

	if (!c->n_labels) {
		(void)json_object_del(obj, "Labels");
		return;
	}
	set = json_object();
	for (size_t i = 0; i < c->n_labels; i++)
		(void)json_object_set_new(set, c->labels[i].name, json_string(c->labels[i].value));
	(void)json_object_set_new(obj, "Labels", set);
}

static void put_run(json_t *doc, const struct img_config *c)
{
	json_t *run = json_object_get(doc, "config");

	if (!json_is_object(run)) {
		run = json_object();
		(void)json_object_set_new(doc, "config", run);
	}
	put_text(run, "User", c->user);
	put_keys(run, "ExposedPorts", &c->exposed_ports);
	put_list(run, "Env", &c->env);
	put_list(run, "Entrypoint", &c->entrypoint);
	put_list(run, "Cmd", &c->cmd);
	put_keys(run, "Volumes", &c->volumes);
	put_text(run, "WorkingDir", c->workdir);
	put_labels(run, c);
	put_text(run, "StopSignal", c->stop_signal);
}

static void put_history(json_t *doc, const struct img_config *c)
{
	json_t *list = json_array(), *old = json_object_get(doc, "history");
	bool is_same = json_array_size(old) == c->n_history; /* then unknown fields of an entry are of that entry */

	for (size_t i = 0; i < c->n_history; i++) {
		const struct img_history *h = &c->history[i];
		json_t *was = is_same ? json_array_get(old, i) : NULL;
		json_t *item = json_is_object(was) ? json_copy(was) : json_object();

		put_text(item, "created", h->created);
		put_text(item, "created_by", h->created_by);
		put_text(item, "author", h->author);
		put_text(item, "comment", h->comment);
		if (h->empty_layer)
			(void)json_object_set_new(item, "empty_layer", json_true());
		else
			(void)json_object_del(item, "empty_layer");
		(void)json_array_append_new(list, item);
	}
	(void)json_object_set_new(doc, "history", list);
}

int img_config_append(const struct img_config *c, struct base_buf *buf)
{
	json_t *doc = json_deep_copy(c->document), *rootfs;
	int r;

	if (!doc)
		return -ENOMEM;
	put_text(doc, "created", c->created);
	put_text(doc, "author", c->author);
	put_text(doc, "architecture", c->arch ? c->arch : img_host_arch());
	put_text(doc, "os", c->os ? c->os : "linux");
	put_text(doc, "variant", c->variant);
	put_run(doc, c);
	rootfs = json_pack("{s:s, s:o}", "type", "layers", "diff_ids", list_of(&c->diff_ids));
	(void)json_object_set_new(doc, "rootfs", rootfs);
	put_history(doc, c);
	r = base_json_append(buf, doc);
	json_decref(doc);
	return r;
}
