/* Interpreters, as the kernel finds them (fs/binfmt_script, fs/binfmt_elf; execve(2)): a first line "#! path argument"
 * within the first 256 bytes, or the PT_INTERP segment of an ELF file. Handlers registered with binfmt_misc are left
 * out: they belong to the machine, not to the image. */
#include "interp.h"

#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SCRIPT_BYTES = 256, MAX_SEGMENTS = 1024 };

static int script_interp(const char *head, size_t n, char *ret)
{
	size_t at = 2, len = 0;

	while (at < n && (head[at] == ' ' || head[at] == '\t'))
		at++;
	while (at + len < n && head[at + len] != '\0' && !strchr(" \t\n", head[at + len]))
		len++;
	if (len == 0 || len >= IMG_INTERP_MAX)
		return 0;
	memcpy(ret, head + at, len);
	ret[len] = '\0';
	return 1;
}

static int read_interp(int fd, uint64_t offset, uint64_t size, char *ret)
{
	char path[IMG_INTERP_MAX];

	if (size < 2 || size > sizeof(path) || offset > INT64_MAX - size)
		return 0;
	if (pread(fd, path, size, (off_t)offset) != (ssize_t)size || path[size - 1] != '\0')
		return 0;
	memcpy(ret, path, size);
	return *ret ? 1 : 0;
}

static int elf64_interp(int fd, const void *head, char *ret)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;

	memcpy(&eh, head, sizeof(eh));
	if (eh.e_phentsize != sizeof(ph) || eh.e_phnum > MAX_SEGMENTS || eh.e_phoff > INT64_MAX / 2)
		return 0;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (pread(fd, &ph, sizeof(ph), (off_t)(eh.e_phoff + i * sizeof(ph))) != sizeof(ph))
			return 0;
		if (ph.p_type == PT_INTERP)
			return read_interp(fd, ph.p_offset, ph.p_filesz, ret);
	}
	return 0;
}

static int elf32_interp(int fd, const void *head, char *ret)
{
	Elf32_Ehdr eh;
	Elf32_Phdr ph;

	memcpy(&eh, head, sizeof(eh));
	if (eh.e_phentsize != sizeof(ph) || eh.e_phnum > MAX_SEGMENTS)
		return 0;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (pread(fd, &ph, sizeof(ph), (off_t)eh.e_phoff + (off_t)(i * sizeof(ph))) != sizeof(ph))
			return 0;
		if (ph.p_type == PT_INTERP)
			return read_interp(fd, ph.p_offset, ph.p_filesz, ret);
	}
	return 0;
}

int img_interp_of(int fd, char ret_path[IMG_INTERP_MAX])
{
	char head[SCRIPT_BYTES] = { 0 };
	ssize_t n = pread(fd, head, sizeof(head), 0);

	if (n < 0)
		return -errno;
	if (n >= 3 && head[0] == '#' && head[1] == '!')
		return script_interp(head, (size_t)n, ret_path);
	if (n < (ssize_t)sizeof(Elf64_Ehdr) || memcmp(head, ELFMAG, SELFMAG) != 0)
		return 0;
	return head[EI_CLASS] == ELFCLASS64 ? elf64_interp(fd, head, ret_path) : elf32_interp(fd, head, ret_path);
}
