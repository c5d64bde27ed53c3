/* flip model: models by the daemon, and folders as models. */
#include "commands.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "image_progress.h"
#include "model.h"
#include "model/flip_model.h"

enum {
	POLL_MS = 250,
	PATIENCE_S = 60, /* without a byte, while what went wrong may pass */
	NO_ROOM_S = 6,   /* without a byte, while room is short */
};

const struct opt model_opts[] = {
	{ "keep", 'k', OPT_FLAG, offsetof(struct model_args, keep), NULL,
	  "pull: never evict it, as nobody can be asked again", NULL },
	{ "detach", 'd', OPT_FLAG, offsetof(struct model_args, detach), NULL,
	  "pull: do not wait until all of it is there", NULL },
	{ "preheat", 0, OPT_FLAG, offsetof(struct model_args, preheat), NULL,
	  "pull: below all else, and slower while the machine is busy", NULL },
	{ "chunk-size", 0, OPT_SIZE, offsetof(struct model_args, chunk_size), "BYTES",
	  "push, seed, serve, manifest: what is verified at once [1M]", NULL },
	{ "url", 'u', OPT_LIST, offsetof(struct model_args, urls), "URL", "manifest: where the files will lie; several",
	  NULL },
	{ "listen", 'l', OPT_STR, offsetof(struct model_args, listen), "HOST:PORT", "serve: where [0.0.0.0:8424]",
	  NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct model_args, json), NULL, "list: machine-readable output", NULL },
	{ "control", 0, OPT_STR, offsetof(struct model_args, control), "PATH", "the daemon's control socket", NULL },
	{ 0 },
};

/* ---- Asking the daemon ---- */

struct query {
	const char *name, *value; /* value NULL: left out */
};

static int ask(const struct flip_settings *s, const char *method, const char *path, const struct query *q, size_t n,
               json_t **ret_doc, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(64 << 10);
	CLEANUP(base_buf_done) struct base_buf body = BASE_BUF_INIT(64 << 20);
	char sep = '?';
	int r;

	(void)base_buf_puts(&text, path);
	for (size_t i = 0; i < n; i++) {
		if (!q[i].value)
			continue;
		(void)base_buf_printf(&text, "%c%s=", sep, q[i].name);
		flip_append_escaped(&text, q[i].value);
		sep = '&';
	}
	r = base_buf_error(&text);
	r = r < 0 ? err_set(err, r, "the arguments are too long")
	          : flip_ask(s, method, base_buf_text(&text), &body, err);
	if (r == 0 && ret_doc)
		r = base_json_parse("the daemon's answer", body.data, body.len, ret_doc, err);
	return r;
}

