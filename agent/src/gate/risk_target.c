/* Programs whose danger lies in what they are pointed at: deleting, copying over, writing to disks, changing rights,
 * searching with actions, downloading, signalling. Also what a redirection does to its file. */
#include <string.h>

#include "risk_internal.h"

#define R AG_GATE_READ
#define C AG_GATE_CHANGE
#define D AG_GATE_DESTRUCTIVE

static bool has(char **argv, size_t argc, const char *option)
{
	return ag_gate_has_option(argv, argc, option);
}

static bool is_option(const char *a)
{
	return a[0] == '-' && a[1];
}

/* After "--" all words are names. */
static bool is_name(char **argv, size_t i)
{
	if (!is_option(argv[i]))
		return true;
	for (size_t k = 1; k < i; k++)
		if (strcmp(argv[k], "--") == 0)
			return true;
	return false;
}

void ag_gate_write_target(struct gate_eval *ev, const char *path, bool append, struct gate_opinion *o)
{
	switch (ag_gate_place(ev, path)) {
	case GATE_PLACE_NONE:
		return;
	case GATE_PLACE_IN_USE:
		ag_gate_opinion_raise(o, D, AG_GATE_HARD, "overwrites a disk that is in use", path);
		return;
	case GATE_PLACE_DEVICE:
		ag_gate_opinion_raise(o, D, 0, "overwrites a disk or device", path);
		return;
	case GATE_PLACE_SYSTEM:
	case GATE_PLACE_TOP:
	case GATE_PLACE_ROOT:
		if (ag_gate_glob("/proc/sysrq-trigger", path))
			ag_gate_opinion_raise(o, D, 0, "takes the machine down", path);
		else if (ag_gate_glob("/proc/*|/sys/*", path))
			ag_gate_opinion_raise(o, C, 0, "alters kernel parameters", path);
		else if (ag_gate_glob("/etc/passwd|/etc/shadow|/etc/sudoers*|/etc/fstab|/etc/group|/etc/ld.so.preload",
		                      path))
			ag_gate_opinion_raise(o, D, 0, "writes to a file the system cannot do without", path);
		else if (append || ag_gate_glob("/var/log/*|/var/www/*|/var/lib/*/*|/etc/*.d/*", path))
			ag_gate_opinion_raise(o, C, 0, "writes a system file", path);
		else
			ag_gate_opinion_raise(o, D, 0, "overwrites a system file", path);
		return;
	default:
		ag_gate_opinion_raise(o, C, 0, append ? "adds to a file" : "writes a file", path);
		if (ag_gate_glob("*/.ssh/authorized_keys*|*/.bashrc|*/.bash_profile|*/.profile", path))
			ag_gate_opinion_raise(o, append ? C : D, 0, "writes a file that decides about logins", path);
	}
}

/* rm, shred and all that ends in the loss of the files named. */
static void lose(struct gate_eval *ev, const char *path, bool deep, struct gate_opinion *o)
{
	enum gate_place place = ag_gate_place(ev, path);
	size_t len = strlen(path);

	switch (place) {
	case GATE_PLACE_ROOT:
		ag_gate_opinion_raise(o, D, deep ? AG_GATE_HARD : 0, "deletes the whole system", path);
		break;
	case GATE_PLACE_TOP:
		ag_gate_opinion_raise(o, D, deep ? AG_GATE_HARD : 0, "deletes a folder the system lives in", path);
		break;
	case GATE_PLACE_HOME:
		ag_gate_opinion_raise(o, D, deep ? AG_GATE_HARD : 0, "deletes a whole home folder", path);
		break;
	case GATE_PLACE_UNSET:
		ag_gate_opinion_raise(o, D, 0, "deletes the whole system when the variable is empty", path);
		break;
	case GATE_PLACE_DEVICE:
	case GATE_PLACE_IN_USE:
	case GATE_PLACE_SYSTEM:
		ag_gate_opinion_raise(o, D, 0, "deletes system files", path);
		break;
	case GATE_PLACE_ALL_HERE:
		ag_gate_opinion_raise(o, D, 0, "deletes all that is in a folder", path);
		break;
	case GATE_PLACE_TEMP:
		if (!deep && gate_is_known(path) && !strpbrk(path, "*?[") && path[len ? len - 1 : 0] != '/') {
			ag_gate_opinion_raise(o, C, 0, "deletes a temporary file", path);
			break;
		}
		/* fall through */
	default:
		ag_gate_opinion_raise(o, D, 0, deep ? "deletes folders with all that is in them" : "deletes files",
		                      path);
	}
}

