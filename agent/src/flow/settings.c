/* Settings: one table of keys. The sections [profile NAME] and [assistant NAME] are not known before the files are
 * read, so their names are looked for first; each then adds its rows to the table. */
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
	{ "tools", "enabled", NULL, OPT_FLAG, AT(tools_enabled), "the model may use tools", NULL },
	{ "tools", "run-read", NULL, OPT_FLAG, AT(run_read), "commands that only read run without a question", NULL },
	{ "tools", "folders", NULL, OPT_LIST, AT(tool_folders), "files below are read without a question", NULL },
	{ "tools", "max-steps", NULL, OPT_UINT, AT(max_steps), "most tool calls for one answer", NULL },
	{ "tools", "time-limit", NULL, OPT_UINT, AT(tool_time_s), "seconds until no more tools are used", NULL },
	{ "tools", "max-result", NULL, OPT_UINT, AT(max_result_bytes), "bytes of one result", NULL },
	{ "history", "keep", NULL, OPT_FLAG, AT(keep_history), "questions and answers are kept", NULL },
	{ 0 }
};

static const struct base_config_key profile_keys[] = {
	{ "", "url", NULL, OPT_STR, offsetof(struct ag_profile, url), "server of this profile", NULL },
	{ "", "model", NULL, OPT_STR, offsetof(struct ag_profile, model), "its model", NULL },
	{ "", "api-key-file", NULL, OPT_STR, offsetof(struct ag_profile, api_key_file), "its key", NULL },
	{ "", "allow-remote", NULL, OPT_FLAG, offsetof(struct ag_profile, allow_remote), "it may be remote", NULL },
	{ "", "context", NULL, OPT_UINT, offsetof(struct ag_profile, context_tokens), "its context, in tokens", NULL },
	{ "", "tools", NULL, OPT_FLAG, offsetof(struct ag_profile, has_tools), "it can use tools", NULL },
	{ 0 }
};

static const struct base_config_key own_keys[] = {
	{ "", "prompt", NULL, OPT_STR, offsetof(struct ag_own_assistant, prompt), "its system prompt", NULL },
	{ "", "prompt-zh", NULL, OPT_STR, offsetof(struct ag_own_assistant, prompt_zh), "the same, for Chinese", NULL },
	{ "", "tools", NULL, OPT_STR, offsetof(struct ag_own_assistant, tools), "tools it may use", NULL },
	{ "", "output", NULL, OPT_CHOICE, offsetof(struct ag_own_assistant, output), "what its answer is",
	  "markdown,command,code" },
	{ "", "about", NULL, OPT_STR, offsetof(struct ag_own_assistant, about), "what it is for", NULL },
	{ "", "profile", NULL, OPT_STR, offsetof(struct ag_own_assistant, profile), "its profile", NULL },
	{ "", "check-numbers", NULL, OPT_FLAG, offsetof(struct ag_own_assistant, check_numbers),
	  "numbers are compared with the facts", NULL },
	{ "", "passages", NULL, OPT_FLAG, offsetof(struct ag_own_assistant, passages), "it cites the knowledge base",
	  NULL },
	{ 0 }
};

/* ---- Names of sections ------------------------------------------------------------------------------------ */

/* Whether a section of this name is new and there is room for it; the names are the first field of each. */
static bool is_new_name(const void *items, size_t n, size_t max, size_t size, const char *name, size_t len)
{
	if (len == 0 || len >= AG_MAX_NAME || n == max)
		return false; /* the loader warns about keys of sections that it does not know */
	for (size_t i = 0; i < n; i++) {
		const char *known = (const char *)items + i * size;

		if (strlen(known) == len && memcmp(known, name, len) == 0)
			return false;
	}
	return true;
}

static void add_profile(struct ag_settings *s, const char *name, size_t len)
{
	struct ag_profile *p = &s->profiles[s->n_profiles];

	if (!is_new_name(s->profiles, s->n_profiles, AG_MAX_PROFILES, sizeof(*p), name, len))
		return;
	memset(p, 0, sizeof(*p));
	p->has_tools = true;
	memcpy(p->name, name, len);
	(void)snprintf(p->section, sizeof(p->section), "profile %.*s", (int)len, name);
	s->n_profiles++;
}

static void add_own(struct ag_settings *s, const char *name, size_t len)
{
	struct ag_own_assistant *o = &s->own[s->n_own];

	if (!is_new_name(s->own, s->n_own, AG_MAX_OWN, sizeof(*o), name, len))
		return;
	memset(o, 0, sizeof(*o));
	memcpy(o->name, name, len);
	(void)snprintf(o->section, sizeof(o->section), "assistant %.*s", (int)len, name);
	s->n_own++;
}

