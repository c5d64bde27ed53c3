/* Packages out of headers: text, dependencies, files. Left out: source packages and drpms; headers of rpm 3 without
 * base names are read by their full names. */
#include "rpm_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *string_or_empty(const struct img_rpm_hdr *h, uint32_t tag)
{
	const char *s = img_rpm_hdr_string(h, tag);

	return s ? s : "";
}

/* Walks the strings of an entry: returns the current one and steps on. */
static const char *next_string(const char **cursor)
{
	const char *s = *cursor;

	*cursor = s + strlen(s) + 1;
	return s;
}

/* ---- Dependencies ----------------------------------------------------------------------------------------- */

static int fill_deps(struct img_rpm *p, const struct img_rpm_hdr *h, enum img_rpm_dep_kind kind, struct err *err)
{
	static const struct {
		uint32_t name, version, flags;
		const char *what;
	} tags[IMG_RPM_N_DEP_KINDS] = {
		[IMG_RPM_REQUIRES] = { RPM_TAG_REQUIRENAME, RPM_TAG_REQUIREVERSION, RPM_TAG_REQUIREFLAGS, "requires" },
		[IMG_RPM_PROVIDES] = { RPM_TAG_PROVIDENAME, RPM_TAG_PROVIDEVERSION, RPM_TAG_PROVIDEFLAGS, "provides" },
		[IMG_RPM_RECOMMENDS] = { RPM_TAG_RECOMMENDNAME, RPM_TAG_RECOMMENDVERSION, RPM_TAG_RECOMMENDFLAGS,
		                         "recommends" },
		[IMG_RPM_CONFLICTS] = { RPM_TAG_CONFLICTNAME, RPM_TAG_CONFLICTVERSION, RPM_TAG_CONFLICTFLAGS,
		                        "conflicts" },
		[IMG_RPM_OBSOLETES] = { RPM_TAG_OBSOLETENAME, RPM_TAG_OBSOLETEVERSION, RPM_TAG_OBSOLETEFLAGS,
		                        "obsoletes" },
	};
	struct img_rpm_entry names, versions, flags;
	const char *name, *version;
	struct img_rpm_dep *deps;
	int r;

	if (!img_rpm_hdr_find(h, tags[kind].name, &names))
		return 0;
	if (names.type != TYPE_STRINGS)
		return err_set(err, -EBADMSG, "%s: not a list of names", tags[kind].what);
	r = img_rpm_hdr_array(h, tags[kind].version, true, names.count, &versions, tags[kind].what, err);
	if (r == 0)
		r = img_rpm_hdr_array(h, tags[kind].flags, false, names.count, &flags, tags[kind].what, err);
	if (r < 0)
		return r;

	deps = calloc(names.count, sizeof(*deps));
	if (!deps)
		return -ENOMEM;
	name = (const char *)h->store + names.offset;
	version = (const char *)h->store + versions.offset;
	for (uint32_t i = 0; i < names.count; i++) {
		deps[i].name = next_string(&name);
		deps[i].version = versions.count ? next_string(&version) : "";
		deps[i].flags = flags.count ? (uint32_t)img_rpm_hdr_integer(h, &flags, i) : 0;
	}
	p->deps[kind] = deps;
	p->n_deps[kind] = names.count;
	return 0;
}

static int kind_of_class(uint32_t class)
{
	switch (class) {
	case 'R':
		return IMG_RPM_REQUIRES;
	case 'P':
		return IMG_RPM_PROVIDES;
	case 'r':
		return IMG_RPM_RECOMMENDS;
	case 'C':
		return IMG_RPM_CONFLICTS;
	case 'O':
		return IMG_RPM_OBSOLETES;
	default:
		return -1; /* suggests, supplements, enhances: not read */
	}
}

/* rpmbuild numbers the dependencies of files first and adds "rpmlib(PayloadIsZstd)" to the sorted list afterwards, so
 * that everything behind it is off by one ("rtld(GNU_HASH)" mostly). No file needs a payload format: a file that points
 * there tells that this happened. Returns the index from which one is to be added; UINT32_MAX: none. */
