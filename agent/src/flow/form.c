/* Placeholders: <name> in a command line is a value that the question did not give. The person's value is put in as one
 * word: quoted where it needs to be, in the way of the quotes it stands in, so that no value becomes a command.
 *
 * "sort <file >out" and "cat <in>out" are redirections: a placeholder has no blank beside its brackets, and what comes
 * before it and behind it belongs to no other word. */
#include "flow/flow.h"

#include <ctype.h>
#include <string.h>

enum { MAX_NAME = 48 };

static bool is_name_byte(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || (unsigned char)c >= 0x80;
}

/* Length of the placeholder at p, or 0. */
static size_t placeholder_at(const char *p, const char *line)
{
	size_t n = 1;

	if (*p != '<' || (p > line && (strchr("<0123456789&", p[-1]) || p[-1] == '\\')))
		return 0;
	if (!isalpha((unsigned char)p[1]) && (unsigned char)p[1] < 0x80)
		return 0;
	while (is_name_byte(p[n]) && n <= MAX_NAME)
		n++;
	if (p[n] != '>')
		return 0;
	n++;
	return isalnum((unsigned char)p[n]) || p[n] == '&' || p[n] == '>' ? 0 : n;
}

bool ag_find_placeholder(const char *command, size_t from, size_t *ret_at, size_t *ret_len)
{
	for (const char *p = command + from; *p; p++) {
		size_t n = placeholder_at(p, command);

		if (n) {
			*ret_at = (size_t)(p - command);
			*ret_len = n;
			return true;
		}
	}
	return false;
}

static bool is_plain(const char *value)
{
	if (!*value || *value == '~')
		return false;
	for (const char *p = value; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("_-./:@%+=,", *p) && (unsigned char)*p < 0x80)
			return false;
	}
	return true;
}

/* quote: 0, '\'' or '"': what the placeholder stands in. */
static void put_value(struct base_buf *out, const char *value, char quote)
{
	if (quote == 0 && is_plain(value)) {
		(void)base_buf_puts(out, value);
		return;
	}
	if (quote == 0)
		(void)base_buf_putc(out, '\'');
	for (const char *p = value; *p; p++) {
		if (quote == '"' && strchr("\"\\$`", *p))
			(void)base_buf_putc(out, '\\');
		if (quote != '"' && *p == '\'')
			(void)base_buf_puts(out, "'\\''");
		else
			(void)base_buf_putc(out, *p);
	}
	if (quote == 0)
		(void)base_buf_putc(out, '\'');
}

int ag_fill_placeholders(const char *command, const char *const *names, const char *const *values, size_t n,
                         struct base_buf *out)
{
	char quote = 0;

	for (const char *p = command; *p;) {
		size_t len = placeholder_at(p, command), i = n;

		if (len) {
			for (i = 0; i < n; i++) {
				if (strlen(names[i]) == len - 2 && memcmp(names[i], p + 1, len - 2) == 0)
					break;
			}
		}
		if (len && i < n) {
			put_value(out, values[i], quote);
			p += len;
			continue;
		}
		if (*p == '\\' && quote != '\'' && p[1])
			(void)base_buf_putc(out, *p++);
		else if (quote == 0 && (*p == '\'' || *p == '"'))
			quote = *p;
		else if (*p == quote)
			quote = 0;
		(void)base_buf_putc(out, *p++);
	}
	return base_buf_error(out);
}
