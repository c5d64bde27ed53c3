/* The gate: one place that decides for everything that would run.
 *
 *   command line -> shell*.c a tree of commands (what cannot be parsed is UNKNOWN, never "harmless")
 *                -> risk.c   read, change or destructive, with the reasons; sees through sudo, bash -c, xargs ...
 *                -> rules.c  allow, ask and deny rules -> RUN, ASK, ASK_TWICE or DENY
 *                -> audit.c  what ran, in an append-only log
 *   any text     -> mask.c   secrets replaced before it leaves the host
 *
 * Nothing here runs anything. The list of dangers is a best effort against mistakes, not a sandbox against a
 * determined user of the shell. All functions may be called from any thread; objects have one owner. */
#ifndef AG_GATE_H
#define AG_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* ---- The shell's tree (shell*.c) -------------------------------------------------------------------- */

enum {
	AG_GATE_MAX_LINE = 64 * 1024, /* bytes of a command line */
	AG_GATE_MAX_DEPTH = 48,       /* of nested substitutions, groups and compound commands */
};

enum ag_gate_part_kind {
	AG_GATE_PART_TEXT,  /* text; quotes and escapes removed */
	AG_GATE_PART_PARAM, /* $text, ${text...}; op and word hold what follows the name ("-", "##", ...) */
	AG_GATE_PART_CMD,   /* $(...) or `...`; node */
	AG_GATE_PART_ARITH, /* $((...)); word holds its text, for the substitutions inside */
	AG_GATE_PART_PROC,  /* <(...) or >(...); node */
};

struct ag_gate_part {
	enum ag_gate_part_kind kind;
	bool quoted; /* no splitting, no globbing */
	const char *text;
	size_t len;
	const char *op; /* PARAM: "" or the characters of the operator */
	struct ag_gate_word *word;
	struct ag_gate_node *node;
	struct ag_gate_part *next;
};

struct ag_gate_word {
	struct ag_gate_part *parts; /* NULL: the empty word */
	bool quoted;                /* some quotes were there, so an empty word still is an argument */
	struct ag_gate_word *next;
};

struct ag_gate_assign {
	const char *name;
	bool append, array;         /* +=, =( ) */
	struct ag_gate_word *value; /* one word; a list for arrays */
	struct ag_gate_assign *next;
};

struct ag_gate_redir {
	char op[4];                  /* "<" ">" ">>" ">|" "<>" "<&" ">&" "&>" "&>>" "<<" "<<-" "<<<" */
	int fd;                      /* -1: the default one */
	struct ag_gate_word *target; /* of here-documents: the body */
	struct ag_gate_redir *next;
};

enum ag_gate_node_kind {
	AG_GATE_SIMPLE,   /* assigns, words, redirs */
	AG_GATE_PIPELINE, /* children are its stages */
	AG_GATE_SUBSHELL, /* ( ... ) */
	AG_GATE_GROUP,    /* { ...; } */
	AG_GATE_IF,       /* children: condition, branch, condition, branch, ..., else */
	AG_GATE_LOOP,     /* while, until: condition, body */
	AG_GATE_FOR,      /* for, select: name, words, child: body */
	AG_GATE_CASE,     /* words: the subject and all patterns; children: the branches */
	AG_GATE_FUNCTION, /* name, child: body */
	AG_GATE_COND,     /* [[ ... ]] and (( ... )): words, for the substitutions inside */
	AG_GATE_LIST,     /* children in order */
};

struct ag_gate_node {
	enum ag_gate_node_kind kind;
	char after[4]; /* what stands between this node and the next: ";" "&" "&&" "||" "|" "|&" or "" */
	const char *name;
	struct ag_gate_assign *assigns;
	struct ag_gate_word *words;
	struct ag_gate_redir *redirs;
	struct ag_gate_node *children;
	struct ag_gate_node *next;
};

struct ag_gate_tree; /* owns every node */

/* Parses a command line (or a whole script) of POSIX sh with what bash adds. -EBADMSG with the reason and its offset
 * when it is not one, or is nested or long beyond the limits; -ENOMEM. */
int ag_gate_parse(const char *line, size_t len, struct ag_gate_tree **ret_tree, struct err *err);
const struct ag_gate_node *ag_gate_tree_root(const struct ag_gate_tree *tree); /* a LIST; the tree's */
void ag_gate_tree_free(struct ag_gate_tree *tree);

/* ---- Risk (risk.c) ------------------------------------------------------------------------------------ */

enum ag_gate_class {
	AG_GATE_READ,        /* looks, alters nothing that lasts */
	AG_GATE_CHANGE,      /* alters the system in a way that can be taken back; also what is not known */
	AG_GATE_DESTRUCTIVE, /* data, access or service may be lost */
};

enum {
	AG_GATE_UNKNOWN = 1u << 0, /* the line, a program or a word could not be told before it runs */
	AG_GATE_SECRET = 1u << 1,  /* reads keys or passwords */
	AG_GATE_NETWORK = 1u << 2, /* sends or fetches over the network */
	AG_GATE_ROOT = 1u << 3,    /* asks for another user's rights (sudo, su, doas, pkexec) */
	AG_GATE_REMOTE = 1u << 4,  /* runs on another host or in a container */
	AG_GATE_HARD = 1u << 5,    /* never run from here, whatever the rules say */
};

/* One command as it would run, after wrappers, quotes and known variables; a redirection that writes is one too,
 * its program is ">" and its argument the file. A byte \1 in an argument stands for what is not known. */
