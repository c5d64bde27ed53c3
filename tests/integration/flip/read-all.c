/* Runs in containers, so it needs nothing: reads every file below the folders that are named, in order of their names,
 * and prints how many there were, how many bytes, and a sum of all. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long n_files, n_bytes, sum = 1469598103934665603ul;

static int read_file(const char *path)
{
	static unsigned char b[1 << 16];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	while ((n = read(fd, b, sizeof(b))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			sum = (sum ^ b[i]) * 1099511628211ul;
		n_bytes += (unsigned long)n;
	}
	(void)close(fd);
	n_files++;
	return n < 0 ? -1 : 0;
}

static int walk(const char *dir)
{
	struct dirent **names;
	int n = scandir(dir, &names, NULL, alphasort), r = n < 0 ? -1 : 0;

	for (int i = 0; i < n; i++) {
		char path[4096];
		struct stat st;

		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		if (names[i]->d_name[0] != '.' && r == 0)
			r = lstat(path, &st) < 0  ? -1
			    : S_ISDIR(st.st_mode) ? walk(path)
			    : S_ISREG(st.st_mode) ? read_file(path)
			                          : 0;
		if (r < 0)
			perror(path);
		free(names[i]);
	}
	free(names);
	return r;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (walk(argv[i]) < 0)
			return 1;
	}
	printf("%lu files, %lu bytes, %016lx\n", n_files, n_bytes, sum);
	return fflush(stdout) == 0 ? 0 : 1;
}