static void do_rm(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	bool deep = has(argv, argc, "-r") || has(argv, argc, "-R") || has(argv, argc, "--recursive") ||
	            ag_gate_glob("shred|srm|wipe|trash-empty", argv[0]);

	ag_gate_opinion_raise(o, C, 0, "deletes files", argv[0]);
	for (size_t i = 1; i < argc; i++) {
		if (!is_name(argv, i))
			continue;
		if (strcmp(argv[0], "rmdir") == 0) /* only empty folders */
			continue;
		if (ag_gate_glob("shred|wipe", argv[0]) && ag_gate_place(ev, argv[i]) == GATE_PLACE_IN_USE)
			ag_gate_opinion_raise(o, D, AG_GATE_HARD, "overwrites a disk that is in use", argv[i]);
		lose(ev, argv[i], deep, o);
	}
	if (has(argv, argc, "--no-preserve-root"))
		ag_gate_opinion_raise(o, D, AG_GATE_HARD, "deletes the whole system", "--no-preserve-root");
}

/* cp, mv, ln, install, scp, rsync: the last name is written, mv's others are gone. */
static void do_copy(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	const char *last = NULL, *target = NULL;
	bool moves = strcmp(argv[0], "mv") == 0, remote = false;

	ag_gate_opinion_raise(o, C, ag_gate_glob("scp|rsync", argv[0]) ? AG_GATE_NETWORK : 0,
	                      "copies, moves or links files", argv[0]);
	if (strcmp(argv[0], "rsync") == 0 && (has(argv, argc, "--dry-run") || has(argv, argc, "-n"))) {
		o->class = R;
		return;
	}
	for (size_t i = 1; i < argc; i++) {
		if (ag_gate_glob("-t|--target-directory", argv[i]) && i + 1 < argc)
			target = argv[i + 1];
		else if (strncmp(argv[i], "--target-directory=", 19) == 0)
			target = argv[i] + 19;
		if (is_name(argv, i))
			last = argv[i];
	}
	if (!target)
		target = last;
	remote = ag_gate_glob("scp|rsync", argv[0]) && target && strchr(target, ':');
	if (target && !remote) {
		struct gate_opinion w = { 0 };

		ag_gate_write_target(ev, target, target[strlen(target) - (*target ? 1 : 0)] == '/', &w);
		if (w.class > C)
			ag_gate_opinion_raise(o, w.class, w.flags, w.why, w.word);
		if (moves && ag_gate_place(ev, target) == GATE_PLACE_NONE)
			ag_gate_opinion_raise(o, D, 0, "throws files away", target);
	}
	for (size_t i = 1; moves && i < argc; i++) {
		enum gate_place p = ag_gate_place(ev, argv[i]);

		if (argv[i] == last || !is_name(argv, i))
			continue;
		if (p == GATE_PLACE_ROOT || p == GATE_PLACE_TOP || p == GATE_PLACE_HOME)
			ag_gate_opinion_raise(o, D, AG_GATE_HARD, "moves a folder the system lives in", argv[i]);
		else if (p == GATE_PLACE_SYSTEM)
			ag_gate_opinion_raise(o, D, 0, "moves system files away", argv[i]);
	}
	for (size_t i = 1; i < argc; i++)
		if (ag_gate_glob("--delete*|--del|--remove-source-files", argv[i]))
			ag_gate_opinion_raise(o, D, 0, "deletes files that the source lacks, or the source", argv[i]);
}

