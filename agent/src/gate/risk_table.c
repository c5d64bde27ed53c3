/* The table of programs: what they do by subcommand and option. Data, read top down: of the rows of a program the first
 * that fits decides, so the special ones stand first and the last is what it does otherwise. Programs that need a look
 * at their targets (rm, dd, chmod ...) are in risk_target.c, those that run others in risk_wrap.c. */
#include <string.h>

#include "risk_internal.h"

#define R AG_GATE_READ
#define C AG_GATE_CHANGE
#define D AG_GATE_DESTRUCTIVE
#define NET AG_GATE_NETWORK
#define SEC AG_GATE_SECRET
#define UNK AG_GATE_UNKNOWN

struct row {
	const char *programs; /* names; '|' separates */
	const char *words;    /* patterns of the first words that are no options, "-" for "no more"; NULL: any */
	const char *options;  /* one of these is given; NULL: any */
	enum ag_gate_class class;
	unsigned flags;
	const char *why;
};

static const struct row rows[] = {
#include "risk_rows.inc"
};

/* Options that take the next word, so that it is not mistaken for a subcommand. */
static const struct {
	const char *programs, *options;
} with_value[] = {
	{ "systemctl|journalctl|loginctl|hostnamectl|timedatectl|localectl|machinectl",
	  "-H|--host|-M|--machine|-t|--type|-p|--property|-n|--lines|-o|--output|-s|--signal|--state|--root|--what|--"
	  "job-mode|-u|--unit|-S|--since|-U|--until|-g|--grep|--priority|-b|-k" },
	{ "dnf|yum|microdnf|dnf5",
	  "-c|--config|-d|-e|-x|--exclude|--repo|--repoid|--enablerepo|--disablerepo|--releasever|--installroot|--"
	  "setopt|--forcearch|--advisory|--cve|--color|--disableplugin|--enableplugin" },
	{ "git", "-C|-c|--git-dir|--work-tree|--namespace|--exec-path" },
	{ "docker|podman|nerdctl|buildah|crictl|ctr",
	  "-H|--host|-c|--context|--config|-l|--log-level|--root|--runroot|--connection|--url|-n|--namespace|-a|--"
	  "address|-r|--runtime-endpoint" },
	{ "kubectl|oc|helm|k3s", "-n|--namespace|--context|--cluster|--kubeconfig|--user|-s|--server|--token|-o|--"
	                         "output|-l|--selector|-f|--filename|--as|--kube-context" },
	{ "ip|tc|bridge", "-n|-netns|-b|-batch|-f|-family|-rc|-rcvbuf|-l|-loops" },
	{ "nmcli", "-f|--fields|-g|--get-values|-m|--mode|-c|--colors|-w|--wait|-e|--escape" },
	{ "virsh", "-c|--connect|-d|--debug|-l|--log|-k|-K" },
	{ "etcdctl|redis-cli", "-h|-p|-a|-n|-u|--user|--endpoints|--cacert|--cert|--key|-s" },
	{ "iptables|ip6tables|ebtables|arptables", "-t|--table" },
	{ "ipmitool", "-I|-H|-U|-P|-L|-p|-f" },
	{ "mdadm|parted|lvm", "-f" },
	{ "date", "-d|--date|-f|--file|-r|--reference" },
	{ "useradd|usermod|userdel|groupadd|groupmod|passwd|chage", "-c|-d|-e|-f|-g|-G|-s|-u" },
};

static bool glob_one(const char *p, size_t plen, const char *text)
{
	const char *end = p + plen, *star = NULL, *back = NULL;

	while (*text || p < end) {
		if (p < end && *p == '*') {
			star = ++p;
			back = text;
			continue;
		}
		if (*text && p < end && *p == '[') {
			const char *close = memchr(p + 1, ']', (size_t)(end - p - 1));
			bool negate = p + 1 < end && p[1] == '!', hit = false;

			if (close == p + 1) /* "[]": no set */
				close = NULL;
			for (const char *s = p + 1 + negate; close && s < close; s++) {
				if (s + 2 < close && s[1] == '-') {
					hit |= *text >= s[0] && *text <= s[2];
					s += 2;
				} else {
					hit |= *s == *text;
				}
			}
			if (close && hit != negate) {
				p = close + 1;
				text++;
				continue;
			}
			if (!close && *text == '[') {
				p++;
				text++;
				continue;
			}
		} else if (*text && p < end && (*p == '?' || *p == *text)) {
			p++;
			text++;
			continue;
		}
		if (!star || !*back)
			return false;
		p = star;
		text = ++back;
	}
	return true;
}

