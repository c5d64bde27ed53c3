/* The knowledge base: documents of this user, cut into passages and found again by words and, where an
 * embedding server is configured, by vectors.
 *
 * One SQLite database with FTS5. A source is what the user added: a folder, a file, "man" (the installed manual
 * pages) or "doc:PACKAGE" (/usr/share/doc/PACKAGE). A handle is for one thread; several processes may have the
 * same database open. Errors are negative errnos with words; file contents never reach a log. */
#ifndef AGENT_KB_H
#define AGENT_KB_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/config.h"
#include "base/err.h"

struct ag_kb;

/* Where vectors come from: an OpenAI-compatible /v1/embeddings. Strings are borrowed while the handle lives. */
struct ag_kb_embedder {
	const char *url;          /* "http://host:port", "https://..." or "unix:/path"; NULL: words only */
	const char *model;        /* sent as "model"; vectors of another model are not compared with it */
	const char *api_key_file; /* its first line is sent as a bearer token; NULL for none */
	bool allow_remote;        /* a url that is not this machine: without it -EPERM; secrets are masked on the way */
	uint32_t timeout_ms;      /* 0: 30 s */
};

/* kb.conf, of all layers. */
struct ag_kb_config {
	uint64_t max_file_bytes, max_total_bytes;
	struct ag_kb_embedder embedder;
};
/* Strings live as long as *ret_config. */
int ag_kb_config_load(struct ag_kb_config *c, struct base_config **ret_config, struct err *err);

/* Something a person should know, one line without a newline: a file that was skipped and why, a damaged database
 * that was moved aside. */
typedef void (*ag_kb_notice_fn)(void *arg, const char *line);

struct ag_kb_options {
	const char *path;                      /* NULL: $XDG_DATA_HOME/ocai/kb.sqlite */
	bool must_exist;                       /* -ENOENT rather than creating an empty database */
	uint64_t max_file_bytes;               /* larger files are skipped; 0: 4 MiB */
	uint64_t max_total_bytes;              /* text kept in all; 0: 512 MiB */
	const struct ag_kb_embedder *embedder; /* or NULL */
	const volatile sig_atomic_t *cancel;   /* when it becomes non-zero, indexing stops with -ECANCELED; or NULL */
	ag_kb_notice_fn on_notice;             /* or NULL */
	void *on_notice_arg;
};

/* Opens, creating it (0600, its folder 0700). A damaged database is moved aside to PATH.damaged-TIME, with a notice. */
int ag_kb_open(const struct ag_kb_options *options, struct ag_kb **ret_kb, struct err *err);
void ag_kb_close(struct ag_kb *kb);

/* ---- Indexing -------------------------------------------------------------------------------------- */

struct ag_kb_counts {
	uint64_t n_files;     /* seen and fit to be indexed */
	uint64_t n_new;       /* read and indexed, new or changed */
	uint64_t n_unchanged; /* by size and time, or by content */
	uint64_t n_removed;   /* gone since the last time */
	uint64_t n_skipped;   /* too large, binary, unreadable, secret: each with a notice, save binary ones */
	uint64_t n_vectors;
};

/* Adds a source, or brings one up to date. `what`: a path (made absolute), "man", or "doc:PACKAGE". Interrupted or
 * failed, the database holds whole files and the source is completed by the next update. *ret_counts is filled in
 * either case. */
int ag_kb_add(struct ag_kb *kb, const char *what, struct ag_kb_counts *ret_counts, struct err *err);
/* All sources again. */
int ag_kb_update(struct ag_kb *kb, struct ag_kb_counts *ret_counts, struct err *err);
/* Forgets a source; -ENOENT when there is none of that name. */
int ag_kb_remove(struct ag_kb *kb, const char *what, struct err *err);

struct ag_kb_source {
	const char *name;
	uint64_t n_files, n_passages, n_bytes, n_vectors;
	int64_t updated; /* seconds since the epoch; 0: never completed */
};

