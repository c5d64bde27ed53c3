/* mcp.conf: the servers that may be used, one INI section each.
 *
 *   [files]                              [docs]
 *   command = npx -y "some server" /srv  url = https://mcp.example.org/mcp
 *   env = LEVEL=1, LANG=C                token-file = ~/.config/ocai/docs.token
 *   timeout = 60                         allow = search, fetch
 *
 * A command is words, with quotes as the shell knows them and nothing else of the shell: none is started. */
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "mcp/mcp_internal.h"

enum { MAX_FILE = 1 << 20, MAX_WORDS = 256, MAX_SERVERS = 256, DEFAULT_TIMEOUT_S = 30 };

struct parsing {
	struct ag_mcp_configs *configs;
	const char *path;
	struct err *err;
	int error;
	size_t n_before; /* sections of earlier files are replaced as a whole */
};

static void strings_free(char **list)
{
	for (char **p = list; p && *p; p++)
		free(*p);
	free(list);
}

static void config_done(struct ag_mcp_config *c)
{
	free(c->name);
	strings_free(c->argv);
	strings_free(c->env);
	strings_free(c->allow);
	free(c->url);
	free(c->token_file);
}

void ag_mcp_configs_done(struct ag_mcp_configs *configs)
{
	for (size_t i = 0; i < configs->n; i++)
		config_done(&configs->items[i]);
	free(configs->items);
	*configs = (struct ag_mcp_configs){ 0 };
}

bool ag_mcp_config_allows(const struct ag_mcp_config *config, const char *tool)
{
	for (char **p = config->allow; p && *p; p++) {
		if (strcmp(*p, "*") == 0 || strcmp(*p, tool) == 0)
			return true;
	}
	return false;
}

const struct ag_mcp_config *ag_mcp_configs_find(const struct ag_mcp_configs *configs, const char *name)
{
	for (size_t i = configs->n; i-- > 0;) { /* the last of a name wins */
		if (strcmp(configs->items[i].name, name) == 0)
			return &configs->items[i];
	}
	return NULL;
}

/* Splits at `separator` (blanks: ' '), quotes and backslashes taken away. */
static int split(const char *s, char separator, char ***ret_list)
{
	char **list = calloc(MAX_WORDS + 1, sizeof(*list));
	CLEANUP(base_buf_done) struct base_buf word = BASE_BUF_INIT(65536);
	size_t n = 0;
	bool in_word = false;
	char quote = 0;
	int r = list ? 0 : -ENOMEM;

	for (; r == 0; s++) {
		bool ends = *s == '\0' || (!quote && (*s == separator || (separator == ' ' && *s == '\t')));

		if (ends) {
			if (in_word && n == MAX_WORDS)
				r = -E2BIG;
			else if (in_word && !(list[n++] = word.len ? base_buf_take(&word) : strdup("")))
				r = -ENOMEM;
			in_word = false;
			if (*s == '\0')
				break;
		} else if (*s == quote) {
			quote = 0;
		} else if (!quote && (*s == '"' || *s == '\'')) {
			quote = *s;
			in_word = true;
		} else if (!(separator != ' ' && !in_word && *s == ' ')) {
			if (*s == '\\' && quote != '\'' && s[1])
				s++;
			in_word = true;
			r = base_buf_putc(&word, *s);
		}
	}
	if (r == 0 && quote)
		r = -EINVAL;
	if (r < 0) {
		strings_free(list);
		return r;
	}
	*ret_list = list;
	return 0;
}

static struct ag_mcp_config *section(struct parsing *p, const char *name)
{
	struct ag_mcp_config *longer;

	for (size_t i = p->n_before; i < p->configs->n; i++) {
		if (strcmp(p->configs->items[i].name, name) == 0)
			return &p->configs->items[i];
	}
	if (p->configs->n >= MAX_SERVERS)
		return NULL;
	longer = realloc(p->configs->items, (p->configs->n + 1) * sizeof(*longer));
	if (!longer)
		return NULL;
	p->configs->items = longer;
	longer += p->configs->n;
	*longer = (struct ag_mcp_config){ .name = strdup(name), .timeout_ms = DEFAULT_TIMEOUT_S * 1000 };
	if (!longer->name)
		return NULL;
	p->configs->n++;
	return longer;
}

/* "~/" is the home folder. */
static char *expand_home(const char *path)
{
	const char *home = getenv("HOME");
	char *out = NULL;

	if (strncmp(path, "~/", 2) != 0 || !home)
		return strdup(path);
	return asprintf(&out, "%s%s", home, path + 1) < 0 ? NULL : out;
}

