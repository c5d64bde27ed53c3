/* Settings: one table of keys. The sections [profile NAME] are not known before the files are read, so their names
 * are looked for first; each then adds its rows to the table. */
#include "flow/flow.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"

#define AT(field) offsetof(struct ag_settings, field)

static const struct base_config_key fixed_keys[] = {
	{ "backend", "profile", "OCAI_PROFILE", OPT_STR, AT(profile), "profile to use", NULL },
	{ "backend", "url", "OCAI_URL", OPT_STR, AT(url), "server to ask", NULL },
	{ "backend", "model", "OCAI_MODEL", OPT_STR, AT(model), "model to ask", NULL },
	{ "backend", "api-key-file", "OCAI_API_KEY_FILE", OPT_STR, AT(api_key_file), "file that holds the server's key",
	  NULL },
	{ "backend", "allow-remote", "OCAI_ALLOW_REMOTE", OPT_FLAG, AT(allow_remote),
	  "questions may leave this machine", NULL },
	{ "backend", "timeout", "OCAI_TIMEOUT", OPT_UINT, AT(timeout_s), "seconds the server may be silent", NULL },
	{ "backend", "max-tokens", NULL, OPT_UINT, AT(max_tokens), "longest answer", NULL },
	{ "backend", "context", NULL, OPT_UINT, AT(context_tokens), "context of the model, in tokens", NULL },
	{ "engine", "program", "OCAI_ENGINE", OPT_STR, AT(engine), "engine to start", NULL },
	{ "engine", "model", NULL, OPT_STR, AT(engine_model), "model it serves", NULL },
	{ "engine", "start-timeout", NULL, OPT_UINT, AT(start_timeout_s), "seconds until it must be ready", NULL },
	{ "engine", "idle-exit", NULL, OPT_UINT, AT(idle_exit_s), "seconds without a question until it ends", NULL },
	{ "history", "keep", NULL, OPT_FLAG, AT(keep_history), "questions and answers are kept", NULL },
	{ 0 }
};

static const struct base_config_key profile_keys[] = {
	{ "", "url", NULL, OPT_STR, offsetof(struct ag_profile, url), "server of this profile", NULL },
	{ "", "model", NULL, OPT_STR, offsetof(struct ag_profile, model), "its model", NULL },
	{ "", "api-key-file", NULL, OPT_STR, offsetof(struct ag_profile, api_key_file), "its key", NULL },
	{ "", "allow-remote", NULL, OPT_FLAG, offsetof(struct ag_profile, allow_remote), "it may be remote", NULL },
	{ "", "context", NULL, OPT_UINT, offsetof(struct ag_profile, context_tokens), "its context, in tokens", NULL },
	{ 0 }
};

/* ---- Names of profiles ------------------------------------------------------------------------------------ */

static void add_profile(struct ag_settings *s, const char *name, size_t len)
{
	struct ag_profile *p = &s->profiles[s->n_profiles];

	if (len == 0 || len >= sizeof(p->name) || s->n_profiles == AG_MAX_PROFILES)
		return; /* the loader warns about keys of sections that it does not know */
	for (size_t i = 0; i < s->n_profiles; i++) {
		if (strlen(s->profiles[i].name) == len && memcmp(s->profiles[i].name, name, len) == 0)
			return;
	}
	memset(p, 0, sizeof(*p));
	memcpy(p->name, name, len);
	memcpy(p->section, "profile ", 8);
	memcpy(p->section + 8, name, len);
	s->n_profiles++;
}

static void scan_file(struct ag_settings *s, const char *path)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(1 << 20);
	const char *line;

	if (base_read_file(path, &text, NULL) < 0)
		return; /* the loader says why */
	for (line = base_buf_text(&text); *line;) {
		size_t n = strcspn(line, "\n"), blanks = strspn(line, " \t");
		const char *end = memchr(line, ']', n);

		if (end && strncmp(line + blanks, "[profile ", 9) == 0 && end > line + blanks + 9)
			add_profile(s, line + blanks + 9, (size_t)(end - line) - blanks - 9);
		line += n + (line[n] == '\n');
	}
}

static void scan_folder(struct ag_settings *s, const char *root, const char *dir, const char *rest)
{
	for (size_t i = 0; i < 2; i++) {
		CLEANUP(base_buf_done) struct base_buf pattern = BASE_BUF_INIT(8192);
		glob_t found = { 0 };

		(void)base_buf_printf(&pattern, "%s%s%s%s", root, dir, rest,
		                      i == 0 ? "/ocai.conf" : "/ocai.conf.d/*.conf");
		if (base_buf_error(&pattern) == 0 && glob(base_buf_text(&pattern), 0, NULL, &found) == 0) {
			for (size_t k = 0; k < found.gl_pathc; k++)
				scan_file(s, found.gl_pathv[k]);
		}
		globfree(&found);
	}
}

static void find_profiles(struct ag_settings *s, const char *root)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

	scan_folder(s, root ? root : "", "/usr/lib", "/ocai");
	scan_folder(s, root ? root : "", "/etc", "/ocai");
	if (xdg && *xdg)
		scan_folder(s, "", xdg, "/ocai");
	else if (home && *home)
		scan_folder(s, "", home, "/.config/ocai");
}

/* ---- Loading ------------------------------------------------------------------------------------------------ */

static void build_keys(struct ag_settings *s)
{
	struct base_config_key *k = s->keys;

	for (size_t i = 0; fixed_keys[i].key; i++)
		*k++ = fixed_keys[i];
	for (size_t i = 0; i < ag_assistant_count(); i++)
		*k++ = (struct base_config_key){ .section = "assistants",
			                         .key = ag_assistant_at(i)->name,
			                         .type = OPT_STR,
			                         .offset = AT(profile_of) + i * sizeof(s->profile_of[0]),
			                         .help = "profile of this assistant" };
	for (size_t p = 0; p < s->n_profiles; p++) {
		for (size_t i = 0; profile_keys[i].key; i++) {
			*k = profile_keys[i];
			k->section = s->profiles[p].section;
			k->offset += AT(profiles) + p * sizeof(s->profiles[0]);
			k++;
		}
	}
	memset(k, 0, sizeof(*k));
}

int ag_settings_load(struct ag_settings *s, const char *root, struct base_config **ret_config, struct err *err)
{
	const struct base_config_paths paths = { .product = "ocai", .program = "ocai", .root = root, .user = true };

	memset(s, 0, sizeof(*s));
	s->timeout_s = 120;
	s->start_timeout_s = 60;
	s->idle_exit_s = 900;
	s->max_tokens = 1024;
	s->keep_history = true;
	s->limit = 20;
	find_profiles(s, root);
	build_keys(s);
	return base_config_load(&paths, s->keys, s, ret_config, err);
}

int ag_settings_check(const struct ag_settings *s, struct err *err)
{
	if (s->timeout_s == 0 || s->timeout_s > 86400 || s->start_timeout_s == 0 || s->start_timeout_s > 86400)
		return err_set(err, -EINVAL, "timeouts are 1 to 86400 seconds");
	if (s->max_tokens == 0 || s->max_tokens > 65536)
		return err_set(err, -EINVAL, "max-tokens is 1 to 65536");
	return 0;
}

bool ag_locale_is_chinese(void)
{
	static const char *const names[] = { "LC_ALL", "LC_MESSAGES", "LANG" };

	/* By name: the words are in the program, and a small system has no locales that setlocale() knows. */
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const char *name = getenv(names[i]);

		if (name && *name)
			return strncmp(name, "zh", 2) == 0 && (strcasestr(name, "utf-8") || strcasestr(name, "utf8"));
	}
	return false;
}
