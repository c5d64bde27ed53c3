/* What the subcommands that read packages share: where packages come from, the rules, progress on a terminal. */
#ifndef IMG_SLIMTRACE_PACKAGES_H
#define IMG_SLIMTRACE_PACKAGES_H

#include "base/err.h"
#include "base/options.h"
#include "slices/slices.h"

struct packages_opts {
	struct opt_list repos, rpms, rules, keys;
	const char *root, *arch;
	bool no_gpg;
};

/* Rows for option tables; `type` holds a struct packages_opts named `from`. */
#define PACKAGES_OPTS(type)                                                                                                 \
	{ "repo", 'r', OPT_LIST, offsetof(type, from.repos), "DIR", "a repository made by createrepo_c", NULL },            \
	        { "rpm", 0, OPT_LIST, offsetof(type, from.rpms), "FILE", "a package, or a folder of packages", NULL },      \
	        { "gpg-key", 0, OPT_LIST, offsetof(type, from.keys), "FILE", "packages must be signed by this key", NULL }, \
	        { "no-gpg", 0, OPT_FLAG, offsetof(type, from.no_gpg), NULL, "signatures are not checked", NULL },           \
	        { "root", 0, OPT_STR, offsetof(type, from.root), "DIR", "an installed root with its package database",      \
		  NULL },                                                                                                   \
	        { "rules",  0,                                                                                              \
		  OPT_LIST, offsetof(type, from.rules),                                                                     \
		  "PATH",   "rules by hand: a file, or a folder of *.rules",                                                \
		  NULL },                                                                                                   \
	{                                                                                                                   \
		"arch", 0, OPT_STR, offsetof(type, from.arch), "ARCH",                                                      \
		        "packages of this architecture [this machine's]", NULL                                              \
	}

struct packages {
	struct img_rpm_set *set;
	struct img_rules *rules;
	struct img_rpm_keys *keys; /* NULL: signatures are not checked */
	char spool[240];           /* a folder of our own, and TMPDIR from packages_open() on; "" before */
};

int packages_open(const struct packages_opts *o, struct packages *p, struct err *err);
void packages_close(struct packages *p);
void packages_opts_done(struct packages_opts *o);

/* What is being written under a name that is not the final one, NULL for nothing: removed, as the spool is, when Ctrl-C
 * or SIGTERM end the program. Borrowed until the next call. */
void packages_unfinished(const char *path);
/* The same for a folder that is made here, by mkdtemp(). */
int packages_make_unfinished(char *template, struct err *err);
/* While something is written that takes itself back when it fails, or that is short: a signal waits until the end,
 * which does not return then. packages_must_stop() tells that one has come. */
void packages_write_begin(void);
void packages_write_end(void);
bool packages_must_stop(void);

/* What main() does when its first argument is this: the program was executed anew, after a signal, to remove what the
 * others name, and to die of the signal that the second one is. */
#define PACKAGES_CLEANER "--remove-leftovers-of-signal"
int packages_clean(int n, char **args);

/* Removes a file or folder of our own making, links not followed. */
void packages_remove_tree(const char *path);

/* Progress with rate and remaining time on standard error when that is a terminal; else NULL. */
const struct img_cut_progress *packages_progress(void);

/* "12.3 MB" into buf (10^6 bytes). */
const char *packages_size(uint64_t bytes, char buf[32]);

#endif
