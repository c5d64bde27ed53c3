/* What a package says in words and a root keeps as numbers: owners, capabilities; and the links of folders that make
 * one file have two paths. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpm_internal.h"

/* ---- Owners ----------------------------------------------------------------------------------------------- */

/* The number in the third field of the line "NAME:...:NUMBER:..."; -1 when there is none. */
static int64_t find_id(const char *text, const char *name)
{
	const size_t len = strlen(name);

	while (text && *text) {
		const size_t line = strcspn(text, "\n");

		if (line > len + 2 && memcmp(text, name, len) == 0 && text[len] == ':') {
			const char *second = memchr(text + len + 1, ':', line - len - 1);
			char *end;
			const unsigned long id = second ? strtoul(second + 1, &end, 10) : 0;

			if (second && end != second + 1 && id < UINT32_MAX)
				return (int64_t)id;
		}
		text += line;
		text += *text == '\n';
	}
	return -1;
}

struct known {
	const char *name; /* of the last answer: neighbours have the same owner */
	int64_t id;
};

static uint32_t id_of(const char *text, const char *name, struct known *k, bool *ret_is_unknown)
{
	if (!*name || strcmp(name, "root") == 0)
		return 0;
	if (!k->name || strcmp(k->name, name) != 0)
		*k = (struct known){ name, find_id(text, name) };
	*ret_is_unknown = k->id < 0;
	return k->id < 0 ? 0 : (uint32_t)k->id;
}

int img_rpm_fix_owners(struct img_tree *t, const char *passwd, const char *group, size_t *ret_n_unknown,
                       char ret_unknown[64])
{
	struct known user = { 0 }, grp = { 0 };
	size_t n_unknown = 0;

	ret_unknown[0] = 0;
	for (size_t i = 0; i < img_tree_count(t); i++) {
		struct img_node *n = img_tree_at(t, i);
		const struct img_rpm_file *f = n->user;
		bool no_user = false, no_group = false;

		if (!f)
			continue;
		n->uid = id_of(passwd, f->user, &user, &no_user);
		n->gid = id_of(group, f->group, &grp, &no_group);
		if (no_user)
			n->mode &= ~04000u;
		if (no_group)
			n->mode &= ~02000u;
		if ((no_user || no_group) && n_unknown++ == 0)
			(void)snprintf(ret_unknown, 64, "%s", no_user ? f->user : f->group);
	}
	*ret_n_unknown = n_unknown;
	return 0;
}

/* ---- Capabilities ----------------------------------------------------------------------------------------- */

static int cap_number(const char *name, size_t len)
{
	/* linux/capability.h, in the order of the numbers. */
	static const char *const names[] = {
		"chown",
		"dac_override",
		"dac_read_search",
		"fowner",
		"fsetid",
		"kill",
		"setgid",
		"setuid",
		"setpcap",
		"linux_immutable",
		"net_bind_service",
		"net_broadcast",
		"net_admin",
		"net_raw",
		"ipc_lock",
		"ipc_owner",
		"sys_module",
		"sys_rawio",
		"sys_chroot",
		"sys_ptrace",
		"sys_pacct",
		"sys_admin",
		"sys_boot",
		"sys_nice",
		"sys_resource",
		"sys_time",
		"sys_tty_config",
		"mknod",
		"lease",
		"audit_write",
		"audit_control",
		"setfcap",
		"mac_override",
		"mac_admin",
		"syslog",
		"wake_alarm",
		"block_suspend",
		"audit_read",
		"perfmon",
		"bpf",
		"checkpoint_restore",
	};

	if (len < 4 || strncmp(name, "cap_", 4) != 0)
		return -1;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i]) == len - 4 && memcmp(names[i], name + 4, len - 4) == 0)
			return (int)i;
	}
	return -1;
}

enum { EFFECTIVE, INHERITABLE, PERMITTED, N_SETS };

/* "cap_a,cap_b" (or "all", or nothing, which means all) as a mask, up to the first operator. */
static int parse_names(const char **text, uint64_t *ret_mask)
{
	const char *s = *text;
	uint64_t mask = 0;

	while (*s && !strchr("=+- ", *s)) {
		const size_t len = strcspn(s, ",=+- ");
		const int n = cap_number(s, len);

		if (len == 3 && memcmp(s, "all", 3) == 0)
			mask = (1ull << 41) - 1;
		else if (n < 0)
			return -EINVAL;
		else
			mask |= 1ull << n;
		s += len + (s[len] == ',');
	}
	*ret_mask = s == *text ? (1ull << 41) - 1 : mask;
	*text = s;
	return 0;
}

/* The text of cap_to_text(3): clauses separated by blanks, each names and then operators with flags: "=ep", "+ep-i". */
static int parse_caps(const char *s, uint64_t sets[N_SETS])
{
	static const char letters[] = "eip";

	while (*s) {
		uint64_t mask;

		if (parse_names(&s, &mask) < 0 || !*s || !strchr("=+-", *s))
			return -EINVAL;
		while (*s && strchr("=+-", *s)) {
			const char op = *s++;

			for (int k = 0; op == '=' && k < N_SETS; k++)
				sets[k] &= ~mask;
			for (; *s && strchr(letters, *s); s++) {
				uint64_t *set = &sets[strchr(letters, *s) - letters];

				*set = op == '-' ? *set & ~mask : *set | mask;
			}
		}
		if (*s && *s != ' ')
			return -EINVAL;
		s += strspn(s, " ");
	}
	return 0;
}

