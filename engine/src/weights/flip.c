/* "flip://NAME": the daemon is asked to mount the model (POST /v1/model/mount, docs/formats/flip-control.md), which
 * needs the right to use its socket. Without that right, or without the daemon, a model that is mounted where flip
 * mounts models is as good: mounts outlive the daemon. */
#include "weights/flip.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/json.h"

#define SCHEME "flip://"
#define SOCKET "/run/flip/control.sock"
#define MODELS "/run/flip/models"
enum { NAME_MAX_LEN = 128, MAX_ANSWER = 1 << 20 };

bool eng_path_is_flip(const char *path)
{
	return strncmp(path, SCHEME, strlen(SCHEME)) == 0;
}

static const char *models_dir(void)
{
	const char *dir = getenv("FLIP_MODELS");

	return dir && *dir ? dir : MODELS;
}

static const char *control_socket(void)
{
	const char *path = getenv("FLIP_CONTROL");

	return path && *path ? path : SOCKET;
}

bool eng_flip_may_arrive(const char *path)
{
	const char *dir = models_dir();
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

/* A folder with something in it: a mount point that nothing is mounted at is empty. */
static bool has_files(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool has = false;

	while (d && !has && (e = readdir(d)))
		has = e->d_name[0] != '.';
	if (d)
		(void)closedir(d);
	return has;
}

static int take_answer(const char *name, struct base_http_response *resp, char **ret_dir, struct err *err)
{
	json_t *doc = NULL;
	const char *text = NULL;
	int r = base_json_parse("flip's answer", resp->body.data, resp->body.len, &doc, err);

	if (r == 0 && resp->status / 100 != 2) {
		text = json_string_value(json_object_get(doc, "error"));
		r = err_set(err, resp->status == 404 ? -ENOENT : -EIO, SCHEME "%s: %s", name,
		            text ? text : "flip refuses");
	} else if (r == 0) {
		text = json_string_value(json_object_get(doc, "dir"));
		*ret_dir = text ? strdup(text) : NULL;
		r = *ret_dir ? 0 : err_set(err, -EIO, SCHEME "%s: flip does not say where it is", name);
	}
	json_decref(doc);
	return r;
}

/* -ECONNREFUSED: nobody answers. */
static int ask(const char *socket, const char *name, char **ret_dir, struct err *err)
{
	char url[NAME_MAX_LEN + 64];
	struct base_http_request req = {
		.method = "POST", .url = url, .unix_socket = socket, .max_response_bytes = MAX_ANSWER
	};
	struct base_http_response resp = { 0 };
	struct base_http *http = NULL;
	int r = base_http_new(&http, err);

	(void)snprintf(url, sizeof(url), "http://flip/v1/model/mount?name=%s", name);
	if (r == 0)
		r = base_http_request(http, &req, &resp, err);
	if (r == 0) {
		r = take_answer(name, &resp, ret_dir, err);
		base_buf_done(&resp.body);
	}
	base_http_free(http);
	return r;
}

/* Where models are mounted by name, when this one is. */
static int look(const char *name, char **ret_dir)
{
	char *dir;

	if (asprintf(&dir, "%s/%s", models_dir(), name) < 0)
		return -ENOMEM;
	if (!has_files(dir)) {
		free(dir);
		return -ENOENT;
	}
	*ret_dir = dir;
	return 0;
}

static int find(const char *name, char **ret_dir, struct err *err)
{
	const char *socket = control_socket();
	bool may = access(socket, R_OK | W_OK) == 0;
	int why = may ? 0 : errno, r = -ECONNREFUSED;

	if (may)
		r = ask(socket, name, ret_dir, err);
	if (r != -ECONNREFUSED)
		return r;
	r = look(name, ret_dir);
	if (r != -ENOENT)
		return r < 0 ? err_set(err, r, SCHEME "%s: out of memory", name) : 0;
	if (why == EACCES || why == EPERM)
		return err_set(err, -EACCES,
		               SCHEME "%s: it is not mounted, and %s is not for this user: flip model mount %s as root",
		               name, socket, name);
	return err_set(err, -ENOENT,
	               SCHEME
	               "%s: no flip answers at %s: is it installed, does flip-snapshotter.service run? (flip(1))",
	               name, socket);
}

/* No part of it leads out of the model's folder. */
static bool file_is_valid(const char *file)
{
	for (const char *p = file; *p; p += strcspn(p, "/")) {
		size_t n;

		p += *p == '/';
		n = strcspn(p, "/");
		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
	}
	return true;
}

/* The one GGUF file of a model that is no Hugging Face folder, the first of a split one; what belongs to it (the
 * projector of a vision model) is not meant. NULL: the folder itself. */
static char *only_gguf(const char *dir)
{
	CLEANUP(freep) char *pattern = NULL;
	char *found = NULL;
	size_t n = 0;
	glob_t g = { 0 };

	if (asprintf(&pattern, "%s/config.json", dir) < 0) {
		pattern = NULL;
		return NULL;
	}
	if (access(pattern, F_OK) == 0)
		return NULL;
	(void)snprintf(pattern, strlen(pattern), "%s/*.gguf", dir); /* shorter */
	if (glob(pattern, 0, NULL, &g) != 0)
		return NULL;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		const char *name = strrchr(g.gl_pathv[i], '/') + 1, *of = strstr(name, "-of-");

		if (strncmp(name, "mmproj", 6) == 0 || (of && of - name > 5 && strncmp(of - 5, "00001", 5) != 0))
			continue;
		n++;
		free(found);
		found = strdup(g.gl_pathv[i]);
	}
	globfree(&g);
	if (n == 1)
		return found;
	free(found);
	return NULL;
}

int eng_flip_path(const char *path, char **ret_path, struct err *err)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	const char *name = path + strlen(SCHEME), *file = strchr(name, '/');
	size_t n = file ? (size_t)(file - name) : strlen(name);
	CLEANUP(freep) char *dir = NULL;
	char text[NAME_MAX_LEN + 1];
	int r;

	if (n == 0 || n > NAME_MAX_LEN || strspn(name, letters) < n || strchr("._-", name[0]) ||
	    (file && !file_is_valid(file)))
		return err_set(err, -EINVAL, "%.200s: not flip://NAME or flip://NAME/FILE", path);
	(void)snprintf(text, sizeof(text), "%.*s", (int)n, name);
	r = find(text, &dir, err);
	if (r < 0)
		return r;
	*ret_path = file ? NULL : only_gguf(dir);
	if (!*ret_path && asprintf(ret_path, "%s%s", dir, file ? file : "") < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	return 0;
}
