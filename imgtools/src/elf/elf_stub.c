/* Writing stand-ins for libraries. The file is laid out in three segments that follow each other in the file without
 * gaps; their addresses are one page further each, which keeps file offset and address congruent:
 *
 *   read        ELF header, program headers, note, .gnu.hash, .dynsym, .dynstr, .gnu.version, .gnu.version_d
 *   execute     one entry of ten bytes per function, the common trap, its message
 *   write       .dynamic, then zeroes for data symbols (not in the file)
 *
 * There are no section headers: nothing that loads a library reads them. */
#include "elf/elf_stub.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	PAGE = 4096,
	N_PHDRS = 6,
	ENTRY_SIZE = 10,     /* push imm32; jmp rel32 */
	DATA_MAX = 64 << 20, /* zeroes for data symbols */
	FILE_MAX = 64 << 20,
	MAX_OFFERED = 1 << 20,
	FIRST_HASHED = 1, /* symbol 0 is the null symbol, all others are in the hash table */
};

static const char note_owner[8] = "slimtrc"; /* with its 0 byte; the type is 1, the text "stub" */

struct offered {
	const struct img_elf_symbol *symbol;
	uint32_t hash;
	uint32_t name;    /* offset in dynstr */
	uint16_t version; /* for .gnu.version */
	uint64_t value;   /* offset within the text or the data segment */
	bool is_function;
};

struct stub {
	const struct img_elf_stub *in;
	struct err *err;
	struct offered *offered;
	size_t n;
	uint32_t n_buckets;
	struct base_buf text, dynstr, read, dynamic;
	uint32_t soname;
	uint32_t *version_names; /* offsets in dynstr, index 0 is the base */
	size_t n_versions;
	uint64_t data_size;
	/* addresses */
	uint64_t at_hash, at_symtab, at_strtab, at_versym, at_verdef, at_text, at_write;
};

/* Little-endian values appended. */
static void put(struct base_buf *b, uint64_t value, unsigned int bytes)
{
	uint8_t v[8];

	for (unsigned int i = 0; i < bytes; i++)
		v[i] = (uint8_t)(value >> 8 * i);
	(void)base_buf_append(b, v, bytes);
}

static void pad(struct base_buf *b, size_t alignment)
{
	while (b->len % alignment && base_buf_error(b) == 0)
		put(b, 0, 1);
}

static uint32_t gnu_hash(const char *name)
{
	uint32_t h = 5381;

	for (const uint8_t *p = (const uint8_t *)name; *p; p++)
		h = h * 33 + *p;
	return h;
}

static uint32_t sysv_hash(const char *name)
{
	uint32_t h = 0;

	for (const uint8_t *p = (const uint8_t *)name; *p; p++) {
		h = (h << 4) + *p;
		h ^= (h >> 24) & 0xf0;
	}
	return h & 0x0fffffff;
}

static uint32_t add_string(struct stub *s, const char *text)
{
	uint32_t at = (uint32_t)s->dynstr.len;

	(void)base_buf_append(&s->dynstr, text, strlen(text) + 1);
	return at;
}

/* Index for .gnu.version: 1 is the base version, the others follow in order. */
static uint16_t version_index(const struct stub *s, const struct img_elf_symbol *symbol)
{
	const struct img_elf *e = s->in->original;

	for (size_t i = 1; symbol->version && i < e->n_versions; i++) {
		if (strcmp(e->versions[i], symbol->version) == 0)
			return (uint16_t)((i + 1) | (symbol->is_default ? 0 : 0x8000));
	}
	return 1;
}

