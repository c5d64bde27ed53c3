/* One server over a small real model for all tests of a program that leave no trace in it. */
#ifndef HTTP_SHARED_H
#define HTTP_SHARED_H

#include "http_test.h"

static struct served server;

static int start_server(void **state)
{
	(void)state;
	serve_model(&server, "models/qwen3", "ref");
	return 0;
}

static int stop_server(void **state)
{
	(void)state;
	serve_end(&server);
	return 0;
}

#endif