static uint64_t number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static bool is_true(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

/* ---- Pulling ---- */

int model_default_name(const char *source, char *ret_name, size_t size, struct err *err)
{
	size_t len, begin;
	const char *end, *last;

	if (strncmp(source, "peers:", 6) == 0)
		source += 6;
	len = strcspn(source, "?#@");

	while (len && source[len - 1] == '/')
		len--;
	if (len > 11 && strncmp(source + len - 11, "/model.json", 11) == 0)
		len -= 11;
	end = source + len;
	for (last = end; last > source && last[-1] != '/';)
		last--;
	begin = (size_t)(last - source);
	if (len - begin > 5 && strncmp(end - 5, ".json", 5) == 0)
		len -= 5;
	len = begin + strcspn(last, ":") < len ? begin + strcspn(last, ":") : len;
	(void)snprintf(ret_name, size, "%.*s", (int)(len - begin), last);
	return flip_model_name_is_valid(ret_name)
	               ? 0
	               : err_set(err, -EINVAL, "%.200s: give the model a name behind it", source);
}

struct watch {
	const char *name;
	bool is_seed;
	img_progress_fn show;
	uint64_t here;
	int64_t moved_ms;
	char said[ERR_MSG_SIZE];
};

/* 1: all of it is there; 0: not yet. */
static int look(struct watch *w, const json_t *model, struct err *err)
{
	const json_t *next = json_object_get(model, "next"), *m = next ? next : model;
	const char *words = text_of(m, "error");
	struct img_progress p = { "pulling", number(m, "here"), number(m, "bytes") };
	int64_t still_s;

	if (is_true(m, "complete") && !next)
		return 1;
	if (p.done != w->here) {
		w->here = p.done;
		w->moved_ms = base_now_ms();
	}
	still_s = (base_now_ms() - w->moved_ms) / 1000;
	if (w->show(&p, NULL) && w->is_seed)
		return err_set(err, -EINTR, "interrupted; what has arrived is kept, and %s is not whole", w->name);
	if (image_is_interrupted(NULL))
		return err_set(err, -EINTR,
		               "interrupted; the daemon goes on fetching %s (flip model remove %s ends it)", w->name,
		               w->name);
	if (is_true(m, "failed"))
		return err_set(err, -EIO, "%s: %s; what has arrived is kept", w->name, words);
	if (is_true(m, "no_room") && still_s >= NO_ROOM_S)
		return err_set(err, -ENOSPC,
		               "%s: room is short where flip's store is (flip gc, store.min-free, store.budget); "
		               "what has arrived is kept",
		               w->name);
	if (*words && still_s >= PATIENCE_S)
		return err_set(err, -EIO, "%s: %s; nothing came for %lld s, what has arrived is kept", w->name, words,
		               (long long)still_s);
	if (*words && strcmp(words, w->said) != 0) {
		(void)snprintf(w->said, sizeof(w->said), "%s", words);
		image_progress_clear();
		(void)fprintf(stderr, "flip: %s: %s; trying again\n", w->name, words);
	}
	return 0;
}

int model_pull(const struct model_args *o, const struct flip_settings *s, const char *source, const char *name,
               struct err *err)
{
	const struct query q[] = {
		{ "name", name },
		{ "source", source },
		{ "shown", o->seeded },
		{ "keep", o->keep ? "1" : NULL },
		{ "preheat", o->preheat ? "1" : NULL },
	};
	struct watch w = { .name = name, .is_seed = o->seeded != NULL, .moved_ms = base_now_ms() };
	int r = ask(s, "POST", "/v1/model/pull", q, 5, NULL, err), done = o->detach;

	w.show = image_progress(); /* from here on an interruption is noticed, and told what it means */
	while (r == 0 && !done) {
		json_t *doc = NULL;

		r = ask(s, "GET", "/v1/models", q, 1, &doc, err);
		if (r == 0) {
			r = look(&w, json_array_get(doc, 0), err);
			done = r > 0;
			r = r < 0 ? r : 0;
		}
		json_decref(doc);
		if (r == 0 && !done)
			(void)usleep(POLL_MS * 1000);
	}
	image_progress_clear();
	return r;
}

/* A manifest in a file is the daemon's to read: by its absolute path. What looks like a reference and is no file is
 * one.
 */
static int pull(const struct model_args *o, const struct flip_settings *s, const char *source, const char *name,
                struct err *err)
{
	CLEANUP(freep) char *real = NULL;
	char by_source[FLIP_MODEL_NAME_MAX + 2];
	int r = name ? 0 : model_default_name(source, by_source, sizeof(by_source), err);

	if (r < 0)
		return r;
	if (!strstr(source, "://") && access(source, F_OK) == 0) {
		real = realpath(source, NULL);
		if (!real)
			return err_set(err, -errno, "%s: %s", source, strerror(errno));
	}
	return model_pull(o, s, real ? real : source, name ? name : by_source, err);
}

/* ---- The others ---- */

static int list(const struct model_args *o, const struct flip_settings *s, struct err *err)
{
	json_t *doc = NULL;
	char *text;
	int r = ask(s, "GET", "/v1/models", NULL, 0, &doc, err);

	if (r == 0 && o->json) {
		text = json_dumps(doc, JSON_COMPACT);
		(void)printf("%s\n", text ? text : "[]");
		free(text);
	}
	for (size_t i = 0; r == 0 && !o->json && i < json_array_size(doc); i++) {
		const json_t *m = json_array_get(doc, i);
		uint64_t bytes = number(m, "bytes"), here = number(m, "here");
		const json_t *next = json_object_get(m, "next");

		(void)printf("%-24s %10.1f MB  %5.1f %%  %4llu files  %s\n", text_of(m, "name"), (double)bytes / 1e6,
		             is_true(m, "complete") || !bytes ? 100.0 : 100.0 * (double)here / (double)bytes,
		             (unsigned long long)number(m, "files"), text_of(m, "source"));
		if (*text_of(m, "error") && !is_true(m, "complete"))
			(void)printf("%-24s %s\n", "", text_of(m, "error"));
		if (next)
			(void)printf("%-24s a new version: %.1f of %.1f MB here\n", "",
			             (double)number(next, "here") / 1e6, (double)number(next, "bytes") / 1e6);
	}
	json_decref(doc);
	return r;
}

static int mount_model(const struct flip_settings *s, const char *name, const char *dir, struct err *err)
{
	CLEANUP(freep) char *real = dir ? realpath(dir, NULL) : NULL;
	const struct query q[] = { { "name", name }, { "dir", real } };
	json_t *doc = NULL;
	int r = dir && !real ? err_set(err, -errno, "%s: %s", dir, strerror(errno))
	                     : ask(s, "POST", "/v1/model/mount", q, 2, &doc, err);

	if (r == 0)
		(void)printf("%s\n", text_of(doc, "dir"));
	json_decref(doc);
	return r;
}

static int remove_model(const struct flip_settings *s, const char *name, struct err *err)
{
	const struct query q[] = { { "name", name } };

	return ask(s, "POST", "/v1/model/remove", q, 1, NULL, err);
}

/* ---- Which ---- */

static const struct action {
	const char *name;
	int n_min, n_max; /* arguments behind the name */
	const char *wanted;
} actions[] = {
	{ "pull", 1, 2, "a source, and a name if the last part of the source shall not be it" },
	{ "list", 0, 0, "no argument" },
	{ "mount", 1, 2, "a name, and a folder if it shall not be the usual one" },
	{ "remove", 1, 1, "a name" },
	{ "push", 2, 2, "a folder and a reference (HOST/NAME:TAG)" },
	{ "seed", 1, 2, "a folder, and a name if the folder's shall not be it" },
	{ "serve", 1, 1, "a folder" },
	{ "manifest", 1, 1, "a folder" },
};

static int act(const struct model_args *o, const struct flip_settings *s, const char *what, char **args, int n,
               struct err *err)
{
	if (strcmp(what, "pull") == 0)
		return pull(o, s, args[0], n > 1 ? args[1] : NULL, err);
	if (strcmp(what, "list") == 0)
		return list(o, s, err);
	if (strcmp(what, "mount") == 0)
		return mount_model(s, args[0], n > 1 ? args[1] : NULL, err);
	if (strcmp(what, "remove") == 0)
		return remove_model(s, args[0], err);
	if (strcmp(what, "push") == 0)
		return model_push(o, s, args[0], args[1], err);
	if (strcmp(what, "seed") == 0)
		return model_seed(o, s, args[0], n > 1 ? args[1] : NULL, err);
	if (strcmp(what, "serve") == 0)
		return model_serve(o, args[0], err);
	return model_manifest(o, args[0], err);
}

static const struct action *find(const char *name)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	}
	return NULL;
}

