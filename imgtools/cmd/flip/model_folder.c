/* Folders as models: pushed to a registry, put into this node's store, served to others, listed with their digests. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cleanup.h"
#include "commands.h"
#include "image_progress.h"
#include "model.h"
#include "model/flip_model.h"

static img_progress_fn show_progress;

/* From several threads: one at a time. */
static int show(void *arg, uint64_t n_bytes, uint64_t n_total)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct img_progress p = { arg, n_bytes, n_total };
	int stop;

	(void)pthread_mutex_lock(&lock);
	stop = show_progress(&p, NULL);
	(void)pthread_mutex_unlock(&lock);
	return stop;
}

static int read_folder(const struct model_args *o, const char *dir, struct flip_model **ret_model, struct err *err)
{
	int r;

	show_progress = image_progress();
	r = flip_model_of_folder(dir, (uint32_t)o->chunk_size, 0, show, (void *)"reading", ret_model, err);

	image_progress_clear();
	return r;
}

int model_push(const struct model_args *o, const struct flip_settings *s, const char *dir, const char *ref,
               struct err *err)
{
	const struct flip_model_push p = { .auth_file = s->auth_file && *s->auth_file ? s->auth_file : NULL,
		                           .insecure = s->insecure,
		                           .progress = show,
		                           .arg = (void *)"pushing" };
	char digest[IMG_DIGEST_SIZE];
	struct flip_model *m;
	int r = read_folder(o, dir, &m, err);

	if (r < 0)
		return r;
	r = flip_model_push(dir, m, ref, &p, digest, err);
	image_progress_clear();
	flip_model_free(m);
	if (r == 0)
		(void)printf("%s\n", digest);
	return r;
}

int model_manifest(const struct model_args *o, const char *dir, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	struct flip_model *m;
	int r = read_folder(o, dir, &m, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < o->urls.n; i++)
		r = flip_model_add_base(m, o->urls.items[i], err);
	if (r == 0 && (r = flip_model_append(m, true, &text)) < 0)
		(void)err_set(err, r, "%s: the list of files is too long", dir);
	if (r == 0)
		(void)fwrite(text.data, 1, text.len, stdout);
	flip_model_free(m);
	return r;
}

int model_serve(const struct model_args *o, const char *dir, struct err *err)
{
	struct flip_model_server *server = NULL;
	struct flip_model *m;
	sigset_t signals;
	int sig = 0, r = read_folder(o, dir, &m, err);

	if (r < 0)
		return r;
	flip_block_signals(&signals);
	r = flip_model_serve_start(dir, m, o->listen ? o->listen : "0.0.0.0:8424", NULL, &server, err);
	if (r == 0) {
		(void)fprintf(stderr,
		              "flip: %zu files, %.1f MB, at port %u, to everybody who reaches it: /model.json\n",
		              m->n_files, (double)flip_model_size(m) / 1e6, flip_model_serve_port(server));
		(void)sigwait(&signals, &sig);
	}
	flip_model_serve_stop(server);
	flip_model_free(m);
	return r;
}

/* The way of every other pull, from a server of our own on this host, at an address that nobody guesses: verified,
 * resumed and shown like them. Nobody can be asked for it afterwards, so it is kept. */
int model_seed(const struct model_args *o, const struct flip_settings *s, const char *dir, const char *name,
               struct err *err)
{
	struct model_args kept = *o;
	struct flip_model_server *server = NULL;
	char by_dir[FLIP_MODEL_NAME_MAX + 2], url[128], secret[33];
	CLEANUP(freep) char *real = realpath(dir, NULL);
	struct flip_model *m = NULL;
	uint8_t bytes[16];
	int r = real ? 0 : err_set(err, -errno, "%s: %s", dir, strerror(errno));

	if (r == 0 && !name) {
		r = model_default_name(real, by_dir, sizeof(by_dir), err);
		name = by_dir;
	}
	if (r == 0 && getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		r = err_set(err, -EIO, "no random bytes");
	for (size_t i = 0; r == 0 && i < sizeof(bytes); i++)
		(void)snprintf(secret + 2 * i, 3, "%02x", bytes[i]);
	if (r == 0)
		r = read_folder(o, real, &m, err);
	if (r == 0)
		r = flip_model_serve_start(real, m, "127.0.0.1:0", secret, &server, err);
	if (r == 0) {
		(void)signal(SIGPIPE, SIG_IGN);
		(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/%s/model.json", flip_model_serve_port(server),
		               secret);
		kept.keep = true;
		kept.seeded = real;
		kept.detach = false;
		r = model_pull(&kept, s, url, name, err);
	}
	flip_model_serve_stop(server);
	flip_model_free(m);
	return r;
}
