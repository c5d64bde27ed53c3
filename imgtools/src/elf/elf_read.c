/* Reading an ELF file as ld.so does: program headers, the dynamic section, and what it points to. libelf translates
 * class and byte order and checks each piece against the file's size; addresses become offsets by the PT_LOAD headers.
 */
#include "elf/elf.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_PHDRS = 4096,
	MAX_DYN = 65536,
	MAX_SYMBOLS = 1 << 22,
	MAX_VERSIONS = 1 << 16,
	VERSION_HIDDEN = 0x8000,
};

/* Cuts of a file that are known while it is read. */
struct reader {
	Elf *elf;
	const char *name;
	const uint8_t *bytes;
	size_t size;
	GElf_Phdr *phdrs;
	size_t n_phdrs;
	const char *strtab; /* borrowed from the object */
	uint64_t strtab_size;
	uint64_t symtab, hash, gnu_hash, versym, verdef, verneed; /* addresses; 0: none */
	uint64_t n_verdef, n_verneed;
	const char **version_names; /* by index of .gnu.version; entries may be NULL */
	size_t n_version_names;
	struct err *err;
};

/* What img_elf_free() gets back is the first member of this. */
struct object {
	struct img_elf pub;
	char *interp;
	char *strtab; /* a copy with a 0 byte behind it */
};

static int bad(struct reader *r, const char *what)
{
	return err_set(r->err, -EBADMSG, "%s: ELF: %s", r->name, what);
}

/* Address -> offset in the file; false when no segment holds `size` bytes there. */
static bool to_offset(const struct reader *r, uint64_t addr, uint64_t size, uint64_t *ret_offset)
{
	for (size_t i = 0; i < r->n_phdrs; i++) {
		const GElf_Phdr *p = &r->phdrs[i];

		if (p->p_type != PT_LOAD || addr < p->p_vaddr || addr - p->p_vaddr > p->p_filesz ||
		    p->p_filesz - (addr - p->p_vaddr) < size)
			continue;
		*ret_offset = p->p_offset + (addr - p->p_vaddr);
		return *ret_offset <= r->size && size <= r->size - *ret_offset;
	}
	return false;
}

/* How many bytes the file holds from an address to the end of its segment. */
static uint64_t room_at(const struct reader *r, uint64_t addr)
{
	uint64_t offset;

	for (size_t i = 0; i < r->n_phdrs; i++) {
		const GElf_Phdr *p = &r->phdrs[i];

		if (p->p_type == PT_LOAD && addr >= p->p_vaddr && addr - p->p_vaddr < p->p_filesz &&
		    to_offset(r, addr, p->p_filesz - (addr - p->p_vaddr), &offset))
			return p->p_filesz - (addr - p->p_vaddr);
	}
	return 0;
}

static Elf_Data *chunk(struct reader *r, uint64_t addr, uint64_t size, Elf_Type type)
{
	uint64_t offset;

	if (size == 0 || !to_offset(r, addr, size, &offset))
		return NULL;
	return elf_getdata_rawchunk(r->elf, (int64_t)offset, size, type);
}

/* A string of the table; NULL when the index is outside. */
static const char *string_at(const struct reader *r, uint64_t index)
{
	return index < r->strtab_size ? r->strtab + index : NULL;
}

static int read_phdrs(struct reader *r, struct object *o)
{
	if (elf_getphdrnum(r->elf, &r->n_phdrs) != 0 || r->n_phdrs > MAX_PHDRS)
		return bad(r, "program headers cannot be read");
	r->phdrs = calloc(r->n_phdrs + 1, sizeof(*r->phdrs));
	if (!r->phdrs)
		return -ENOMEM;
	for (size_t i = 0; i < r->n_phdrs; i++) {
		GElf_Phdr *p = &r->phdrs[i];

		if (!gelf_getphdr(r->elf, (int)i, p))
			return bad(r, "a program header is outside the file");
		if (p->p_type != PT_INTERP || o->interp)
			continue;
		if (p->p_filesz < 2 || p->p_filesz > IMG_PATH_MAX || p->p_offset > r->size ||
		    p->p_filesz > r->size - p->p_offset)
			return bad(r, "PT_INTERP is outside the file");
		o->interp = strndup((const char *)r->bytes + p->p_offset, p->p_filesz);
		if (!o->interp)
			return -ENOMEM;
		o->pub.interp = o->interp;
	}
	return 0;
}