static uint32_t shifted_from(const struct img_rpm *p, const struct img_rpm_hdr *h, const struct img_rpm_entry *dict)
{
	for (uint32_t z = 0; z < p->n_deps[IMG_RPM_REQUIRES]; z++) {
		if (strncmp(p->deps[IMG_RPM_REQUIRES][z].name, "rpmlib(PayloadIs", 16) != 0)
			continue;
		for (uint32_t i = 0; i < dict->count; i++) {
			if (img_rpm_hdr_integer(h, dict, i) == ((uint32_t)'R' << 24 | z))
				return z;
		}
	}
	return UINT32_MAX;
}

/* FILEDEPENDSX and FILEDEPENDSN give each file a range of DEPENDSDICT; a word of that is a class and an index. */
static int fill_file_deps(struct img_rpm *p, const struct img_rpm_hdr *h, struct err *err)
{
	struct img_rpm_entry first, count, dict;
	uint64_t total = 0;
	uint32_t *out, shift;
	int r;

	r = img_rpm_hdr_array(h, RPM_TAG_FILEDEPENDSX, false, p->n_files, &first, "file dependencies", err);
	if (r == 0)
		r = img_rpm_hdr_array(h, RPM_TAG_FILEDEPENDSN, false, p->n_files, &count, "file dependencies", err);
	if (r < 0)
		return r;
	if (!first.count || !count.count || !img_rpm_hdr_find(h, RPM_TAG_DEPENDSDICT, &dict))
		return 0;
	if (dict.type != TYPE_INT32)
		return err_set(err, -EBADMSG, "dependency dictionary: type %u", dict.type);

	for (size_t i = 0; i < p->n_files; i++) {
		const uint64_t x = img_rpm_hdr_integer(h, &first, (uint32_t)i),
		               n = img_rpm_hdr_integer(h, &count, (uint32_t)i);

		if (n && (x >= dict.count || n > dict.count - x))
			return err_set(err, -EBADMSG, "%s: its dependencies are outside the dictionary",
			               p->files[i].path);
		total += n;
	}
	if (total > IMG_RPM_MAX_HEADER / sizeof(*out))
		return err_set(err, -EBADMSG, "file dependencies: too many");
	out = malloc((total ? total : 1) * sizeof(*out));
	if (!out)
		return -ENOMEM;
	((struct img_rpm_priv *)p->priv)->file_deps = out;
	shift = shifted_from(p, h, &dict);

	for (size_t i = 0; i < p->n_files; i++) {
		const uint32_t x = (uint32_t)img_rpm_hdr_integer(h, &first, (uint32_t)i);
		const uint32_t n = (uint32_t)img_rpm_hdr_integer(h, &count, (uint32_t)i);

		p->files[i].deps = out;
		for (uint32_t k = 0; k < n; k++) {
			const uint32_t word = (uint32_t)img_rpm_hdr_integer(h, &dict, x + k);
			const int kind = kind_of_class(word >> 24);
			const uint32_t index =
			        (word & 0xffffff) + (kind == IMG_RPM_REQUIRES && (word & 0xffffff) >= shift);

			if (kind >= 0 && index < p->n_deps[kind])
				*out++ = (uint32_t)kind << 24 | index;
		}
		p->files[i].n_deps = (uint32_t)(out - p->files[i].deps);
	}
	return 0;
}

/* ---- Files ------------------------------------------------------------------------------------------------ */

/* A name that no file system takes is refused, too. */
static bool path_is_usable(const char *path)
{
	for (const char *c = path; *c; c += 1 + strcspn(c + 1, "/")) {
		if (strcspn(c + 1, "/") > NAME_MAX)
			return false;
	}
	return img_path_is_normal(path);
}

/* Joins folder and name of file i at *out, which has room; steps on. */
static int put_path(struct img_rpm *p, size_t i, const char *dir, const char *base, char **out, struct err *err)
{
	const size_t dir_len = strlen(dir), base_len = strlen(base);
	char *path = *out;

	memcpy(path, dir, dir_len);
	memcpy(path + dir_len, base, base_len + 1);
	if (!path_is_usable(path))
		return err_set(err, -EBADMSG, "file %zu: \"%.200s\" is not an absolute, normal path", i, path);
	p->files[i].path = path;
	*out = path + dir_len + base_len + 1;
	return 0;
}

