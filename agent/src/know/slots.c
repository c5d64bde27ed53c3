/* Values of slots: which words of a question can be a path, a port, a user's name, and how the command writes them.
 *
 * Every type belongs to a class with one scanner. A scanner answers with a cost: 0 for a sure value ("/var/log" as a
 * folder), more for a possible one ("backup"), negative for none. No value ever begins with '-': it would be an option.
 */
#include "know/know_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum value_class {
	V_NAME, /* package, unit, user ... */
	V_IFACE,
	V_PATH, /* a file or folder */
	V_DIR,
	V_EXT, /* a file with one of the endings given */
	V_NUMBER,
	V_PORT,
	V_SIZE,
	V_IP,
	V_MASK, /* address/bits */
	V_DOMAIN,
	V_URL,
	V_DEV,
	V_DATETIME,
	V_DATE,
	V_CLOCK,
	V_SYSCTL,
	V_MODE,
	V_GLOB,
	V_VERSION,
	V_CVE,
	V_IMAGE,
	V_RECORD,
	V_TZ,
	V_VAR,
	V_ANY,    /* one word of whatever kind */
	V_COMMAND /* one to four words */
};

static const struct {
	const char *name;
	enum value_class class;
	const char *endings; /* V_EXT: separated by blanks */
} kinds[] = {
	{ "pkg", V_NAME, NULL },
	{ "unit", V_NAME, NULL },
	{ "proc", V_NAME, NULL },
	{ "user", V_NAME, NULL },
	{ "group", V_NAME, NULL },
	{ "host", V_NAME, NULL },
	{ "module", V_NAME, NULL },
	{ "cmdname", V_NAME, NULL },
	{ "repo", V_NAME, NULL },
	{ "pymod", V_NAME, NULL },
	{ "container", V_NAME, NULL },
	{ "fwsvc", V_NAME, NULL },
	{ "db", V_NAME, NULL },
	{ "ns", V_NAME, NULL },
	{ "vg", V_NAME, NULL },
	{ "lv", V_NAME, NULL },
	{ "sebool", V_NAME, NULL },
	{ "alt", V_NAME, NULL },
	{ "val", V_ANY, NULL },
	{ "pod", V_NAME, NULL },
	{ "newdir", V_NAME, NULL },
	{ "bond", V_IFACE, NULL },
	{ "iface", V_IFACE, NULL },
	{ "sysctl", V_SYSCTL, NULL },
	{ "image", V_IMAGE, NULL },
	{ "dir", V_DIR, NULL },
	{ "file", V_PATH, NULL },
	{ "path", V_PATH, NULL },
	{ "fname", V_PATH, NULL },
	{ "script", V_COMMAND, NULL },
	{ "key", V_PATH, NULL },
	{ "vmlinuz", V_EXT, "/boot/vmlinuz" },
	{ "lvpath", V_DEV, NULL },
	{ "dev", V_DEV, NULL },
	{ "disk", V_DEV, NULL },
	{ "n", V_NUMBER, NULL },
	{ "num", V_NUMBER, NULL },
	{ "pid", V_NUMBER, NULL },
	{ "big", V_NUMBER, NULL },
	{ "nice", V_NUMBER, NULL },
	{ "hh", V_NUMBER, NULL },
	{ "mm", V_NUMBER, NULL },
	{ "epoch", V_NUMBER, NULL },
	{ "port", V_PORT, NULL },
	{ "size", V_SIZE, NULL },
	{ "ip", V_IP, NULL },
	{ "cidr", V_MASK, NULL },
	{ "ipmask", V_MASK, NULL },
	{ "domain", V_DOMAIN, NULL },
	{ "url", V_URL, NULL },
	{ "giturl", V_URL, NULL },
	{ "datetime", V_DATETIME, NULL },
	{ "date", V_DATE, NULL },
	{ "clock", V_CLOCK, NULL },
	{ "mode", V_MODE, NULL },
	{ "glob", V_GLOB, NULL },
	{ "ver", V_VERSION, NULL },
	{ "cve", V_CVE, NULL },
	{ "rr", V_RECORD, NULL },
	{ "tz", V_TZ, NULL },
	{ "var", V_VAR, NULL },
	{ "word", V_ANY, NULL },
	{ "sep", V_ANY, NULL },
	{ "karg", V_ANY, NULL },
	{ "b64", V_ANY, NULL },
	{ "json", V_ANY, NULL },
	{ "rcmd", V_COMMAND, NULL },
	{ "rpmfile", V_EXT, ".rpm" },
	{ "pcap", V_EXT, ".pcap .cap .pcapng" },
	{ "iso", V_EXT, ".iso" },
	{ "tgz", V_EXT, ".tar.gz .tgz" },
	{ "zip", V_EXT, ".zip" },
	{ "gz", V_EXT, ".gz" },
	{ "txz", V_EXT, ".tar.xz .txz" },
	{ "tbz", V_EXT, ".tar.bz2 .tbz" },
	{ "sevenz", V_EXT, ".7z" },
	{ "tar", V_EXT, ".tar" },
	{ "sql", V_EXT, ".sql" },
	{ "jsonfile", V_EXT, ".json" },
	{ "yaml", V_EXT, ".yaml .yml" },
	{ "crt", V_EXT, ".crt .pem .cer" },
};

