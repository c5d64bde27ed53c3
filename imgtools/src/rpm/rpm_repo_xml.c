/* The XML of repositories, as createrepo_c writes it: repomd.xml (which files there are), primary.xml (packages),
 * filelists.xml (every path of every package). Read in pieces by expat, which also keeps entities from exploding; what
 * is kept in memory between two packages is bounded.
 *
 *   repomd/data[type]/{location[href], checksum[type]}
 *   metadata/package[type=rpm]/{name, arch, version[epoch ver rel], checksum, summary, url, time[build],
 *       size[installed], location[href], format/{license, vendor, sourcerpm, provides|requires|...|/entry, file[type]}}
 *   filelists/package[name arch]/{version[epoch ver rel], file[type]} */
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "rpm_internal.h"

enum { MAX_TEXT = 1u << 20, MAX_DEPTH = 32, MAX_DEPS = 1u << 20 };

enum document { REPOMD, PRIMARY, FILELISTS };

struct img_rpm_xml {
	XML_Parser parser;
	enum document document;
	char *name;
	char *dir;
	struct err *err; /* of the call under way */
	int error;
	unsigned depth;
	struct base_buf text; /* of the element being read */
	char *attribute;      /* of it: the type of a checksum or of a file */

	struct img_rpm_repomd *repomd;
	char data_type[32];

	img_rpm_found found;
	img_rpm_listed listed;
	void *arg;
	struct img_rpm *package;
	bool is_rpm;
	int dep_kind; /* of the list being read, -1: none */
	size_t cap_deps[IMG_RPM_N_DEP_KINDS], cap_files;
};

static void stop(struct img_rpm_xml *x, int error, const char *what)
{
	if (x->error)
		return;
	x->error =
	        err_set(x->err, error, "%s: line %lu: %s", x->name, (unsigned long)XML_GetCurrentLineNumber(x->parser),
	                error == -ENOMEM ? "out of memory" : what);
	(void)XML_StopParser(x->parser, XML_FALSE);
}

static const char *attr(const XML_Char **atts, const char *name)
{
	for (; *atts; atts += 2) {
		if (strcmp(atts[0], name) == 0)
			return atts[1];
	}
	return NULL;
}

static const char *attr_or_empty(const XML_Char **atts, const char *name)
{
	const char *v = attr(atts, name);

	return v ? v : "";
}

/* A copy that the current package owns. */
static const char *keep(struct img_rpm_xml *x, const char *text)
{
	const char *copy = img_rpm_text(x->package, text);

	if (!copy)
		stop(x, -ENOMEM, "");
	return copy ? copy : "";
}

static const char *local_name(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon ? colon + 1 : name;
}

/* A place within the repository: relative, and never above it. */
static bool is_inside(const char *href)
{
	char path[IMG_PATH_MAX];

	return href[0] && href[0] != '/' && !strstr(href, "://") && img_path_normalize(href, path) == 0;
}

static void set_version(struct img_rpm_xml *x, const XML_Char **atts)
{
	struct img_rpm *p = x->package;
	const char *epoch = attr_or_empty(atts, "epoch");

	p->has_epoch = *epoch && strcmp(epoch, "0") != 0;
	p->epoch = (uint32_t)strtoul(epoch, NULL, 10);
	p->version = keep(x, attr_or_empty(atts, "ver"));
	p->release = keep(x, attr_or_empty(atts, "rel"));
}

/* ---- repomd ----------------------------------------------------------------------------------------------- */

static void set_text(struct img_rpm_xml *x, char **slot, const char *text)
{
	free(*slot);
	*slot = strdup(text);
	if (!*slot)
		stop(x, -ENOMEM, "");
}

static void repomd_start(struct img_rpm_xml *x, const char *name, const XML_Char **atts)
{
	const char *href = attr(atts, "href");

	if (strcmp(name, "data") == 0)
		(void)snprintf(x->data_type, sizeof(x->data_type), "%s", attr_or_empty(atts, "type"));
	if (strcmp(name, "checksum") == 0)
		set_text(x, &x->attribute, attr_or_empty(atts, "type"));
	if (strcmp(name, "location") != 0 || !href)
		return;
	if (strcmp(x->data_type, "primary") && strcmp(x->data_type, "filelists"))
		return;
	if (!is_inside(href))
		stop(x, -EBADMSG, "a location outside the repository");
	else
		set_text(x, strcmp(x->data_type, "primary") == 0 ? &x->repomd->primary : &x->repomd->filelists, href);
}

