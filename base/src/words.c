/* Words of a command line. What a shell would expand stays as it is written. */
#include "base/words.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

enum { WORDS_MAX = 4096 };

/* One word at *p into out (as long as the rest of the text); returns whether there was one, negative: open quote. */
static int next_word(const char **p, char *out)
{
	const char *s = *p + strspn(*p, " \t\n");
	size_t n = 0;
	char quote = 0;

	if (!*s)
		return 0;
	for (; *s && (quote || !isspace((unsigned char)*s)); s++) {
		if (quote ? *s == quote : *s == '\'' || *s == '"')
			quote = quote ? 0 : *s;
		else if (*s == '\\' && quote != '\'' && s[1] && (!quote || strchr("\"\\$`", s[1])))
			out[n++] = *++s;
		else
			out[n++] = *s;
	}
	out[n] = 0;
	*p = s;
	return quote ? -EINVAL : 1;
}

int base_words_split(const char *text, char ***ret_words, size_t *ret_n)
{
	CLEANUP(freep) char *word = malloc(strlen(text) + 1);
	char **words = calloc(WORDS_MAX, sizeof(*words));
	const char *p = text;
	size_t n = 0;
	int r = word && words ? 1 : -ENOMEM;

	while (r > 0) {
		r = next_word(&p, word);
		if (r > 0 && n == WORDS_MAX - 1)
			r = -E2BIG;
		else if (r > 0 && !(words[n++] = strdup(word)))
			r = -ENOMEM;
	}
	if (r < 0) {
		base_words_free(words);
		return r;
	}
	*ret_words = words;
	*ret_n = n;
	return 0;
}

void base_words_free(char **words)
{
	for (size_t i = 0; words && words[i]; i++)
		free(words[i]);
	free(words);
}