/* The dynamic section: from the program header, else nothing. */
static Elf_Data *dynamic_data(struct reader *r, size_t *ret_n)
{
	for (size_t i = 0; i < r->n_phdrs; i++) {
		const GElf_Phdr *p = &r->phdrs[i];
		size_t entry = gelf_fsize(r->elf, ELF_T_DYN, 1, EV_CURRENT);

		if (p->p_type != PT_DYNAMIC || entry == 0)
			continue;
		*ret_n = p->p_filesz / entry;
		if (*ret_n == 0 || *ret_n > MAX_DYN || p->p_offset > r->size || p->p_filesz > r->size - p->p_offset)
			return NULL;
		return elf_getdata_rawchunk(r->elf, (int64_t)p->p_offset, *ret_n * entry, ELF_T_DYN);
	}
	*ret_n = 0;
	return NULL;
}

static int read_strtab(struct reader *r, struct object *o, uint64_t addr, uint64_t size)
{
	uint64_t offset;

	if (size == 0 || !to_offset(r, addr, size, &offset))
		return bad(r, "DT_STRTAB is outside the file");
	o->strtab = malloc(size + 1);
	if (!o->strtab)
		return -ENOMEM;
	memcpy(o->strtab, r->bytes + offset, size);
	o->strtab[size] = 0;
	r->strtab = o->strtab;
	r->strtab_size = size;
	return 0;
}

static void note_flags(struct img_elf *e, const GElf_Dyn *d)
{
	if (d->d_tag == DT_BIND_NOW || (d->d_tag == DT_FLAGS && (d->d_un.d_val & DF_BIND_NOW)))
		e->binds_now = true;
	if (d->d_tag == DT_FLAGS_1 && (d->d_un.d_val & DF_1_NOW))
		e->binds_now = true;
}

static void note_address(struct reader *r, const GElf_Dyn *d)
{
	switch (d->d_tag) {
	case DT_SYMTAB:
		r->symtab = d->d_un.d_ptr;
		break;
	case DT_HASH:
		r->hash = d->d_un.d_ptr;
		break;
	case DT_GNU_HASH:
		r->gnu_hash = d->d_un.d_ptr;
		break;
	case DT_VERSYM:
		r->versym = d->d_un.d_ptr;
		break;
	case DT_VERDEF:
		r->verdef = d->d_un.d_ptr;
		break;
	case DT_VERDEFNUM:
		r->n_verdef = d->d_un.d_val;
		break;
	case DT_VERNEED:
		r->verneed = d->d_un.d_ptr;
		break;
	case DT_VERNEEDNUM:
		r->n_verneed = d->d_un.d_val;
		break;
	default:
		break;
	}
}

/* Names need the string table, which may come after them: two passes over the entries. */
static int read_dynamic(struct reader *r, struct object *o)
{
	struct img_elf *e = &o->pub;
	size_t n, n_needed = 0;
	Elf_Data *data = dynamic_data(r, &n);
	uint64_t strtab = 0, strtab_size = 0;
	GElf_Dyn d;
	int rc;

	if (!data)
		return n == 0 ? 0 : bad(r, "PT_DYNAMIC is outside the file");
	e->is_dynamic = true;
	for (size_t i = 0; i < n && gelf_getdyn(data, (int)i, &d) && d.d_tag != DT_NULL; i++) {
		n_needed += d.d_tag == DT_NEEDED;
		if (d.d_tag == DT_STRTAB)
			strtab = d.d_un.d_ptr;
		else if (d.d_tag == DT_STRSZ)
			strtab_size = d.d_un.d_val;
		note_flags(e, &d);
		note_address(r, &d);
	}
	if (strtab == 0)
		return n_needed ? bad(r, "DT_NEEDED without DT_STRTAB") : 0;
	rc = read_strtab(r, o, strtab, strtab_size);
	if (rc < 0)
		return rc;
	e->needed = calloc(n_needed + 1, sizeof(*e->needed));
	if (!e->needed)
		return -ENOMEM;
	for (size_t i = 0; i < n && gelf_getdyn(data, (int)i, &d) && d.d_tag != DT_NULL; i++) {
		const char *s;

		if (d.d_tag != DT_NEEDED && d.d_tag != DT_SONAME && d.d_tag != DT_RPATH && d.d_tag != DT_RUNPATH)
			continue;
		s = string_at(r, d.d_un.d_val);
		if (!s)
			return bad(r, "a name of the dynamic section is outside DT_STRTAB");
		if (d.d_tag == DT_NEEDED)
			e->needed[e->n_needed++] = s;
		else if (d.d_tag == DT_SONAME)
			e->soname = s;
		else if (d.d_tag == DT_RPATH)
			e->rpath = s;
		else
			e->runpath = s;
	}
	return 0;
}

