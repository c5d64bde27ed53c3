/* Opens the task catalogue: the folder's *.tasks files in the order of their names, as one catalogue. */
#include "know/know_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"

enum { MAX_FILE = 4 << 20 };

void ag_know_close(struct ag_know *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < k->n_texts; i++)
		free(k->texts[i]);
	for (size_t i = 0; i < k->n_owned; i++)
		free(k->owned[i]);
	free(k->owned);
	free(k->tasks);
	free(k->nodes);
	free(k->alts);
	free(k->postings);
	free(k->features);
	free(k->words);
	free(k->word_table);
	free(k);
}

static void closep(struct ag_know **k)
{
	ag_know_close(*k);
}

static void buf_donep(struct base_buf *b)
{
	base_buf_done(b);
}

static int add_text(struct ag_know *k, const char *name, const char *text, size_t len, struct err *err)
{
	char *copy;

	if (k->n_texts == sizeof(k->texts) / sizeof(k->texts[0]))
		return err_set(err, -E2BIG, "%s: more than %zu catalogue files", name, k->n_texts);
	if (memchr(text, '\0', len))
		return err_set(err, -EBADMSG, "%s: not a text file", name);
	copy = malloc(len + 1);
	if (!copy)
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	memcpy(copy, text, len);
	copy[len] = '\0';
	k->texts[k->n_texts++] = copy;
	return ag_know_parse_text(k, name, copy, err);
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_ids(const struct ag_know *k, struct err *err)
{
	CLEANUP(freep) const char **ids = calloc(k->n_tasks + 1, sizeof(*ids));

	if (!ids)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < k->n_tasks; i++)
		ids[i] = k->tasks[i].id;
	qsort(ids, k->n_tasks, sizeof(*ids), compare_ids);
	for (size_t i = 1; i < k->n_tasks; i++)
		if (strcmp(ids[i - 1], ids[i]) == 0)
			return err_set(err, -EBADMSG, "task %s occurs twice", ids[i]);
	return 0;
}

int ag_know_parse(const char *name, const char *text, size_t len, struct ag_know **ret_know, struct err *err)
{
	CLEANUP(closep) struct ag_know *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_set(err, -ENOMEM, "out of memory");
	r = add_text(k, name, len ? text : "", len, err);
	if (r == 0)
		r = check_ids(k, err);
	if (r < 0)
		return r;
	ag_know_weigh_words(k);
	*ret_know = k;
	k = NULL;
	return 0;
}

struct adding {
	struct ag_know *know;
	const char *given; /* a file that is named itself counts whatever its name is */
	size_t n_files;
};

static int add_file(void *arg, const char *path, struct err *err)
{
	CLEANUP(buf_donep) struct base_buf text = BASE_BUF_INIT(MAX_FILE);
	struct adding *a = arg;
	const char *slash = strrchr(path, '/');
	int r;

	if (slash && slash[1] == '.' && strcmp(path, a->given) != 0) /* an editor's, not ours */
		return 0;
	a->n_files++;
	r = base_read_file(path, &text, err);
	return r < 0 ? r : add_text(a->know, path, base_buf_text(&text), text.len, err);
}

static int add_folder(struct ag_know *k, const char *path, struct err *err)
{
	struct adding a = { .know = k, .given = path };
	int r = base_each_file(path, ".tasks", add_file, &a, err);

	if (r == 0 && a.n_files == 0)
		r = err_set(err, -ENOENT, "%s: no *.tasks file in it", path);
	return r;
}

/* agent/knowledge of the tree whose build/<config>/... this program is, if so. */
static bool source_folder(char *out, size_t size)
{
	char self[2048], *build;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return false;
	self[n] = '\0';
	build = strstr(self, "/build/");
	if (!build)
		return false;
	*build = '\0';
	return snprintf(out, size, "%s/agent/knowledge", self) < (int)size && access(out, R_OK) == 0;
}

int ag_know_open(const char *path, struct ag_know **ret_know, struct err *err)
{
	CLEANUP(closep) struct ag_know *k = calloc(1, sizeof(*k));
	char folder[4096];
	int r;

	if (!k)
		return err_set(err, -ENOMEM, "out of memory");
	if (!path)
		path = getenv("OCAI_KNOWLEDGE_DIR");
	if (!path || !*path)
		path = source_folder(folder, sizeof(folder)) ? folder : OCAI_PREFIX "/share/ocai/knowledge";
	r = add_folder(k, path, err);
	if (r == 0)
		r = check_ids(k, err);
	if (r < 0)
		return r;
	ag_know_weigh_words(k);
	*ret_know = k;
	k = NULL;
	return 0;
}

size_t ag_know_n_tasks(const struct ag_know *k)
{
	return k->n_tasks;
}
