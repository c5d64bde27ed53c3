/* RPM packages as data: headers of package files, of repositories and of a root's database; payloads into a tree; and
 * a database for a root that holds only some of the files.
 *
 * Headers are parsed here, from bytes (rpm_header.c): package files and databases of others are not trusted. librpm
 * is used where a format is its own business: reading and writing the database (sqlite, ndb, bdb read-only) and
 * comparing versions. It keeps global state, so the functions that say "librpm" want one thread at a time. */
#ifndef IMG_RPM_H
#define IMG_RPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "tree/tree.h"

enum {
	IMG_RPM_MAX_HEADER = 256u << 20, /* bytes of one header, as in rpm */
	IMG_RPM_MAX_FILES = 1u << 22,    /* files of one package */
};

/* RPMFILE_* and RPMSENSE_* as in the format; the values never change. */
enum {
	IMG_RPMFILE_CONFIG = 1u << 0,
	IMG_RPMFILE_DOC = 1u << 1,
	IMG_RPMFILE_MISSINGOK = 1u << 3,
	IMG_RPMFILE_GHOST = 1u << 6, /* belongs to the package, is not in its payload */
	IMG_RPMFILE_LICENSE = 1u << 7,
	IMG_RPMFILE_README = 1u << 8,
	IMG_RPMFILE_ARTIFACT = 1u << 12,
};
enum { IMG_RPMSENSE_LESS = 2, IMG_RPMSENSE_GREATER = 4, IMG_RPMSENSE_EQUAL = 8 };

enum img_rpm_state { /* of a file of an installed package */
	             IMG_RPM_NORMAL = 0,
	             IMG_RPM_REPLACED = 1,
	             IMG_RPM_NOT_INSTALLED = 2,
	             IMG_RPM_NET_SHARED = 3,
	             IMG_RPM_WRONG_COLOR = 4,
};

struct img_rpm_dep {
	const char *name;    /* "libc.so.6(GLIBC_2.34)(64bit)", "/bin/sh", "bash", "(a or b)" */
	const char *version; /* "1:2.36-9", "" for any */
	uint32_t flags;      /* IMG_RPMSENSE_* among others */
};

/* A list in the package's header, and which of it a file is the reason for. */
enum img_rpm_dep_kind { IMG_RPM_REQUIRES, IMG_RPM_PROVIDES, IMG_RPM_RECOMMENDS, IMG_RPM_CONFLICTS, IMG_RPM_OBSOLETES };
enum { IMG_RPM_N_DEP_KINDS = 5 };

struct img_rpm_file {
	const char *path; /* absolute and normal, as in tree.h */
	enum img_type type;
	uint32_t mode; /* the 12 permission bits */
	uint64_t size;
	uint32_t mtime;
	uint32_t flags;   /* IMG_RPMFILE_* */
	const char *user; /* names, as the package has them */
	const char *group;
	const char *digest;  /* hex, by the package's digest_algo; "" for none */
	const char *target;  /* of a symbolic link, else "" */
	const char *caps;    /* "cap_net_raw=ep" or "" */
	const char *langs;   /* "de|fr" or "" */
	uint32_t rdev;       /* of devices: major << 8 | minor */
	uint32_t link_group; /* the same for hard links of one file; 0: the only name */
	enum img_rpm_state state;
	/* Dependencies that this file is the reason for: a kind in the upper 8 bits (enum img_rpm_dep_kind), the index
	 * into that list of the package in the lower 24. */
	const uint32_t *deps;
	uint32_t n_deps;
};

/* Not left out, replaced by another package's, or of another colour when the package was installed. */
static inline bool img_rpm_file_is_installed(const struct img_rpm_file *f)
{
	return f->state == IMG_RPM_NORMAL || f->state == IMG_RPM_NET_SHARED;
}

/* A package. All text belongs to it. What is known of a package of a repository before img_rpm_load() is what the
 * repository's metadata say: everything down to `source_rpm`, `deps`, and the few `files` listed there (paths and
 * types only). */
struct img_rpm {
	const char *name, *version, *release, *arch;
	uint32_t epoch;
	bool has_epoch;
	const char *license, *summary, *vendor, *url, *source_rpm;
	uint64_t installed_size;
	uint64_t build_time;

	struct img_rpm_dep *deps[IMG_RPM_N_DEP_KINDS];
	size_t n_deps[IMG_RPM_N_DEP_KINDS];

