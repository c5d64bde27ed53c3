/* Places of the file system: what losing them would mean. Names are judged as text, made absolute by the folder the
 * line stands in (as far as it is known) and cleaned of "//", "." and ".."; links are not followed, because a check
 * now says little about the moment the command runs. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "risk_internal.h"

static const char *const top_folders[] = { "etc", "usr", "bin",  "sbin", "lib", "lib64", "boot", "var",   "dev", "proc",
	                                   "sys", "run", "home", "root", "opt", "srv",   "mnt",  "media", NULL };
/* Below these, files are the system's; homes, /opt, /srv, /mnt and the like are somebody's own. */
static const char *const system_folders[] = { "etc",  "usr", "bin", "sbin", "lib", "lib64",
	                                      "boot", "var", "dev", "proc", "sys", NULL };

static bool listed(const char *const *names, const char *text, size_t len)
{
	for (size_t i = 0; names[i]; i++)
		if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0)
			return true;
	return false;
}

/* The path without "//", "/./" and "/../"; relative ones stand in the folder of the line when that is known. */
static const char *clean(struct gate_eval *ev, const char *path)
{
	struct base_buf b = BASE_BUF_INIT(256 * 1024);
	const char *from = path, *end;

	if (*path != '/' && ev->cwd && *path != GATE_UNKNOWN_BYTE)
		(void)base_buf_puts(&b, strcmp(ev->cwd, "/") == 0 ? "" : ev->cwd);
	else if (*path != '/') {
		return path;
	}
	for (; *from; from = *end ? end + 1 : end) {
		end = strchrnul(from, '/');
		if (end == from || (end - from == 1 && *from == '.'))
			continue;
		if (end - from == 2 && memcmp(from, "..", 2) == 0) {
			while (b.len && b.data[b.len - 1] != '/')
				b.data[--b.len] = '\0';
			if (b.len)
				b.data[--b.len] = '\0';
			continue;
		}
		(void)base_buf_putc(&b, '/');
		(void)base_buf_append(&b, from, (size_t)(end - from));
	}
	if (b.len == 0)
		(void)base_buf_putc(&b, '/');
	return ag_gate_pool_take(ev, &b);
}

static bool is_all(const char *name)
{
	return strcmp(name, "*") == 0 || strcmp(name, ".*") == 0 || strcmp(name, "{*,.*}") == 0 ||
	       strcmp(name, ".[!.]*") == 0 || strcmp(name, "**") == 0 || strcmp(name, "?*") == 0 ||
	       strncmp(name, "!(", 2) == 0;
}

/* A disk: its name starts a mounted device's name or swap's ("/dev/sda" and "/dev/sda2"). */
static bool in_use(const struct gate_eval *ev, const char *device)
{
	size_t len = strlen(device);

	for (const char *line = ev->mounts; line && *line; line = *line ? line + 1 : line) {
		if (strncmp(line, device, len) == 0 && strncmp(line, "/dev/", 5) == 0) {
			const char *rest = line + len;

			if (*rest == 'p')
				rest++;
			while (*rest >= '0' && *rest <= '9')
				rest++;
			if (*rest == ' ')
				return true;
		}
		line = strchrnul(line, '\n');
		if (!*line)
			break;
	}
	return false;
}

static enum gate_place device_place(const struct gate_eval *ev, const char *path)
{
	static const char none[] = "/dev/null|/dev/zero|/dev/full|/dev/stdout|/dev/stderr|/dev/stdin|/dev/tty|"
	                           "/dev/fd/*|/dev/tty[0-9]*|/dev/pts/*|/dev/tcp/*|/dev/udp/*|/dev/random|/dev/urandom";
	static const char disks[] = "/dev/sd*|/dev/hd*|/dev/vd*|/dev/xvd*|/dev/nvme*|/dev/mmcblk*|/dev/md*|/dev/dm-*|"
	                            "/dev/mapper/*|/dev/disk/*|/dev/loop[0-9]*|/dev/nbd*|/dev/rbd*|/dev/pmem*|"
	                            "/dev/zram*|/dev/mem|/dev/kmem|/dev/port|/dev/sr*|/dev/bcache*|/dev/drbd*|"
	                            "/dev/st[0-9]*|/dev/block/*|/dev/mtd*";

	if (ag_gate_glob(none, path))
		return GATE_PLACE_NONE;
	if (ag_gate_glob("/dev/shm/*", path))
		return GATE_PLACE_TEMP;
	if (in_use(ev, path))
		return GATE_PLACE_IN_USE;
	if (ag_gate_glob(disks, path))
		return GATE_PLACE_DEVICE;
	/* /dev/VG/LV */
	return strchr(path + 5, '/') && !ag_gate_glob("/dev/input/*|/dev/bus/*|/dev/snd/*|/dev/dri/*", path)
	               ? GATE_PLACE_DEVICE
	               : GATE_PLACE_SYSTEM;
}