/* The strings of an entry as an array of pointers. */
static const char **string_array(const struct img_rpm_hdr *h, const struct img_rpm_entry *e)
{
	const char **a = calloc(e->count, sizeof(*a));
	const char *cursor = (const char *)h->store + e->offset;

	for (uint32_t i = 0; a && i < e->count; i++)
		a[i] = next_string(&cursor);
	return a;
}

static int fill_paths(struct img_rpm *p, const struct img_rpm_hdr *h, const struct img_rpm_entry *bases,
                      struct err *err)
{
	struct img_rpm_priv *priv = p->priv;
	const char *base = (const char *)h->store + bases->offset;
	const char **dirs = NULL;
	struct img_rpm_entry indexes, names;
	size_t bytes = 0;
	char *out;
	int r = 0;

	r = img_rpm_hdr_array(h, RPM_TAG_DIRINDEXES, false, bases->count, &indexes, "folder indexes", err);
	if (r < 0)
		return r;
	if (!img_rpm_hdr_find(h, RPM_TAG_DIRNAMES, &names) || names.type != TYPE_STRINGS || !indexes.count)
		return err_set(err, -EBADMSG, "files without folders");
	dirs = string_array(h, &names);
	if (!dirs)
		return -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < bases->count; i++) {
		const uint64_t d = img_rpm_hdr_integer(h, &indexes, i);

		if (d >= names.count)
			r = err_set(err, -EBADMSG, "file %u: folder %llu of %u", i, (unsigned long long)d, names.count);
		else
			bytes += strlen(dirs[d]) + strlen(next_string(&base)) + 1;
		if (bytes > IMG_RPM_MAX_HEADER)
			r = err_set(err, -EBADMSG, "paths of more than %u bytes", IMG_RPM_MAX_HEADER);
	}
	if (r == 0) {
		priv->paths = out = malloc(bytes + 1);
		r = out ? 0 : -ENOMEM;
	}
	base = (const char *)h->store + bases->offset;
	for (uint32_t i = 0; r == 0 && i < bases->count; i++)
		r = put_path(p, i, dirs[img_rpm_hdr_integer(h, &indexes, i)], next_string(&base), &out, err);
	free(dirs);
	return r;
}

static int fill_old_paths(struct img_rpm *p, const struct img_rpm_hdr *h, const struct img_rpm_entry *names,
                          struct err *err)
{
	struct img_rpm_priv *priv = p->priv;
	const char *name = (const char *)h->store + names->offset, *last = name;
	char *out;
	int r = 0;

	for (uint32_t i = 0; i < names->count; i++)
		(void)next_string(&last);
	priv->paths = out = malloc((size_t)(last - name) + 1);
	if (!out)
		return -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < names->count; i++)
		r = put_path(p, i, "", next_string(&name), &out, err);
	return r;
}

enum { COL_SIZE, COL_LONGSIZE, COL_MODE, COL_RDEV, COL_MTIME, COL_FLAGS, COL_STATE, N_COLS };
enum { TEXT_DIGEST, TEXT_TARGET, TEXT_USER, TEXT_GROUP, TEXT_CAPS, TEXT_LANGS, N_TEXTS };