static int collect(struct stub *s)
{
	const struct img_elf *e = s->in->original;

	s->soname = add_string(s, e->soname ? e->soname : s->in->name);
	s->version_names = calloc(e->n_versions + 1, sizeof(*s->version_names));
	s->offered = calloc(e->n_symbols + 1, sizeof(*s->offered));
	if (!s->version_names || !s->offered)
		return -ENOMEM;
	for (size_t i = 0; i < e->n_versions; i++)
		s->version_names[s->n_versions++] = i == 0 ? s->soname : add_string(s, e->versions[i]);
	for (size_t i = 0; i < e->n_symbols && s->in->is_wanted; i++) {
		const struct img_elf_symbol *y = &e->symbols[i];
		struct offered *o = &s->offered[s->n];

		if (!y->is_defined || !s->in->is_wanted(y, s->in->arg))
			continue;
		if (y->type == STT_TLS)
			return err_set(s->err, -ENOTSUP, "%s: %s is in thread-local storage: no stub can offer it",
			               s->in->name, y->name);
		if (s->n >= MAX_OFFERED)
			return err_set(s->err, -E2BIG, "%s: more than %d symbols are referred to", s->in->name,
			               MAX_OFFERED);
		*o = (struct offered){ .symbol = y, .hash = gnu_hash(y->name), .version = version_index(s, y) };
		o->is_function = y->type == STT_FUNC || y->type == STT_GNU_IFUNC || y->type == STT_NOTYPE;
		o->name = add_string(s, y->name);
		s->n++;
	}
	return base_buf_error(&s->dynstr);
}

/* Data symbols get room each, functions their entries. */
static int place(struct stub *s)
{
	uint64_t n_functions = 0;

	for (size_t i = 0; i < s->n; i++) {
		struct offered *o = &s->offered[i];
		uint64_t size = o->symbol->size ? o->symbol->size : 8;

		if (o->is_function) {
			o->value = n_functions++ * ENTRY_SIZE;
			continue;
		}
		if (size > DATA_MAX || s->data_size > DATA_MAX - size)
			return err_set(s->err, -ENOTSUP, "%s: the data referred to is more than %d MiB", s->in->name,
			               DATA_MAX >> 20);
		o->value = s->data_size;
		s->data_size = (s->data_size + size + 63) & ~63ull;
	}
	return 0;
}

static int by_bucket(const void *a, const void *b, void *arg)
{
	const struct offered *x = a, *y = b;
	uint32_t n = *(const uint32_t *)arg, bx = x->hash % n, by = y->hash % n;

	if (bx != by)
		return bx < by ? -1 : 1;
	return x->symbol < y->symbol ? -1 : x->symbol > y->symbol;
}

/* What runs when an entry was called: the offset of the function's name is on the stack, where the entry pushed it.
 * Prints message, name and line end on standard error, then aborts: kill(getpid(), SIGABRT), exit_group(134). */
static void write_trap(struct stub *s)
{
	static const uint8_t before_message[] = {
		0x5b,                         /* pop %rbx               name offset */
		0xb8, 0x01, 0x00, 0x00, 0x00, /* mov $1,%eax            write */
		0xbf, 0x02, 0x00, 0x00, 0x00, /* mov $2,%edi */
		0x48, 0x8d, 0x35,             /* lea rel32(%rip),%rsi */
	};
	static const uint8_t after_name[] = {
		0x48, 0x01, 0xde,             /* add %rbx,%rsi */
		0x31, 0xd2,                   /* xor %edx,%edx          its length */
		0x80, 0x3c, 0x16, 0x00,       /* 1: cmpb $0,(%rsi,%rdx) */
		0x74, 0x04,                   /* je 2f */
		0xff, 0xc2,                   /* inc %edx */
		0xeb, 0xf6,                   /* jmp 1b */
		0xb8, 0x01, 0x00, 0x00, 0x00, /* 2: mov $1,%eax */
		0xbf, 0x02, 0x00, 0x00, 0x00, /* mov $2,%edi */
		0x0f, 0x05,                   /* syscall */
		0xb8, 0x01, 0x00, 0x00, 0x00, /* mov $1,%eax            the line end */
		0xbf, 0x02, 0x00, 0x00, 0x00, /* mov $2,%edi */
		0x48, 0x8d, 0x35,             /* lea rel32(%rip),%rsi */
	};
	static const uint8_t after_newline[] = {
		0xba, 0x01, 0x00, 0x00, 0x00, /* mov $1,%edx */
		0x0f, 0x05,                   /* syscall */
		0xb8, 0x27, 0x00, 0x00, 0x00, /* mov $39,%eax           getpid */
		0x0f, 0x05,                   /* syscall */
		0x89, 0xc7,                   /* mov %eax,%edi */
		0xbe, 0x06, 0x00, 0x00, 0x00, /* mov $6,%esi            SIGABRT */
		0xb8, 0x3e, 0x00, 0x00, 0x00, /* mov $62,%eax           kill */
		0x0f, 0x05,                   /* syscall */
		0xbf, 0x86, 0x00, 0x00, 0x00, /* mov $134,%edi */
		0xb8, 0xe7, 0x00, 0x00, 0x00, /* mov $231,%eax          exit_group */
		0x0f, 0x05,                   /* syscall */
		0x0f, 0x0b,                   /* ud2 */
	};
	struct base_buf *t = &s->text;
	size_t len = strlen(s->in->message), code = t->len;
	/* sizes of the pieces, to know where the message will be */
	size_t total = sizeof(before_message) + 4 + 5 + 2 + 3 + 4 + sizeof(after_name) + 4 + sizeof(after_newline);
	uint64_t message = code + total;

	(void)base_buf_append(t, before_message, sizeof(before_message));
	put(t, message - (t->len + 4), 4);
	put(t, 0xba, 1); /* mov $len,%edx */
	put(t, len, 4);
	put(t, 0x050f, 2);   /* syscall */
	put(t, 0x358d48, 3); /* lea dynstr(%rip),%rsi */
	put(t, s->at_strtab - (s->at_text + t->len + 4), 4);
	(void)base_buf_append(t, after_name, sizeof(after_name));
	put(t, message + len - (t->len + 4), 4);
	(void)base_buf_append(t, after_newline, sizeof(after_newline));
	(void)base_buf_append(t, s->in->message, len);
	put(t, '\n', 1);
}