struct ag_gate_command {
	char **argv; /* argc strings, then NULL; argv[0] without its folder */
	size_t argc;
	enum ag_gate_class class;
	unsigned flags;
	bool wrapper; /* sudo, env, timeout ...: what it runs comes as a command of its own */
};

struct ag_gate_finding {
	enum ag_gate_class class;
	unsigned flags;
	char *word; /* the word of the line it is about, cleaned of control characters */
	char *why;  /* a phrase: "deletes files", "overwrites a disk" */
};

struct ag_gate_risk {
	enum ag_gate_class class; /* the worst of all commands */
	unsigned flags;           /* of all commands */
	struct ag_gate_command *commands;
	size_t n_commands;
	struct ag_gate_finding *findings; /* worst first */
	size_t n_findings;
};

/* What the line is judged against; all may be NULL. Borrowed for the call. */
struct ag_gate_context {
	const char *home;   /* NULL: $HOME */
	const char *cwd;    /* absolute; NULL: not known, relative names stay so */
	const char *mounts; /* text of /proc/self/mounts; NULL: read it. "" for none */
};

/* Never fails for reasons of the line: what cannot be parsed is CHANGE with the flag UNKNOWN. -ENOMEM only. */
int ag_gate_assess(const char *line, size_t len, const struct ag_gate_context *context, struct ag_gate_risk **ret_risk);
void ag_gate_risk_free(struct ag_gate_risk *risk);
const char *ag_gate_class_name(enum ag_gate_class class); /* "read", "change", "destructive" */

/* ---- Rules and verdict (rules.c; docs/formats/gate-rules.md) -------------------------------------------- */

enum ag_gate_rule_kind { AG_GATE_ALLOW, AG_GATE_ASKS, AG_GATE_DENIES };

struct ag_gate_rules;

int ag_gate_rules_new(struct ag_gate_rules **ret_rules);
void ag_gate_rules_free(struct ag_gate_rules *rules);
/* One pattern, "systemctl restart *"; `where` ("/etc/ocai/ocai.conf", copied) is named in verdicts. -EINVAL. */
int ag_gate_rules_add(struct ag_gate_rules *rules, enum ag_gate_rule_kind kind, const char *pattern, const char *where,
                      struct err *err);
/* Lines "allow PATTERN", "ask PATTERN", "deny PATTERN", '#' comments. -EINVAL names the line. */
int ag_gate_rules_parse(struct ag_gate_rules *rules, const char *text, size_t len, const char *where, struct err *err);
/* The same from a file; a missing one is fine (0). A file that others may write is refused with -EPERM. */
int ag_gate_rules_read(struct ag_gate_rules *rules, const char *path, struct err *err);
/* The rules of /usr/lib/ocai, /etc/ocai and the user's configuration, gate.rules in each. */
int ag_gate_rules_load(struct ag_gate_rules **ret_rules, struct err *err);
/* Adds one line to the user's rules file (0600, folders made, written whole or not at all). */
int ag_gate_rules_save(const char *path, enum ag_gate_rule_kind kind, const char *pattern, struct err *err);

enum ag_gate_verdict { AG_GATE_RUN, AG_GATE_ASK, AG_GATE_ASK_TWICE, AG_GATE_DENY };

struct ag_gate_decision {
	enum ag_gate_verdict verdict;
	char *reason; /* one sentence for a person, never NULL */
	char *permit; /* how to permit it: the rule to add, or why none can; "" when it runs */
	char *rule;   /* a pattern that would allow exactly this, for "always"; NULL when there is none */
	struct ag_gate_risk *risk;
};

/* rules may be NULL: the built-in behaviour. -ENOMEM only.
 *
 * Read runs, change asks, destructive asks twice. Each command of the line is looked up by itself. deny wins over
 * all; ask over allow; allow makes a change run and a destructive one ask once. Built-in denials (rm -rf /, a new
 * file system on a mounted disk, fork bombs ...) stand above the rules. A line that cannot be parsed asks twice. */
int ag_gate_decide(const struct ag_gate_rules *rules, const char *line, size_t len,
                   const struct ag_gate_context *context, struct ag_gate_decision **ret_decision);
void ag_gate_decision_free(struct ag_gate_decision *decision);
const char *ag_gate_verdict_name(enum ag_gate_verdict verdict); /* "run", "ask", "ask-twice", "deny" */

/* ---- Audit (audit.c) ---------------------------------------------------------------------------------- */

struct ag_gate_audit_entry {
	const char *command; /* secrets are masked on the way in */
	const char *cwd;     /* NULL: the process's */
	const char *origin;  /* "cmd", "chat", "mcp" ... */
	enum ag_gate_class class;
	enum ag_gate_verdict verdict;
	bool ran;      /* false: refused by the gate or by the person */
	int exit_code; /* of what ran; 128 + signal */
};

/* Appends one JSON line to the log (0600, O_APPEND, locked, folders made). Beyond max_bytes (0: 4 MiB) the log is
 * renamed to PATH.1, replacing the one before it. A link in the log's place is refused with -ELOOP. */
int ag_gate_audit(const char *path, const struct ag_gate_audit_entry *entry, uint64_t max_bytes, struct err *err);
/* $XDG_STATE_HOME/ocai/audit.jsonl, else ~/.local/state/ocai/audit.jsonl, appended. */
int ag_gate_audit_path(struct base_buf *ret_path, struct err *err);

/* ---- Secrets (mask.c) ----------------------------------------------------------------------------------- */

/* Appends the text with each secret replaced by "[secret:KIND]"; returns how many were, or -EFBIG, -ENOMEM. */
int ag_gate_mask(const char *text, size_t len, struct base_buf *out);

#endif