static int fill_attributes(struct img_rpm *p, const struct img_rpm_hdr *h, struct err *err)
{
	static const struct {
		uint32_t tag;
		const char *what;
	} cols[N_COLS] = { [COL_SIZE] = { RPM_TAG_FILESIZES, "file sizes" },
		           [COL_LONGSIZE] = { RPM_TAG_LONGFILESIZES, "long file sizes" },
		           [COL_MODE] = { RPM_TAG_FILEMODES, "file modes" },
		           [COL_RDEV] = { RPM_TAG_FILERDEVS, "device numbers" },
		           [COL_MTIME] = { RPM_TAG_FILEMTIMES, "file times" },
		           [COL_FLAGS] = { RPM_TAG_FILEFLAGS, "file flags" },
		           [COL_STATE] = { RPM_TAG_FILESTATES, "file states" } },
	  texts[N_TEXTS] = { [TEXT_DIGEST] = { RPM_TAG_FILEDIGESTS, "file digests" },
		             [TEXT_TARGET] = { RPM_TAG_FILELINKTOS, "link targets" },
		             [TEXT_USER] = { RPM_TAG_FILEUSERNAME, "owners" },
		             [TEXT_GROUP] = { RPM_TAG_FILEGROUPNAME, "groups" },
		             [TEXT_CAPS] = { RPM_TAG_FILECAPS, "capabilities" },
		             [TEXT_LANGS] = { RPM_TAG_FILELANGS, "languages" } };
	struct img_rpm_entry col[N_COLS], text[N_TEXTS];
	const char *cursor[N_TEXTS];
	int r = 0;

	for (int k = 0; r == 0 && k < N_COLS; k++)
		r = img_rpm_hdr_array(h, cols[k].tag, false, p->n_files, &col[k], cols[k].what, err);
	for (int k = 0; r == 0 && k < N_TEXTS; k++) {
		r = img_rpm_hdr_array(h, texts[k].tag, true, p->n_files, &text[k], texts[k].what, err);
		cursor[k] = (const char *)h->store + text[k].offset;
	}
	if (r < 0)
		return r;
	if (!col[COL_MODE].count)
		return err_set(err, -EBADMSG, "files without modes");

	for (size_t i = 0; i < p->n_files; i++) {
		struct img_rpm_file *f = &p->files[i];
		uint64_t v[N_COLS];
		const char *t[N_TEXTS];

		for (int k = 0; k < N_COLS; k++)
			v[k] = col[k].count ? img_rpm_hdr_integer(h, &col[k], (uint32_t)i) : 0;
		for (int k = 0; k < N_TEXTS; k++)
			t[k] = text[k].count ? next_string(&cursor[k]) : "";
		f->type = img_type_of_mode(v[COL_MODE]);
		f->mode = (uint32_t)v[COL_MODE] & 07777;
		f->size = col[COL_LONGSIZE].count ? v[COL_LONGSIZE] : v[COL_SIZE];
		f->mtime = (uint32_t)v[COL_MTIME];
		f->flags = (uint32_t)v[COL_FLAGS];
		f->rdev = (uint32_t)v[COL_RDEV];
		f->state = (enum img_rpm_state)v[COL_STATE];
		f->digest = t[TEXT_DIGEST];
		f->target = t[TEXT_TARGET];
		f->user = t[TEXT_USER];
		f->group = t[TEXT_GROUP];
		f->caps = t[TEXT_CAPS];
		f->langs = t[TEXT_LANGS];
	}
	return 0;
}

struct inode {
	uint64_t device, inode;
	size_t file;
};

static int compare_inodes(const void *a, const void *b)
{
	const struct inode *x = a, *y = b;

	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return x->file < y->file ? -1 : x->file > y->file;
}

static int fill_link_groups(struct img_rpm *p, const struct img_rpm_hdr *h, struct err *err)
{
	struct img_rpm_entry devices, inodes;
	struct inode *list;
	size_t n = 0;
	int r;

	r = img_rpm_hdr_array(h, RPM_TAG_FILEDEVICES, false, p->n_files, &devices, "file devices", err);
	if (r == 0)
		r = img_rpm_hdr_array(h, RPM_TAG_FILEINODES, false, p->n_files, &inodes, "file inodes", err);
	if (r < 0 || !inodes.count)
		return r;
	list = calloc(p->n_files, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < p->n_files; i++) {
		if (p->files[i].type != IMG_FILE || p->files[i].flags & IMG_RPMFILE_GHOST)
			continue;
		list[n].device = devices.count ? img_rpm_hdr_integer(h, &devices, (uint32_t)i) : 0;
		list[n].inode = img_rpm_hdr_integer(h, &inodes, (uint32_t)i);
		list[n++].file = i;
	}
	qsort(list, n, sizeof(*list), compare_inodes);
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && list[end].device == list[i].device && list[end].inode == list[i].inode;
		     end++)
			;
		for (size_t k = i; end - i > 1 && k < end; k++)
			p->files[list[k].file].link_group = (uint32_t)list[i].file + 1;
	}
	free(list);
	return 0;
}