static void do_dd(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	for (size_t i = 1; i < argc; i++) {
		if (strncmp(argv[i], "of=", 3) == 0)
			ag_gate_write_target(ev, argv[i] + 3, false, o);
		if (strncmp(argv[i], "if=", 3) == 0 && ag_gate_is_secret_path(argv[i] + 3))
			ag_gate_opinion_raise(o, o->class, AG_GATE_SECRET, "reads a secret", argv[i]);
	}
}

static void do_tee(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	bool append = has(argv, argc, "-a") || has(argv, argc, "--append");

	for (size_t i = 1; i < argc; i++)
		if (is_name(argv, i))
			ag_gate_write_target(ev, argv[i], append, o);
}

/* mkfs, wipefs, parted, fdisk, cryptsetup ... */
static void do_disk(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	const char *n = argv[0];
	bool looks = argc == 1;

	if (ag_gate_glob("fdisk|sfdisk|gdisk|sgdisk|cfdisk|parted", n))
		looks = has(argv, argc, "-l") || has(argv, argc, "--list") || has(argv, argc, "-p") ||
		        has(argv, argc, "--dump") || has(argv, argc, "-d") || has(argv, argc, "--verify") ||
		        has(argv, argc, "-v") || has(argv, argc, "-i") || ag_gate_glob("print|p", argv[argc - 1]);
	else if (strcmp(n, "wipefs") == 0)
		looks = !has(argv, argc, "-a") && !has(argv, argc, "--all") && !has(argv, argc, "-o") &&
		        !has(argv, argc, "--offset");
	else if (strcmp(n, "cryptsetup") == 0)
		looks = argc > 1 && ag_gate_glob("status|luksDump|isLuks|luksUUID|benchmark", argv[1]);
	if (ag_gate_glob("sgdisk|fdisk", n) &&
	    (has(argv, argc, "-Z") || has(argv, argc, "--zap-all") || has(argv, argc, "-o")))
		looks = false;
	if (looks || has(argv, argc, "--help") || has(argv, argc, "-V") ||
	    (has(argv, argc, "-n") && strcmp(n, "mke2fs") == 0))
		return;
	if (strcmp(n, "cryptsetup") == 0 && argc > 1 &&
	    ag_gate_glob("open|luksOpen|close|luksClose|resize|luksAddKey|luksHeaderBackup", argv[1])) {
		ag_gate_opinion_raise(o, C, 0, "alters an encrypted disk", argv[1]);
		return;
	}
	ag_gate_opinion_raise(o, D, 0, "erases a disk or rewrites its partitions", n);
	for (size_t i = 1; i < argc; i++)
		if (ag_gate_place(ev, argv[i]) == GATE_PLACE_IN_USE)
			ag_gate_opinion_raise(o, D, AG_GATE_HARD, "erases a disk that is in use", argv[i]);
}

static void do_rights(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	bool deep = has(argv, argc, "-R") || has(argv, argc, "--recursive");
	size_t first = 1;

	ag_gate_opinion_raise(o, C, 0, "alters rights or owners", argv[0]);
	while (first < argc && is_option(argv[first]) && !strpbrk(argv[first], "rwx"))
		first++;
	for (size_t i = first + 1; i < argc; i++) {
		enum gate_place p = ag_gate_place(ev, argv[i]);

		if (deep && (p == GATE_PLACE_ROOT || p == GATE_PLACE_TOP))
			ag_gate_opinion_raise(o, D, AG_GATE_HARD, "alters the rights of the whole system", argv[i]);
		else if (p == GATE_PLACE_ROOT || p == GATE_PLACE_TOP || p == GATE_PLACE_UNSET ||
		         (deep && (p == GATE_PLACE_SYSTEM || p == GATE_PLACE_HOME)))
			ag_gate_opinion_raise(o, D, 0, "alters the rights of system folders", argv[i]);
		else if (p == GATE_PLACE_DEVICE || p == GATE_PLACE_IN_USE)
			ag_gate_opinion_raise(o, D, 0, "alters the rights of a disk", argv[i]);
		else if (deep)
			ag_gate_opinion_raise(o, D, 0, "alters the rights of all files in a folder", argv[i]);
	}
	if (first < argc && ag_gate_glob("*777|*666|a+w|o+w|+w|u+s|*+s*|[4267][0-7][0-7][0-7]", argv[first]))
		ag_gate_opinion_raise(o, C, 0, "gives rights to everybody", argv[first]);
}