/* A variable before a slash: what the path is when the variable is empty. */
static enum gate_place unknown_place(struct gate_eval *ev, const char *path)
{
	const char *rest = path;
	enum gate_place p;

	while (*rest == GATE_UNKNOWN_BYTE)
		rest++;
	if (*rest == '\0')
		return GATE_PLACE_OTHER;
	p = *rest == '/' ? ag_gate_place(ev, rest) : GATE_PLACE_OTHER;
	return p == GATE_PLACE_ROOT || p == GATE_PLACE_TOP ? GATE_PLACE_UNSET : GATE_PLACE_OTHER;
}

static bool is_home(const struct gate_eval *ev, const char *path, size_t len)
{
	const char *rest;

	if (ev->home && strlen(ev->home) == len && memcmp(path, ev->home, len) == 0)
		return true;
	if (len <= 6 || strncmp(path, "/home/", 6) != 0)
		return false;
	rest = memchr(path + 6, '/', len - 6);
	return !rest;
}

enum gate_place ag_gate_place(struct gate_eval *ev, const char *path)
{
	const char *p, *last;
	size_t first_len, folder_len;

	if (*path == GATE_UNKNOWN_BYTE)
		return unknown_place(ev, path);
	p = clean(ev, path);
	if (*p != '/') {
		if (strcmp(p, ".") == 0 || strcmp(p, "..") == 0 || strcmp(p, "./") == 0 || strncmp(p, "../..", 5) == 0)
			return GATE_PLACE_ALL_HERE;
		return is_all(strncmp(p, "./", 2) == 0 ? p + 2 : p) ? GATE_PLACE_ALL_HERE : GATE_PLACE_OTHER;
	}
	last = strrchr(p, '/') + 1;
	folder_len = is_all(last) ? (size_t)(last - 1 - p) : strlen(p);
	if (folder_len == 0 || strcmp(p, "/") == 0)
		return GATE_PLACE_ROOT;
	if (is_home(ev, p, folder_len))
		return GATE_PLACE_HOME;
	first_len = strcspn(p + 1, "/");
	if (first_len + 1 == folder_len && listed(top_folders, p + 1, first_len))
		return GATE_PLACE_TOP;
	if (strncmp(p, "/dev/", 5) == 0)
		return device_place(ev, p);
	if (ag_gate_glob("/tmp/*|/var/tmp/*|/var/cache/*|/run/user/*", p))
		return GATE_PLACE_TEMP;
	/* a pattern for names right below the root */
	if (first_len + 1 == folder_len && (strpbrk(p, "*?[") || !gate_is_known(p)))
		return GATE_PLACE_TOP;
	if (listed(system_folders, p + 1, first_len))
		return GATE_PLACE_SYSTEM;
	return *path != '/' && is_all(last) ? GATE_PLACE_ALL_HERE : GATE_PLACE_OTHER;
}

bool ag_gate_is_secret_path(const char *path)
{
	static const char patterns[] =
	        "*/etc/shadow*|*/etc/gshadow*|*/etc/sudoers*|*/.ssh/id_*|*/.ssh/*key|*/.ssh/|*/.ssh|*/.ssh/"
	        "*[*]*|id_rsa|"
	        "id_ed25519|id_ecdsa|*/etc/ssh/ssh_host_*_key|*/etc/ssh/*key*|*/.gnupg*|*/.aws/credentials|*/.aws|"
	        "*/.kube/config|/etc/kubernetes/*.conf|*/.docker/config.json|*/.netrc|.netrc|*/.pgpass|.pgpass|*/"
	        ".my.cnf|"
	        ".my.cnf|*/.git-credentials|*/.config/gh/hosts.yml|*/.npmrc|*/.pypirc|*/etc/pki/*private*|"
	        "*/etc/ssl/private*|*/etc/krb5.keytab|*.pem|*.key|*.p12|*.pfx|*.jks|*.keytab|*/.env|.env|.env.*|"
	        "*/proc/*/environ|/proc/kcore|/dev/mem|/dev/kmem|*/.bash_history|*/.vault-token|"
	        "*/var/lib/sss/*|*/etc/NetworkManager/system-connections*|*/etc/wpa_supplicant/*|*/run/secrets/*|"
	        "*kubernetes.io/serviceaccount/token|*/etc/ipsec.secrets|*/etc/openvpn/*key*|*/etc/wireguard/*|*.kdbx";

	char relative[PATH_MAX];

	if (*path == '-' || ag_gate_glob("*.pub", path))
		return false;
	if (ag_gate_glob(patterns, path))
		return true;
	/* ".ssh/id_rsa" is as secret as "/root/.ssh/id_rsa" */
	return *path != '/' && snprintf(relative, sizeof(relative), "./%s", path) < (int)sizeof(relative) &&
	       ag_gate_glob(patterns, relative);
}
