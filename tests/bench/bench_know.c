/* The task catalogue: how fast it loads and answers, and how often it is right.
 *
 *   bench_know                                    load time and time per question (what `make bench` runs)
 *   bench_know QUESTIONS.tsv [SOCKET-OR-URL]      also scores the questions: the catalogue alone and, with the address
 * of an engine that serves the embedded model, the model alone and both bench_know -v ... also every question with its
 * three answers, on standard error
 *
 * -odd, -even: only every other question, from the first or from the second on (a set of which one half may be looked
 * at and the other may not: -v shows no even ones)
 *
 * -hints: the model gets the nearest tasks' templates after its keyword
 *
 * A line of questions is "question TAB accepted || accepted"; "re:" starts a regular expression for the whole command.
 * Commands are compared after a normalisation (sudo, yum, podman, quotes, order of flags). One JSON line per figure. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../agent/src/know/know_internal.h"
#include "agent.h"
#include "base/mapfile.h"

enum { MAX_QUESTIONS = 2000, MAX_FORMS = 64 << 10 };

struct tally {
	unsigned right, wrong, none, harmful;
};

enum half { ALL, ODD, EVEN };

static bool verbose, hints;
static enum half half;

static double now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void print_value(const char *what, const char *unit, double value)
{
	printf("{\"bench\":\"know\",\"case\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"limit\":null,\"share\":null,"
	       "\"peer\":null,"
	       "\"ratio\":null}\n",
	       what, value, unit);
}

/* ---- Is it right? ------------------------------------------------------------------------------------------- */

static int compare_chars(const void *a, const void *b)
{
	return *(const char *)a - *(const char *)b;
}