static void scan_line(struct ag_settings *s, const char *line, size_t n)
{
	static const struct {
		const char *head;
		void (*add)(struct ag_settings *s, const char *name, size_t len);
	} kinds[] = { { "[profile ", add_profile }, { "[assistant ", add_own } };
	const char *end = memchr(line, ']', n);

	for (size_t i = 0; end && i < sizeof(kinds) / sizeof(*kinds); i++) {
		size_t len = strlen(kinds[i].head);

		if ((size_t)(end - line) > len && strncmp(line, kinds[i].head, len) == 0)
			kinds[i].add(s, line + len, (size_t)(end - line) - len);
	}
}

static void scan_file(struct ag_settings *s, const char *path)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(1 << 20);
	const char *line;

	if (base_read_file(path, &text, NULL) < 0)
		return; /* the loader says why */
	for (line = base_buf_text(&text); *line;) {
		size_t n = strcspn(line, "\n"), blanks = strspn(line, " \t");

		if (blanks < n)
			scan_line(s, line + blanks, n - blanks);
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

static void find_sections(struct ag_settings *s, const char *root)
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

static struct base_config_key *add_keys(struct base_config_key *k, const struct base_config_key *rows,
                                        const char *section, size_t offset)
{
	for (size_t i = 0; rows[i].key; i++, k++) {
		*k = rows[i];
		k->section = section;
		k->offset += offset;
	}
	return k;
}

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
	for (size_t p = 0; p < s->n_profiles; p++)
		k = add_keys(k, profile_keys, s->profiles[p].section, AT(profiles) + p * sizeof(s->profiles[0]));
	for (size_t o = 0; o < s->n_own; o++)
		k = add_keys(k, own_keys, s->own[o].section, AT(own) + o * sizeof(s->own[0]));
	memset(k, 0, sizeof(*k));
}

static const char *or_else(const char *text, const char *other)
{
	return text && *text ? text : other;
}

/* What the section does not say is as in the table's row of the same name, else as in chat's. */
static void make_row(struct ag_own_assistant *o)
{
	const struct ag_assistant *known = ag_assistant_find(o->name),
	                          *like = known ? known : ag_assistant_find("chat");

	o->row = (struct ag_assistant){
		.name = o->name,
		.system_en = or_else(o->prompt, like->system_en),
		.system_zh = or_else(o->prompt_zh, or_else(o->prompt, like->system_zh)),
		.tools = o->tools ? o->tools
		         : known  ? like->tools
		                  : "",
		.output = !or_else(o->output, NULL)           ? like->output
		          : strcmp(o->output, "command") == 0 ? AG_OUTPUT_COMMAND
		          : strcmp(o->output, "code") == 0    ? AG_OUTPUT_CODE
		                                              : AG_OUTPUT_MARKDOWN,
		.checks_numbers = o->check_numbers || (known && like->checks_numbers),
		.cites_passages = o->passages || (known && like->cites_passages),
		.measures = o->measures || (known && like->measures),
		.about_en = or_else(o->about, known ? like->about_en : o->name),
		.about_zh = or_else(o->about, known ? like->about_zh : o->name),
		.profile = or_else(o->profile, NULL),
	};
	/* The embedded model does commands, and no words of a prompt change how. */
	if (o->row.output == AG_OUTPUT_COMMAND)
		o->row.keyword = ag_assistant_find("cmd")->keyword;
}

int ag_settings_load(struct ag_settings *s, const char *root, struct base_config **ret_config, struct err *err)
{
	int r;
	const struct base_config_paths paths = { .product = "ocai", .program = "ocai", .root = root, .user = true };

	memset(s, 0, sizeof(*s));
	s->timeout_s = 120;
	s->start_timeout_s = 60;
	s->idle_exit_s = 900;
	s->max_tokens = 1024;
	s->keep_history = true;
	s->tools_enabled = true;
	s->max_steps = 8;
	s->tool_time_s = 120;
	s->max_result_bytes = 16 << 10;
	s->limit = 20;
	find_sections(s, root);
	build_keys(s);
	r = base_config_load(&paths, s->keys, s, ret_config, err);
	if (r == 0) {
		for (size_t i = 0; i < s->n_own; i++)
			make_row(&s->own[i]);
	}
	return r;
}

int ag_settings_check(const struct ag_settings *s, struct err *err)
{
	if (s->timeout_s == 0 || s->timeout_s > 86400 || s->start_timeout_s == 0 || s->start_timeout_s > 86400)
		return err_set(err, -EINVAL, "timeouts are 1 to 86400 seconds");
	if (s->max_tokens == 0 || s->max_tokens > 65536)
		return err_set(err, -EINVAL, "max-tokens is 1 to 65536");
	if (s->max_steps > 100 || s->tool_time_s == 0 || s->tool_time_s > 86400)
		return err_set(err, -EINVAL, "[tools] max-steps is 0 to 100, time-limit 1 to 86400 seconds");
	if (s->max_result_bytes < 256 || s->max_result_bytes > AG_MAX_RESULT)
		return err_set(err, -EINVAL, "[tools] max-result is 256 to %d bytes", AG_MAX_RESULT);
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
