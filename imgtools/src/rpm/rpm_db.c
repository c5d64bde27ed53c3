/* Reading the package database of a root, in whatever format it is:
 *
 *   rpmdb.sqlite  table Packages(hnum, blob), a header in each row (rpm 4.16 and later; with a write-ahead log beside
 * it) Packages.db   "ndb" of SUSE and others, read here: 0  "RpmP", version 0, generation, number of slot pages, next
 * package index (little-endian words) 32  slots of 16 bytes up to the end of the slot pages: "Slot", package index,
 * first block, blocks; first block 0: free .  blobs in blocks of 16 bytes: "BlbS", package index, generation, length,
 * the header, ... Packages      Berkeley DB, read by librpm where it can
 *
 * The files are copied into a private folder first: sqlite would write a shared-memory file beside the original, and
 * a root's links are followed within the root only. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <rpm/header.h>
#include <rpm/rpmdb.h>
#include <rpm/rpmts.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "rpm_set_internal.h"

/* ---- Where -------------------------------------------------------------------------------------------------- */

static const char *const places[] = { "/usr/lib/sysimage/rpm", "/var/lib/rpm", "/root/.rpmdb", "/usr/share/rpm" };

enum format { SQLITE, NDB, BDB };
static const char *const file_names[] = { [SQLITE] = "rpmdb.sqlite", [NDB] = "Packages.db", [BDB] = "Packages" };

/* A root on this host, or a tree. */
struct source {
	int root_fd;
	const struct img_tree *tree;
};

static int write_all(int fd, const char *data, size_t size)
{
	while (size) {
		const ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Opens as if the root were "/". A kernel without openat2 gets no links followed at the end. */
static int open_in_root(int root_fd, const char *path)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT };
	long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = openat(root_fd, path + 1, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return fd < 0 ? -errno : (int)fd;
}

static int copy_from_root(const struct source *s, const char *path, int out)
{
	CLEANUP(close_fdp) int fd = open_in_root(s->root_fd, path);
	char block[1 << 16];
	struct stat st;
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EINVAL;
	while (r == 0 && (n = read(fd, block, sizeof(block))) != 0)
		r = n < 0 ? -errno : write_all(out, block, (size_t)n);
	return r;
}

static int copy_from_tree(const struct source *s, const char *path, int out, struct err *err)
{
	struct img_node *node;
	char block[1 << 16];
	uint64_t at = 0;
	ssize_t n;
	int r = img_tree_resolve(s->tree, path, true, &node, NULL, NULL);

	if (r < 0)
		return r;
	if (node->type != IMG_FILE)
		return -EINVAL;
	while (r == 0 && (n = img_node_read(node, block, sizeof(block), at, err)) != 0) {
		r = n < 0 ? (int)n : write_all(out, block, (size_t)n);
		at += n > 0 ? (uint64_t)n : 0;
	}
	return r;
}

/* Copies PLACE/NAME into dir/NAME; -ENOENT when it is not there. */
static int copy_file(const struct source *s, const char *place, const char *name, const char *dir, struct err *err)
{
	CLEANUP(close_fdp) int out = -1;
	char from[IMG_PATH_MAX], to[IMG_PATH_MAX];
	int r;

	(void)snprintf(from, sizeof(from), "%s/%s", place, name);
	(void)snprintf(to, sizeof(to), "%s/%s", dir, name);
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return err_set(err, -errno, "%s: %s", to, strerror(errno));
	r = s->tree ? copy_from_tree(s, from, out, err) : copy_from_root(s, from, out);
	if (r == -ENOENT || r == -ENOTDIR) {
		(void)unlink(to);
		return -ENOENT;
	}
	return r < 0 ? err_set(err, r, "%s: %s", from, strerror(-r)) : 0;
}

int img_rpm_temp_new(char ret_dir[IMG_RPM_TEMP_SIZE], struct err *err)
{
	const char *tmp = getenv("TMPDIR");

	if (!tmp || !*tmp || strlen(tmp) > IMG_RPM_TEMP_SIZE - sizeof("/rpmdb-XXXXXX"))
		tmp = "/tmp";
	(void)snprintf(ret_dir, IMG_RPM_TEMP_SIZE, "%s/rpmdb-XXXXXX", tmp);
	if (!mkdtemp(ret_dir)) {
		const int r = err_set(err, -errno, "%s: %s", ret_dir, strerror(errno));

		ret_dir[0] = 0;
		return r;
	}
	return 0;
}

/* The folder is flat: databases make no folders. */
void img_rpm_temp_remove(char dir[IMG_RPM_TEMP_SIZE])
{
	const struct dirent *de;
	char path[512];
	DIR *d;

	if (!dir[0])
		return;
	d = opendir(dir);
	while (d && (de = readdir(d))) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		(void)unlink(path);
	}
	if (d)
		(void)closedir(d);
	(void)rmdir(dir);
	dir[0] = 0;
}