static void write_text(struct stub *s)
{
	size_t n_functions = 0;

	for (size_t i = 0; i < s->n; i++)
		n_functions += s->offered[i].is_function;
	/* Entries stand in the order they were placed in; the list has been sorted since. */
	(void)base_buf_reserve(&s->text, n_functions * ENTRY_SIZE + 256);
	for (size_t k = 0; k < n_functions; k++) {
		put(&s->text, 0x68, 1); /* push name, filled in below */
		put(&s->text, 0, 4);
		put(&s->text, 0xe9, 1); /* jmp to the trap behind all entries */
		put(&s->text, (n_functions - k - 1) * ENTRY_SIZE, 4);
	}
	for (size_t i = 0; i < s->n && base_buf_error(&s->text) == 0; i++) {
		const struct offered *o = &s->offered[i];

		for (unsigned int k = 0; o->is_function && k < 4; k++)
			s->text.data[o->value + 1 + k] = (char)(o->name >> 8 * k);
	}
	write_trap(s);
}

/* ---- The read-only segment ---- */

static void write_hash(struct stub *s)
{
	struct base_buf *b = &s->read;

	put(b, s->n_buckets, 4);
	put(b, FIRST_HASHED, 4);
	put(b, 1, 4); /* words of the filter; all bits set: it filters nothing, and is small */
	put(b, 0, 4);
	put(b, UINT64_MAX, 8);
	for (uint32_t k = 0, i = 0; k < s->n_buckets; k++) {
		while (i < s->n && s->offered[i].hash % s->n_buckets < k)
			i++;
		put(b, i < s->n && s->offered[i].hash % s->n_buckets == k ? i + FIRST_HASHED : 0, 4);
	}
	for (size_t i = 0; i < s->n; i++) {
		bool is_last =
		        i + 1 == s->n || s->offered[i + 1].hash % s->n_buckets != s->offered[i].hash % s->n_buckets;

		put(b, (s->offered[i].hash & ~1u) | is_last, 4);
	}
}

static void write_symbols(struct stub *s)
{
	struct base_buf *b = &s->read;

	for (unsigned int i = 0; i < 3; i++)
		put(b, 0, 8);
	for (size_t i = 0; i < s->n; i++) {
		const struct offered *o = &s->offered[i];
		uint8_t binding = o->symbol->binding == STB_WEAK ? STB_WEAK : STB_GLOBAL;

		put(b, o->name, 4);
		put(b, ELF64_ST_INFO(binding, o->is_function ? STT_FUNC : STT_OBJECT), 1);
		put(b, STV_DEFAULT, 1);
		put(b, 1, 2); /* any section number: only zero means undefined */
		put(b, o->is_function ? s->at_text + o->value : s->at_write + s->dynamic.len + o->value, 8);
		put(b, o->is_function ? ENTRY_SIZE : o->symbol->size, 8);
	}
}