static void repomd_end(struct img_rpm_xml *x, const char *name)
{
	const bool is_primary = strcmp(x->data_type, "primary") == 0;
	char checksum[256];

	if (strcmp(name, "data") == 0)
		x->data_type[0] = 0;
	if (strcmp(name, "checksum") != 0 || !x->attribute || (!is_primary && strcmp(x->data_type, "filelists") != 0))
		return;
	(void)snprintf(checksum, sizeof(checksum), "%s:%s", x->attribute, base_buf_text(&x->text));
	set_text(x, is_primary ? &x->repomd->primary_checksum : &x->repomd->filelists_checksum, checksum);
}

void img_rpm_repomd_done(struct img_rpm_repomd *m)
{
	free(m->primary);
	free(m->primary_checksum);
	free(m->filelists);
	free(m->filelists_checksum);
	memset(m, 0, sizeof(*m));
}

/* ---- primary ---------------------------------------------------------------------------------------------- */

static int list_kind(const char *name)
{
	static const char *const names[IMG_RPM_N_DEP_KINDS] = { "requires", "provides", "recommends", "conflicts",
		                                                "obsoletes" };

	for (int k = 0; k < IMG_RPM_N_DEP_KINDS; k++) {
		if (strcmp(name, names[k]) == 0)
			return k;
	}
	return -1;
}

static uint32_t sense_of(const char *flags)
{
	static const struct {
		const char *word;
		uint32_t sense;
	} words[] = { { "EQ", IMG_RPMSENSE_EQUAL },
		      { "LT", IMG_RPMSENSE_LESS },
		      { "GT", IMG_RPMSENSE_GREATER },
		      { "LE", IMG_RPMSENSE_LESS | IMG_RPMSENSE_EQUAL },
		      { "GE", IMG_RPMSENSE_GREATER | IMG_RPMSENSE_EQUAL } };

	for (size_t i = 0; flags && i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(flags, words[i].word) == 0)
			return words[i].sense;
	}
	return 0;
}

static void add_dep(struct img_rpm_xml *x, const XML_Char **atts)
{
	struct img_rpm *p = x->package;
	const int k = x->dep_kind;
	const char *epoch = attr_or_empty(atts, "epoch"), *version = attr(atts, "ver"), *release = attr(atts, "rel");
	char evr[512] = "";

	if (p->n_deps[k] == x->cap_deps[k]) {
		const size_t cap = x->cap_deps[k] ? x->cap_deps[k] * 2 : 16;
		struct img_rpm_dep *grown = cap <= MAX_DEPS ? reallocarray(p->deps[k], cap, sizeof(*grown)) : NULL;

		if (!grown) {
			stop(x, -ENOMEM, "");
			return;
		}
		p->deps[k] = grown;
		x->cap_deps[k] = cap;
	}
	if (version)
		(void)snprintf(evr, sizeof(evr), "%s%s%s%s%s", strcmp(epoch, "0") == 0 ? "" : epoch,
		               *epoch && strcmp(epoch, "0") != 0 ? ":" : "", version, release ? "-" : "",
		               release ? release : "");
	p->deps[k][p->n_deps[k]++] = (struct img_rpm_dep){ keep(x, attr_or_empty(atts, "name")), keep(x, evr),
		                                           sense_of(attr(atts, "flags")) };
}

static void add_file(struct img_rpm_xml *x)
{
	struct img_rpm *p = x->package;
	const bool is_dir = x->attribute && strcmp(x->attribute, "dir") == 0;

	if (p->n_files == x->cap_files) {
		const size_t cap = x->cap_files ? x->cap_files * 2 : 16;
		struct img_rpm_file *grown =
		        cap <= IMG_RPM_MAX_FILES ? reallocarray(p->files, cap, sizeof(*grown)) : NULL;

		if (!grown) {
			stop(x, -ENOMEM, "");
			return;
		}
		p->files = grown;
		x->cap_files = cap;
	}
	memset(&p->files[p->n_files], 0, sizeof(p->files[0]));
	p->files[p->n_files].type = is_dir ? IMG_DIR : IMG_FILE;
	p->files[p->n_files++].path = keep(x, base_buf_text(&x->text));
}

