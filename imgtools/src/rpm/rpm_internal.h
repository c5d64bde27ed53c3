/* Shared by the files of this room only. */
#ifndef IMG_RPM_INTERNAL_H
#define IMG_RPM_INTERNAL_H

#include "rpm/rpm.h"

enum { RPM_LEAD_SIZE = 96, RPM_MAGIC_SIZE = 8 };

/* What a package's pointers point into. */
struct img_rpm_priv {
	uint8_t *header;
	uint8_t *signature;
	char *location;
	char *checksum;            /* of the package file, as a repository says: "sha256:..."; NULL when it does not */
	struct img_rpm_keys *keys; /* it has to be signed by one of these; borrowed; NULL: that is not asked */
	char *paths;               /* of all files, one after the other */
	uint32_t *file_deps;       /* what img_rpm_file.deps points into */
	char **texts;              /* anything else allocated, e.g. what XML said */
	size_t n_texts, cap_texts;
};

/* The tags this project reads (values of the format). */
enum img_rpm_tag {
	RPM_TAG_NAME = 1000,
	RPM_TAG_VERSION = 1001,
	RPM_TAG_RELEASE = 1002,
	RPM_TAG_EPOCH = 1003,
	RPM_TAG_SUMMARY = 1004,
	RPM_TAG_BUILDTIME = 1006,
	RPM_TAG_SIZE = 1009,
	RPM_TAG_VENDOR = 1011,
	RPM_TAG_LICENSE = 1014,
	RPM_TAG_URL = 1020,
	RPM_TAG_ARCH = 1022,
	RPM_TAG_PREIN = 1023,
	RPM_TAG_POSTIN = 1024,
	RPM_TAG_PREUN = 1025,
	RPM_TAG_POSTUN = 1026,
	RPM_TAG_OLDFILENAMES = 1027,
	RPM_TAG_FILESIZES = 1028,
	RPM_TAG_FILESTATES = 1029,
	RPM_TAG_FILEMODES = 1030,
	RPM_TAG_FILERDEVS = 1033,
	RPM_TAG_FILEMTIMES = 1034,
	RPM_TAG_FILEDIGESTS = 1035,
	RPM_TAG_FILELINKTOS = 1036,
	RPM_TAG_FILEFLAGS = 1037,
	RPM_TAG_FILEUSERNAME = 1039,
	RPM_TAG_FILEGROUPNAME = 1040,
	RPM_TAG_SOURCERPM = 1044,
	RPM_TAG_PROVIDENAME = 1047,
	RPM_TAG_REQUIREFLAGS = 1048,
	RPM_TAG_REQUIRENAME = 1049,
	RPM_TAG_REQUIREVERSION = 1050,
	RPM_TAG_CONFLICTFLAGS = 1053,
	RPM_TAG_CONFLICTNAME = 1054,
	RPM_TAG_CONFLICTVERSION = 1055,
	RPM_TAG_TRIGGERNAME = 1066,
	RPM_TAG_PREINPROG = 1085,
	RPM_TAG_POSTINPROG = 1086,
	RPM_TAG_PREUNPROG = 1087,
	RPM_TAG_POSTUNPROG = 1088,
	RPM_TAG_OBSOLETENAME = 1090,
	RPM_TAG_FILEDEVICES = 1095,
	RPM_TAG_FILEINODES = 1096,
	RPM_TAG_FILELANGS = 1097,
	RPM_TAG_SOURCEPACKAGE = 1106,
	RPM_TAG_PROVIDEFLAGS = 1112,
	RPM_TAG_PROVIDEVERSION = 1113,
	RPM_TAG_OBSOLETEFLAGS = 1114,
	RPM_TAG_OBSOLETEVERSION = 1115,
	RPM_TAG_DIRINDEXES = 1116,
	RPM_TAG_BASENAMES = 1117,
	RPM_TAG_DIRNAMES = 1118,
	RPM_TAG_PAYLOADCOMPRESSOR = 1125,
	RPM_TAG_FILEDEPENDSX = 1143,
	RPM_TAG_FILEDEPENDSN = 1144,
	RPM_TAG_DEPENDSDICT = 1145,
	RPM_TAG_PRETRANS = 1151,
	RPM_TAG_POSTTRANS = 1152,
	RPM_TAG_PRETRANSPROG = 1153,
	RPM_TAG_POSTTRANSPROG = 1154,
	RPM_TAG_LONGFILESIZES = 5008,
	RPM_TAG_LONGSIZE = 5009,
	RPM_TAG_FILECAPS = 5010,
	RPM_TAG_FILEDIGESTALGO = 5011,
	RPM_TAG_RECOMMENDNAME = 5046,
	RPM_TAG_RECOMMENDVERSION = 5047,
	RPM_TAG_RECOMMENDFLAGS = 5048,
	RPM_TAG_FILETRIGGERNAME = 5069,
	RPM_TAG_TRANSFILETRIGGERNAME = 5079,

	RPM_SIGTAG_SHA1 = 269,
	RPM_SIGTAG_SHA256 = 273,
};

/* A validated header: bytes, and its index as numbers. */
struct img_rpm_hdr {
	const uint8_t *index, *store;
	uint32_t n_entries, store_size;
};

/* One entry of the index: `count` values at `offset` of the store. */
struct img_rpm_entry {
	uint32_t tag, type, offset, count;
};
enum { TYPE_CHAR = 1, TYPE_INT8, TYPE_INT16, TYPE_INT32, TYPE_INT64, TYPE_STRING, TYPE_BIN, TYPE_STRINGS, TYPE_I18N };