static int fill_files(struct img_rpm *p, const struct img_rpm_hdr *h, struct err *err)
{
	struct img_rpm_entry names;
	bool is_old = false;
	int r;

	if (!img_rpm_hdr_find(h, RPM_TAG_BASENAMES, &names)) {
		if (!img_rpm_hdr_find(h, RPM_TAG_OLDFILENAMES, &names))
			return 0; /* a package without files */
		is_old = true;
	}
	if (names.type != TYPE_STRINGS || names.count > IMG_RPM_MAX_FILES)
		return err_set(err, -EBADMSG, "file names: type %u, %u of them", names.type, names.count);
	p->files = calloc(names.count, sizeof(*p->files));
	if (!p->files)
		return -ENOMEM;
	p->n_files = names.count;
	r = is_old ? fill_old_paths(p, h, &names, err) : fill_paths(p, h, &names, err);
	if (r == 0)
		r = fill_attributes(p, h, err);
	if (r == 0)
		r = fill_link_groups(p, h, err);
	return r < 0 ? r : fill_file_deps(p, h, err);
}

/* ---- The package ------------------------------------------------------------------------------------------ */

/* A scriptlet is there when its text or, for `-p PROGRAM` without text, its program is. */
static uint32_t scriptlets(const struct img_rpm_hdr *h)
{
	static const struct {
		uint32_t text, program;
		enum img_rpm_scriptlet kind;
	} tags[] = {
		{ RPM_TAG_PREIN, RPM_TAG_PREINPROG, IMG_RPM_PRE_INSTALL },
		{ RPM_TAG_POSTIN, RPM_TAG_POSTINPROG, IMG_RPM_POST_INSTALL },
		{ RPM_TAG_PREUN, RPM_TAG_PREUNPROG, IMG_RPM_PRE_REMOVE },
		{ RPM_TAG_POSTUN, RPM_TAG_POSTUNPROG, IMG_RPM_POST_REMOVE },
		{ RPM_TAG_PRETRANS, RPM_TAG_PRETRANSPROG, IMG_RPM_PRE_TRANS },
		{ RPM_TAG_POSTTRANS, RPM_TAG_POSTTRANSPROG, IMG_RPM_POST_TRANS },
		{ RPM_TAG_TRIGGERNAME, RPM_TAG_TRIGGERNAME, IMG_RPM_TRIGGER },
		{ RPM_TAG_FILETRIGGERNAME, RPM_TAG_TRANSFILETRIGGERNAME, IMG_RPM_FILE_TRIGGER },
	};
	uint32_t mask = 0;

	for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
		if (img_rpm_hdr_has(h, tags[i].text) || img_rpm_hdr_has(h, tags[i].program))
			mask |= 1u << tags[i].kind;
	}
	return mask;
}

/* Names go into file names and commands of people: one word, no control bytes. */
static bool is_word(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++) {
		if ((unsigned char)*s <= ' ' || *s == '/' || *s == 0x7f)
			return false;
	}
	return true;
}

