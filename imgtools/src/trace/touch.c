/* What a traced process touches: each call that names a file is looked up while the process waits right before it, and
 * becomes a record. What the command makes itself is told as such and is no need of it, whatever it does with it later.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "base/clock.h"
#include "interp.h"
#include "tracer_internal.h"
#include "tracer_state.h"

/* ---- Records ---------------------------------------------------------------------------------------------- */

static void keep(struct img_tracer *t, const struct img_tracee *p, const char *path, enum img_access access,
                 uint64_t size, int error)
{
	uint64_t now = (uint64_t)base_now_ns() - t->start_ns;
	struct img_trace_record r = { .path = path,
		                      .access = access,
		                      .pid = p->number,
		                      .count = 1,
		                      .first_ns = now,
		                      .last_ns = now,
		                      .size = size,
		                      .error = error };
	int n;

	if (!p->is_recorded || t->error)
		return;
	n = img_trace_add(t->trace, &r);
	if (n < 0 && n != -EINVAL)
		t->error = n;
}

/* Something at a name; what the command has made itself stays "created", whatever is done to it later. */
static void record(struct img_tracer *t, const struct img_tracee *p, struct img_name *name, enum img_access access,
                   uint64_t size)
{
	const char *path;

	if (name->is_outside)
		return;
	path = img_view_map(p->view, name);
	if (!path)
		return;
	if (img_names_is_created(p->view->names, name))
		access = IMG_ACCESS_CREATE;
	keep(t, p, path, access, size, 0);
}

static void record_miss(struct img_tracer *t, const struct img_tracee *p, const struct img_found *f)
{
	const char *path = img_view_map(p->view, f->name);
	char whole[PATH_MAX];

	if (!path || (f->error != ENOENT && f->error != ENOTDIR))
		return;
	if (f->rest[0]) {
		if (snprintf(whole, sizeof(whole), "%s%s", path, f->rest) >= (int)sizeof(whole))
			return;
		path = whole;
	}
	keep(t, p, path, IMG_ACCESS_MISS, 0, f->error);
}

struct link_context {
	struct img_tracer *t;
	const struct img_tracee *p;
};

static void on_link(struct img_name *link, void *arg)
{
	struct link_context *c = arg;

	record(c->t, c->p, link, IMG_ACCESS_READLINK, 0);
}

static uint64_t size_of(const struct img_found *f)
{
	return f->error == 0 && S_ISREG(f->st.st_mode) ? (uint64_t)f->st.st_size : 0;
}

/* ---- Looking things up ------------------------------------------------------------------------------------ */

/* The 0-terminated text at an address of the process. False when it cannot be read. */
static bool read_text(const struct img_stop *s, uint64_t address, char text[PATH_MAX])
{
	size_t n = 0;

	while (n < PATH_MAX) {
		/* Never beyond the page: the next may not be there. Most paths are short. */
		size_t room = 4096 - (size_t)((address + n) & 4095), want = n == 0 && room > 256 ? 256 : room;
		struct iovec local = { text + n, want < PATH_MAX - n ? want : PATH_MAX - n };
		struct iovec remote = { (void *)(uintptr_t)(address + n), local.iov_len };
		ssize_t got = process_vm_readv(s->th->tid, &local, 1, &remote, 1, 0);

		if (got <= 0)
			return false;
		if (memchr(text + n, '\0', (size_t)got))
			return true;
		n += (size_t)got;
	}
	return false;
}