/* Checks every entry; `name` is what errors begin with. */
int img_rpm_hdr_init(struct img_rpm_hdr *h, const uint8_t *data, size_t size, const char *name, struct err *err);
/* The size of a header from its first 8 bytes; 0 when it is beyond the limits. */
size_t img_rpm_hdr_size(const uint8_t intro[8]);
const char *img_rpm_hdr_string(const struct img_rpm_hdr *h, uint32_t tag); /* first string; NULL when absent */
bool img_rpm_hdr_has(const struct img_rpm_hdr *h, uint32_t tag);
bool img_rpm_hdr_find(const struct img_rpm_hdr *h, uint32_t tag, struct img_rpm_entry *ret_entry);
uint64_t img_rpm_hdr_integer(const struct img_rpm_hdr *h, const struct img_rpm_entry *e, uint32_t i); /* value i */
uint64_t img_rpm_hdr_number(const struct img_rpm_hdr *h, uint32_t tag); /* the first value; 0 when absent */
/* An array with one value for each of n things; absent is fine and leaves *ret_entry with count 0. -EBADMSG for another
 * type or count: the error begins with `what`. */
int img_rpm_hdr_array(const struct img_rpm_hdr *h, uint32_t tag, bool strings, size_t n,
                      struct img_rpm_entry *ret_entry, const char *what, struct err *err);

/* Fills a package from its header, which p->priv already owns. */
int img_rpm_fill(struct img_rpm *p, struct err *err);
/* Empties what img_rpm_fill() filled, so that it can be filled again; text of the metadata stays. */
void img_rpm_unfill(struct img_rpm *p);
struct img_rpm *img_rpm_new(void);
/* A copy of a text that lives as long as the package; "" for NULL. NULL when out of memory. */
const char *img_rpm_text(struct img_rpm *p, const char *text);

static inline uint32_t img_rpm_be32(const uint8_t *b)
{
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Bytes of a (compressed) file to a callback. */
typedef int (*img_rpm_bytes)(const void *data, size_t size, void *arg, struct err *err);
int img_rpm_decompress(const char *path, uint64_t offset, img_rpm_bytes sink, void *arg, struct err *err);

/* librpm with a database folder of ours: configuration once, macros each time. */
int img_rpm_lib_init(struct err *err);
void img_rpm_lib_set_db(const char *dir, const char *backend);
void img_rpm_lib_unset_db(void);

/* Both write a new file `to` from the database `from`, which librpm made: small, without absent files in the index of
 * names and without folders of only such files in that of folders, or whole. */
struct img_rpmdb_row {
	uint32_t package, file; /* as the database numbers them: packages from 1, files from 0 */
	const char *path;       /* the package's */
	bool is_there;
};
struct img_rpmdb_rows {
	struct img_rpmdb_row *v;
	size_t n;
};
/* No rows at all: nothing is left out of the indexes. */
int img_rpmdb_rebuild_small(const char *from, const char *to, const struct img_rpmdb_rows *files, struct err *err);
int img_rpmdb_vacuum(const char *from, const char *to, struct err *err);

/* A private folder for database files, in TMPDIR or /tmp. */
enum { IMG_RPM_TEMP_SIZE = 256 };
int img_rpm_temp_new(char ret_dir[IMG_RPM_TEMP_SIZE], struct err *err);
void img_rpm_temp_remove(char dir[IMG_RPM_TEMP_SIZE]);

/* Is the package file signed by one of the keys, and is its header the one that was parsed? From any thread. */
int img_rpm_keys_check(struct img_rpm_keys *k, const struct img_rpm *p, struct err *err);
/* Is the file what its PATH.asc says? Fine when there is none. */
int img_rpm_keys_check_file(struct img_rpm_keys *k, const char *path, struct err *err);

/* The ndb format from bytes. */
int img_rpm_ndb_parse(struct img_rpm_set *s, const uint8_t *data, size_t size, struct err *err);

/* Adds a package, which the set takes; frees it when it does not belong there. */
int img_rpm_set_take(struct img_rpm_set *s, struct img_rpm *p, struct err *err);
int img_rpm_repo_read(struct img_rpm_set *s, const char *dir, struct err *err);
/* Is the file what "sha256:HEX" says? -EBADMSG when it is not; other kinds of checksum than the SHA family pass. */
int img_rpm_check_file(const char *path, const char *checksum, struct err *err);

/* The metadata parsers on bytes (rpm_repo_xml.c); `name` is what errors begin with. */
struct img_rpm_xml; /* one parser of one document, fed in pieces */
struct img_rpm_repomd {
	char *primary, *primary_checksum;     /* location within the repository, "sha256:HEX" */
	char *filelists, *filelists_checksum; /* NULL when there are none */
};
void img_rpm_repomd_done(struct img_rpm_repomd *m);

/* Called with each package of primary.xml; takes it. */
typedef int (*img_rpm_found)(struct img_rpm *p, void *arg, struct err *err);
/* Called with each path of filelists.xml and the package it belongs to. */
typedef int (*img_rpm_listed)(const char *name, const char *arch, uint32_t epoch, const char *version,
                              const char *release, const char *path, void *arg);

int img_rpm_xml_repomd(const char *name, struct img_rpm_repomd *m, struct img_rpm_xml **ret_x);
int img_rpm_xml_primary(const char *name, const char *dir, img_rpm_found found, void *arg, struct img_rpm_xml **ret_x);
int img_rpm_xml_filelists(const char *name, img_rpm_listed listed, void *arg, struct img_rpm_xml **ret_x);
int img_rpm_xml_feed(struct img_rpm_xml *x, const void *data, size_t size, bool is_last, struct err *err);
void img_rpm_xml_free(struct img_rpm_xml *x);

#endif