static int name_version(struct reader *r, size_t index, const char *name)
{
	index &= ~(size_t)VERSION_HIDDEN;
	if (index >= r->n_version_names) {
		const char **more = reallocarray(r->version_names, index + 16, sizeof(*more));

		if (!more)
			return -ENOMEM;
		memset(more + r->n_version_names, 0, (index + 16 - r->n_version_names) * sizeof(*more));
		r->version_names = more;
		r->n_version_names = index + 16;
	}
	r->version_names[index] = name;
	return 0;
}

/* .gnu.version_d: a list of records, each with auxiliary records whose first is the name. */
static int read_verdef(struct reader *r, struct img_elf *e)
{
	uint64_t room = room_at(r, r->verdef), at = 0, offset;
	Elf_Data *data;
	GElf_Verdef def;
	GElf_Verdaux aux;

	if (r->verdef == 0 || r->n_verdef == 0)
		return 0;
	if (room == 0 || r->n_verdef > MAX_VERSIONS || !to_offset(r, r->verdef, room, &offset))
		return bad(r, "DT_VERDEF is outside the file");
	data = elf_getdata_rawchunk(r->elf, (int64_t)offset, room, ELF_T_VDEF);
	if (!data)
		return bad(r, "DT_VERDEF cannot be read");
	e->versions = calloc(r->n_verdef, sizeof(*e->versions));
	if (!e->versions)
		return -ENOMEM;
	for (uint64_t i = 0; i < r->n_verdef; i++) {
		const char *name;
		int rc;

		if (at > INT32_MAX || !gelf_getverdef(data, (int)at, &def) || def.vd_aux > room - at ||
		    !gelf_getverdaux(data, (int)(at + def.vd_aux), &aux))
			return bad(r, "DT_VERDEF: a record is outside the file");
		name = string_at(r, aux.vda_name);
		if (!name)
			return bad(r, "DT_VERDEF: a name is outside DT_STRTAB");
		e->versions[e->n_versions++] = name;
		rc = (def.vd_flags & VER_FLG_BASE) ? 0 : name_version(r, def.vd_ndx, name);
		if (rc < 0)
			return rc;
		if (def.vd_next == 0)
			break;
		if (def.vd_next > room - at)
			return bad(r, "DT_VERDEF: a record is outside the file");
		at += def.vd_next;
	}
	return 0;
}

static int add_needed_version(struct reader *r, struct img_elf *e, const char *library, const GElf_Vernaux *aux)
{
	struct img_elf_needed_version *more;
	const char *version = string_at(r, aux->vna_name);

	if (!version)
		return bad(r, "DT_VERNEED: a name is outside DT_STRTAB");
	if (e->n_needed_versions >= MAX_VERSIONS)
		return bad(r, "DT_VERNEED: too many versions");
	if ((e->n_needed_versions & (e->n_needed_versions + 1)) == 0) {
		more = reallocarray(e->needed_versions, 2 * e->n_needed_versions + 2, sizeof(*more));
		if (!more)
			return -ENOMEM;
		e->needed_versions = more;
	}
	e->needed_versions[e->n_needed_versions++] =
	        (struct img_elf_needed_version){ library, version, (aux->vna_flags & VER_FLG_WEAK) != 0 };
	return name_version(r, aux->vna_other, version);
}