static void do_find(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	size_t tests = argc;
	bool filtered = false;

	for (size_t i = 1; i < argc; i++) {
		if (is_option(argv[i]) && tests == argc && !ag_gate_glob("-L|-H|-P|-O*|-D", argv[i]))
			tests = i;
		filtered |= ag_gate_glob(
		        "-name|-iname|-path|-mtime|-mmin|-size|-user|-empty|-newer*|-regex|-perm|-inum|-ctime|"
		        "-atime|-nouser|-nogroup|-amin|-cmin|-ipath|-iregex|-group",
		        argv[i]);
	}
	for (size_t i = 1; i < argc && !ev->error; i++) {
		if (strcmp(argv[i], "-delete") == 0) {
			ag_gate_opinion_raise(o, D, 0, "deletes what it finds", argv[i]);
			for (size_t k = 1; k < tests; k++) {
				enum gate_place p = ag_gate_place(ev, argv[k]);

				if (!filtered && (p == GATE_PLACE_ROOT || p == GATE_PLACE_TOP || p == GATE_PLACE_HOME))
					ag_gate_opinion_raise(o, D, AG_GATE_HARD,
					                      "deletes a folder the system lives in", argv[k]);
			}
		} else if (ag_gate_glob("-fprint|-fprint0|-fprintf|-fls", argv[i]) && i + 1 < argc) {
			ag_gate_write_target(ev, argv[i + 1], false, o);
		} else if (ag_gate_glob("-exec|-execdir|-ok|-okdir", argv[i])) {
			size_t end = i + 1;
			char **inner = ag_gate_pool_alloc(ev, (argc - i + 1) * sizeof(*inner));

			while (end < argc && strcmp(argv[end], ";") != 0 && strcmp(argv[end], "+") != 0)
				end++;
			for (size_t k = i + 1; inner && k < end; k++)
				inner[k - i - 1] =
				        strcmp(argv[k], "{}") == 0
				                ? (!filtered && tests > 1 ? argv[1] : ag_gate_pool_text(ev, "\1", 1))
				                : argv[k];
			if (inner)
				ag_gate_eval_argv(ev, inner, end - i - 1);
			i = end;
		}
	}
}

static void do_sed(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	bool in_place = has(argv, argc, "--in-place"), script = false;

	for (size_t i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (is_option(a) && a[1] != '-') { /* -i, -ni, -i.bak, but not the i of -e's script */
			for (const char *c = a + 1; *c && !strchr("efl", *c); c++)
				in_place |= *c == 'i';
			script |= strpbrk(a, "ef") != NULL;
			continue;
		}
		if (!script && !is_option(a)) {
			size_t len = strlen(a);

			script = true;
			if (ag_gate_glob("w *|*;w *|*/w *|*[0-9]w *|*W /*", a) ||
			    (len > 2 && ag_gate_glob("s*/e|s*/ge|*;e *|e *|[0-9]*e *", a)))
				ag_gate_opinion_raise(o, C, AG_GATE_UNKNOWN, "its script writes files or runs commands",
				                      a);
		} else if (in_place && !is_option(a)) {
			struct gate_opinion w = { 0 };

			ag_gate_write_target(ev, a, true, &w);
			ag_gate_opinion_raise(o, w.class, w.flags, "edits files in place", a);
		}
	}
	if (in_place)
		ag_gate_opinion_raise(o, C, 0, "edits files in place", "-i");
}