static void new_package(struct img_rpm_xml *x)
{
	img_rpm_free(x->package);
	x->package = img_rpm_new();
	memset(x->cap_deps, 0, sizeof(x->cap_deps));
	x->cap_files = 0;
	x->dep_kind = -1;
	if (!x->package)
		stop(x, -ENOMEM, "");
}

static void set_location(struct img_rpm_xml *x, const char *href)
{
	struct img_rpm_priv *priv = x->package->priv;
	char *path = NULL;

	if (!href || !is_inside(href)) {
		stop(x, -EBADMSG, "a package's location is not within the repository");
		return;
	}
	if (asprintf(&path, "%s/%s", x->dir, href) < 0) {
		stop(x, -ENOMEM, "");
		return;
	}
	free(priv->location);
	x->package->location = priv->location = path;
}

static void primary_start(struct img_rpm_xml *x, const char *name, const XML_Char **atts)
{
	if (strcmp(name, "package") == 0) {
		x->is_rpm = strcmp(attr_or_empty(atts, "type"), "rpm") == 0;
		new_package(x);
		return;
	}
	if (!x->package)
		return;
	if (list_kind(name) >= 0)
		x->dep_kind = list_kind(name);
	else if (strcmp(name, "entry") == 0 && x->dep_kind >= 0)
		add_dep(x, atts);
	else if (strcmp(name, "version") == 0)
		set_version(x, atts);
	else if (strcmp(name, "location") == 0)
		set_location(x, attr(atts, "href"));
	else if (strcmp(name, "size") == 0)
		x->package->installed_size = strtoull(attr_or_empty(atts, "installed"), NULL, 10);
	else if (strcmp(name, "time") == 0)
		x->package->build_time = strtoull(attr_or_empty(atts, "build"), NULL, 10);
	else if (strcmp(name, "checksum") == 0 || strcmp(name, "file") == 0)
		set_text(x, &x->attribute, attr_or_empty(atts, "type"));
}

static void finish_package(struct img_rpm_xml *x)
{
	struct img_rpm *p = x->package;
	int r;

	x->package = NULL;
	if (!x->is_rpm || strcmp(p->arch, "src") == 0) {
		img_rpm_free(p);
		return;
	}
	if (!*p->name || !*p->version || !*p->arch || !p->location) {
		img_rpm_free(p);
		stop(x, -EBADMSG, "a package without name, version, arch or location");
		return;
	}
	r = x->found(p, x->arg, x->err);
	if (r < 0 && !x->error) {
		x->error = r;
		(void)XML_StopParser(x->parser, XML_FALSE);
	}
}

static void primary_end(struct img_rpm_xml *x, const char *name)
{
	const char *text = base_buf_text(&x->text);
	struct img_rpm *p = x->package;
	char checksum[256];

	if (!p)
		return;
	if (strcmp(name, "package") == 0)
		finish_package(x);
	else if (list_kind(name) >= 0)
		x->dep_kind = -1;
	else if (strcmp(name, "file") == 0)
		add_file(x);
	else if (strcmp(name, "name") == 0)
		p->name = keep(x, text);
	else if (strcmp(name, "arch") == 0)
		p->arch = keep(x, text);
	else if (strcmp(name, "summary") == 0)
		p->summary = keep(x, text);
	else if (strcmp(name, "url") == 0)
		p->url = keep(x, text);
	else if (strcmp(name, "license") == 0)
		p->license = keep(x, text);
	else if (strcmp(name, "vendor") == 0)
		p->vendor = keep(x, text);
	else if (strcmp(name, "sourcerpm") == 0)
		p->source_rpm = keep(x, text);
	else if (strcmp(name, "checksum") == 0 && x->attribute) {
		(void)snprintf(checksum, sizeof(checksum), "%s:%s", x->attribute, text);
		set_text(x, &((struct img_rpm_priv *)p->priv)->checksum, checksum);
	}
}

/* ---- filelists -------------------------------------------------------------------------------------------- */

static void filelists_start(struct img_rpm_xml *x, const char *name, const XML_Char **atts)
{
	if (strcmp(name, "package") == 0) {
		new_package(x);
		if (x->package) {
			x->package->name = keep(x, attr_or_empty(atts, "name"));
			x->package->arch = keep(x, attr_or_empty(atts, "arch"));
		}
	} else if (strcmp(name, "version") == 0 && x->package) {
		set_version(x, atts);
	}
}