int cmd_model(int argc, char **argv)
{
	struct model_args o = { .chunk_size = FLIP_MODEL_CHUNK };
	struct flip_settings s = { 0 };
	const struct action *a;
	struct err err = { 0 };
	int n, r = flip_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	a = n ? find(argv[0]) : NULL;
	if (!n)
		r = err_set(&err, -EINVAL, "what? pull, list, mount, remove, push, seed, serve or manifest");
	else if (!a)
		r = err_set(&err, -EINVAL, "%s: not pull, list, mount, remove, push, seed, serve or manifest", argv[0]);
	else if (n - 1 < a->n_min || n - 1 > a->n_max)
		r = err_set(&err, -EINVAL, "%s: takes %s", a->name, a->wanted);
	else if (o.chunk_size < FLIP_MODEL_MIN_CHUNK || o.chunk_size > FLIP_MODEL_MAX_CHUNK ||
	         (o.chunk_size & (o.chunk_size - 1)))
		r = err_set(&err, -EINVAL, "--chunk-size: a power of two from 64K to 16M");
	if (r == -EINVAL) {
		opt_list_done(&o.urls);
		return flip_usage("model", &err);
	}
	r = flip_settings_load(&s, &err);
	if (r == 0) {
		s.control = o.control ? o.control : s.control;
		r = act(&o, &s, a->name, argv + 1, n - 1, &err);
	}
	opt_list_done(&o.urls);
	flip_settings_done(&s);
	return r < 0 ? flip_fail(&err) : 0;
}