static void do_awk(char **argv, size_t argc, struct gate_opinion *o)
{
	for (size_t i = 1; i < argc; i++) {
		const char *a = argv[i], *print = strstr(a, "print");

		if (strstr(a, "system(") || strstr(a, "| getline") || strstr(a, "|getline") || strstr(a, "|&") ||
		    (print && (strstr(print, "| \"") || strstr(print, "|\""))))
			ag_gate_opinion_raise(o, C, AG_GATE_UNKNOWN, "its script runs commands", a);
		if ((print &&
		     (strstr(print, "> \"") || strstr(print, ">\"") || strstr(print, "> $") || strstr(print, ">$"))) ||
		    strcmp(a, "inplace") == 0)
			ag_gate_opinion_raise(o, C, 0, "its script writes files", a);
	}
	if (argc > 1 && has(argv, argc < 3 ? argc : 3, "-f") && !has(argv, argc, "-F"))
		ag_gate_opinion_raise(o, C, AG_GATE_UNKNOWN, "runs a script", argv[0]);
}

static void do_fetch(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	bool wget = strcmp(argv[0], "wget") == 0, keeps = wget;

	ag_gate_opinion_raise(o, R, AG_GATE_NETWORK, "asks the network", argv[0]);
	for (size_t i = 1; i < argc; i++) {
		const char *next = i + 1 < argc ? argv[i + 1] : "";

		if (wget && (ag_gate_glob("-O-|-qO-|-*O-|--output-document=-|--spider", argv[i]) ||
		             (ag_gate_glob("-O|-qO|-*O", argv[i]) &&
		              (strcmp(next, "-") == 0 || strcmp(next, "/dev/null") == 0)) ||
		             ag_gate_glob("--version|-V|--help", argv[i])))
			keeps = false;
		else if (ag_gate_glob("-o|--output|-[a-zA-Z]*o|--output-document|-O", argv[i]) && *next &&
		         !is_option(next) && !(strcmp(argv[i], "-O") == 0 && !wget) && argv[i][1] != '-')
			ag_gate_write_target(ev, next, false, o);
		else if (!wget && ag_gate_glob("-o?*", argv[i]))
			ag_gate_write_target(ev, argv[i] + 2, false, o);
		else if (!wget && strcmp(argv[i], "--output") == 0)
			ag_gate_write_target(ev, next, false, o);
		if (!wget && ag_gate_glob("-O|-*O|--remote-name*|-J", argv[i]) && argv[i][1] != '-')
			keeps = true;
		if (!wget &&
		    (ag_gate_glob("-d|-F|-T|--data*|--form*|--upload-file|--json|-d?*|-F?*|--post-*|--body-*",
		                  argv[i]) ||
		     (ag_gate_glob("-X|--request|-sX|-*X", argv[i]) && !ag_gate_glob("GET|HEAD|OPTIONS", next)) ||
		     (ag_gate_glob("-X?*", argv[i]) && !ag_gate_glob("-XGET|-XHEAD", argv[i]))))
			ag_gate_opinion_raise(o, C, AG_GATE_NETWORK, "sends data to a server", argv[i]);
		if (wget && ag_gate_glob("--post-*|--body-*|--method=*", argv[i]))
			ag_gate_opinion_raise(o, C, AG_GATE_NETWORK, "sends data to a server", argv[i]);
		if (argv[i][0] == '@' && ag_gate_is_secret_path(argv[i] + 1))
			ag_gate_opinion_raise(o, D, AG_GATE_SECRET, "sends a secret to a server", argv[i]);
		if (!wget && ag_gate_glob("DELETE", argv[i]))
			ag_gate_opinion_raise(o, D, 0, "deletes on a server", argv[i]);
	}
	if (keeps)
		ag_gate_opinion_raise(o, C, 0, "writes a file", argv[0]);
}

