/* What the dynamic linker sees of an ELF file: names of libraries it needs and is, search paths, versions, dynamic
 * symbols. Read from the program headers, as ld.so does, so that files without section headers are read too; both
 * classes and byte orders. Everything is checked against the file's size; a broken file is -EBADMSG with words.
 *
 * All strings belong to the object. Read by libelf. Sources: gABI chapters 4 and 5, the GNU symbol versioning and hash
 * section formats. */
#ifndef IMG_ELF_H
#define IMG_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "tree/tree.h"

struct img_elf_symbol {
	const char *name;
	const char *version; /* "GLIBC_2.34"; NULL: none */
	uint8_t type;        /* STT_FUNC, STT_OBJECT, STT_GNU_IFUNC, STT_TLS, ... */
	uint8_t binding;     /* STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE */
	bool is_defined;
	bool is_default; /* defined: the version that an unversioned reference gets */
	uint64_t size;
};

struct img_elf_needed_version { /* one version that is asked of one library */
	const char *library;    /* as in DT_NEEDED */
	const char *version;
	bool is_weak;
};

struct img_elf {
	uint8_t elf_class;  /* ELFCLASS32, ELFCLASS64 */
	uint8_t data;       /* ELFDATA2LSB, ELFDATA2MSB */
	uint16_t machine;   /* EM_X86_64, ... */
	uint16_t type;      /* ET_EXEC, ET_DYN, ... */
	bool is_dynamic;    /* has PT_DYNAMIC */
	bool binds_now;     /* DF_BIND_NOW, DF_1_NOW, DT_BIND_NOW */
	const char *interp; /* PT_INTERP; NULL: none */
	const char *soname; /* NULL: none */
	const char *rpath;  /* colon-separated, with $ORIGIN as written; NULL: none */
	const char *runpath;
	const char **needed; /* DT_NEEDED, in order */
	size_t n_needed;
	const char **versions; /* defined, the base version (the soname) first */
	size_t n_versions;
	struct img_elf_needed_version *needed_versions;
	size_t n_needed_versions;
	struct img_elf_symbol *symbols; /* global and weak ones, in the order of the table */
	size_t n_symbols;
};

enum img_elf_parts {
	IMG_ELF_HEADER = 0,        /* all but symbols and versions */
	IMG_ELF_SYMBOLS = 1u << 0, /* and those */
};

/* True when the file begins as an ELF file does. */
bool img_elf_is(const struct img_node *n);

/* -ENOEXEC: not an ELF file. -EBADMSG: broken. */
int img_elf_read(const struct img_node *n, unsigned int parts, struct img_elf **ret_elf, struct err *err);
int img_elf_parse(const void *bytes, size_t size, const char *name, unsigned int parts, struct img_elf **ret_elf,
                  struct err *err);
void img_elf_free(struct img_elf *e);

/* Strings of the read-only data that look like file names of libraries ("libfoo.so.1"), each once: what the file may
 * pass to dlopen(). Calls back with the string (valid during the call); stops at a negative return. */
int img_elf_library_strings(const struct img_node *n, int (*on_string)(const char *s, void *arg), void *arg,
                            struct err *err);

#endif
