/* A thread that accepts and serves connections; see loop.c. */
#ifndef HTTP_LOOP_H
#define HTTP_LOOP_H

#include "base/err.h"

struct eng_http;
struct http_loop;
struct MHD_Connection;

/* Takes at most max_connections (>= 1) of those that come to listen_fd, which stays the caller's and does not block;
 * the others stay in its queue, where another loop finds them. -EIO, or what the system says. */
int http_loop_start(struct eng_http *http, int listen_fd, unsigned max_connections, struct http_loop **ret_loop,
                    struct err *err);
struct eng_http *http_loop_owner(const struct http_loop *loop);
/* A suspended connection of this loop goes on. From any thread. */
void http_loop_resume(struct http_loop *loop, struct MHD_Connection *conn);
/* Accepts no more, from soon on; what is open goes on. From any thread, also a loop's own. */
void http_loop_quiesce(struct http_loop *loop);
/* Ends its connections, none of which may be suspended, and frees it; NULL is allowed. */
void http_loop_stop(struct http_loop *loop);

#endif