int img_rpm_fill(struct img_rpm *p, struct err *err)
{
	struct img_rpm_hdr h;
	int r;

	r = img_rpm_hdr_init(&h, p->header, p->header_size, "package header", err);
	if (r < 0)
		return r;
	p->name = string_or_empty(&h, RPM_TAG_NAME);
	p->version = string_or_empty(&h, RPM_TAG_VERSION);
	p->release = string_or_empty(&h, RPM_TAG_RELEASE);
	/* Keys in a database have no architecture; everything else does. */
	p->arch = img_rpm_hdr_string(&h, RPM_TAG_ARCH) ? string_or_empty(&h, RPM_TAG_ARCH) : "noarch";
	if (!is_word(p->name) || !is_word(p->version) || !is_word(p->release) || !is_word(p->arch))
		return err_set(err, -EBADMSG, "package header: name, version, release or arch is missing or no word");
	p->has_epoch = img_rpm_hdr_has(&h, RPM_TAG_EPOCH);
	p->epoch = (uint32_t)img_rpm_hdr_number(&h, RPM_TAG_EPOCH);
	p->license = string_or_empty(&h, RPM_TAG_LICENSE);
	p->summary = string_or_empty(&h, RPM_TAG_SUMMARY);
	p->vendor = string_or_empty(&h, RPM_TAG_VENDOR);
	p->url = string_or_empty(&h, RPM_TAG_URL);
	p->source_rpm = string_or_empty(&h, RPM_TAG_SOURCERPM);
	p->installed_size = img_rpm_hdr_has(&h, RPM_TAG_LONGSIZE) ? img_rpm_hdr_number(&h, RPM_TAG_LONGSIZE)
	                                                          : img_rpm_hdr_number(&h, RPM_TAG_SIZE);
	p->build_time = img_rpm_hdr_number(&h, RPM_TAG_BUILDTIME);
	p->payload_compressor = string_or_empty(&h, RPM_TAG_PAYLOADCOMPRESSOR);
	p->digest_algo =
	        img_rpm_hdr_has(&h, RPM_TAG_FILEDIGESTALGO) ? (int)img_rpm_hdr_number(&h, RPM_TAG_FILEDIGESTALGO) : 1;
	p->scriptlets = scriptlets(&h);
	for (int k = 0; r == 0 && k < IMG_RPM_N_DEP_KINDS; k++)
		r = fill_deps(p, &h, (enum img_rpm_dep_kind)k, err);
	if (r == 0)
		r = fill_files(p, &h, err);
	if (r < 0)
		return err_prefix(err, r, "%s: ", p->name);
	p->is_loaded = true;
	return 0;
}

void img_rpm_unfill(struct img_rpm *p)
{
	struct img_rpm_priv *priv = p->priv;

	for (int k = 0; k < IMG_RPM_N_DEP_KINDS; k++) {
		free(p->deps[k]);
		p->deps[k] = NULL;
		p->n_deps[k] = 0;
	}
	free(p->files);
	p->files = NULL;
	p->n_files = 0;
	free(priv->paths);
	priv->paths = NULL;
	free(priv->file_deps);
	priv->file_deps = NULL;
	p->is_loaded = false;
}

struct img_rpm *img_rpm_new(void)
{
	struct img_rpm *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->priv = calloc(1, sizeof(struct img_rpm_priv));
	if (!p->priv) {
		free(p);
		return NULL;
	}
	p->name = p->version = p->release = p->arch = p->license = p->summary = p->vendor = p->url = p->source_rpm = "";
	p->payload_compressor = "";
	p->index = -1;
	return p;
}

const char *img_rpm_text(struct img_rpm *p, const char *text)
{
	struct img_rpm_priv *priv = p->priv;
	char *copy;

	if (!text || !*text)
		return "";
	if (priv->n_texts == priv->cap_texts) {
		const size_t cap = priv->cap_texts ? priv->cap_texts * 2 : 16;
		char **grown = reallocarray(priv->texts, cap, sizeof(*grown));

		if (!grown)
			return NULL;
		priv->texts = grown;
		priv->cap_texts = cap;
	}
	copy = strdup(text);
	if (copy)
		priv->texts[priv->n_texts++] = copy;
	return copy;
}

void img_rpm_free(struct img_rpm *p)
{
	struct img_rpm_priv *priv;

	if (!p)
		return;
	img_rpm_unfill(p);
	priv = p->priv;
	free(priv->header);
	free(priv->signature);
	free(priv->location);
	free(priv->checksum);
	for (size_t i = 0; i < priv->n_texts; i++)
		free(priv->texts[i]);
	free(priv->texts);
	free(priv);
	free(p);
}

int img_rpm_parse(const void *header, size_t size, struct img_rpm **ret_package, struct err *err)
{
	struct img_rpm *p = img_rpm_new();
	struct img_rpm_priv *priv;
	int r;

	if (!p)
		return -ENOMEM;
	priv = p->priv;
	priv->header = malloc(size ? size : 1);
	if (!priv->header) {
		img_rpm_free(p);
		return -ENOMEM;
	}
	if (size)
		memcpy(priv->header, header, size);
	p->header = priv->header;
	p->header_size = size;
	r = img_rpm_fill(p, err);
	if (r < 0) {
		img_rpm_free(p);
		return r;
	}
	*ret_package = p;
	return 0;
}
