/* What the files of the knowledge base share. */
#ifndef AGENT_KB_INTERNAL_H
#define AGENT_KB_INTERNAL_H

#include <sqlite3.h>

#include "kb/kb.h"

enum {
	AG_KB_MIN_PASSAGE = 200, /* characters */
	AG_KB_MAX_PASSAGE = 800,
	AG_KB_MAX_TOKEN = 64, /* characters of one word */
};

struct ag_kb_embed; /* kb_embed.c */

struct ag_kb {
	sqlite3 *db;
	char *path;
	uint64_t max_file_bytes, max_total_bytes;
	const volatile sig_atomic_t *cancel;
	ag_kb_notice_fn on_notice;
	void *on_notice_arg;
	struct ag_kb_embed *embed; /* NULL: words only */
};

/* kb_db.c */
int ag_kb_sql_error(struct ag_kb *kb, const char *doing, struct err *err); /* from the handle's last error */
int ag_kb_exec(struct ag_kb *kb, const char *sql, struct err *err);
int ag_kb_prepare(struct ag_kb *kb, const char *sql, sqlite3_stmt **ret_stmt, struct err *err);
/* Steps a statement that returns no row; resets it. */
int ag_kb_step_done(struct ag_kb *kb, sqlite3_stmt *stmt, struct err *err);
void ag_kb_finalizep(sqlite3_stmt **stmt);
void ag_kb_notice(struct ag_kb *kb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool ag_kb_is_cancelled(const struct ag_kb *kb);

/* kb_fts.c */
int ag_kb_fts_register(sqlite3 *db); /* the tokenizer "ocai"; an SQLite code */

/* kb_doc.c: the lines of a document under construction */
int ag_kb_doc_line(struct ag_kb_doc *doc, const char *text, size_t len, uint32_t line, unsigned heading, bool para);
/* kb_html.c, kb_roff.c */
int ag_kb_extract_html(const char *data, size_t len, struct ag_kb_doc *doc);
int ag_kb_extract_roff(const char *data, size_t len, struct ag_kb_doc *doc);

/* kb_embed.c */
int ag_kb_embed_new(const struct ag_kb_embedder *e, struct ag_kb_embed **ret_embed, struct err *err);
void ag_kb_embed_free(struct ag_kb_embed *embed);
const char *ag_kb_embed_model(const struct ag_kb_embed *embed);
enum { AG_KB_EMBED_BATCH = 32, AG_KB_MAX_DIM = 8192 };
/* Unit vectors of n <= AG_KB_EMBED_BATCH texts, *ret_dim numbers each, one after the other; free() it. */
int ag_kb_embed_texts(struct ag_kb_embed *embed, const char *const *texts, size_t n, float **ret_vectors,
                      size_t *ret_dim, struct err *err);
float ag_kb_float_from_half(uint16_t h);
/* Vectors for the passages that have none of this model; counts them. */
int ag_kb_embed_missing(struct ag_kb *kb, uint64_t *n_vectors, struct err *err);

/* kb_scan.c: the files of a source */
typedef int (*ag_kb_file_fn)(void *arg, const char *path);
int ag_kb_scan(struct ag_kb *kb, const char *source, uint64_t *n_skipped, ag_kb_file_fn fn, void *arg, struct err *err);
/* "man", "doc:NAME" or the absolute, resolved path. */
int ag_kb_source_name(const char *what, struct base_buf *out, struct err *err);

#endif