bool ag_gate_glob(const char *pattern, const char *text)
{
	for (;;) {
		size_t len = strcspn(pattern, "|");

		if (glob_one(pattern, len, text))
			return true;
		if (!pattern[len])
			return false;
		pattern += len + 1;
	}
}

bool ag_gate_has_option(char **argv, size_t argc, const char *option)
{
	size_t len = strlen(option);

	for (size_t i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (strcmp(a, "--") == 0)
			return false;
		if (a[0] != '-')
			continue;
		if (strncmp(a, option, len) == 0 && (a[len] == '\0' || (a[1] == '-' && a[len] == '=')))
			return true;
		if (len == 2 && a[1] != '-' && strchr(a + 1, option[1]))
			return true;
	}
	return false;
}

static bool has_one_of(char **argv, size_t argc, const char *options)
{
	char one[64];

	while (*options) {
		size_t len = strcspn(options, "|");

		if (len < sizeof(one)) {
			memcpy(one, options, len);
			one[len] = '\0';
			if (ag_gate_has_option(argv, argc, one))
				return true;
		}
		options += len + (options[len] == '|');
	}
	return false;
}

/* The words of argv that are no options, at most max. */
static size_t plain_words(char **argv, size_t argc, const char **words, size_t max)
{
	const char *skip = NULL;
	size_t n = 0;

	for (size_t k = 0; k < sizeof(with_value) / sizeof(with_value[0]); k++)
		if (ag_gate_glob(with_value[k].programs, argv[0]))
			skip = with_value[k].options;
	for (size_t i = 1; i < argc && n < max; i++) {
		if (strcmp(argv[i], "--") == 0)
			continue;
		if (argv[i][0] == '-' && argv[i][1]) {
			if (skip && ag_gate_glob(skip, argv[i]))
				i++;
			continue;
		}
		words[n++] = argv[i];
	}
	return n;
}

static bool words_match(const char *pattern, const char *const *words, size_t n)
{
	char one[1024];

	for (size_t i = 0; *pattern; i++) {
		size_t len = strcspn(pattern, " ");

		if (len >= sizeof(one))
			return false;
		memcpy(one, pattern, len);
		one[len] = '\0';
		if (i >= n) /* "-" among the alternatives: nothing may follow */
			return ag_gate_glob(one, "-") && strcmp(one, "*") != 0;
		if (strcmp(words[i], "-") == 0 || !ag_gate_glob(one, words[i]))
			return false;
		pattern += len + (pattern[len] == ' ');
	}
	return true;
}

bool ag_gate_table(char **argv, size_t argc, struct gate_opinion *o)
{
	const char *words[6];
	size_t n = plain_words(argv, argc, words, 6);
	bool known = false;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!ag_gate_glob(rows[i].programs, argv[0]))
			continue;
		if (!known && argc == 2 && ag_gate_glob("--help|--version", argv[1]))
			return true;
		known = true;
		if (rows[i].words && !words_match(rows[i].words, words, n))
			continue;
		if (rows[i].options && !has_one_of(argv, argc, rows[i].options))
			continue;
		ag_gate_opinion_raise(o, rows[i].class, rows[i].flags, rows[i].why,
		                      n && rows[i].words ? words[0] : argv[0]);
		return true;
	}
	if (!known && argc == 2 && strcmp(argv[1], "--version") == 0)
		return true;
	if (known)
		ag_gate_opinion_raise(o, C, 0, "an action that is not in the gate's table", n ? words[0] : argv[0]);
	return known;
}