static void write_versions(struct stub *s)
{
	struct base_buf *b = &s->read;

	put(b, 0, 2);
	for (size_t i = 0; i < s->n; i++)
		put(b, s->offered[i].version, 2);
	pad(b, 8);
	for (size_t i = 0; i < s->n_versions; i++) {
		const char *name = i == 0 ? s->dynstr.data + s->soname : s->in->original->versions[i];

		put(b, 1, 2); /* revision */
		put(b, i == 0 ? VER_FLG_BASE : 0, 2);
		put(b, i + 1, 2);
		put(b, 1, 2); /* auxiliary records */
		put(b, sysv_hash(name), 4);
		put(b, 20, 4);
		put(b, i + 1 < s->n_versions ? 28 : 0, 4);
		put(b, s->version_names[i], 4);
		put(b, 0, 4);
	}
}

static void dynamic_entry(struct stub *s, uint64_t tag, uint64_t value)
{
	put(&s->dynamic, tag, 8);
	put(&s->dynamic, value, 8);
}

static void write_dynamic(struct stub *s)
{
	base_buf_reset(&s->dynamic);
	dynamic_entry(s, DT_SONAME, s->soname);
	dynamic_entry(s, DT_GNU_HASH, s->at_hash);
	dynamic_entry(s, DT_STRTAB, s->at_strtab);
	dynamic_entry(s, DT_SYMTAB, s->at_symtab);
	dynamic_entry(s, DT_STRSZ, s->dynstr.len);
	dynamic_entry(s, DT_SYMENT, sizeof(Elf64_Sym));
	/* ld.so takes DT_VERDEF as proof that there is a first definition, whatever DT_VERDEFNUM says. */
	if (s->n_versions) {
		dynamic_entry(s, DT_VERSYM, s->at_versym);
		dynamic_entry(s, DT_VERDEF, s->at_verdef);
		dynamic_entry(s, DT_VERDEFNUM, s->n_versions);
	}
	dynamic_entry(s, DT_NULL, 0);
}

static void write_phdr(struct base_buf *b, uint32_t type, uint32_t flags, uint64_t offset, uint64_t address,
                       uint64_t filesz, uint64_t memsz, uint64_t align)
{
	put(b, type, 4);
	put(b, flags, 4);
	put(b, offset, 8);
	put(b, address, 8);
	put(b, address, 8);
	put(b, filesz, 8);
	put(b, memsz, 8);
	put(b, align, 8);
}

static void write_headers(struct stub *s, uint64_t read_size)
{
	static const uint8_t ident[EI_NIDENT] = { 0x7f,       'E',         'L',        'F',
		                                  ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE };
	struct base_buf *b = &s->read;
	uint64_t text = read_size, write = read_size + s->text.len,
	         note = sizeof(Elf64_Ehdr) + N_PHDRS * sizeof(Elf64_Phdr);

	(void)base_buf_append(b, ident, sizeof(ident));
	put(b, ET_DYN, 2);
	put(b, EM_X86_64, 2);
	put(b, EV_CURRENT, 4);
	put(b, 0, 8); /* entry */
	put(b, sizeof(Elf64_Ehdr), 8);
	put(b, 0, 8); /* section headers */
	put(b, 0, 4);
	put(b, sizeof(Elf64_Ehdr), 2);
	put(b, sizeof(Elf64_Phdr), 2);
	put(b, N_PHDRS, 2);
	put(b, sizeof(Elf64_Shdr), 2);
	put(b, 0, 4);
	write_phdr(b, PT_LOAD, PF_R, 0, 0, read_size, read_size, PAGE);
	write_phdr(b, PT_LOAD, PF_R | PF_X, text, s->at_text, s->text.len, s->text.len, PAGE);
	write_phdr(b, PT_LOAD, PF_R | PF_W, write, s->at_write, s->dynamic.len, s->dynamic.len + s->data_size, PAGE);
	write_phdr(b, PT_DYNAMIC, PF_R | PF_W, write, s->at_write, s->dynamic.len, s->dynamic.len, 8);
	write_phdr(b, PT_NOTE, PF_R, note, note, 24, 24, 4);
	write_phdr(b, PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 16);
	put(b, sizeof(note_owner), 4);
	put(b, 4, 4);
	put(b, 1, 4);
	(void)base_buf_append(b, note_owner, sizeof(note_owner));
	(void)base_buf_append(b, "stub", 4);
}