int ag_know_slot_kind(const char *type, size_t len)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strlen(kinds[i].name) == len && !memcmp(kinds[i].name, type, len))
			return (int)i;
	return SLOT_NONE;
}

/* ---- Shapes of text ------------------------------------------------------------------------------------ */

static bool is_name(const char *s, size_t len)
{
	if (!len || !(isalnum((unsigned char)s[0]) || s[0] == '_'))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("_.@:+-", s[i]))
			return false;
	return !all_of(s, len, "0123456789");
}

static bool has(const char *s, size_t len, char c)
{
	return memchr(s, c, len) != NULL;
}

static bool ends_in(const char *s, size_t len, const char *endings)
{
	while (*endings) {
		size_t n = strcspn(endings, " ");

		if (len > n && strncasecmp(s + len - n, endings, n) == 0)
			return true;
		endings += n + strspn(endings + n, " ");
	}
	return false;
}

static bool is_ip(const char *s, size_t len)
{
	unsigned dots = 0, value = 0, digits = 0;

	if (has(s, len, ':') && all_of(s, len, "0123456789abcdefABCDEF:") && len > 3 && !isalpha((unsigned char)s[0]))
		return memchr((const char *)memchr(s, ':', len) + 1, ':',
		              len - (size_t)((const char *)memchr(s, ':', len) - s) - 1);
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '.') {
			if (!digits)
				return false;
			dots++;
			value = digits = 0;
		} else if (isdigit((unsigned char)s[i])) {
			value = value * 10 + (unsigned)(s[i] - '0');
			if (++digits > 3 || value > 255)
				return false;
		} else {
			return false;
		}
	}
	return dots == 3 && digits;
}

static bool is_mask(const char *s, size_t len)
{
	const char *slash = memchr(s, '/', len);

	return slash && is_ip(s, (size_t)(slash - s)) &&
	       all_of(slash + 1, len - (size_t)(slash - s) - 1, "0123456789") && len - (size_t)(slash - s) <= 4;
}

static bool is_domain(const char *s, size_t len)
{
	bool alpha = false;

	if (!has(s, len, '.') || s[0] == '.' || s[len - 1] == '.')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)s[i]) && s[i] != '.' && s[i] != '-')
			return false;
		alpha = alpha || isalpha((unsigned char)s[i]);
	}
	return alpha && isalpha((unsigned char)s[len - 1]);
}

static bool is_iface(const char *s, size_t len)
{
	static const char *const prefixes[] = {
		"eth",   "ens",    "enp",  "eno",  "enx", "bond", "br",   "wlan", "wlp",
		"virbr", "docker", "team", "vlan", "tun", "tap",  "veth", "ib",   "wg"
	};

	if (len == 2 && !memcmp(s, "lo", 2))
		return true;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t n = strlen(prefixes[i]);

		if (len > n && strncasecmp(s, prefixes[i], n) == 0 && (isdigit((unsigned char)s[n]) || s[n] == '-'))
			return true;
	}
	return false;
}

/* An ending that people name alone: "log files". */
static bool is_extension(const char *s, size_t len)
{
	static const char endings[] =
	        " log txt sh py conf jpg png gz tmp bak c h json xml csv mp4 pdf yaml yml so rpm zip tar java go md "
	        "html js sql core iso cfg ini pcap pem crt ";
	char key[8];

	if (len > 4 || !len)
		return false;
	(void)snprintf(key, sizeof(key), " %.*s ", (int)len, s);
	return strstr(endings, key) != NULL;
}

