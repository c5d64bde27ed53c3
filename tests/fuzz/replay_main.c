/* Runs a fuzz target once over each file of the folders or files named on the command line: the corpus
 * replay of `make check`, with any compiler. A crash is the failure. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/mapfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	struct base_buf buf = BASE_BUF_INIT(64u << 20);
	struct err err = { 0 };
	uint8_t *copy;

	if (base_read_file(path, &buf, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err));
		base_buf_done(&buf);
		return -1;
	}
	/* An exact-size copy, so that a sanitizer sees a read past the end. */
	copy = malloc(buf.len ? buf.len : 1);
	if (!copy) {
		base_buf_done(&buf);
		return -1;
	}
	if (buf.len)
		memcpy(copy, buf.data, buf.len);
	(void)LLVMFuzzerTestOneInput(copy, buf.len);
	free(copy);
	base_buf_done(&buf);
	return 0;
}

static int replay(const char *path, size_t *n_files)
{
	struct dirent *de;
	struct stat st;
	int r = 0;
	DIR *dir;

	if (stat(path, &st) < 0) {
		perror(path);
		return -1;
	}
	if (!S_ISDIR(st.st_mode)) {
		(*n_files)++;
		return replay_file(path);
	}
	dir = opendir(path);
	if (!dir) {
		perror(path);
		return -1;
	}
	while (r == 0 && (de = readdir(dir))) {
		char child[4096];

		if (de->d_name[0] == '.')
			continue;
		(void)snprintf(child, sizeof(child), "%s/%s", path, de->d_name);
		r = replay(child, n_files);
	}
	(void)closedir(dir);
	return r;
}

int main(int argc, char **argv)
{
	size_t n_files = 0;

	/* The empty input is part of every corpus. */
	(void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++) {
		if (replay(argv[i], &n_files) < 0)
			return 1;
	}
	(void)printf("%zu inputs\n", n_files);
	return 0;
}
