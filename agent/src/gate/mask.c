/* Secrets in text, found by their shape or by the name in front of them, and replaced by "[secret:KIND]".
 *
 * Three looks at each position: a block of a private key; a token with a shape of its own (cloud keys, forge tokens,
 * JSON web tokens); a name such as "password" followed by a value. Better one word too many than one too few: what is
 * masked can be given again by hand. Linear in the text but for the length of one value. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "gate.h"

enum { MIN_BLOCK = 11 };

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_token(char c)
{
	return is_alnum(c) || c == '_' || c == '-' || c == '.' || c == '+' || c == '/' || c == '=' || c == '~';
}

static size_t token_length(const char *t, size_t len)
{
	size_t n = 0;

	while (n < len && is_token(t[n]))
		n++;
	return n;
}

static bool starts(const char *t, size_t len, const char *prefix)
{
	size_t n = strlen(prefix);

	return n <= len && memcmp(t, prefix, n) == 0;
}

static bool starts_nocase(const char *t, size_t len, const char *prefix)
{
	size_t n = strlen(prefix);

	return n <= len && strncasecmp(t, prefix, n) == 0;
}

/* "-----BEGIN ... PRIVATE KEY-----" to its END line, or to the end of the text. 0: none. */
static size_t key_block(const char *t, size_t len)
{
	const char *line_end, *end;

	if (!starts(t, len, "-----BEGIN "))
		return 0;
	line_end = memchr(t, '\n', len);
	if (!memmem(t, line_end ? (size_t)(line_end - t) : (len < 200 ? len : 200), "PRIVATE KEY", 11))
		return 0;
	end = memmem(t, len, "-----END ", 9);
	if (!end)
		return len;
	end = memmem(end + 9, len - (size_t)(end + 9 - t), "-----", 5);
	return end ? (size_t)(end + 5 - t) : len;
}

/* Tokens that tell themselves: prefix and the least length of all. */
static const struct {
	const char *prefix;
	size_t min_len;
	const char *kind;
} shapes[] = {
	{ "AKIA", 20, "aws-key" },     { "ASIA", 20, "aws-key" },      { "ghp_", 20, "token" },
	{ "gho_", 20, "token" },       { "ghu_", 20, "token" },        { "ghs_", 20, "token" },
	{ "ghr_", 20, "token" },       { "github_pat_", 22, "token" }, { "glpat-", 20, "token" },
	{ "xoxb-", 15, "token" },      { "xoxp-", 15, "token" },       { "xoxa-", 15, "token" },
	{ "xapp-", 15, "token" },      { "sk-", 20, "api-key" },       { "sk_live_", 16, "api-key" },
	{ "rk_live_", 16, "api-key" }, { "AIza", 35, "api-key" },      { "ya29.", 20, "token" },
	{ "hf_", 20, "token" },        { "npm_", 30, "token" },        { "pypi-", 30, "token" },
	{ "dop_v1_", 30, "token" },    { "AKID", 24, "api-key" },      { "LTAI", 16, "api-key" },
	{ "hvs.", 20, "token" },       { "SG.", 30, "api-key" },       { "eyJ", 30, "jwt" },
	{ "$6$", 20, "hash" },         { "$5$", 20, "hash" },          { "$y$", 20, "hash" },
	{ "$1$", 20, "hash" },         { "$2b$", 30, "hash" },         { "AGE-SECRET-KEY-", 30, "private-key" },
};

static size_t shaped(const char *t, size_t len, const char **ret_kind)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		size_t n, p = strlen(shapes[i].prefix);

		if (!starts(t, len, shapes[i].prefix))
			continue;
		n = p;
		while (n < len && (is_token(t[n]) || (*t == '$' && t[n] == '$')))
			n++;
		if (n < shapes[i].min_len || (strcmp(shapes[i].kind, "jwt") == 0 && !memchr(t, '.', n)))
			continue;
		*ret_kind = shapes[i].kind;
		return n;
	}
	return 0;
}

/* Names whose value is a secret. They may be part of a longer name: DB_PASSWORD, client_secret_key. */
static const struct {
	const char *name, *kind;
} names[] = {
	{ "password", "password" },
	{ "passwd", "password" },
	{ "passphrase", "password" },
	{ "pwd", "password" },
	{ "secret", "secret" },
	{ "token", "token" },
	{ "api_key", "api-key" },
	{ "apikey", "api-key" },
	{ "api-key", "api-key" },
	{ "access_key", "api-key" },
	{ "access-key", "api-key" },
	{ "private_key", "private-key" },
	{ "privatekey", "private-key" },
	{ "credential", "secret" },
	{ "auth_key", "api-key" },
	{ "x-auth", "token" },
	{ "\xe5\xaf\x86\xe7\xa0\x81", "password" }, /* 密码 */
	{ "\xe5\x8f\xa3\xe4\xbb\xa4", "password" }, /* 口令 */
};

static bool is_name_char(char c)
{
	return is_alnum(c) || c == '_' || c == '-';
}

