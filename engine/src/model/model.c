/* Opening a model: a Hugging Face folder or a GGUF file, its hyperparameters, its weights, and for
 * embedding models what sentence-transformers' files say of pooling. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "model/internal.h"
#include "weights/weights.h"

enum { CONFIG_MAX_BYTES = 4 << 20 };

static void model_closep(struct eng_model **m)
{
	eng_model_close(*m);
}

/* dir/name; -ENAMETOOLONG when it does not fit. */
static int join(char *path, size_t size, const char *dir, const char *name, struct err *err)
{
	size_t len = strlen(dir);
	int n = snprintf(path, size, "%s%s%s", dir, len && dir[len - 1] == '/' ? "" : "/", name);

	return n >= 0 && (size_t)n < size ? 0 : err_set(err, -ENAMETOOLONG, "%s: path too long", dir);
}

/* ---- Pooling ---- */

static int read_optional_json(const char *path, json_t **ret, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0 && errno == ENOENT)
		return 0;
	return base_json_read_file(path, CONFIG_MAX_BYTES, ret, err);
}

/* The folder of the Pooling module; NULL when there is none. It comes from outside: only a name below. */
static const char *pooling_folder(const json_t *modules)
{
	const json_t *m;
	size_t i;

	json_array_foreach((json_t *)modules, i, m)
	{
		const char *type = json_string_value(json_object_get(m, "type"));
		const char *path = json_string_value(json_object_get(m, "path"));
		const char *last = type ? strrchr(type, '.') : NULL;

		if (last && path && strcmp(last, ".Pooling") == 0 && path[0] != '/' && !strstr(path, ".."))
			return path;
	}
	return NULL;
}

static int read_pooling(struct eng_model *m, const char *dir, struct err *err)
{
	static const struct {
		const char *key;
		enum eng_pooling pooling;
	} modes[] = {
		{ "pooling_mode_lasttoken", ENG_POOL_LAST },
		{ "pooling_mode_mean_tokens", ENG_POOL_MEAN },
		{ "pooling_mode_cls_token", ENG_POOL_CLS },
	};
	CLEANUP(json_decrefp) json_t *modules = NULL;
	CLEANUP(json_decrefp) json_t *config = NULL;
	char path[PATH_MAX], rest[PATH_MAX];
	const char *folder;
	int r;

	r = join(path, sizeof(path), dir, "modules.json", err);
	r = r < 0 ? r : read_optional_json(path, &modules, err);
	if (r < 0)
		return r;
	folder = pooling_folder(modules);
	if (!folder)
		return 0;
	if (snprintf(rest, sizeof(rest), "%s/config.json", folder) >= (int)sizeof(rest))
		return err_set(err, -ENAMETOOLONG, "%s: path too long", path);
	r = join(path, sizeof(path), dir, rest, err);
	r = r < 0 ? r : read_optional_json(path, &config, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		bool on = false;

		r = base_json_opt_bool(config, path, modes[i].key, &on, err);
		if (r < 0)
			return r;
		if (on) {
			m->info.pooling = modes[i].pooling;
			return 0;
		}
	}
	return err_set(err, -ENOTSUP, "%s: no pooling mode that is supported (last token, mean, cls)", path);
}

/* ---- Open ---- */

static int open_folder(struct eng_model *m, const char *dir, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(CONFIG_MAX_BYTES);
	char path[PATH_MAX];
	int r;

	r = join(path, sizeof(path), dir, "config.json", err);
	r = r < 0 ? r : base_read_file(path, &text, err);
	r = r < 0 ? r : hparams_parse_hf(path, base_buf_text(&text), text.len, &m->hp, err);
	r = r < 0 ? r : read_pooling(m, dir, err);
	return r < 0 ? r : eng_weights_open(dir, &m->weights, err);
}

static int open_file(struct eng_model *m, const char *path, struct err *err)
{
	int r = eng_weights_open(path, &m->weights, err);

	if (r < 0)
		return r;
	if (!eng_weights_is_gguf(m->weights))
		return err_set(err, -EINVAL, "%s: a model is a folder with config.json or a GGUF file", path);
	return hparams_read_gguf(path, m->weights, &m->hp, err);
}

/* Not every backend has the operations of recurrent layers. */
static int check_backend(const struct eng_model *m, const char *path, struct err *err)
{
	if (hparams_state(&m->hp) && !m->backend->ops->delta_rule)
		return err_set(err, -ENOTSUP,
		               "%s: %s has recurrent layers, which the backend %s does not compute; use cpu", path,
		               m->hp.arch->name, m->backend->ops->name);
	return 0;
}

static int load_weights(struct eng_model *m, const struct hparams *whole, const char *path, bool exact, struct err *err)
{
	struct err late = { 0 };
	int r = eng_weights_tell_sources(m->weights, m->backend, err), read;

	r = r < 0 ? r : model_load(m, whole, path, exact, err);
	read = eng_weights_tell_sources(NULL, m->backend, &late);
	return r < 0 || read == 0 ? r : err_set(err, read, "%s: %s", path, err_text(&late));
}

/* On a group of devices m becomes the first one's share, and gets the others. */
static int load_shares(struct eng_model *m, const char *path, bool exact, struct err *err)
{
	CLEANUP(freep) struct hparams *whole = malloc(sizeof(*whole));
	int r = 0;

	if (!whole)
		return err_set(err, -ENOMEM, "%s: no memory", path);
	*whole = m->hp;
	m->share = model_share_of(m->backend);
	if (m->share.n == 1) {
		r = load_weights(m, whole, path, exact, err);
		return r < 0 ? r : model_finish(m, err);
	}
	r = model_shares_new(m, path, whole, err);
	for (uint32_t i = 0; i < m->share.n && r == 0; i++) {
		m->shares[i]->weights = m->weights;
		r = load_weights(m->shares[i], whole, path, exact, err);
		r = r < 0 ? r : model_finish(m->shares[i], err);
	}
	if (r == 0)
		model_shares_count(m);
	return r;
}

int eng_model_open(const char *path, bool exact, struct kn_backend *backend, struct eng_model **ret_model,
                   struct err *err)
{
	CLEANUP(model_closep) struct eng_model *m = NULL;
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(err, -ENOMEM, "%s: no memory", path);
	m->backend = backend;
	r = S_ISDIR(st.st_mode) ? open_folder(m, path, err) : open_file(m, path, err);
	r = r < 0 ? r : check_backend(m, path, err);
	r = r < 0 ? r : load_shares(m, path, exact, err);
	if (r < 0)
		return r;
	m->info.mapped_bytes = eng_weights_bytes(m->weights);
	*ret_model = m;
	m = NULL; /* now the caller's */
	return 0;
}

void eng_model_close(struct eng_model *m)
{
	if (!m)
		return;
	for (uint32_t i = 1; i < m->share.n && m->share.rank == 0; i++) {
		if (m->shares[i]) {
			m->shares[i]->weights = NULL; /* the first one's */
			eng_model_close(m->shares[i]);
		}
	}
	model_unload(m);
	eng_weights_close(m->weights);
	free(m);
}

const struct eng_model_info *eng_model_info(const struct eng_model *m)
{
	return &m->info;
}

const struct eng_weights *eng_model_weights(const struct eng_model *m)
{
	return m->weights;
}