/* ---- sqlite ------------------------------------------------------------------------------------------------- */

static int take_header(struct img_rpm_set *s, const void *blob, size_t size, long long number, const char *what,
                       struct err *err)
{
	struct img_rpm *p;
	int r = img_rpm_parse(blob, size, &p, err);

	if (r < 0)
		return err_prefix(err, r, "%s: package %lld: ", what, number);
	return img_rpm_set_take(s, p, err);
}

static int read_sqlite(struct img_rpm_set *s, const char *path, struct err *err)
{
	sqlite3_stmt *rows = NULL;
	sqlite3 *db = NULL;
	int rc, r = 0;

	rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_OK) {
		(void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		(void)sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		rc = sqlite3_prepare_v2(db, "SELECT hnum, blob FROM Packages ORDER BY hnum", -1, &rows, NULL);
	}
	while (rc == SQLITE_OK && r == 0 && (rc = sqlite3_step(rows)) == SQLITE_ROW) {
		rc = SQLITE_OK;
		r = take_header(s, sqlite3_column_blob(rows, 1), (size_t)sqlite3_column_bytes(rows, 1),
		                sqlite3_column_int64(rows, 0), file_names[SQLITE], err);
	}
	if (r == 0 && rc != SQLITE_DONE)
		r = err_set(err, -EBADMSG, "%s: %s", file_names[SQLITE], db ? sqlite3_errmsg(db) : "cannot be opened");
	(void)sqlite3_finalize(rows);
	(void)sqlite3_close(db);
	return r;
}

/* ---- ndb ---------------------------------------------------------------------------------------------------- */