/* The value at t: up to the closing quote, or to a blank or what ends a word. */
static size_t value_length(const char *t, size_t len, size_t *ret_skip)
{
	size_t n = 0;
	char quote = '\0';

	*ret_skip = 0;
	if (len > 1 && t[0] == '\\' && t[1] == '"') {
		*ret_skip = 2;
		for (n = 2; n < len && t[n] != '\\' && t[n] != '\n'; n++)
			;
		return n - 2;
	}
	if (len && (t[0] == '"' || t[0] == '\'')) {
		quote = t[0];
		*ret_skip = 1;
		for (n = 1; n < len && t[n] != quote && t[n] != '\n'; n++)
			if (t[n] == '\\' && n + 1 < len)
				n++;
		return (n < len ? n : len) - 1;
	}
	while (n < len && !strchr(" \t\r\n\"'`;|&<>(),}", t[n]))
		n++;
	return n;
}

/* A secret's name at t: the length up to the value. 0: none. The separator is '=', ':' or, behind an option, a blank.
 */
static size_t named(const char *t, size_t len, bool option, const char **ret_kind)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i].name);
		bool separated = false;

		if (!starts_nocase(t, len, names[i].name))
			continue;
		while (n < len && is_name_char(t[n]))
			n++;
		if (n < len && (t[n] == '"' || t[n] == '\''))
			n++;
		while (n < len && (t[n] == ' ' || t[n] == '\t'))
			n++;
		if (n < len && (t[n] == '=' || t[n] == ':')) {
			n++;
			separated = true;
		} else if (starts(t + n, len - n, "\xef\xbc\x9a")) { /* the full-width colon */
			n += 3;
			separated = true;
		}
		if (!separated && !(option && n < len && (t[n - 1] == ' ')))
			continue;
		while (n < len && (t[n] == ' ' || t[n] == '\t'))
			n++;
		if (n >= len || (!separated && t[n] == '-'))
			continue;
		*ret_kind = names[i].kind;
		return n;
	}
	return 0;
}

/* "Authorization: Basic xxx", "Bearer xxx", "Cookie: ...": the length up to the value. */
static size_t header(const char *t, size_t len)
{
	static const char *const heads[] = { "authorization:", "proxy-authorization:", "cookie:", "set-cookie:" };
	static const char *const schemes[] = { "bearer ", "basic ", "token ", "digest ", "apikey " };
	size_t n = 0;

	for (size_t i = 0; i < 4; i++) {
		if (starts_nocase(t, len, heads[i])) {
			n = strlen(heads[i]);
			while (n < len && t[n] == ' ')
				n++;
			break;
		}
	}
	for (size_t i = 0; i < 5; i++) {
		size_t s = strlen(schemes[i]);

		if (!starts_nocase(t + n, len - n, schemes[i]) || (n == 0 && i > 1))
			continue;
		/* the bare word "basic" is common; what follows must look like a token */
		if (n == 0 && token_length(t + s, len - s) < 16)
			return 0;
		return n + s;
	}
	return n;
}

/* scheme://user:SECRET@host at "://": the span of the secret. */
static size_t url_password(const char *t, size_t len, size_t *ret_at)
{
	size_t n = 3, colon = 0, at = 0;

	for (; n < len && !strchr(" \t\r\n\"'<>/?#", t[n]); n++) {
		if (t[n] == ':' && !colon)
			colon = n;
		if (t[n] == '@')
			at = n;
	}
	if (!colon || at <= colon + 1)
		return 0;
	*ret_at = colon + 1;
	return at - colon - 1;
}

static bool is_masked(const char *t, size_t len)
{
	return starts(t, len, "[secret:") || starts(t, len, "$") || starts(t, len, "***");
}

static int replace(struct base_buf *out, const char *kind)
{
	return base_buf_printf(out, "[secret:%s]", kind);
}

int ag_gate_mask(const char *text, size_t len, struct base_buf *out)
{
	int count = 0;

	for (size_t i = 0; i < len && !base_buf_error(out);) {
		const char *t = text + i, *kind = "secret";
		size_t left = len - i, n, skip, at;
		bool fresh = i == 0 || !is_alnum(t[-1]);

		if (*t == '-' && (n = key_block(t, left)) >= MIN_BLOCK) {
			(void)replace(out, "private-key");
			count++;
			i += n;
			continue;
		}
		if (fresh && (n = shaped(t, left, &kind)) > 0) {
			(void)replace(out, kind);
			count++;
			i += n;
			continue;
		}
		if (*t == ':' && starts(t, left, "://") && (n = url_password(t, left, &at)) > 0) {
			(void)base_buf_append(out, t, at);
			(void)replace(out, "password");
			count++;
			i += at + n;
			continue;
		}
		n = fresh ? header(t, left) : 0;
		if (n) {
			kind = "authorization";
		} else {
			size_t back = i;

			while (back > 0 && i - back < 40 && is_name_char(text[back - 1]))
				back--;
			n = named(t, left, back < i ? text[back] == '-' : false, &kind);
		}
		if (n) {
			size_t v = value_length(t + n, left - n, &skip);

			if (strcmp(kind, "authorization") == 0 && skip == 0)
				for (v = 0; n + v < left && !strchr("\r\n\"'", t[n + v]); v++)
					;
			if (v > 0 && (t[n] == '\'' || !is_masked(t + n + skip, left - n - skip))) {
				(void)base_buf_append(out, t, n + skip);
				(void)replace(out, kind);
				count++;
				i += n + skip + v;
				continue;
			}
		}
		(void)base_buf_putc(out, *t);
		i++;
	}
	return base_buf_error(out) ? base_buf_error(out) : count;
}
