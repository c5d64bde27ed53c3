/* flip_containerd SOCKET NAMESPACE: what flip asks of containerd, one command a line on standard input:
 *
 *   version · lease SECONDS · endlease · content DIGEST FILE [LABEL=VALUE]... · image NAME TYPE DIGEST SIZE
 *   prepare SNAPSHOTTER KEY PARENT|- [LABEL=VALUE]... · stat SNAPSHOTTER KEY · remove SNAPSHOTTER KEY
 *
 * Each prints its result, or "error NUMBER: words", and the next one follows. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mapfile.h"
#include "grpc/containerd.h"

enum { MAX_WORDS = 64 };

static size_t labels_of(char **words, size_t n, struct flip_label *labels)
{
	for (size_t i = 0; i < n; i++) {
		char *equals = strchr(words[i], '=');

		labels[i] = (struct flip_label){ words[i], equals ? equals + 1 : "" };
		if (equals)
			*equals = '\0';
	}
	return n;
}

static int content(struct flip_containerd *c, char **w, size_t n, struct err *err)
{
	struct base_buf data = BASE_BUF_INIT(256u << 20);
	struct flip_label labels[MAX_WORDS];
	int r = base_read_file(w[2], &data, err);

	if (r == 0)
		r = flip_containerd_put_content(c, w[1], base_buf_text(&data), data.len, labels,
		                                labels_of(w + 3, n - 3, labels), err);
	base_buf_done(&data);
	return r;
}

static int run(struct flip_containerd *c, char **w, size_t n, struct err *err)
{
	struct flip_label labels[MAX_WORDS];
	char version[64];
	int r;

	if (strcmp(w[0], "version") == 0) {
		r = flip_containerd_version(c, version, sizeof(version), err);
		if (r == 0)
			(void)printf("%s ", version);
		return r;
	}
	if (strcmp(w[0], "endlease") == 0)
		return flip_containerd_end_lease(c, err);
	if (strcmp(w[0], "lease") == 0 && n == 2)
		return flip_containerd_lease(c, (uint32_t)strtoul(w[1], NULL, 10), err);
	if (strcmp(w[0], "content") == 0 && n >= 3)
		return content(c, w, n, err);
	if (strcmp(w[0], "prepare") == 0 && n >= 4)
		return flip_containerd_prepare(c, w[1], w[2], strcmp(w[3], "-") == 0 ? NULL : w[3], labels,
		                               labels_of(w + 4, n - 4, labels), err);
	if (strcmp(w[0], "stat") == 0 && n == 3)
		return flip_containerd_stat_snapshot(c, w[1], w[2], err);
	if (strcmp(w[0], "remove") == 0 && n == 3)
		return flip_containerd_remove_snapshot(c, w[1], w[2], err);
	if (strcmp(w[0], "image") == 0 && n == 5)
		return flip_containerd_put_image(c, w[1], w[2], w[3], strtoull(w[4], NULL, 10), err);
	return err_set(err, -EINVAL, "%s with %zu words: no such command", w[0], n);
}

int main(int argc, char **argv)
{
	struct flip_containerd *c = NULL;
	struct err err = { 0 };
	char line[16384];

	if (argc != 3) {
		(void)fprintf(stderr, "usage: %s SOCKET NAMESPACE\n", argv[0]);
		return 2;
	}
	if (flip_containerd_open(argv[1], argv[2], &c, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		return 1;
	}
	while (fgets(line, sizeof(line), stdin)) {
		char *words[MAX_WORDS], *rest = line;
		size_t n = 0;
		int r;

		while (n < MAX_WORDS && (words[n] = strtok_r(rest, " \n", &rest)))
			n++;
		if (n == 0)
			continue;
		err = (struct err){ 0 };
		r = run(c, words, n, &err);
		if (r < 0)
			(void)printf("error %d: %s\n", -r, err_text(&err));
		else
			(void)printf("%d\n", r);
		(void)fflush(stdout);
	}
	flip_containerd_close(c);
	return 0;
}
