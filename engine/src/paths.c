/* Where the embedded default model lies: a folder named by the environment, the source tree when the
 * program runs from a build folder, the installation. And how large a model's folder is. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine_internal.h"

static const char name[] = "ocai-mini.gguf";

/* The folder of the running program, without a slash at its end. */
static int program_dir(char *dir, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", dir, size - 1);
	char *slash;

	if (n <= 0)
		return -ENOENT;
	dir[n] = '\0';
	slash = strrchr(dir, '/');
	if (!slash)
		return -ENOENT;
	*slash = '\0';
	return 0;
}

/* Takes the path when it is readable, otherwise adds it to the list of places looked at. */
static bool try_path(char *path, char **ret_path, char *looked, size_t size)
{
	size_t n = strlen(looked);

	if (path && access(path, R_OK) == 0) {
		*ret_path = path;
		return true;
	}
	if (path)
		(void)snprintf(looked + n, size - n, "%s%s", n ? ", " : "", path);
	free(path);
	return false;
}

static char *join(const char *dir, const char *rest)
{
	char *path;

	return asprintf(&path, "%s/%s%s", dir, rest, name) < 0 ? NULL : path;
}

int eng_default_model_path(char **ret_path, struct err *err)
{
	const char *env = getenv("OCAI_MODEL_DIR");
	char dir[PATH_MAX], looked[ERR_MSG_SIZE] = "";

	if (env && *env && try_path(join(env, ""), ret_path, looked, sizeof(looked)))
		return 0;
	if (program_dir(dir, sizeof(dir)) == 0 &&
	    (try_path(join(dir, "../../../engine/models/mini/"), ret_path, looked, sizeof(looked)) ||
	     try_path(join(dir, "../share/ocai/models/"), ret_path, looked, sizeof(looked))))
		return 0;
	if (try_path(join(OCAI_PREFIX, "share/ocai/models/"), ret_path, looked, sizeof(looked)))
		return 0;
	return err_set(err, -ENOENT, "no model was named and the default one is not installed (looked at %s)", looked);
}

int eng_folder_weight_bytes(const char *path, uint64_t *ret_bytes)
{
	static const char suffix[] = ".safetensors";
	DIR *dir = opendir(path);
	struct dirent *de;
	uint64_t sum = 0;

	if (!dir)
		return -errno;
	while ((de = readdir(dir))) {
		size_t n = strlen(de->d_name);
		struct stat st;

		if (n > sizeof(suffix) - 1 && strcmp(de->d_name + n - (sizeof(suffix) - 1), suffix) == 0 &&
		    fstatat(dirfd(dir), de->d_name, &st, 0) == 0)
			sum += (uint64_t)st.st_size;
	}
	(void)closedir(dir);
	*ret_bytes = sum;
	return 0;
}