bool img_touch_read(const struct img_stop *s, uint64_t address, void *data, size_t size)
{
	struct iovec local = { data, size }, remote = { (void *)(uintptr_t)address, size };

	return process_vm_readv(s->th->tid, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static bool find_view(struct img_stop *s)
{
	struct img_tracee *p = s->p;

	if (p->view && p->generation == s->t->views->generation)
		return true;
	p->view = img_views_of(s->t->views, s->th->tid, &p->root);
	p->generation = s->t->views->generation;
	p->cwd = NULL;
	return p->view != NULL;
}

/* The directory that a link in /proc of the process leads to. */
static struct img_name *directory_at(struct img_stop *s, const char *proc_link, char *ret_path)
{
	char host[64];
	const char *path;
	ssize_t n;
	struct img_lookup l = { .tid = s->th->tid, .tgid = s->p->tgid };
	struct img_found *f = &s->t->found;

	(void)snprintf(host, sizeof(host), "/proc/%d/%s", (int)s->th->tid, proc_link);
	n = readlink(host, ret_path, PATH_MAX - 1);
	if (n <= 0 || ret_path[0] != '/')
		return NULL;
	ret_path[n] = '\0';
	path = img_view_strip(s->p->view, ret_path);
	if (!path)
		return NULL;
	l.root = l.start = img_names_root(s->p->view->names);
	l.text = path;
	img_names_lookup(s->p->view->names, &l, f);
	return f->error ? NULL : f->name;
}

static struct img_name *working_directory(struct img_stop *s)
{
	struct img_tracee *p = s->p;
	char host[64], path[PATH_MAX];
	ssize_t n;

	(void)snprintf(host, sizeof(host), "/proc/%d/cwd", (int)s->th->tid);
	n = readlink(host, path, sizeof(path) - 1);
	if (n <= 0)
		return NULL;
	path[n] = '\0';
	if (p->cwd && strcmp(p->cwd_path, path) == 0)
		return p->cwd;
	p->cwd = directory_at(s, "cwd", path);
	free(p->cwd_path);
	p->cwd_path = strdup(path);
	if (!p->cwd_path)
		p->cwd = NULL;
	return p->cwd;
}

/* Where a relative path of this call begins. */
static struct img_name *directory_of(struct img_stop *s, int dirfd_arg)
{
	int fd = dirfd_arg < 0 ? AT_FDCWD : (int)s->args[dirfd_arg];
	char link[32], path[PATH_MAX];

	if (fd == AT_FDCWD)
		return working_directory(s);
	if (fd < 0)
		return NULL;
	(void)snprintf(link, sizeof(link), "fd/%d", fd);
	return directory_at(s, link, path);
}

enum { FOLLOW = 1, WITHIN_DIRECTORY = 2 };

/* Looks up `text`, as this process means it. False: nothing to tell of. */
static bool look_up(struct img_stop *s, int dirfd_arg, const char *text, unsigned how, struct img_found *f)
{
	struct link_context links = { s->t, s->p };
	struct img_lookup l = { .root = s->p->root,
		                .text = text,
		                .follow = how & FOLLOW,
		                .tid = s->th->tid,
		                .tgid = s->p->tgid,
		                .on_link = on_link,
		                .arg = &links };

	if (text[0] != '/' || (how & WITHIN_DIRECTORY)) {
		l.start = directory_of(s, dirfd_arg);
		if (!l.start)
			return false;
		if (how & WITHIN_DIRECTORY)
			l.root = l.start;
	}
	img_names_lookup(s->p->view->names, &l, f);
	return !f->is_ignored;
}

/* The same for the path in an argument; an empty one names nothing. */
static bool look_up_arg(struct img_stop *s, int dirfd_arg, int path_arg, unsigned how, struct img_found *f)
{
	char text[PATH_MAX];

	if (!find_view(s) || !read_text(s, s->args[path_arg], text) || !text[0])
		return false;
	return look_up(s, dirfd_arg, text, how, f);
}

/* ---- The calls -------------------------------------------------------------------------------------------- */

static void make(struct img_stop *s, struct img_found *f)
{
	img_names_forget(s->p->view->names, f->name);
	img_names_set_created(s->p->view->names, f->name);
	record(s->t, s->p, f->name, IMG_ACCESS_CREATE, 0);
}

static void do_open(struct img_stop *s, uint64_t flags, unsigned how)
{
	struct img_found *f = &s->t->found;
	enum img_access access = IMG_ACCESS_OPEN;

	if (!(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL))
		how |= FOLLOW;
	if (!look_up_arg(s, s->call->dirfd, s->call->path, how, f))
		return;
	if (f->error == ENOENT && f->is_last && (flags & O_CREAT) && !(flags & O_PATH)) {
		make(s, f);
	} else if (f->error == ENOENT || f->error == ENOTDIR) {
		record_miss(s->t, s->p, f);
	} else {
		if (f->error || S_ISDIR(f->st.st_mode) || (flags & O_PATH) || (flags & O_TMPFILE) == O_TMPFILE)
			access = IMG_ACCESS_STAT; /* as far as it goes: what a directory holds is read later */
		else if (S_ISLNK(f->st.st_mode))
			access = IMG_ACCESS_READLINK;
		else if ((flags & (O_CREAT | O_TRUNC)) == (O_CREAT | O_TRUNC))
			access = IMG_ACCESS_CREATE; /* its content does not matter, nor would its absence */
		record(s->t, s->p, f->name, access, size_of(f));
		if (access == IMG_ACCESS_CREATE)
			img_names_set_created(s->p->view->names, f->name);
	}
}

static void do_open2(struct img_stop *s)
{
	uint64_t how[3]; /* flags, mode, resolve */

	if (s->args[s->call->aux + 1] < sizeof(how) || !img_touch_read(s, s->args[s->call->aux], how, sizeof(how)))
		return;
	do_open(s, how[0], how[2] & (RESOLVE_IN_ROOT | RESOLVE_BENEATH) ? WITHIN_DIRECTORY : 0);
}

static void do_look(struct img_stop *s, unsigned how)
{
	struct img_found *f = &s->t->found;
	enum img_access access = IMG_ACCESS_STAT;

	if (!look_up_arg(s, s->call->dirfd, s->call->path, how, f))
		return;
	if (f->error == ENOENT || f->error == ENOTDIR) {
		record_miss(s->t, s->p, f);
		return;
	}
	if (s->call->op == IMG_CALL_READLINK && f->error == 0 && S_ISLNK(f->st.st_mode))
		access = IMG_ACCESS_READLINK;
	record(s->t, s->p, f->name, access, size_of(f));
}

/* A new name; when it is taken already, the call will say so, and needs that. */
static void do_make(struct img_stop *s)
{
	struct img_found *f = &s->t->found;

	if (!look_up_arg(s, s->call->dirfd, s->call->path, 0, f))
		return;
	if (f->error == ENOENT && f->is_last)
		make(s, f);
	else if (f->error)
		record_miss(s->t, s->p, f);
	else
		record(s->t, s->p, f->name, IMG_ACCESS_STAT, size_of(f));
}

static void do_remove(struct img_stop *s)
{
	struct img_found *f = &s->t->found;

	if (!look_up_arg(s, s->call->dirfd, s->call->path, 0, f))
		return;
	if (f->error) {
		record_miss(s->t, s->p, f);
		return;
	}
	record(s->t, s->p, f->name, IMG_ACCESS_STAT, size_of(f));
	img_names_forget(s->p->view->names, f->name);
}

/* rename and link: the old name is needed, the new one is made. */
static void do_rename(struct img_stop *s)
{
	struct img_found *f = &s->t->found;
	unsigned how = s->call->aux >= 0 && (s->args[s->call->aux] & AT_SYMLINK_FOLLOW) ? FOLLOW : 0;

	if (look_up_arg(s, s->call->dirfd, s->call->path, how, f)) {
		if (f->error) {
			record_miss(s->t, s->p, f);
			return;
		}
		record(s->t, s->p, f->name, IMG_ACCESS_OPEN, size_of(f));
		if (s->call->op == IMG_CALL_RENAME)
			img_names_forget(s->p->view->names, f->name);
	}
	if (!look_up_arg(s, s->call->dirfd2, s->call->path2, 0, f))
		return;
	if (f->error == ENOENT && !f->is_last)
		record_miss(s->t, s->p, f);
	else if (f->error == 0 || f->error == ENOENT)
		make(s, f);
}

static void do_readdir(struct img_stop *s)
{
	struct img_name *dir;

	if (!find_view(s))
		return;
	dir = directory_of(s, s->call->path);
	if (dir)
		record(s->t, s->p, dir, IMG_ACCESS_READDIR, 0);
}

static void do_socket(struct img_stop *s)
{
	struct img_found *f = &s->t->found;
	struct sockaddr_un sun = { 0 };
	char text[sizeof(sun.sun_path) + 1] = "";
	uint64_t length = s->args[2], address = s->args[1];

	if (length > sizeof(sun))
		length = sizeof(sun);
	if (length <= sizeof(sun.sun_family) || !img_touch_read(s, address, &sun, length) ||
	    sun.sun_family != AF_UNIX || !sun.sun_path[0] || !find_view(s))
		return;
	memcpy(text, sun.sun_path, sizeof(sun.sun_path));
	if (!look_up(s, IMG_CALL_NONE, text, s->call->op == IMG_CALL_BIND ? 0 : FOLLOW, f))
		return;
	if (s->call->op == IMG_CALL_BIND && f->error == ENOENT && f->is_last)
		make(s, f);
	else if (f->error)
		record_miss(s->t, s->p, f);
	else
		record(s->t, s->p, f->name, s->call->op == IMG_CALL_BIND ? IMG_ACCESS_STAT : IMG_ACCESS_CONNECT, 0);
}

/* Whether it succeeds is known when the kernel says so: on_exec(). */
static void do_exec(struct img_stop *s)
{
	struct img_found *f = &s->t->found;
	uint64_t flags = s->call->aux >= 0 ? s->args[s->call->aux] : 0;
	char text[PATH_MAX], link[32];

	if (!find_view(s) || !read_text(s, s->args[s->call->path], text))
		return;
	if (!text[0]) {
		if (!(flags & AT_EMPTY_PATH))
			return;
		(void)snprintf(link, sizeof(link), "fd/%d", (int)s->args[s->call->dirfd]);
		s->th->exec = directory_at(s, link, text);
		s->th->exec_size = size_of(f);
	} else {
		if (!look_up(s, s->call->dirfd, text, flags & AT_SYMLINK_NOFOLLOW ? 0 : FOLLOW, f))
			return;
		if (f->error == ENOENT || f->error == ENOTDIR) {
			record_miss(s->t, s->p, f);
			return;
		}
		s->th->exec = f->name;
		s->th->exec_size = size_of(f);
		if (!s->p->is_recorded)
			memcpy(s->t->first_exec, text, strlen(text) + 1);
	}
	s->th->exec_view = s->p->view;
}

/* Adds the program to a list of those that do what is not possible here. */
static void note_program(const struct img_stop *s, char list[128])
{
	size_t len = strlen(list);
	const char *program = s->p->program ? s->p->program : "?";

	if (!strstr(list, program))
		(void)snprintf(list + len, 128 - len, "%s%s", len ? ", " : "", program);
}

/* What waits for others are connections, and opens of what is neither file nor directory: a pipe, a device. */
static bool may_block(const struct img_stop *s)
{
	const struct img_found *f = &s->t->found;

	switch (s->call->op) {
	case IMG_CALL_CONNECT:
		return true;
	case IMG_CALL_OPEN:
	case IMG_CALL_OPEN2:
	case IMG_CALL_CREAT:
		return f->is_ignored || (f->error == 0 && !S_ISREG(f->st.st_mode) && !S_ISDIR(f->st.st_mode));
	default:
		return false;
	}
}

bool img_touch_call(struct img_stop *s)
{
	switch (s->call->op) {
	case IMG_CALL_OPEN:
		do_open(s, s->args[s->call->aux], 0);
		break;
	case IMG_CALL_OPEN2:
		do_open2(s);
		break;
	case IMG_CALL_CREAT:
		do_open(s, O_CREAT | O_WRONLY | O_TRUNC, 0);
		break;
	case IMG_CALL_LOOK:
		do_look(s, FOLLOW);
		break;
	case IMG_CALL_LLOOK:
	case IMG_CALL_READLINK:
		do_look(s, 0);
		break;
	case IMG_CALL_LOOKAT:
		do_look(s, s->args[s->call->aux] & AT_SYMLINK_NOFOLLOW ? 0 : FOLLOW);
		break;
	case IMG_CALL_EXEC:
		do_exec(s);
		break;
	case IMG_CALL_READDIR:
		do_readdir(s);
		break;
	case IMG_CALL_MAKE:
		do_make(s);
		break;
	case IMG_CALL_REMOVE:
		do_remove(s);
		break;
	case IMG_CALL_RENAME:
	case IMG_CALL_LINK:
		do_rename(s);
		break;
	case IMG_CALL_CONNECT:
	case IMG_CALL_BIND:
		do_socket(s);
		break;
	case IMG_CALL_VIEW:
		if (s->call->path >= 0)
			do_look(s, FOLLOW);
		img_views_changed(s->t->views);
		break;
	case IMG_CALL_PTRACE:
		note_program(s, s->t->tracers);
		break;
	case IMG_CALL_LISTEN:
		if (s->t->listener)
			note_program(s, s->t->listeners);
		break;
	}
	return may_block(s);
}

/* ---- Exec ------------------------------------------------------------------------------------------------- */

/* What the kernel opens for an executable: its interpreter, and the interpreter of that. */
static void record_interpreters(struct img_stop *s, struct img_name *name)
{
	struct img_found *f = &s->t->found;
	char path[IMG_INTERP_MAX];

	for (int depth = 0; depth < IMG_INTERP_DEPTH; depth++) {
		CLEANUP(close_fdp)
		int fd = openat(s->p->view->root_fd, name->path + 1,
		                O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

		if (fd < 0 || img_interp_of(fd, path) <= 0 || !look_up(s, IMG_CALL_NONE, path, FOLLOW, f))
			return;
		if (f->error) {
			record_miss(s->t, s->p, f);
			return;
		}
		record(s->t, s->p, f->name, IMG_ACCESS_KERNEL, size_of(f));
		name = f->name;
	}
}

void img_touch_exec(struct img_stop *s, struct img_name *name, uint64_t size)
{
	const char *path = img_view_map(s->p->view, name);

	record(s->t, s->p, name, IMG_ACCESS_EXEC, size);
	record_interpreters(s, name);
	free(s->p->program);
	s->p->program = path ? strdup(path) : NULL;
}

void img_touch_first_exec(struct img_stop *s)
{
	if (s->t->first_exec[0] && find_view(s))
		(void)look_up(s, IMG_CALL_NONE, s->t->first_exec, FOLLOW, &s->t->found);
}

void img_touch_failed_exec(struct img_stop *s)
{
	if (s->p->view == s->th->exec_view)
		record(s->t, s->p, s->th->exec, IMG_ACCESS_STAT, s->th->exec_size);
}