static void do_tar(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	const char *mode = argc > 1 ? argv[1] : "";
	bool lists = has(argv, argc, "-t") || has(argv, argc, "--list") ||
	             (mode[0] != '-' && strchr(mode, 't') && !strpbrk(mode, "xcru"));
	bool extracts = has(argv, argc, "-x") || has(argv, argc, "--extract") || has(argv, argc, "--get") ||
	                (mode[0] != '-' && strchr(mode, 'x'));
	bool stdout_only =
	        has(argv, argc, "-O") || has(argv, argc, "--to-stdout") || (mode[0] != '-' && strchr(mode, 'O'));

	for (size_t i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--checkpoint-action=exec=", 25) == 0)
			ag_gate_eval_text(ev, argv[i] + 25);
		else if (strncmp(argv[i], "--to-command=", 13) == 0)
			ag_gate_eval_text(ev, argv[i] + 13);
		else if (ag_gate_glob("--use-compress-program=*|-I", argv[i]))
			ag_gate_opinion_raise(o, R, AG_GATE_UNKNOWN, "runs another program", argv[i]);
		else if (ag_gate_glob("--remove-files|--delete|--recursive-unlink|--unlink-first", argv[i]))
			ag_gate_opinion_raise(o, D, 0, "deletes files", argv[i]);
		else if (extracts && ag_gate_glob("-C|--directory", argv[i]) && i + 1 < argc &&
		         (ag_gate_place(ev, argv[i + 1]) == GATE_PLACE_ROOT ||
		          ag_gate_place(ev, argv[i + 1]) == GATE_PLACE_TOP))
			ag_gate_opinion_raise(o, D, 0, "unpacks over the system", argv[i + 1]);
		else if (ag_gate_glob("--directory=/", argv[i]))
			ag_gate_opinion_raise(o, D, 0, "unpacks over the system", argv[i]);
	}
	if (!lists && !(extracts && stdout_only) && argc > 1)
		ag_gate_opinion_raise(o, C, 0, "packs or unpacks files", argv[0]);
}

static void do_kill(char **argv, size_t argc, struct gate_opinion *o)
{
	if (has(argv, argc, "-l") || has(argv, argc, "-L") || (argc > 1 && strcmp(argv[1], "-0") == 0))
		return;
	ag_gate_opinion_raise(o, C, 0, "ends processes", argv[0]);
	for (size_t i = 1; i < argc; i++) {
		if (strcmp(argv[0], "kill") == 0 &&
		    (strcmp(argv[i], "1") == 0 || (i > 1 && strcmp(argv[i], "-1") == 0)) &&
		    !ag_gate_glob("-s|-n", argv[i - 1]))
			ag_gate_opinion_raise(o, D, 0, "ends every process or the first one", argv[i]);
		if (strcmp(argv[0], "kill") != 0 &&
		    ag_gate_glob("sshd|systemd|init|-u|--user|.|.*|NetworkManager|dbus*", argv[i]))
			ag_gate_opinion_raise(o, D, 0, "ends sessions or what the system needs", argv[i]);
	}
}

static void do_truncate(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	bool grows = false;

	for (size_t i = 1; i < argc; i++)
		grows |= ag_gate_glob("+*|-s+*|--size=+*", argv[i]);
	ag_gate_opinion_raise(o, grows ? C : D, 0, grows ? "grows files" : "cuts files off",
	                      argc > 1 ? argv[argc - 1] : argv[0]);
	if (argc > 1)
		ag_gate_write_target(ev, argv[argc - 1], true, o);
}