static void put_le32(uint8_t *b, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		b[i] = (uint8_t)(v >> 8 * i);
}

int img_rpm_caps_value(const char *text, uint8_t ret_value[20])
{
	enum { VFS_CAP_REVISION_2 = 0x02000000, VFS_CAP_FLAGS_EFFECTIVE = 1 };
	uint64_t sets[N_SETS] = { 0 };
	int r = parse_caps(text, sets);

	if (r < 0)
		return r;
	put_le32(ret_value, VFS_CAP_REVISION_2 | (sets[EFFECTIVE] ? VFS_CAP_FLAGS_EFFECTIVE : 0));
	put_le32(ret_value + 4, (uint32_t)sets[PERMITTED]);
	put_le32(ret_value + 8, (uint32_t)sets[INHERITABLE]);
	put_le32(ret_value + 12, (uint32_t)(sets[PERMITTED] >> 32));
	put_le32(ret_value + 16, (uint32_t)(sets[INHERITABLE] >> 32));
	return 0;
}

/* ---- Links of folders ------------------------------------------------------------------------------------- */

struct img_rpm_aliases {
	const struct img_rpm_file **links; /* sorted by path */
	size_t n;
};

static int compare_links(const void *a, const void *b)
{
	const struct img_rpm_file *const *x = a, *const *y = b;

	return strcmp((*x)->path, (*y)->path);
}

static bool is_link(const struct img_rpm_file *f)
{
	return f->type == IMG_SYMLINK && img_rpm_file_is_installed(f);
}

int img_rpm_aliases_new(struct img_rpm *const *packages, size_t n, struct img_rpm_aliases **ret_a)
{
	struct img_rpm_aliases *a = calloc(1, sizeof(*a));
	size_t n_links = 0, out = 0;

	if (!a)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < packages[i]->n_files; k++)
			n_links += is_link(&packages[i]->files[k]);
	}
	a->links = calloc(n_links ? n_links : 1, sizeof(const struct img_rpm_file *));
	if (!a->links) {
		free(a);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < packages[i]->n_files; k++) {
			if (is_link(&packages[i]->files[k]))
				a->links[out++] = &packages[i]->files[k];
		}
	}
	if (out)
		qsort(a->links, out, sizeof(const struct img_rpm_file *), compare_links);
	a->n = out;
	*ret_a = a;
	return 0;
}

void img_rpm_aliases_free(struct img_rpm_aliases *a)
{
	if (!a)
		return;
	free(a->links);
	free(a);
}

static const struct img_rpm_file *find_link(const struct img_rpm_aliases *a, const char *path)
{
	size_t lo = 0, hi = a->n;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (strcmp(a->links[mid]->path, path) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < a->n && strcmp(a->links[lo]->path, path) == 0 ? a->links[lo] : NULL;
}

/* Appends what is left of a path behind a link's target, seen from the folder that the link is in. */
static int splice(char path[IMG_PATH_MAX], size_t dir_len, const char *target, const char *rest)
{
	char joined[2 * IMG_PATH_MAX];
	char *out = path;
	int n;

	if (target[0] == '/')
		dir_len = 0;
	n = snprintf(joined, sizeof(joined), "%.*s/%s/%s", (int)dir_len, path, target, rest);
	if (n < 0 || (size_t)n >= sizeof(joined))
		return -ENAMETOOLONG;
	/* Normal again, with ".." taken out: above the root there is nothing. */
	for (const char *s = joined; *s;) {
		const size_t len = strcspn(s, "/");

		if (len == 2 && s[0] == '.' && s[1] == '.') {
			while (out > path && *--out != '/')
				;
		} else if (len && !(len == 1 && s[0] == '.')) {
			if ((size_t)(out - path) + len + 2 > IMG_PATH_MAX)
				return -ENAMETOOLONG;
			*out++ = '/';
			memcpy(out, s, len);
			out += len;
		}
		s += len;
		s += *s == '/';
	}
	if (out == path)
		*out++ = '/';
	*out = 0;
	return 0;
}

int img_rpm_clean_path(const char *path, char ret_path[IMG_PATH_MAX])
{
	return path[0] == '/' ? splice(ret_path, 0, path, "") : -EINVAL;
}

int img_rpm_canonical(const struct img_rpm_aliases *a, const char *path, char ret_path[IMG_PATH_MAX])
{
	char text[IMG_PATH_MAX];
	int n_followed = 0;

	if (strlen(path) >= IMG_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(text, path, strlen(path) + 1);
	for (char *slash = strchr(text + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		const struct img_rpm_file *link;
		char rest[IMG_PATH_MAX];
		char *dir_end;
		int r;

		*slash = 0;
		link = find_link(a, text);
		*slash = '/';
		if (!link)
			continue;
		if (++n_followed > IMG_SYMLINK_DEPTH)
			return -ELOOP;
		memcpy(rest, slash + 1, strlen(slash + 1) + 1);
		*slash = 0;
		dir_end = strrchr(text, '/');
		r = splice(text, (size_t)(dir_end - text), link->target, rest);
		if (r < 0)
			return r;
		slash = text; /* from the start: the target may hold links too */
	}
	memcpy(ret_path, text, strlen(text) + 1);
	return 0;
}