/* Each source in the order of adding; a non-zero return of fn ends it and is returned. */
int ag_kb_each_source(struct ag_kb *kb, int (*fn)(void *arg, const struct ag_kb_source *source), void *arg,
                      struct err *err);

/* ---- Searching -------------------------------------------------------------------------------------- */

struct ag_kb_hit {
	char *path;     /* the file */
	uint32_t line;  /* where the passage begins in it, from 1 */
	char *title;    /* document and heading: "sshd_config(5) > DESCRIPTION" */
	char *text;     /* the whole passage */
	char *snippet;  /* the part that answers best, one line; marked words lie between \x01 and \x02 */
	double cover;   /* share of the question's words that the passage or its title holds, 0 to 1 */
	double score;   /* larger is better; comparable within one search only */
	bool by_vector; /* the vectors found it (too) */
};

struct ag_kb_hits {
	struct ag_kb_hit *items; /* best first */
	size_t n;
	size_t n_words; /* of the question, without those that only make it one */
};

/* Best passages for a question, at most `limit` (1 to 100). No match is 0 hits. When the embedding server fails the
 * words alone decide, with a notice. The hits are the caller's: ag_kb_hits_done(). */
int ag_kb_search(struct ag_kb *kb, const char *question, size_t limit, struct ag_kb_hits *ret_hits, struct err *err);
void ag_kb_hits_done(struct ag_kb_hits *hits);

/* For a model's prompt: "[1] path:line (title)\ntext\n\n[2] ...", whole passages only, at most max_bytes; returns how
 * many were written. An answer cites them by number. */
int ag_kb_cite(const struct ag_kb_hits *hits, size_t max_bytes, struct base_buf *out);

/* ---- Text out of documents (also for tools and tests) ------------------------------------------------ */

enum ag_kb_format { AG_KB_TEXT, AG_KB_MARKDOWN, AG_KB_HTML, AG_KB_ROFF };

struct ag_kb_line {
	size_t offset, len; /* in text */
	uint32_t line;      /* in the source, from 1 */
	uint8_t heading;    /* 0: text; 1.. : heading level */
	bool para;          /* a paragraph begins here */
};

struct ag_kb_doc {
	struct base_buf text;
	struct ag_kb_line *lines;
	size_t n_lines, cap_lines;
	char title[256]; /* the document's own, or "" */
};

void ag_kb_doc_init(struct ag_kb_doc *doc, size_t max_bytes);
void ag_kb_doc_done(struct ag_kb_doc *doc);
/* By the name's ending: ".md", ".html", ".1" to ".9" (also with a language or suffix: ".1p"), else text. */
enum ag_kb_format ag_kb_format_of(const char *path);
/* Lines of readable text, UTF-8 (invalid bytes become U+FFFD), no control characters but tab. -EBADMSG: binary. */
int ag_kb_extract(enum ag_kb_format format, const char *data, size_t len, struct ag_kb_doc *doc);

typedef int (*ag_kb_passage_fn)(void *arg, uint32_t line, const char *heading, const char *text, size_t len);
/* Passages of 200 to 800 characters where the document allows it, split at headings, paragraphs, sentences. */
int ag_kb_split(const struct ag_kb_doc *doc, ag_kb_passage_fn fn, void *arg);

/* Words: lower-cased, NFKC, without marks; Chinese, Japanese, Korean runs as overlapping pairs. Offsets are bytes of
 * the input. A document's run also yields its last character alone, so that one character can be asked for by prefix.
 */
typedef int (*ag_kb_token_fn)(void *arg, const char *token, size_t len, size_t begin, size_t end);
int ag_kb_tokenize(const char *text, size_t len, bool is_query, ag_kb_token_fn fn, void *arg);

/* The plain text of an installed manual page ("ls", or "crontab" with section "5"); -ENOENT when there is none. */
int ag_kb_man_text(const char *name, const char *section, struct base_buf *out, struct err *err);
/* Reads a regular file, also gzip-compressed (by its first bytes): -EFBIG beyond the ceiling of out. */
int ag_kb_read_document(const char *path, struct base_buf *out, struct err *err);

#endif