static bool is_record(const char *s, size_t len)
{
	static const char *const records[] = { "A", "AAAA", "MX", "NS", "TXT", "CNAME", "SOA", "PTR", "SRV", "CAA" };

	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++)
		if (len == strlen(records[i]) && strncasecmp(s, records[i], len) == 0)
			return true;
	return false;
}

static bool is_device(const char *s, size_t len)
{
	static const char *const names[] = { "sd", "vd", "xvd", "nvme", "md", "hd", "mmcblk" };

	if (len > 5 && !memcmp(s, "/dev/", 5))
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i]);

		if (len > n && len < n + 8 && !memcmp(s, names[i], n)) {
			if (strcmp(names[i], "nvme") == 0 || strcmp(names[i], "md") == 0 ||
			    strcmp(names[i], "mmcblk") == 0)
				return isdigit((unsigned char)s[n]);
			return len == n + 1 || isdigit((unsigned char)s[n + 1]);
		}
	}
	return false;
}

bool ag_know_is_value(const struct token *t)
{
	bool digit = false;

	if (t->is_cjk)
		return false;
	for (uint16_t i = 0; i < t->len; i++) {
		if (strchr("/*=@", t->text[i]) || (t->text[i] == '.' && i + 1 < t->len))
			return t->len > 1;
		digit = digit || isdigit((unsigned char)t->text[i]);
	}
	return digit;
}

/* ---- Costs --------------------------------------------------------------------------------------------------- */

/* A word that is known to name packages, services, processes or users. */
static bool is_familiar(const char *s, size_t len)
{
	static const char names[] = " nginx httpd sshd docker podman redis mysqld mysql mariadb postgresql postgres "
	                            "firewalld chronyd crond rsyslog "
	                            "networkmanager kubelet containerd haproxy keepalived squid smb samba nfs-server "
	                            "vsftpd postfix named dnsmasq "
	                            "php-fpm php tomcat zabbix-agent prometheus grafana-server grafana memcached "
	                            "rabbitmq-server etcd auditd tuned "
	                            "libvirtd jenkins elasticsearch kibana mongod influxdb ollama vllm vim git wget "
	                            "curl htop tmux gcc make cmake java "
	                            "python python3 node nodejs npm rsync tcpdump strace lsof iotop iftop sysstat "
	                            "screen tree unzip jq ffmpeg ansible "
	                            "root admin deploy www tom alice bob dev ops zhangsan lisi wangwu jack mary guest "
	                            "wheel developers http https ssh "
	                            "ftp dns ntp nfs bash kernel openssl perf cockpit autofs sssd bind rpcbind ";
	char key[40];

	if (len > 36)
		return false;
	key[0] = ' ';
	for (size_t i = 0; i < len; i++)
		key[i + 1] = (char)tolower((unsigned char)s[i]);
	memcpy(key + len + 1, " ", 2);
	return strstr(names, key) != NULL;
}

/* "turned", "anything", "without": grammar rather than a name, unless a digit or a dash says otherwise. */
static bool looks_like_grammar(const struct token *t)
{
	static const char *const endings = "ing ed ly out ady side fter fore tead body thing";

	if (t->len < 4 || is_familiar(t->text, t->len))
		return false;
	for (uint16_t i = 0; i < t->len; i++)
		if (!islower((unsigned char)t->text[i]))
			return false;
	return ends_in(t->text, t->len, endings);
}

/* What it costs that a word which also belongs to ordinary sentences is a name. */
static float plain_word_cost(const struct ag_know *k, const struct token *t)
{
	if (ag_know_is_filler(t->text, t->len))
		return -1;
	if (looks_like_grammar(t))
		return 2.5f;
	if (is_familiar(t->text, t->len) || !t->word || t->is_near)
		return 0;
	for (uint16_t i = 0; i < t->len; i++)
		if (isdigit((unsigned char)t->text[i]) || strchr("-_.", t->text[i]))
			return 0;
	return k->words[t->word].n_tasks > 4 ? 2.5f : 1.0f;
}

static float path_cost(const struct ag_know *k, int kind, const struct token *t, bool folder)
{
	float cost;

	if (has(t->text, t->len, '/') || t->text[0] == '~')
		return strncmp(t->text, "http", 4) == 0 || is_mask(t->text, t->len)                   ? -1
		       : folder && ends_in(t->text, t->len, ".log .conf .txt .gz .sh .py .json .rpm") ? 0.6f
		                                                                                      : 0;
	if (is_ip(t->text, t->len))
		return -1;
	if (has(t->text, t->len, '.') && is_name(t->text, t->len))
		return folder ? 0.8f : 0.05f;
	if (!is_name(t->text, t->len))
		return -1;
	cost = plain_word_cost(k, t);
	if (cost < 0)
		return -1;
	/* A service's name alone is rarely a file. */
	return cost + (is_familiar(t->text, t->len) ? 2.0f : strcmp(kinds[kind].name, "fname") == 0 ? 0.2f : 0.8f);
}