static int set_value(struct ag_mcp_config *c, const char *key, const char *value)
{
	char *rest;
	unsigned long seconds;

	if (strcmp(key, "command") == 0 && !c->argv) {
		int r = split(value, ' ', &c->argv);

		return r == 0 && !c->argv[0] ? -EINVAL : r;
	}
	if (strcmp(key, "env") == 0 && !c->env)
		return split(value, ',', &c->env);
	if (strcmp(key, "allow") == 0 && !c->allow)
		return split(value, ',', &c->allow);
	if (strcmp(key, "url") == 0 && !c->url)
		return (c->url = strdup(value)) ? 0 : -ENOMEM;
	if (strcmp(key, "token-file") == 0 && !c->token_file)
		return (c->token_file = expand_home(value)) ? 0 : -ENOMEM;
	if (strcmp(key, "timeout") == 0) {
		seconds = strtoul(value, &rest, 10);
		if (*rest || rest == value || seconds < 1 || seconds > 3600)
			return -ERANGE;
		c->timeout_ms = (uint32_t)seconds * 1000;
		return 0;
	}
	return -ENOKEY;
}

static int on_value(void *arg, const char *name, const char *key, const char *value)
{
	struct parsing *p = arg;
	struct ag_mcp_config *c;
	int r;

	if (!*name || strlen(name) > 64) {
		p->error = err_set(p->err, -EINVAL, "%s: %s: expected a section with the server's name before it",
		                   p->path, key);
		return 0;
	}
	c = section(p, name);
	r = c ? set_value(c, key, value) : -ENOMEM;
	if (r == 0)
		return 1;
	p->error = err_set(p->err, r == -ENOMEM ? r : -EINVAL, "%s: [%s] %s: %s", p->path, name, key,
	                   r == -ENOMEM   ? "out of memory, or too many servers"
	                   : r == -ENOKEY ? "unknown, or given twice"
	                   : r == -ERANGE ? "expected 1 to 3600 seconds"
	                   : r == -E2BIG  ? "too many words"
	                                  : "empty, or a quote is not closed");
	return 0;
}

struct reader {
	const char *s, *end;
};

static char *read_line(char *out, int size, void *arg)
{
	struct reader *r = arg;
	int n = 0;

	if (r->s == r->end)
		return NULL;
	while (r->s < r->end && n + 1 < size) {
		out[n++] = *r->s;
		if (*r->s++ == '\n')
			break;
	}
	out[n] = '\0';
	return out;
}

struct stream {
	struct reader reader;
	struct parsing parsing;
};

static char *stream_line(char *out, int size, void *arg)
{
	return read_line(out, size, &((struct stream *)arg)->reader);
}

static int stream_value(void *arg, const char *name, const char *key, const char *value)
{
	return on_value(&((struct stream *)arg)->parsing, name, key, value);
}

int ag_mcp_configs_read(struct ag_mcp_configs *configs, const char *path, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_FILE);
	struct stream st = { .parsing = { .configs = configs, .path = path, .err = err, .n_before = configs->n } };
	int line, r = base_read_file(path, &text, err);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return r;
	st.reader = (struct reader){ base_buf_text(&text), base_buf_text(&text) + text.len };
	line = ini_parse_stream(stream_line, &st, stream_value, &st);
	if (st.parsing.error)
		return st.parsing.error;
	if (line)
		return err_set(err, -EINVAL, "%s:%d: neither '[name]' nor 'key = value'", path, line);
	for (size_t i = st.parsing.n_before; i < configs->n; i++) {
		const struct ag_mcp_config *c = &configs->items[i];

		if (!c->argv == !c->url)
			return err_set(err, -EINVAL, "%s: [%s]: expected either command or url", path, c->name);
	}
	return 0;
}

int ag_mcp_configs_load(struct ag_mcp_configs *configs, struct err *err)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	CLEANUP(base_buf_done) struct base_buf own = BASE_BUF_INIT(4096);
	int r = ag_mcp_configs_read(configs, "/usr/lib/ocai/mcp.conf", err);

	if (r == 0)
		r = ag_mcp_configs_read(configs, "/etc/ocai/mcp.conf", err);
	if (r < 0)
		return r;
	if (xdg && xdg[0] == '/')
		r = base_buf_printf(&own, "%s/ocai/mcp.conf", xdg);
	else if (home && home[0] == '/')
		r = base_buf_printf(&own, "%s/.config/ocai/mcp.conf", home);
	if (r < 0)
		return err_set(err, r, "the path of mcp.conf is too long");
	return own.len ? ag_mcp_configs_read(configs, base_buf_text(&own), err) : 0;
}