	bool is_loaded; /* the rest is valid */
	struct img_rpm_file *files;
	size_t n_files;
	int digest_algo;                /* of file digests: 1 MD5, 2 SHA-1, 8 SHA-256, 10 SHA-512 (OpenPGP numbers) */
	uint32_t scriptlets;            /* 1 << enum img_rpm_scriptlet */
	const char *location;           /* package file on this host; NULL for an installed package */
	const char *payload_compressor; /* "zstd", "xz", "gzip", ... */
	uint64_t payload_offset;        /* in the package file */
	const uint8_t *header;          /* the main header as stored: index count, store size, index, store */
	size_t header_size;
	const uint8_t *signature; /* the signature header likewise; NULL for an installed package */
	size_t signature_size;

	bool is_preferred; /* set by the caller: wins where several provide the same */
	void *user;        /* for the pass at hand; not owned */
	int32_t index;     /* within its set */
	void *priv;
};

enum img_rpm_scriptlet {
	IMG_RPM_PRE_INSTALL,
	IMG_RPM_POST_INSTALL,
	IMG_RPM_PRE_REMOVE,
	IMG_RPM_POST_REMOVE,
	IMG_RPM_PRE_TRANS,
	IMG_RPM_POST_TRANS,
	IMG_RPM_TRIGGER,
	IMG_RPM_FILE_TRIGGER, /* of the package or of the transaction */
	IMG_RPM_N_SCRIPTLETS
};

/* "name-[epoch:]version-release.arch" into buf; returns buf. */
const char *img_rpm_nevra(const struct img_rpm *p, char *buf, size_t size);
/* By epoch, version, release as rpm orders them: <0, 0, >0. */
int img_rpm_compare(const struct img_rpm *a, const struct img_rpm *b);

/* One header from bytes: as in a database (no magic). The bytes are copied. -EBADMSG says what is wrong. */
int img_rpm_parse(const void *header, size_t size, struct img_rpm **ret_package, struct err *err);
/* A package file: lead, signature, header; the payload is not read. The header's digests are checked. */
int img_rpm_open(const char *path, struct img_rpm **ret_package, struct err *err);
void img_rpm_free(struct img_rpm *p);

/* ---- Sets ------------------------------------------------------------------------------------------------- */

struct img_rpm_set; /* packages with indexes by name, provide and path */

int img_rpm_set_new(const char *arch, struct img_rpm_set **ret_set); /* NULL: this machine's */
void img_rpm_set_free(struct img_rpm_set *s);

/* Public keys, of files that hold them in armour or not. (librpm) */
struct img_rpm_keys;
int img_rpm_keys_new(struct img_rpm_keys **ret_k, struct err *err);
void img_rpm_keys_free(struct img_rpm_keys *k);
int img_rpm_keys_add(struct img_rpm_keys *k, const char *path, struct err *err);
/* From now on every package that is added has to be signed by one of the keys when it is unpacked, and the metadata of
 * a repository when they are signed at all: -EKEYREJECTED, -EBADMSG. Borrowed until the set is freed. */
void img_rpm_set_keys(struct img_rpm_set *s, struct img_rpm_keys *k);

/* Adds what was found; a package of an arch that does not run here is left out, of several versions of one name the
 * newest counts. Errors name the file. */
int img_rpm_set_add_package(struct img_rpm_set *s, const char *path, struct err *err);
/* A folder with repodata/: repomd.xml, primary; filelists when a path is asked for that primary does not list. */
int img_rpm_set_add_repo(struct img_rpm_set *s, const char *dir, struct err *err);
/* The database of an installed root (librpm): usr/lib/sysimage/rpm, var/lib/rpm, root/.rpmdb, whichever is there.
 * Nothing is written to the root. -ENOENT when it has none. */
int img_rpm_set_add_root(struct img_rpm_set *s, const char *root, struct err *err);
/* The same from the database's files in a tree (an image that was not unpacked). */
int img_rpm_set_add_tree(struct img_rpm_set *s, const struct img_tree *t, struct err *err);
/* Where the database of the last root or tree was: "/var/lib/rpm"; NULL for none. */
const char *img_rpm_set_db_path(const struct img_rpm_set *s);

size_t img_rpm_set_count(const struct img_rpm_set *s);
struct img_rpm *img_rpm_set_at(const struct img_rpm_set *s, size_t i); /* by name, newest first */
struct img_rpm *img_rpm_set_find(const struct img_rpm_set *s, const char *name);

/* Reads the header of a package that only metadata are known of. Nothing when it is there. */
int img_rpm_load(struct img_rpm *p, struct err *err);
/* Who provides: a name with version, a soname, a path. The first of them by name, with the file that is the reason in
 * *ret_file (index into files, -1: the package as a whole). NULL: nobody. Loads what it must. */
struct img_rpm *img_rpm_set_provider(struct img_rpm_set *s, const struct img_rpm_dep *dep, int32_t *ret_file,
                                     struct err *err);