static float single_cost(const struct ag_know *k, int kind, const struct token *t)
{
	const char *s = t->text;
	size_t len = t->len;
	long number;
	char scratch[64];

	if (t->is_cjk || s[0] == '-')
		return kinds[kind].class == V_NUMBER && (number = ag_know_number(t, 1)) >= 0 ? 0.1f : -1;
	switch (kinds[kind].class) {
	case V_NAME:
		/* "the podman container web": the program is not the container */
		if ((strcmp(kinds[kind].name, "container") == 0 || strcmp(kinds[kind].name, "pod") == 0) && len == 6 &&
		    (strncasecmp(s, "podman", 6) == 0 || strncasecmp(s, "docker", 6) == 0))
			return 2.8f;
		return is_name(s, len) && !is_ip(s, len) ? plain_word_cost(k, t) : -1;
	case V_IFACE:
		return is_iface(s, len) ? 0 : is_name(s, len) && plain_word_cost(k, t) == 0 ? 1.5f : -1;
	case V_PATH:
		return path_cost(k, kind, t, false);
	case V_DIR:
		return path_cost(k, kind, t, true);
	case V_EXT:
		if (kinds[kind].endings[0] == '/')
			return strncmp(s, kinds[kind].endings, strlen(kinds[kind].endings)) == 0 ? 0 : -1;
		return ends_in(s, len, kinds[kind].endings) && strncmp(s, "http", 4) != 0 ? 0 : -1;
	case V_NUMBER:
		return ag_know_number(t, 1) >= 0 ? 0 : -1;
	case V_PORT:
		number = all_of(s, len, "0123456789") && len <= 5 ? strtol(s, NULL, 10) : -1;
		return number > 0 && number < 65536 ? 0 : -1;
	case V_SIZE:
		return ag_know_size(t, 1, scratch, sizeof(scratch)) ? 0 : -1;
	case V_IP:
		return is_ip(s, len) ? 0 : is_domain(s, len) ? 0.8f : is_name(s, len) && !t->word ? 1.2f : -1;
	case V_MASK:
		return is_mask(s, len) ? 0 : -1;
	case V_DOMAIN:
		return is_domain(s, len) ? 0 : is_name(s, len) && !t->word ? 1.2f : -1;
	case V_URL:
		if (strncmp(s, "http://", 7) == 0 || strncmp(s, "https://", 8) == 0 || strncmp(s, "ftp://", 6) == 0 ||
		    strncmp(s, "git@", 4) == 0)
			return 0;
		return is_domain(s, strcspn(s, "/:") < len ? strcspn(s, "/:") : len) ? 0.8f : -1;
	case V_DEV:
		return is_device(s, len)
		               ? (strcmp(kinds[kind].name, "lvpath") == 0 && !has(s + 1, len - 1, '/') ? 2 : 0)
		               : -1;
	case V_DATETIME:
	case V_DATE:
		return len == 10 && s[4] == '-' && s[7] == '-' && all_of(s, len, "0123456789-") ? 0 : -1;
	case V_CLOCK:
		return len >= 4 && len <= 5 && s[len - 3] == ':' && all_of(s, len, "0123456789:") ? 0 : -1;
	case V_SYSCTL:
		return is_name(s, len) && (!strncmp(s, "vm.", 3) || !strncmp(s, "net.", 4) ||
		                           !strncmp(s, "kernel.", 7) || !strncmp(s, "fs.", 3) || !strncmp(s, "dev.", 4))
		               ? 0
		               : -1;
	case V_MODE:
		if ((len == 3 || len == 4) && all_of(s, len, "01234567"))
			return 0;
		return len >= 2 && strcspn(s, "+=-") < 4 && strcspn(s, "+=-") < len && all_of(s, len, "ugoa+=-rwxXst,")
		               ? 0
		               : -1;
	case V_GLOB:
		if (has(s, len, '*'))
			return 0;
		if (s[0] == '.' && len <= 6 && isalpha((unsigned char)s[1]))
			return 0.1f;
		return is_extension(s, len) ? 0.5f : -1;
	case V_VERSION:
		return isdigit((unsigned char)s[0]) && all_of(s, len, "0123456789.-abcdefghijklmnopqrstuvwxyz") ? 0
		                                                                                                : -1;
	case V_CVE:
		return strncasecmp(s, "cve-", 4) == 0 && len > 10 ? 0 : -1;
	case V_IMAGE:
		if (!is_name(s, strcspn(s, "/") < len ? strcspn(s, "/") : len) || strncmp(s, "http", 4) == 0)
			return -1;
		return has(s, len, ':') || has(s, len, '/') ? 0 : plain_word_cost(k, t);
	case V_RECORD:
		return is_record(s, len) ? 0 : -1;
	case V_TZ:
		return isupper((unsigned char)s[0]) && (has(s, len, '/') || (len == 3 && !strncmp(s, "UTC", 3))) ? 0
		                                                                                                 : -1;
	case V_VAR:
		return all_of(s, len, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") && isupper((unsigned char)s[0]) ? 0 : -1;
	case V_ANY:
		if (ag_know_is_filler(s, len))
			return 2.5f;
		return !t->word || t->is_near ? 0.3f : 1.5f;
	case V_COMMAND:
		if (has(s, len, '/') || ends_in(s, len, ".sh .py"))
			return 0;
		return is_name(s, len) && !ag_know_is_filler(s, len) ? (t->word ? 1.5f : 0.5f) : -1;
	}
	return -1;
}

/* Several words as one command line: each that ordinary sentences use makes it less likely. */
static float command_cost(const struct token *tokens, size_t n)
{
	float cost = 0.6f + 0.6f * (float)n;

	if (!is_name(tokens[0].text, tokens[0].len) && tokens[0].text[0] != '/')
		return -1;
	for (size_t i = 0; i < n; i++)
		cost += (tokens[i].word && !tokens[i].is_near) || looks_like_grammar(&tokens[i]) ? (i ? 0.7f : 1.5f)
		                                                                                 : 0;
	return cost;
}

float ag_know_slot_cost(const struct ag_know *k, int kind, const struct token *tokens, size_t n)
{
	char scratch[64];

	if (n == 1)
		return single_cost(k, kind, tokens);
	switch (kinds[kind].class) {
	case V_NUMBER:
		return ag_know_number(tokens, n) >= 0 ? 0.1f : -1;
	case V_SIZE:
		return ag_know_size(tokens, n, scratch, sizeof(scratch)) ? 0.05f : -1;
	case V_DATETIME:
		return n == 2 && single_cost(k, kind, tokens) == 0 && !tokens[1].is_cjk &&
		                       has(tokens[1].text, tokens[1].len, ':') &&
		                       all_of(tokens[1].text, tokens[1].len, "0123456789:")
		               ? 0
		               : -1;
	case V_COMMAND:
		for (size_t i = 0; i < n; i++)
			if (tokens[i].is_cjk || ag_know_is_filler(tokens[i].text, tokens[i].len) ||
			    all_of(tokens[i].text, tokens[i].len, "@:="))
				return -1;
		return command_cost(tokens, n);
	default:
		return -1;
	}
}

/* ---- Values --------------------------------------------------------------------------------------------------- */

bool ag_know_slot_value(int kind, const struct token *tokens, size_t n, char *out, size_t size)
{
	struct base_buf b = BASE_BUF_INIT(size - 1);
	bool ok;

	switch (kinds[kind].class) {
	case V_SIZE:
		return ag_know_size(tokens, n, out, size);
	case V_NUMBER:
		if (ag_know_number(tokens, n) >= 0)
			return snprintf(out, size, "%ld", ag_know_number(tokens, n)) < (int)size;
		break;
	case V_DEV:
		if (tokens[0].text[0] != '/')
			(void)base_buf_puts(&b, "/dev/");
		break;
	case V_GLOB:
		if (!has(tokens[0].text, tokens[0].len, '*'))
			(void)base_buf_puts(&b, tokens[0].text[0] == '.' ? "*" : "*.");
		break;
	default:
		break;
	}
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)base_buf_putc(&b, ' ');
		(void)base_buf_append(&b, tokens[i].text, tokens[i].len);
	}
	ok = base_buf_error(&b) == 0 && b.len > 0;
	if (ok) {
		memcpy(out, b.data, b.len + 1);
		if (kinds[kind].class == V_RECORD || kinds[kind].class == V_CVE)
			for (char *p = out; *p; p++)
				*p = (char)toupper((unsigned char)*p);
	}
	base_buf_done(&b);
	return ok;
}
