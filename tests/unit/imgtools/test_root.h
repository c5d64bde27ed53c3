/* A small root made of this machine's own programs, for tests that run something: the shell and a few tools with the
 * libraries that ldd names, an /etc with a user, some links. Removed by test_root_remove(). */
#ifndef TEST_ROOT_H
#define TEST_ROOT_H

#include <sched.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static char test_root_dir[64];

static inline int test_shell(const char *command)
{
	int status = system(command);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Makes test_root_dir; 0, or -1 when this machine lacks what it takes. */
static inline int test_root_make(void)
{
	char command[2048];

	(void)snprintf(test_root_dir, sizeof(test_root_dir), "/tmp/test-root-XXXXXX");
	if (!mkdtemp(test_root_dir))
		return -1;
	(void)snprintf(command, sizeof(command),
	               "set -e; r=%s; chmod 755 $r; mkdir -p $r/etc $r/bin $r/tmp $r/home/user $r/data/deep;"
	               "for p in sh cat ls mkdir ln rm id env sleep readlink chmod mv touch ps chroot mount; do"
	               "  f=$(command -v $p) || continue;"
	               "  for l in $(ldd $f | grep -o '/[^ )]*'); do cp -L --parents -n $l $r; done;"
	               "  cp -L $f $r/bin/$p;"
	               "done;"
	               "echo 'root:x:0:0:root:/root:/bin/sh' >$r/etc/passwd;"
	               "echo 'user:x:1234:1235:User:/home/user:/bin/sh' >>$r/etc/passwd;"
	               "printf 'root:x:0:\\nuser:x:1235:\\nextra:x:77:other,user\\n' >$r/etc/group;"
	               "echo deep >$r/data/deep/file; ln -s deep $r/data/link; ln -s /data/link/file $r/data/absolute;"
	               "printf '#!/bin/sh\\ncat /data/absolute\\n' >$r/bin/script; chmod 755 $r/bin/script",
	               test_root_dir);
	return test_shell(command) == 0 ? 0 : -1;
}

static inline void test_root_remove(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf %s", test_root_dir);
	(void)test_shell(command);
}

/* Whether this process may make the namespaces that a run needs. */
static inline bool test_has_namespaces(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(unshare(CLONE_NEWNS | CLONE_NEWPID | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) == 0 ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#endif