/* SQL given on the command line. */
static void do_sql(char **argv, size_t argc, struct gate_opinion *o)
{
	static const char lose_words[] = "*drop *|*truncate *|*delete *|*shutdown*|*reset master*|*purge *";
	static const char look_words[] =
	        "select *|show *|explain *|describe *|desc *|\\[ldc]*|pragma *|.tables*|.schema*|"
	        ".dump*|status*|use *|help*|";
	bool text = false, looks = true;

	for (size_t i = 1; i < argc; i++) {
		char low[256];
		size_t n = 0;
		const char *a = argv[i] + (strncmp(argv[i], "-e", 2) == 0 || strncmp(argv[i], "-c", 2) == 0 ? 2 : 0);

		for (; a[n] && n + 1 < sizeof(low); n++)
			low[n] = (char)(a[n] >= 'A' && a[n] <= 'Z' ? a[n] + 32 : a[n]);
		low[n] = '\0';
		if (ag_gate_glob(lose_words, low)) {
			ag_gate_opinion_raise(o, D, 0, "deletes data in a database", argv[i]);
			return;
		}
		if (strchr(low, ' ') || low[0] == '\\' || low[0] == '.') {
			const char *from = low + strspn(low, " ;\n");

			text = true;
			looks &= ag_gate_glob(look_words, from) &&
			         !ag_gate_glob("*update *|*insert *|*alter *|*;*create *|*into outfile*|*grant *", low);
		}
	}
	if (argc == 2 && ag_gate_glob("--version|-V|--help|-l", argv[1]))
		return;
	if (!text || !looks)
		ag_gate_opinion_raise(o, C, text ? 0 : AG_GATE_UNKNOWN, "may alter a database", argv[0]);
}

bool ag_gate_target(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o)
{
	static const struct {
		const char *names;
		void (*judge)(struct gate_eval *ev, char **argv, size_t argc, struct gate_opinion *o);
		void (*judge_text)(char **argv, size_t argc, struct gate_opinion *o);
	} targets[] = {
		{ "rm|unlink|rmdir|shred|srm|wipe", do_rm, NULL },
		{ "cp|mv|ln|install|scp|rsync|dcp", do_copy, NULL },
		{ "dd|dcfldd|dc3dd", do_dd, NULL },
		{ "tee", do_tee, NULL },
		{ "mkfs|mkfs.*|mke2fs|mkswap|wipefs|fdisk|sfdisk|gdisk|sgdisk|cfdisk|parted|cryptsetup|pvcreate|"
		  "blkdiscard",
		  do_disk, NULL },
		{ "chmod|chown|chgrp|chattr|setfacl", do_rights, NULL },
		{ "find", do_find, NULL },
		{ "sed", do_sed, NULL },
		{ "awk|gawk|mawk|nawk", NULL, do_awk },
		{ "curl|wget", do_fetch, NULL },
		{ "tar|bsdtar", do_tar, NULL },
		{ "kill|pkill|killall", NULL, do_kill },
		{ "truncate", do_truncate, NULL },
		{ "mysql|mariadb|psql|sqlite3", NULL, do_sql },
	};

	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		if (!ag_gate_glob(targets[i].names, argv[0]))
			continue;
		if (argc == 2 && ag_gate_glob("--help|--version", argv[1]))
			return true;
		if (targets[i].judge)
			targets[i].judge(ev, argv, argc, o);
		else
			targets[i].judge_text(argv, argc, o);
		return true;
	}
	if (strcmp(argv[0], "fuser") == 0) {
		if (has(argv, argc, "-k"))
			ag_gate_opinion_raise(o, C, 0, "ends processes", "-k");
		return true;
	}
	if (ag_gate_glob("fd|fdfind", argv[0])) {
		for (size_t i = 1; i + 1 < argc; i++)
			if (ag_gate_glob("-x|-X|--exec|--exec-batch", argv[i]))
				ag_gate_eval_argv(ev, argv + i + 1, argc - i - 1);
		return true;
	}
	return false;
}
