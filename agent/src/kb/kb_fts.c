/* The tokenizer "ocai" of FTS5: kb_token.c behind SQLite's interface. */
#include <stdint.h>

#include "kb/kb_internal.h"

typedef int (*fts_token_fn)(void *, int, const char *, int, int, int);

struct fts_call {
	fts_token_fn fn;
	void *arg;
};

static int on_token(void *arg, const char *token, size_t len, size_t begin, size_t end)
{
	const struct fts_call *call = arg;

	return call->fn(call->arg, 0, token, (int)len, (int)begin, (int)end);
}

static int tokenizer_create(void *context, const char **args, int n_args, Fts5Tokenizer **ret_tokenizer)
{
	static char stateless;

	(void)context, (void)args, (void)n_args;
	*ret_tokenizer = (Fts5Tokenizer *)&stateless; /* never looked into */
	return SQLITE_OK;
}

static void tokenizer_delete(Fts5Tokenizer *tokenizer)
{
	(void)tokenizer;
}

static int tokenizer_run(Fts5Tokenizer *tokenizer, void *context, int flags, const char *text, int len, fts_token_fn fn)
{
	struct fts_call call = { .fn = fn, .arg = context };

	(void)tokenizer;
	return ag_kb_tokenize(text ? text : "", len > 0 ? (size_t)len : 0, (flags & FTS5_TOKENIZE_QUERY) != 0, on_token,
	                      &call);
}

static fts5_api *find_api(sqlite3 *db)
{
	sqlite3_stmt *stmt = NULL;
	fts5_api *api = NULL;

	if (sqlite3_prepare_v2(db, "SELECT fts5(?1)", -1, &stmt, NULL) == SQLITE_OK) {
		(void)sqlite3_bind_pointer(stmt, 1, &api, "fts5_api_ptr", NULL);
		(void)sqlite3_step(stmt);
	}
	(void)sqlite3_finalize(stmt);
	return api;
}

int ag_kb_fts_register(sqlite3 *db)
{
	fts5_tokenizer tokenizer = { tokenizer_create, tokenizer_delete, tokenizer_run };
	fts5_api *api = find_api(db);

	if (!api || api->iVersion < 2)
		return SQLITE_ERROR;
	return api->xCreateTokenizer(api, "ocai", NULL, &tokenizer, NULL);
}
