/* Accounts and folders that no package brings: "user:NAME:UID[:HOME]", "dir:PATH:MODE[:UID[:GID]]". For images that run
 * as an ordinary user, who has to have a name, a group and somewhere to write. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "assembly.h"

enum { MAX_FIELDS = 5, MAX_TABLE = 4 << 20, MAX_NAME = 32 };
static const uint32_t max_id = 0x7fffffff;

/* "a:b:c" cut at its colons, in place; returns how many, at most `max` (the last one keeps what is left). */
static size_t fields_of(char *text, char *ret_fields[], size_t max)
{
	size_t n = 0;

	for (char *p = text; p && n < max; n++) {
		char *colon = n + 1 < max ? strchr(p, ':') : NULL;

		ret_fields[n] = p;
		if (colon)
			*colon = 0;
		p = colon ? colon + 1 : NULL;
	}
	return n;
}

static bool parse_number(const char *text, int base, uint32_t max, uint32_t *ret)
{
	const size_t len = strspn(text, base == 8 ? "01234567" : "0123456789");
	unsigned long v = len && len < 11 && !text[len] ? strtoul(text, NULL, base) : (unsigned long)max + 1;

	*ret = (uint32_t)v;
	return v <= max;
}

static bool is_account_name(const char *s)
{
	size_t len = strlen(s);

	if (len == 0 || len > MAX_NAME || (!islower((unsigned char)s[0]) && s[0] != '_'))
		return false;
	return strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

static int add_folder(struct img_assembly *a, const char *path, uint32_t mode, uint32_t uid, uint32_t gid)
{
	struct img_node n = { .path = path,
		              .type = IMG_DIR,
		              .mode = mode,
		              .uid = uid,
		              .gid = gid,
		              .package = -1,
		              .layer = -1,
		              .mtime_s = a->time };
	int r = img_cut_add_parents(a, path);

	return r < 0 ? r : img_tree_add(a->to, &n, NULL, a->err);
}

int img_cut_make_folder(struct img_assembly *a, const char *generator)
{
	CLEANUP(freep) char *copy = strdup(generator);
	uint32_t mode = 0, uid = 0, gid;
	char *f[MAX_FIELDS];
	size_t n = copy ? fields_of(copy, f, MAX_FIELDS) : 0;

	if (!copy)
		return -ENOMEM;
	if (n < 3 || !img_path_is_normal(f[1]) || !f[1][1] || !parse_number(f[2], 8, 07777, &mode) ||
	    (n > 3 && !parse_number(f[3], 10, max_id, &uid)))
		return err_set(a->err, -EINVAL, "%.200s: expected dir:PATH:MODE[:UID[:GID]]", generator);
	gid = uid;
	if (n > 4 && !parse_number(f[4], 10, max_id, &gid))
		return err_set(a->err, -EINVAL, "%.200s: \"%.20s\" is no group", generator, f[4]);
	return add_folder(a, f[1], mode, uid, gid);
}

/* Whether a line of the table has this name, or this number. */
static bool has_line(const char *table, const char *name, const char *id)
{
	const size_t len = strlen(name), id_len = strlen(id);

	for (const char *line = table; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		const size_t end = strcspn(line, "\n");
		const char *second = memchr(line, ':', end), *third;

		if (!second)
			continue;
		third = memchr(second + 1, ':', end - (size_t)(second + 1 - line));
		if ((size_t)(second - line) == len && memcmp(line, name, len) == 0)
			return true;
		if (third && strncmp(third + 1, id, id_len) == 0 && third[1 + id_len] == ':')
			return true;
	}
	return false;
}

static int add_line(struct img_assembly *a, const char *path, const char *name, const char *id, const char *line)
{
	struct img_node *have = img_tree_find(a->to, path);
	struct base_buf out = BASE_BUF_INIT(MAX_TABLE);
	CLEANUP(freep) char *table = NULL;
	size_t size = 0;
	int r = have ? img_node_read_all(have, MAX_TABLE / 2, (void **)&table, &size, a->err) : 0;

	if (r < 0)
		return r;
	if (has_line(table, name, id))
		return err_set(a->err, -EEXIST, "user:%s:%s: %s has that name or number already", name, id, path);
	(void)base_buf_append(&out, table ? table : "", size);
	(void)base_buf_puts(&out, line);
	r = base_buf_error(&out) ? base_buf_error(&out) : img_cut_add_text(a, path, out.data, out.len);
	base_buf_done(&out);
	return r;
}

int img_cut_make_user(struct img_assembly *a, const char *generator)
{
	CLEANUP(freep) char *copy = strdup(generator);
	char *f[MAX_FIELDS], line[2 * MAX_NAME + IMG_PATH_MAX + 64];
	size_t n = copy ? fields_of(copy, f, 4) : 0;
	const char *home;
	uint32_t uid = 0;
	int r;

	if (!copy)
		return -ENOMEM;
	if (n < 3 || !is_account_name(f[1]) || !parse_number(f[2], 10, max_id, &uid) || uid == 0 ||
	    (n > 3 && (!img_path_is_normal(f[3]) || strpbrk(f[3], ":\n"))))
		return err_set(a->err, -EINVAL, "%.200s: expected user:NAME:UID[:HOME]", generator);
	home = n > 3 ? f[3] : "/nonexistent";
	(void)snprintf(line, sizeof(line), "%s:x:%u:%u::%s:/sbin/nologin\n", f[1], uid, uid, home);
	r = add_line(a, "/etc/passwd", f[1], f[2], line);
	(void)snprintf(line, sizeof(line), "%s:x:%u:\n", f[1], uid);
	if (r == 0)
		r = add_line(a, "/etc/group", f[1], f[2], line);
	if (r == 0 && n > 3 && home[1])
		r = add_folder(a, home, 0755, uid, uid);
	return r;
}
