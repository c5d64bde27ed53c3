/* What a place can show: its size, colours, the charset and language of the environment; style sequences for it. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "term_internal.h"

/* The charset of LC_ALL, LC_CTYPE or LANG, read from the names: programs here do not call setlocale. */
static void look_at_locale(struct ag_term_look *look)
{
	const char *name = getenv("LC_ALL"), *charset;

	if (!name || !*name)
		name = getenv("LC_CTYPE");
	if (!name || !*name)
		name = getenv("LANG");
	charset = name ? strchr(name, '.') : NULL;
	look->utf8 = charset && (strncasecmp(charset, ".utf-8", 6) == 0 || strncasecmp(charset, ".utf8", 5) == 0);
	/* "C" says nothing of the terminal, which is a UTF-8 one in most containers: text passes, frames are ASCII. */
	look->ascii_only = charset && !look->utf8;
}

bool term_is_chinese(void)
{
	static const char *const names[] = { "LC_ALL", "LC_MESSAGES", "LANG" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *name = getenv(names[i]);

		if (name && *name)
			return strncmp(name, "zh", 2) == 0 && (strcasestr(name, "utf-8") || strcasestr(name, "utf8"));
	}
	return false;
}

static bool wants_color(const char *color, bool can_move)
{
	const char *no = getenv("NO_COLOR");

	if (color && strcmp(color, "always") == 0)
		return true;
	if (color && strcmp(color, "never") == 0)
		return false;
	return can_move && !(no && *no);
}

static unsigned number_from_env(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);
	unsigned long n = text ? strtoul(text, NULL, 10) : 0;

	return n > 0 && n < 10000 ? (unsigned)n : otherwise;
}

void term_look_at_size(int fd, struct ag_term_look *look)
{
	struct winsize size = { 0 };

	if (fd >= 0 && look->is_terminal)
		(void)ioctl(fd, TIOCGWINSZ, &size);
	look->columns = size.ws_col ? size.ws_col : number_from_env("COLUMNS", 80);
	look->rows = size.ws_row ? size.ws_row : number_from_env("LINES", 24);
}

void ag_term_look_at(int fd, const char *color, struct ag_term_look *ret_look)
{
	struct ag_term_look look = { 0 };
	const char *term = getenv("TERM");

	look.is_terminal = fd >= 0 && isatty(fd);
	look.can_move = look.is_terminal && term && *term && strcmp(term, "dumb") != 0;
	look.color = wants_color(color, look.can_move);
	look_at_locale(&look);
	term_look_at_size(fd, &look);
	*ret_look = look;
}

const char *ag_term_sgr(const struct ag_term_look *look, enum ag_term_style style)
{
	static const char *const plain[] = {
		[AG_TERM_RESET] = "\033[0m",      [AG_TERM_BOLD] = "\033[1m",      [AG_TERM_DIM] = "\033[2m",
		[AG_TERM_ITALIC] = "\033[3m",     [AG_TERM_UNDERLINE] = "\033[4m", [AG_TERM_REVERSE] = "\033[7m",
		[AG_TERM_HEADING] = "\033[1;36m", [AG_TERM_CODE] = "\033[33m",     [AG_TERM_LINK] = "\033[4;34m",
		[AG_TERM_OK] = "\033[32m",        [AG_TERM_WARN] = "\033[33m",     [AG_TERM_BAD] = "\033[1;31m",
	};

	return look->color && (size_t)style < sizeof(plain) / sizeof(plain[0]) ? plain[style] : "";
}
