/* Passages of the user's documents, for answers that cite them. A knowledge base that is not there, cannot be opened or
 * holds nothing of the question gives no passages, and that is no error. */
#include "flow/flow.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "kb/kb.h"

enum { N_PASSAGES = 5, PASSAGE_BYTES = 256 << 10 };

static int search(struct ag_kb *kb, const char *question, struct ag_passages *ret, struct err *err)
{
	struct ag_kb_hits hits = { 0 };
	int r = ag_kb_search(kb, question, N_PASSAGES, &hits, err);

	for (size_t i = 0; r == 0 && i < hits.n; i++) {
		const struct ag_kb_hit *h = &hits.items[i];

		(void)base_buf_printf(&ret->text, "[%zu] %s:%u (%s)\n%s\n\n", i + 1, h->path, (unsigned)h->line,
		                      h->title, h->text);
		(void)base_buf_printf(&ret->list, "[%zu] %s:%u (%s)\n", i + 1, h->path, (unsigned)h->line, h->title);
		if (h->cover > ret->cover) {
			ret->cover = h->cover;
			ret->is_manual = strstr(h->path, "/man/") != NULL;
		}
		ret->n++;
	}
	ret->n_words = hits.n_words;
	ag_kb_hits_done(&hits);
	if (r == 0 && (base_buf_error(&ret->text) || base_buf_error(&ret->list)))
		r = err_set(err, -EFBIG, "the passages are too long");
	return r;
}

static void say(void *remarks, const char *line)
{
	(void)fprintf(remarks, "ocai: %s\n", line);
}

int ag_passages_find(const char *question, struct ag_passages *ret, FILE *remarks, struct err *err)
{
	struct base_config *config = NULL;
	struct ag_kb_config c;
	struct ag_kb *kb = NULL;
	int r;

	*ret = (struct ag_passages){ .text = BASE_BUF_INIT(PASSAGE_BYTES), .list = BASE_BUF_INIT(PASSAGE_BYTES) };
	r = ag_kb_config_load(&c, &config, err);
	if (r < 0)
		return r;
	r = ag_kb_open(&(struct ag_kb_options){ .must_exist = true,
	                                        .embedder = &c.embedder,
	                                        .cancel = ag_term_interrupt_flag(),
	                                        .on_notice = remarks ? say : NULL,
	                                        .on_notice_arg = remarks },
	               &kb, err);
	if (r == 0)
		r = search(kb, question, ret, err);
	ag_kb_close(kb);
	base_config_free(config);
	return r == -ENOENT ? 0 : r;
}

void ag_passages_done(struct ag_passages *p)
{
	base_buf_done(&p->text);
	base_buf_done(&p->list);
}

/* "[3]" stands in the answer; "[1, 3]" and "[1][3]" are how models cite two. */
static bool is_cited(const char *answer, size_t number)
{
	for (const char *p = strchr(answer, '['); p; p = strchr(p + 1, '[')) {
		for (const char *q = p + 1; *q && strchr("0123456789, ", *q);) {
			char *end;
			unsigned long n = strtoul(q, &end, 10);

			if (end == q) {
				q++;
				continue;
			}
			if (n == number)
				return true;
			q = end;
		}
	}
	return false;
}

int ag_passages_sources(const struct ag_passages *p, const char *answer, struct base_buf *out)
{
	bool any = false;

	for (size_t i = 1; i <= p->n; i++)
		any = any || is_cited(answer, i);
	for (const char *line = base_buf_text(&p->list); *line;) {
		size_t n = strcspn(line, "\n");

		n += line[n] == '\n';
		if (!any || is_cited(answer, strtoul(line + 1, NULL, 10)))
			(void)base_buf_append(out, line, n);
		line += n;
	}
	return base_buf_error(out);
}