/* ag_know_normalise, and the letters of "-tlnp" in order. */
static void normalise(const char *command, char out[1024])
{
	ag_know_normalise(command, out);
	for (char *s = out; (s = strstr(s, " -")) != NULL;) {
		size_t n = strspn(s + 2, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");

		if (n > 1 && (s[2 + n] == ' ' || !s[2 + n]))
			qsort(s + 2, n, 1, compare_chars);
		s += 2;
	}
	for (char *s = out; (s = strstr(s, "nmcli con")) != NULL; s += 9) {
		size_t rest = strcspn(s + 9, " ");

		memmove(s + 9, s + 9 + rest, strlen(s + 9 + rest) + 1);
	}
}

static bool matches(const char *pattern, const char *text)
{
	static char whole[MAX_FORMS];
	int error;
	PCRE2_SIZE at;
	pcre2_code *code;
	pcre2_match_data *data;
	bool ok;

	(void)snprintf(whole, sizeof(whole), "^(?:%s)$", pattern);
	code = pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
	if (!code) {
		(void)fprintf(stderr, "bad pattern (error %d): %.60s\n", error, half == EVEN ? "" : pattern);
		exit(1);
	}
	data = pcre2_match_data_create_from_pattern(code, NULL);
	ok = pcre2_match(code, (PCRE2_SPTR)text, strlen(text), 0, PCRE2_NO_UTF_CHECK, data, NULL) >= 0;
	pcre2_match_data_free(data);
	pcre2_code_free(code);
	return ok;
}

/* For patterns: only sudo, yum, podman and double quotes made one form. */
static void soften(const char *command, char out[1024])
{
	size_t n = 0;

	if (strncmp(command, "sudo ", 5) == 0)
		command += 5;
	for (const char *s = command; *s && n < 1000; s++) {
		if (strncmp(s, "yum ", 4) == 0 && (s == command || s[-1] == ' ')) {
			memcpy(out + n, "dnf", 3);
			n += 3;
			s += 2;
		} else if (strncmp(s, "podman ", 7) == 0) {
			memcpy(out + n, "docker", 6);
			n += 6;
			s += 5;
		} else if (strncmp(s, " 2>/dev/null", 12) == 0) {
			s += 11;
		} else {
			out[n++] = *s == '"' ? '\'' : *s;
		}
	}
	out[n] = '\0';
}

/* docker to podman: some patterns are written for the one, some for the other. */
static void as_podman(const char *command, char out[1024])
{
	(void)snprintf(out, 1024, "%s", command);
	for (char *s = out; (s = strstr(s, "docker ")) != NULL; s += 7)
		memcpy(s, "podman ", 7);
}

static bool is_right(const char *command, const char *accepted)
{
	static char forms[MAX_FORMS];
	char normal[1024], soft[1024], unquoted[1024], form_normal[1024], podman[1024];

	if (!*command)
		return false;
	normalise(command, normal);
	ag_know_normalise(command, unquoted);
	soften(command, soft);
	as_podman(soft, podman);
	(void)snprintf(forms, sizeof(forms), "%s", accepted);
	for (char *form = forms; form;) {
		char *end = strstr(form, " || ");

		if (end)
			*end = '\0';
		if (strncmp(form, "re:", 3) == 0) {
			if (matches(form + 3, soft) || matches(form + 3, unquoted) || matches(form + 3, normal) ||
			    matches(form + 3, podman))
				return true;
		} else {
			normalise(form, form_normal);
			if (strcmp(form_normal, normal) == 0)
				return true;
		}
		form = end ? end + 4 : NULL;
	}
	return false;
}

/* A question whose accepted command only reads; of a pattern, what stands before its first group is judged. */
static bool only_reads(const char *accepted)
{
	char first[1024];
	const char *end = strstr(accepted, " || ");
	size_t n = end ? (size_t)(end - accepted) : strlen(accepted);

	(void)snprintf(first, sizeof(first), "%.*s", (int)(n < 1000 ? n : 1000), accepted);
	if (strncmp(first, "re:", 3) != 0)
		return ag_know_guess_risk(first) == AG_KNOW_READ;
	if (strstr(first, "-delete") || strstr(first, "remove") || strstr(first, "prune"))
		return false;
	first[3 + strcspn(first + 3, "([\\")] = '\0';
	return ag_know_guess_risk(first + 3) == AG_KNOW_READ;
}

/* ---- One question ----------------------------------------------------------------------------------------------- */

static void ask_model(const struct ag_know *k, struct ag_backend *b, const char *model, const char *question,
                      char out[1024])
{
	struct base_buf answer = BASE_BUF_INIT(1 << 16), command = BASE_BUF_INIT(1 << 16);
	struct base_buf system = BASE_BUF_INIT(1 << 16);
	json_t *messages = ag_cmd_messages(model, question);
	struct err err = { 0 };

	out[0] = '\0';
	if (hints) {
		(void)base_buf_puts(&system, "cmd\n");
		(void)ag_know_hints(k, question, 4, &system);
		(void)json_object_set_new(json_array_get(messages, 0), "content", json_string(base_buf_text(&system)));
	}
	if (ag_backend_ask(b, model, messages, 96, &answer, &err) < 0)
		(void)fprintf(stderr, "%s\n", err_text(&err));
	else if (ag_extract_command(answer.data ? answer.data : "", answer.len, &command) == 1)
		(void)snprintf(out, 1024, "%s", base_buf_text(&command));
	json_decref(messages);
	base_buf_done(&answer);
	base_buf_done(&command);
	base_buf_done(&system);
}

static void count(struct tally *t, const char *command, const char *accepted, bool reads)
{
	bool right = is_right(command, accepted);

	if (!*command)
		t->none++;
	else if (right)
		t->right++;
	else
		t->wrong++;
	if (reads && !right && *command && ag_know_guess_risk(command) == AG_KNOW_DESTRUCTIVE)
		t->harmful++;
}

static void print_tally(const char *name, const struct tally *t, unsigned n, unsigned n_reads)
{
	printf("{\"bench\":\"know\",\"case\":\"%s\",\"value\":%.4f,\"unit\":\"share "
	       "right\",\"limit\":null,\"share\":null,\"peer\":null,"
	       "\"ratio\":null,\"questions\":%u,\"right\":%u,\"wrong\":%u,\"no_answer\":%u,\"read_only\":%u,"
	       "\"destructive_for_read_only\":%u}\n",
	       name, n ? (double)t->right / n : 0, n, t->right, t->wrong, t->none, n_reads, t->harmful);
}

static int evaluate(const struct ag_know *k, const char *path, const char *url)
{
	struct tally alone = { 0 }, certain = { 0 }, model = { 0 }, both = { 0 };
	struct base_buf text = BASE_BUF_INIT(4 << 20), id = BASE_BUF_INIT(512);
	struct ag_backend *b = NULL;
	struct err err = { 0 };
	unsigned n = 0, n_reads = 0, line_no = 0;
	double spent = 0;

	if (base_read_file(path, &text, &err) < 0 || (url && ag_backend_open(url, NULL, 60000, &b, &err) < 0) ||
	    (url && ag_backend_model(b, &id, &err) < 0)) {
		(void)fprintf(stderr, "bench_know: %s\n", err_text(&err));
		return 1;
	}
	for (char *line = text.data; line && n < MAX_QUESTIONS;) {
		char *end = strchr(line, '\n'), *tab, answer[1024] = "";
		struct ag_know_match m;
		struct ag_know_answer a;
		double start;
		bool reads;
		int got;

		if (end)
			*end = '\0';
		tab = strchr(line, '\t');
		if (*line == '#' || !tab) {
			line = end ? end + 1 : NULL;
			continue;
		}
		*tab++ = '\0';
		line_no++;
		if (half != ALL && (line_no % 2 == 1) != (half == ODD)) {
			line = end ? end + 1 : NULL;
			continue;
		}
		n++;
		reads = only_reads(tab);
		n_reads += reads;
		start = now_ms();
		got = ag_know_match(k, line, &m, 1);
		spent += now_ms() - start;
		count(&alone, got == 1 ? m.command : "", tab, reads);
		count(&certain, got == 1 && m.certainty == AG_KNOW_CERTAIN ? m.command : "", tab, reads);
		if (b)
			ask_model(k, b, base_buf_text(&id), line, answer);
		count(&model, answer, tab, reads);
		(void)ag_know_decide(k, line, answer, &a);
		count(&both, a.command, tab, reads);
		if (verbose)
			(void)fprintf(
			        stderr,
			        "%s %s%s%s\t%s\n\tknow  %s %.2f %s\t%s\n\tmodel %s\n\tboth  %s\t%s\n\twant  %s\n",
			        is_right(a.command, tab) ? "ok "
			        : *a.command             ? "BAD"
			                                 : "-- ",
			        got == 1 && is_right(m.command, tab) ? "k" : ".", is_right(answer, tab) ? "m" : ".",
			        got == 1 && m.certainty == AG_KNOW_CERTAIN && !is_right(m.command, tab) ? "!" : " ",
			        line, got == 1 ? m.id : "", got == 1 ? m.score : 0,
			        got == 1 ? ag_know_certainty_name(m.certainty) : "", got == 1 ? m.command : "", answer,
			        a.command, a.reason, tab);
		if (got == 1)
			ag_know_match_done(&m);
		line = end ? end + 1 : NULL;
	}
	print_tally("catalogue alone", &alone, n, n_reads);
	print_tally("catalogue alone, certain answers", &certain, n, n_reads);
	if (b)
		print_tally("model alone", &model, n, n_reads);
	print_tally(b ? "catalogue and model" : "catalogue, rule without model", &both, n, n_reads);
	print_value("time per question", "ms", n ? spent / n : 0);
	ag_backend_close(b);
	base_buf_done(&text);
	base_buf_done(&id);
	return 0;
}

static void measure(struct ag_know *k)
{
	static const char *const questions[] = { "查看哪个进程占用80端口", "how full is the disk",
		                                 "把 nginx 设成开机启动并马上起来", "open port 8443 in the firewall",
		                                 "zhangsan 的账号锁了，帮忙解开" };
	enum { N = sizeof(questions) / sizeof(questions[0]), ROUNDS = 20 };
	double start = now_ms();

	for (int i = 0; i < ROUNDS * N; i++) {
		struct ag_know_match m[5];
		int n = ag_know_match(k, questions[i % N], m, 5);

		if (n > 0)
			ag_know_matches_done(m, (size_t)n);
	}
	print_value("match", "ms", (now_ms() - start) / (ROUNDS * N));
}

int main(int argc, char **argv)
{
	struct ag_know *k = NULL;
	struct err err = { 0 };
	double start, best = 1e9;
	int r = 0;

	for (; argc > 1 && argv[1][0] == '-'; argc--, argv++) {
		if (strcmp(argv[1], "-v") == 0)
			verbose = true;
		else if (strcmp(argv[1], "-hints") == 0)
			hints = true;
		else if (strcmp(argv[1], "-odd") == 0)
			half = ODD;
		else if (strcmp(argv[1], "-even") == 0)
			half = EVEN;
	}
	verbose = verbose && half != EVEN;
	for (int i = 0; i < 10; i++) {
		ag_know_close(k);
		k = NULL;
		start = now_ms();
		if (ag_know_open(NULL, &k, &err) < 0) {
			(void)fprintf(stderr, "bench_know: %s\n", err_text(&err));
			return 1;
		}
		if (now_ms() - start < best)
			best = now_ms() - start;
	}
	print_value("open", "ms", best);
	measure(k);
	if (argc > 1)
		r = evaluate(k, argv[1], argc > 2 ? argv[2] : NULL);
	ag_know_close(k);
	return r;
}