/* .gnu.version_r: per library a record with a list of versions. */
static int read_verneed(struct reader *r, struct img_elf *e)
{
	uint64_t room = room_at(r, r->verneed), at = 0;
	Elf_Data *data;
	uint64_t offset;
	GElf_Verneed need;
	GElf_Vernaux aux;

	if (r->verneed == 0 || r->n_verneed == 0)
		return 0;
	if (room == 0 || r->n_verneed > MAX_VERSIONS || !to_offset(r, r->verneed, room, &offset))
		return bad(r, "DT_VERNEED is outside the file");
	data = elf_getdata_rawchunk(r->elf, (int64_t)offset, room, ELF_T_VNEED);
	if (!data)
		return bad(r, "DT_VERNEED cannot be read");
	for (uint64_t i = 0; i < r->n_verneed; i++) {
		uint64_t aux_at;
		const char *library;

		if (at > INT32_MAX || !gelf_getverneed(data, (int)at, &need) || need.vn_aux > room - at)
			return bad(r, "DT_VERNEED: a record is outside the file");
		library = string_at(r, need.vn_file);
		if (!library)
			return bad(r, "DT_VERNEED: a name is outside DT_STRTAB");
		aux_at = at + need.vn_aux;
		for (uint32_t k = 0; k < need.vn_cnt; k++) {
			int rc;

			if (aux_at > INT32_MAX || !gelf_getvernaux(data, (int)aux_at, &aux))
				return bad(r, "DT_VERNEED: a record is outside the file");
			rc = add_needed_version(r, e, library, &aux);
			if (rc < 0)
				return rc;
			if (aux.vna_next == 0 || aux.vna_next > room - aux_at)
				break;
			aux_at += aux.vna_next;
		}
		if (need.vn_next == 0 || need.vn_next > room - at)
			break;
		at += need.vn_next;
	}
	return 0;
}

/* The symbol table says nowhere how long it is; the hash tables do, the newer one only for what it holds. */
static uint64_t gnu_hash_count(struct reader *r)
{
	uint64_t word = gelf_fsize(r->elf, ELF_T_ADDR, 1, EV_CURRENT), offset, max = 0;
	Elf_Data *head = chunk(r, r->gnu_hash, 16, ELF_T_WORD), *buckets, *chain;
	uint32_t w[4];

	if (!head)
		return 0;
	memcpy(w, head->d_buf, sizeof(w));
	offset = r->gnu_hash + 16 + (uint64_t)w[2] * word;
	buckets = chunk(r, offset, (uint64_t)w[0] * 4, ELF_T_WORD);
	if (!buckets)
		return 0;
	for (uint32_t i = 0; i < w[0]; i++) {
		uint32_t b = ((const uint32_t *)buckets->d_buf)[i];

		if (b > max)
			max = b;
	}
	if (max < w[1])
		return w[1];
	offset += (uint64_t)w[0] * 4 + (max - w[1]) * 4;
	for (; max < MAX_SYMBOLS; max++, offset += 4) {
		chain = chunk(r, offset, 4, ELF_T_WORD);
		if (!chain || (*(const uint32_t *)chain->d_buf & 1))
			return max + 1;
	}
	return max;
}

static uint64_t symbol_count(struct reader *r, uint64_t entry, uint64_t strtab)
{
	Elf_Data *hash = r->hash ? chunk(r, r->hash, 8, ELF_T_WORD) : NULL;
	uint64_t n = 0, between;

	if (hash)
		return ((const uint32_t *)hash->d_buf)[1];
	if (r->gnu_hash)
		n = gnu_hash_count(r);
	/* A table of undefined symbols alone has an empty hash; linkers put the strings right behind the symbols. */
	between = strtab > r->symtab ? (strtab - r->symtab) / entry : 0;
	return n > between ? n : between;
}

static const char *symbol_version(const struct reader *r, Elf_Data *versym, size_t i, bool *ret_hidden)
{
	GElf_Versym v;

	*ret_hidden = false;
	if (!versym || !gelf_getversym(versym, (int)i, &v))
		return NULL;
	*ret_hidden = (v & VERSION_HIDDEN) != 0;
	v &= (GElf_Versym)~VERSION_HIDDEN;
	return v > VER_NDX_GLOBAL && v < r->n_version_names ? r->version_names[v] : NULL;
}

