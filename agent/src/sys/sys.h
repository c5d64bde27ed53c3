/* Facts about this machine, computed by code: no tool's text is parsed and no number is guessed.
 *
 * ag_sys_collect() reads /proc, /sys, /etc, the rpm database (librpm), systemd (sd-bus) and the journal, and gives
 * one JSON document. Libraries that are not there, files that may not be read and processes that vanish cost a
 * fact and leave a note in the section, never the whole. Key names carry their units (_bytes, _percent, _ms, _s,
 * _per_s). Findings are sentences made from those facts by a table of rules, worst first:
 *
 *   { "host": {...}, "storage": { "mounts": [...], "notes": [{"en": "...", "zh": "..."}] }, ...,
 *     "findings": [{ "rule": "mount-full", "severity": "critical"|"warning", "score": 412.5, "facts": {...},
 *                    "en": "...", "zh": "...", "next": ["command that only reads", ...] }] }
 *
 * A model that puts this into words takes every number from it. One thread at a time (librpm is not reentrant). */
#ifndef AG_SYS_H
#define AG_SYS_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum ag_sys_section {
	AG_SYS_HOST = 1u << 0,         /* release, kernel, uptime, virtualization, boot arguments */
	AG_SYS_HARDWARE = 1u << 1,     /* processors, memory, NUMA, disks */
	AG_SYS_GPU = 1u << 2,          /* display and compute PCI devices, NVIDIA (NVML), amdgpu */
	AG_SYS_PACKAGES = 1u << 3,     /* the rpm database */
	AG_SYS_SERVICES = 1u << 4,     /* systemd: state, failed units with their last journal lines */
	AG_SYS_LOGS = 1u << 5,         /* errors of this boot by unit and message; OOM kills */
	AG_SYS_NETWORK = 1u << 6,      /* interfaces, addresses, routes, listening sockets and their owners, DNS */
	AG_SYS_STORAGE = 1u << 7,      /* mounts, block devices, deleted files still open */
	AG_SYS_USERS = 1u << 8,        /* who is logged in, failed logins */
	AG_SYS_PERF = 1u << 9,         /* two samples some seconds apart: takes that long */
	AG_SYS_QUICK = AG_SYS_PERF - 1 /* all that do not wait */
};

struct ag_sys_options {
	const char *root;              /* prefix of every path read; NULL: this machine */
	double seconds;                /* AG_SYS_PERF: between the samples; 0: 10 */
	const char *owns;              /* AG_SYS_PACKAGES: which package owns this file; or NULL */
	const char *verify;            /* AG_SYS_PACKAGES: compare this package's files with the database; or NULL */
	const char *package;           /* AG_SYS_PACKAGES: what the database says of this package; or NULL */
	bool updates;                  /* AG_SYS_PACKAGES: what an update would bring, by cached metadata */
	volatile sig_atomic_t *cancel; /* not 0 any more: the sample ends early; or NULL */
};

struct ag_sys_style {
	bool chinese;
	bool color;
	bool ascii;     /* bars of '#' rather than blocks */
	unsigned width; /* columns; 0: 80 */
};

/* "cpu" and "memory" mean hardware, "disk" storage, "net" network, "all" AG_SYS_QUICK. -EINVAL for other words. */
int ag_sys_section_parse(const char *word, unsigned *ret_section, struct err *err);
/* The name of section number i, or NULL behind the last: for help and for tools' schemas. */
const char *ag_sys_section_name(unsigned i);

/* The document; options may be NULL. Fails for options out of range and without memory only. */
int ag_sys_collect(unsigned sections, const struct ag_sys_options *options, json_t **ret_document, struct err *err);
/* The newest n lines of a unit's journal, oldest first: an array of texts, the caller's. -ENOENT: no journal here, or
 * it may not be read. */
int ag_sys_unit_log(const char *unit, unsigned n, const struct ag_sys_options *options, json_t **ret_lines,
                    struct err *err);
/* Applies the rules to a document, replacing its "findings"; collect has done this already. */
int ag_sys_judge(json_t *document);
/* Appends the document as text for people: bars, tables, findings. Works on any document, also on a hostile one. */
int ag_sys_render(const json_t *document, const struct ag_sys_style *style, struct base_buf *out);

#endif