static void filelists_end(struct img_rpm_xml *x, const char *name)
{
	const struct img_rpm *p = x->package;
	int r;

	if (strcmp(name, "file") != 0 || !p)
		return;
	r = x->listed(p->name, p->arch, p->epoch, p->version, p->release, base_buf_text(&x->text), x->arg);
	if (r < 0)
		stop(x, r, "out of memory");
}

/* ---- The parser ------------------------------------------------------------------------------------------- */

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
	static void (*const starts[])(struct img_rpm_xml *, const char *,
	                              const XML_Char **) = { repomd_start, primary_start, filelists_start };
	struct img_rpm_xml *x = arg;

	base_buf_reset(&x->text);
	if (++x->depth > MAX_DEPTH)
		stop(x, -EBADMSG, "nested too deeply");
	else if (!x->error)
		starts[x->document](x, local_name(name), atts);
}

static void on_end(void *arg, const XML_Char *name)
{
	static void (*const ends[])(struct img_rpm_xml *, const char *) = { repomd_end, primary_end, filelists_end };
	struct img_rpm_xml *x = arg;

	x->depth--;
	if (!x->error)
		ends[x->document](x, local_name(name));
	base_buf_reset(&x->text);
}

static void on_text(void *arg, const XML_Char *text, int len)
{
	struct img_rpm_xml *x = arg;

	if (!x->error && base_buf_append(&x->text, text, (size_t)len) < 0)
		stop(x, -EBADMSG, "a text of more than 1 MiB");
}

static int xml_new(const char *name, enum document document, struct img_rpm_xml **ret_x)
{
	struct img_rpm_xml *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->document = document;
	x->dep_kind = -1;
	base_buf_init(&x->text, MAX_TEXT);
	x->name = strdup(name);
	x->parser = XML_ParserCreate(NULL);
	if (!x->name || !x->parser) {
		img_rpm_xml_free(x);
		return -ENOMEM;
	}
	XML_SetUserData(x->parser, x);
	XML_SetElementHandler(x->parser, on_start, on_end);
	XML_SetCharacterDataHandler(x->parser, on_text);
	*ret_x = x;
	return 0;
}

void img_rpm_xml_free(struct img_rpm_xml *x)
{
	if (!x)
		return;
	if (x->parser)
		XML_ParserFree(x->parser);
	img_rpm_free(x->package);
	base_buf_done(&x->text);
	free(x->attribute);
	free(x->name);
	free(x->dir);
	free(x);
}

int img_rpm_xml_repomd(const char *name, struct img_rpm_repomd *m, struct img_rpm_xml **ret_x)
{
	int r = xml_new(name, REPOMD, ret_x);

	if (r == 0)
		(*ret_x)->repomd = m;
	return r;
}

int img_rpm_xml_primary(const char *name, const char *dir, img_rpm_found found, void *arg, struct img_rpm_xml **ret_x)
{
	struct img_rpm_xml *x;
	int r = xml_new(name, PRIMARY, &x);

	if (r < 0)
		return r;
	x->found = found;
	x->arg = arg;
	x->dir = strdup(dir);
	if (!x->dir) {
		img_rpm_xml_free(x);
		return -ENOMEM;
	}
	*ret_x = x;
	return 0;
}

int img_rpm_xml_filelists(const char *name, img_rpm_listed listed, void *arg, struct img_rpm_xml **ret_x)
{
	int r = xml_new(name, FILELISTS, ret_x);

	if (r == 0) {
		(*ret_x)->listed = listed;
		(*ret_x)->arg = arg;
	}
	return r;
}

int img_rpm_xml_feed(struct img_rpm_xml *x, const void *data, size_t size, bool is_last, struct err *err)
{
	enum { PIECE = 1 << 20 };
	const char *p = data;

	x->err = err;
	do {
		const size_t n = size < PIECE ? size : PIECE;

		if (XML_Parse(x->parser, p, (int)n, is_last && n == size) != XML_STATUS_OK && !x->error)
			x->error = err_set(err, -EBADMSG, "%s: line %lu: %s", x->name,
			                   (unsigned long)XML_GetCurrentLineNumber(x->parser),
			                   XML_ErrorString(XML_GetErrorCode(x->parser)));
		if (x->error)
			return x->error;
		p += n;
		size -= n;
	} while (size);
	return 0;
}