static int read_symbols(struct reader *r, struct img_elf *e, uint64_t strtab)
{
	uint64_t entry = gelf_fsize(r->elf, ELF_T_SYM, 1, EV_CURRENT), n, room;
	Elf_Data *table, *versym = NULL;
	GElf_Sym s;

	if (r->symtab == 0 || entry == 0)
		return 0;
	n = symbol_count(r, entry, strtab);
	room = room_at(r, r->symtab) / entry;
	n = n > room ? room : n;
	if (n > MAX_SYMBOLS)
		return bad(r, "too many dynamic symbols");
	table = chunk(r, r->symtab, n * entry, ELF_T_SYM);
	if (n == 0 || !table)
		return n == 0 ? 0 : bad(r, "DT_SYMTAB is outside the file");
	if (r->versym)
		versym = chunk(r, r->versym, n * 2, ELF_T_HALF);
	e->symbols = calloc(n, sizeof(*e->symbols));
	if (!e->symbols)
		return -ENOMEM;
	for (uint64_t i = 1; i < n && gelf_getsym(table, (int)i, &s); i++) {
		struct img_elf_symbol *sym = &e->symbols[e->n_symbols];
		const char *name = string_at(r, s.st_name);
		bool hidden;

		if (GELF_ST_BIND(s.st_info) == STB_LOCAL || !name || !*name)
			continue;
		sym->name = name;
		sym->version = symbol_version(r, versym, i, &hidden);
		sym->type = GELF_ST_TYPE(s.st_info);
		sym->binding = GELF_ST_BIND(s.st_info);
		sym->is_defined = s.st_shndx != SHN_UNDEF;
		sym->is_default = sym->is_defined && !hidden;
		sym->size = s.st_size;
		e->n_symbols++;
	}
	return 0;
}

static uint64_t strtab_address(struct reader *r)
{
	size_t n;
	Elf_Data *data = dynamic_data(r, &n);
	GElf_Dyn d;

	for (size_t i = 0; data && i < n && gelf_getdyn(data, (int)i, &d) && d.d_tag != DT_NULL; i++) {
		if (d.d_tag == DT_STRTAB)
			return d.d_un.d_ptr;
	}
	return 0;
}

static int read_all(struct reader *r, struct object *o, unsigned int parts)
{
	GElf_Ehdr ehdr;
	int rc;

	if (elf_kind(r->elf) != ELF_K_ELF || !gelf_getehdr(r->elf, &ehdr))
		return bad(r, "the header cannot be read");
	o->pub.elf_class = ehdr.e_ident[EI_CLASS];
	o->pub.data = ehdr.e_ident[EI_DATA];
	o->pub.machine = ehdr.e_machine;
	o->pub.type = ehdr.e_type;
	rc = read_phdrs(r, o);
	if (rc == 0)
		rc = read_dynamic(r, o);
	if (rc == 0 && (parts & IMG_ELF_SYMBOLS) && r->strtab)
		rc = read_verdef(r, &o->pub);
	if (rc == 0 && (parts & IMG_ELF_SYMBOLS) && r->strtab)
		rc = read_verneed(r, &o->pub);
	if (rc == 0 && (parts & IMG_ELF_SYMBOLS) && r->strtab)
		rc = read_symbols(r, &o->pub, strtab_address(r));
	return rc;
}

static pthread_once_t libelf_once = PTHREAD_ONCE_INIT;

static void libelf_start(void)
{
	(void)elf_version(EV_CURRENT);
}

int img_elf_parse(const void *bytes, size_t size, const char *name, unsigned int parts, struct img_elf **ret_elf,
                  struct err *err)
{
	struct reader r = { .name = name, .bytes = bytes, .size = size, .err = err };
	struct object *o;
	int rc;

	if (size < EI_NIDENT || memcmp(bytes, ELFMAG, SELFMAG) != 0)
		return err_set(err, -ENOEXEC, "%s: not an ELF file", name);
	(void)pthread_once(&libelf_once, libelf_start);
	o = calloc(1, sizeof(*o));
	if (!o)
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	r.elf = elf_memory((char *)(uintptr_t)bytes, size); /* read only: nothing is updated through it */
	rc = r.elf ? read_all(&r, o, parts) : bad(&r, "libelf refuses it");
	(void)elf_end(r.elf);
	free(r.phdrs);
	free(r.version_names);
	if (rc < 0) {
		if (rc == -ENOMEM)
			(void)err_set(err, rc, "%s: out of memory", name);
		img_elf_free(&o->pub);
		return rc;
	}
	*ret_elf = &o->pub;
	return 0;
}

void img_elf_free(struct img_elf *e)
{
	struct object *o = (struct object *)e;

	if (!o)
		return;
	free(e->needed);
	free(e->versions);
	free(e->needed_versions);
	free(e->symbols);
	free(o->strtab);
	free(o->interp);
	free(o);
}
