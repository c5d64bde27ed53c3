/* A shared library that stands in for another which is loaded but used by nobody: same soname, same versions, none of
 * its code. It is written here byte by byte (no compiler). Functions it must still offer, because something that stays
 * refers to them, print which library was left out, which function was called and how to bring it back, and abort the
 * process; data they refer to is zero. x86-64 only. Source of the layout: gABI chapters 4 and 5, psABI x86-64. */
#ifndef IMG_ELF_STUB_H
#define IMG_ELF_STUB_H

#include "base/buf.h"
#include "base/err.h"
#include "elf/elf.h"

struct img_elf_stub {
	const struct img_elf *original; /* read with IMG_ELF_SYMBOLS: soname and versions are taken from it */
	const char *name;               /* in errors and as soname when the original has none: "libfoo.so.1" */
	/* Which of original->symbols to offer: called with each defined one; NULL: none. */
	bool (*is_wanted)(const struct img_elf_symbol *s, void *arg);
	void *arg;
	const char *message; /* what a call prints before the function's name, one line without line end */
};

/* Appends the file. -ENOTSUP with words: another machine or class, a wanted symbol in thread-local storage. */
int img_elf_stub_write(const struct img_elf_stub *stub, struct base_buf *out, struct err *err);

/* True for a library that was written by img_elf_stub_write(). */
bool img_elf_is_stub(const void *bytes, size_t size);

#endif
