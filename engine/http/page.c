/* The page at /: what is served, how busy it is, and a chat. Whole in one file, so that it needs nothing but us. */
#include <page_html.h> /* made from page.html, see build.mk */
#include <string.h>

#include "http_internal.h"

void handle_page(struct exchange *x)
{
	struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	(void)base_buf_append(&out, page_html, sizeof(page_html));
	exchange_lock(x);
	x->content_type = "text/html; charset=utf-8";
	exchange_reply(x, 200, &out);
	exchange_unlock(x);
}