/* Writes the read-only segment. The first pass finds out where everything is, the second writes it with those
 * addresses. */
static void write_read(struct stub *s, uint64_t read_size)
{
	struct base_buf *b = &s->read;

	base_buf_reset(b);
	write_headers(s, read_size);
	pad(b, 8);
	s->at_hash = b->len;
	write_hash(s);
	pad(b, 8);
	s->at_symtab = b->len;
	write_symbols(s);
	s->at_strtab = b->len;
	(void)base_buf_append(b, s->dynstr.data, s->dynstr.len);
	pad(b, 2);
	s->at_versym = b->len;
	/* the definitions follow the symbols' versions at the next multiple of 8 */
	s->at_verdef = (b->len + 2 * (s->n + 1) + 7) & ~7ull;
	write_versions(s);
	pad(b, 16);
}

static int assemble(struct stub *s, struct base_buf *out)
{
	uint64_t read_size;

	write_dynamic(s);
	write_read(s, 0);
	read_size = s->read.len;
	s->at_text = read_size + PAGE;
	write_text(s);
	pad(&s->text, 8);
	s->at_write = read_size + s->text.len + 2 * PAGE;
	write_dynamic(s);
	write_read(s, read_size);
	assert(s->read.len == read_size || base_buf_error(&s->read));
	(void)base_buf_append(out, s->read.data, s->read.len);
	(void)base_buf_append(out, s->text.data, s->text.len);
	(void)base_buf_append(out, s->dynamic.data, s->dynamic.len);
	if (base_buf_error(&s->read) || base_buf_error(&s->text) || base_buf_error(&s->dynamic) || base_buf_error(out))
		return err_set(s->err, -ENOMEM, "%s: the stub does not fit into memory", s->in->name);
	return 0;
}

int img_elf_stub_write(const struct img_elf_stub *stub, struct base_buf *out, struct err *err)
{
	struct stub s = { .in = stub, .err = err };
	const struct img_elf *e = stub->original;
	int r;

	if (e->machine != EM_X86_64 || e->elf_class != ELFCLASS64 || e->type != ET_DYN)
		return err_set(err, -ENOTSUP, "%s: stubs are written for x86-64 libraries only", stub->name);
	base_buf_init(&s.text, FILE_MAX);
	base_buf_init(&s.dynstr, FILE_MAX);
	base_buf_init(&s.read, FILE_MAX);
	base_buf_init(&s.dynamic, PAGE);
	(void)base_buf_append(&s.dynstr, "", 1); /* offset 0 is the empty name */
	r = collect(&s);
	if (r == 0)
		r = place(&s);
	if (r == 0) {
		s.n_buckets = (uint32_t)(s.n / 4 + 1);
		qsort_r(s.offered, s.n, sizeof(*s.offered), by_bucket, &s.n_buckets);
		r = assemble(&s, out);
	} else if (r == -ENOMEM || r == -EFBIG) {
		r = err_set(err, r, "%s: out of memory", stub->name);
	}
	base_buf_done(&s.text);
	base_buf_done(&s.dynstr);
	base_buf_done(&s.read);
	base_buf_done(&s.dynamic);
	free(s.offered);
	free(s.version_names);
	return r;
}

bool img_elf_is_stub(const void *bytes, size_t size)
{
	size_t note = sizeof(Elf64_Ehdr) + N_PHDRS * sizeof(Elf64_Phdr) + 12;

	return size > note + sizeof(note_owner) &&
	       memcmp((const char *)bytes + note, note_owner, sizeof(note_owner)) == 0;
}