/* Who owns a path, links of directories not followed. NULL: nobody. */
struct img_rpm *img_rpm_set_owner(struct img_rpm_set *s, const char *path, int32_t *ret_file, struct err *err);
/* Whether version and flags of a requirement and of a provide overlap. */
bool img_rpm_dep_matches(const struct img_rpm_dep *require, const struct img_rpm_dep *provide);

/* ---- Payloads --------------------------------------------------------------------------------------------- */

/* Symbolic links of packages that lead to folders ("/bin" -> "usr/bin"): packages name files by either path, and a tree
 * holds them once. */
struct img_rpm_aliases;

int img_rpm_aliases_new(struct img_rpm *const *packages, size_t n, struct img_rpm_aliases **ret_a);
void img_rpm_aliases_free(struct img_rpm_aliases *a);
/* The path with links followed in all components but the last ("/bin/sh" -> "/usr/bin/sh"). -ELOOP, -ENAMETOOLONG. */
int img_rpm_canonical(const struct img_rpm_aliases *a, const char *path, char ret_path[IMG_PATH_MAX]);

/* An absolute path with "." and ".." taken out ("/usr/bin/../lib//x" -> "/usr/lib/x"). */
int img_rpm_clean_path(const char *path, char ret_path[IMG_PATH_MAX]);

struct img_rpm_unpack_opts {
	/* Which files are wanted: NULL for all. Called from any thread, as is on_bytes with what was unpacked. */
	bool (*wants)(const struct img_rpm *p, size_t file, void *arg);
	void (*on_bytes)(uint64_t n, void *arg);
	void *arg;
	const struct img_rpm_aliases *aliases; /* NULL: paths as they are */
	const char *spool; /* folder for the bytes of large files, which must outlive the tree; NULL: all in memory */
	uint64_t memory_bytes; /* file bytes kept in memory for one package; the rest goes to the spool */
	unsigned n_threads;    /* 0: one per core */
	bool first_wins;       /* no error when packages disagree about a file: the first one's stays */
};

/* Adds the wanted files of loaded packages that have a location to the tree: modes, times, capabilities as
 * security.capability, hard-link groups; owners are 0 until img_rpm_fix_owners(). %ghost files are left out: they are
 * not in the payload. The digest of each wanted file is checked: -EBADMSG names package and file. node->package is the
 * package's index, node->user its struct img_rpm_file. Of what several packages own the first one counts; -EEXIST when
 * they disagree about a file. */
int img_rpm_unpack(struct img_rpm *const *packages, size_t n, const struct img_rpm_unpack_opts *o, struct img_tree *t,
                   struct err *err);

/* Sets uid and gid of the nodes by the names in their node->user (struct img_rpm_file; NULL is passed over) and texts
 * of /etc/passwd and /etc/group (NULL: none; "root" is always 0). A name that is in neither becomes root, loses
 * set-user-id or set-group-id, and is counted; the first such is put into ret_unknown. */
int img_rpm_fix_owners(struct img_tree *t, const char *passwd, const char *group, size_t *ret_n_unknown,
                       char ret_unknown[64]);

/* "cap_net_raw=ep" as the 20 bytes of security.capability; -EINVAL for what is no such text. */
int img_rpm_caps_value(const char *text, uint8_t ret_value[20]);

/* ---- The database of a cut root --------------------------------------------------------------------------- */

enum img_rpmdb_mode {
	/* Headers of our own with all files, those that are not there with the state "not installed", and with the
	 * requirements that are met; others are recommendations. */
	IMG_RPMDB_MARKED,
	/* Headers as they were signed; every file that is not there has the state "not installed". */
	IMG_RPMDB_SIGNED,
	/* Headers of our own with the present files and the requirements that are met only: small. The description
	 * tells which files are not there. */
	IMG_RPMDB_SHORT,
};

struct img_rpmdb_opts {
	enum img_rpmdb_mode mode;
	int64_t install_time; /* seconds since 1970 (SOURCE_DATE_EPOCH); -1: the newest build time of the packages */
	int64_t clamp_mtime;  /* files are written with no time later than this; -1: with their own */
};

/* Is this file of this package in the root? */
typedef bool (*img_rpmdb_has_file)(const struct img_rpm *p, size_t file, void *arg);

/* Makes rpmdb.sqlite for these packages and puts it into the tree below db_path ("/var/lib/rpm"), with its folders.
 * Same packages, same files, same bytes. (librpm) */
int img_rpmdb_write(struct img_rpm *const *packages, size_t n, img_rpmdb_has_file has_file, void *arg,
                    const struct img_rpmdb_opts *o, const char *db_path, struct img_tree *t, struct err *err);

#endif