static uint32_t le32(const uint8_t *b)
{
	return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

int img_rpm_ndb_parse(struct img_rpm_set *s, const uint8_t *data, size_t size, struct err *err)
{
	enum { PAGE = 4096, UNIT = 16, FIRST = 32, HEAD = 16 };
	uint64_t end;
	int r = 0;

	if (size < PAGE || memcmp(data, "RpmP", 4) != 0 || le32(data + 4) != 0)
		return err_set(err, -EBADMSG, "%s: not an ndb database of version 0", file_names[NDB]);
	end = (uint64_t)le32(data + 12) * PAGE;
	if (end > size)
		return err_set(err, -EBADMSG, "%s: the file is cut short in its slots", file_names[NDB]);
	for (uint64_t at = FIRST; r == 0 && at + UNIT <= end; at += UNIT) {
		const uint8_t *slot = data + at, *blob;
		const uint64_t from = (uint64_t)le32(slot + 8) * UNIT, room = (uint64_t)le32(slot + 12) * UNIT;
		const uint32_t number = le32(slot + 4);

		if (memcmp(slot, "Slot", 4) != 0)
			return err_set(err, -EBADMSG, "%s: no slot at offset %llu", file_names[NDB],
			               (unsigned long long)at);
		if (from == 0)
			continue;
		if (room < HEAD || from < end || from > size || room > size - from)
			return err_set(err, -EBADMSG, "%s: package %u is outside the file", file_names[NDB], number);
		blob = data + from;
		if (memcmp(blob, "BlbS", 4) != 0 || le32(blob + 4) != number || le32(blob + 12) > room - HEAD)
			return err_set(err, -EBADMSG, "%s: package %u has no whole header", file_names[NDB], number);
		r = take_header(s, blob + HEAD, le32(blob + 12), number, file_names[NDB], err);
	}
	return r;
}

static int read_ndb(struct img_rpm_set *s, const char *path, struct err *err)
{
	struct base_mapfile map;
	int r = base_mapfile_open(path, &map, err);

	if (r < 0)
		return r;
	r = img_rpm_ndb_parse(s, map.data, map.size_bytes, err);
	base_mapfile_close(&map);
	return r;
}

/* ---- Berkeley DB -------------------------------------------------------------------------------------------- */

static int read_bdb(struct img_rpm_set *s, const char *dir, struct err *err)
{
	rpmdbMatchIterator rows;
	Header h;
	rpmts ts;
	int r = img_rpm_lib_init(err);

	if (r < 0)
		return r;
	img_rpm_lib_set_db(dir, "bdb_ro");
	ts = rpmtsCreate();
	(void)rpmtsSetVSFlags(ts, RPMVSF_MASK_NOSIGNATURES | RPMVSF_MASK_NODIGESTS);
	if (rpmtsOpenDB(ts, O_RDONLY) != 0) {
		(void)rpmtsFree(ts);
		img_rpm_lib_unset_db();
		return err_set(err, -EOPNOTSUPP, "%s: this librpm cannot read a database in Berkeley DB format",
		               file_names[BDB]);
	}
	rows = rpmtsInitIterator(ts, RPMDBI_PACKAGES, NULL, 0);
	while (r == 0 && rows && (h = rpmdbNextIterator(rows))) {
		unsigned size = 0;
		void *blob = headerExport(h, &size);

		r = blob ? take_header(s, blob, size, headerGetInstance(h), file_names[BDB], err) : -ENOMEM;
		free(blob);
	}
	(void)rpmdbFreeIterator(rows);
	(void)rpmtsFree(ts);
	img_rpm_lib_unset_db();
	return r;
}

/* ---- Together ----------------------------------------------------------------------------------------------- */

static int read_place(struct img_rpm_set *s, const struct source *from, const char *place, const char *dir,
                      struct err *err)
{
	char path[512];
	int r;

	for (int f = SQLITE; f <= BDB; f++) {
		r = copy_file(from, place, file_names[f], dir, err);
		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		(void)snprintf(path, sizeof(path), "%s/%s", dir, file_names[f]);
		if (f == SQLITE) {
			r = copy_file(from, place, "rpmdb.sqlite-wal", dir, err);
			return r < 0 && r != -ENOENT ? r : read_sqlite(s, path, err);
		}
		return f == NDB ? read_ndb(s, path, err) : read_bdb(s, dir, err);
	}
	return -ENOENT;
}

static int add_database(struct img_rpm_set *s, const struct source *from, struct err *err)
{
	char dir[IMG_RPM_TEMP_SIZE] = "";
	int r = img_rpm_temp_new(dir, err);

	if (r < 0)
		return r;
	s->is_installed = true;
	r = -ENOENT;
	for (size_t i = 0; r == -ENOENT && i < sizeof(places) / sizeof(places[0]); i++) {
		r = read_place(s, from, places[i], dir, err);
		if (r == 0) {
			free(s->db_path);
			s->db_path = strdup(places[i]);
			r = s->db_path ? 0 : -ENOMEM;
			break;
		}
	}
	img_rpm_temp_remove(dir);
	return r == -ENOENT ? err_set(err, r, "no package database in %s, %s or %s", places[0], places[1], places[2])
	                    : r;
}

int img_rpm_set_add_root(struct img_rpm_set *s, const char *root, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct source from = { .root_fd = fd };
	int r;

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", root, strerror(errno));
	r = add_database(s, &from, err);
	return r < 0 ? err_prefix(err, r, "%s: ", root) : 0;
}

int img_rpm_set_add_tree(struct img_rpm_set *s, const struct img_tree *t, struct err *err)
{
	struct source from = { .root_fd = -1, .tree = t };

	return add_database(s, &from, err);
}
