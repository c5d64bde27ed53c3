/* The prompt cache of an engine: what its pages are known by, and opening it. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mapfile.h"
#include "base/sha256.h"
#include "engine_internal.h"
#include "promptcache/promptcache.h"

enum { MAX_CONFIG = 1 << 20 };

static const uint64_t default_bytes = 4ull << 30;

static void add_text(struct base_sha256 *sha, const char *text)
{
	base_sha256_update(sha, text, strlen(text) + 1);
}

/* A folder's hyperparameters: one that was edited is another model. */
static void add_config(struct base_sha256 *sha, const char *folder)
{
	struct base_buf text = BASE_BUF_INIT(MAX_CONFIG);
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/config.json", folder);
	if (base_read_file(path, &text, NULL) == 0)
		base_sha256_update(sha, base_buf_text(&text), text.len);
	base_buf_done(&text);
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

int eng_cache_keep(struct eng_engine *e, const struct eng_options *o, uint32_t page_tokens, struct err *err)
{
	e->cache = (struct eng_cache){ .dir = copy(o->cache_dir),
		                       .isa = copy(o->isa ? o->isa : kn_cpu_isas()[0]),
		                       .random_shape = copy(o->random_shape ? o->random_shape : ""),
		                       .random_dtype = copy(o->random_dtype ? o->random_dtype : ""),
		                       .bytes = o->cache_bytes ? o->cache_bytes : default_bytes,
		                       .page_tokens = page_tokens,
		                       .deterministic = o->deterministic,
		                       .on_note = o->on_note,
		                       .note_arg = o->plan_arg };
	if (!e->cache.dir || !e->cache.isa || !e->cache.random_shape || !e->cache.random_dtype)
		return err_set(err, -ENOMEM, "no memory");
	return 0;
}

void eng_cache_done(struct eng_engine *e)
{
	free(e->cache.dir);
	free(e->cache.isa);
	free(e->cache.random_shape);
	free(e->cache.random_dtype);
}

/* Everything that the bytes of a page depend on. Whoever computes in another way, or another version of this
 * program, has pages of its own. */
static int identify(const struct eng_engine *e, const char *path, struct eng_pc_key *ret_identity)
{
	const struct eng_cache *c = &e->cache;
	uint8_t flags[] = { e->is_exact, c->deterministic, e->backend->tells_prompts };
	struct base_sha256 *sha;
	int r = base_sha256_new(&sha);

	if (r < 0)
		return r;
	add_text(sha, "ocai K/V pages " OCAI_VERSION);
	add_text(sha, e->backend_name);
	add_text(sha, c->isa);
	base_sha256_update(sha, flags, sizeof(flags));
	/* Random weights have no file; their shape and type make them. */
	add_text(sha, c->random_shape);
	add_text(sha, c->random_dtype);
	add_config(sha, path);
	eng_runner_fingerprint(e->runner, sha);
	base_sha256_final(sha, ret_identity->b);
	base_sha256_free(sha);
	return 0;
}

int eng_cache_open(struct eng_engine *e, const char *path, struct eng_pc **ret_pc, struct err *err)
{
	struct eng_pc_config config = { .dir = e->cache.dir,
		                        .budget_bytes = e->cache.bytes,
		                        .page_tokens = e->cache.page_tokens,
		                        .page_bytes = eng_runner_page_bytes(e->runner) };
	char text[ERR_MSG_SIZE + 64];
	struct err why = { 0 };
	int r = identify(e, path, &config.identity);

	static_assert(sizeof(config.identity.b) == sizeof(e->cache.identity), "one kind of digest");
	if (r == 0 && memcmp(config.identity.b, e->cache.identity, sizeof(e->cache.identity)) == 0)
		return 0;
	if (r == 0)
		r = eng_pc_open(&config, ret_pc, &why);
	if (r == 0)
		memcpy(e->cache.identity, config.identity.b, sizeof(e->cache.identity));
	if (r == 0)
		return 1;
	memset(e->cache.identity, 0, sizeof(e->cache.identity));
	if (r != -EBUSY && r != -EACCES && r != -EPERM && r != -EROFS)
		return err_set(err, r, "%s", why.code ? err_text(&why) : strerror(-r));
	/* Two servers of one model, or a folder that the configuration gives to another user's: this one does without.
	 */
	(void)snprintf(text, sizeof(text), "no prompt cache: %s", err_text(&why));
	if (e->cache.on_note)
		e->cache.on_note(e->cache.note_arg, text);
	*ret_pc = NULL;
	return 1;
}
