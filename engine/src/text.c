/* Tokens and text through the model's tokenizer. */
#include <errno.h>

#include "engine_internal.h"
#include "tokenizer/tokenizer.h"

static int no_tokenizer(struct err *err)
{
	return err_set(err, -ENOTSUP, "the model has no tokenizer");
}

int eng_tokenize(const struct eng_engine *e, const char *text, size_t len, bool add_special, bool parse_special,
                 int32_t **ret_ids, size_t *ret_n, struct err *err)
{
	struct eng_ids ids = { 0 };
	unsigned flags = (add_special ? ENG_TOK_ADD_SPECIAL : 0) | (parse_special ? ENG_TOK_PARSE_SPECIAL : 0);
	int r;

	if (!e->meta.tokenizer)
		return no_tokenizer(err);
	r = eng_tokenizer_encode(e->meta.tokenizer, text, len, flags, &ids, err);
	if (r < 0) {
		eng_ids_done(&ids);
		return r;
	}
	*ret_ids = ids.ids; /* now the caller's */
	*ret_n = ids.n;
	return 0;
}

int eng_detokenize(const struct eng_engine *e, const int32_t *ids, size_t n, bool skip_special, struct base_buf *out,
                   struct err *err)
{
	int r;

	if (!e->meta.tokenizer)
		return no_tokenizer(err);
	r = eng_tokenizer_decode(e->meta.tokenizer, ids, n, skip_special, out);
	return r < 0 ? err_set(err, r, "the text could not be built") : 0;
}

int eng_token_bytes(const struct eng_engine *e, int32_t id, struct base_buf *out)
{
	return e->meta.tokenizer ? eng_tokenizer_token_bytes(e->meta.tokenizer, id, out) : 0;
}
