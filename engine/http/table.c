/* The table of routes. */
#include <string.h>

#include "http_internal.h"

/* clang-format off */
static const struct route routes[] = {
	{ "/", "GET", handle_page, ROUTE_PUBLIC },
	{ "/health", "GET", handle_health, ROUTE_PUBLIC },
	{ "/v1/health", "GET", handle_health, ROUTE_PUBLIC },
	{ "/metrics", "GET", handle_metrics, 0 },
	/* OpenAI */
	{ "/v1/models", "GET", handle_models, 0 },
	{ "/models", "GET", handle_models, 0 },
	{ "/v1/models/*", "GET", handle_model, 0 },
	{ "/models/*", "GET", handle_model, 0 },
	{ "/v1/chat/completions", "POST", handle_chat, 0 },
	{ "/chat/completions", "POST", handle_chat, 0 },
	{ "/v1/completions", "POST", handle_completion, 0 },
	{ "/completions", "POST", handle_completion, 0 },
	{ "/v1/embeddings", "POST", handle_embeddings, 0 },
	{ "/embeddings", "POST", handle_embeddings, 0 },
	{ "/v1/rerank", "POST", handle_rerank, 0 },
	{ "/rerank", "POST", handle_rerank, 0 },
	{ "/v1/reranking", "POST", handle_rerank, 0 },
	{ "/reranking", "POST", handle_rerank, 0 },
	{ "/v1/responses", "POST", handle_responses, 0 },
	{ "/responses", "POST", handle_responses, 0 },
	{ "/v1/responses/*", "GET", handle_response_get, 0 },
	{ "/v1/responses/*", "DELETE", handle_response_delete, 0 },
	/* Anthropic */
	{ "/v1/messages", "POST", handle_messages, ROUTE_ANTHROPIC },
	{ "/v1/messages/count_tokens", "POST", handle_count_tokens, ROUTE_ANTHROPIC },
	/* SGLang */
	{ "/generate", "POST", handle_generate, 0 },
	{ "/get_model_info", "GET", handle_model_info, 0 },
	{ "/model_info", "GET", handle_model_info, 0 },
	{ "/get_server_info", "GET", handle_server_info, 0 },
	{ "/server_info", "GET", handle_server_info, 0 },
	{ "/health_generate", "GET", handle_health_generate, 0 },
	{ "/get_weight_version", "GET", handle_weight_version, 0 },
	{ "/weight_version", "GET", handle_weight_version, 0 },
	{ "/flush_cache", "GET", handle_flush_cache, 0 },
	{ "/flush_cache", "POST", handle_flush_cache, 0 },
	{ "/abort_request", "POST", handle_abort, 0 },
	{ "/pause_generation", "POST", handle_pause, 0 },
	{ "/continue_generation", "POST", handle_continue, 0 },
	{ "/update_weights_from_disk", "POST", handle_update_weights, 0 },
	/* llama-server, vLLM */
	{ "/props", "GET", handle_props, 0 },
	{ "/slots", "GET", handle_slots, 0 },
	{ "/apply-template", "POST", handle_apply_template, 0 },
	{ "/tokenize", "POST", handle_tokenize, 0 },
	{ "/v1/tokenize", "POST", handle_tokenize, 0 },
	{ "/detokenize", "POST", handle_detokenize, 0 },
	{ "/v1/detokenize", "POST", handle_detokenize, 0 },
};
/* clang-format on */

static bool matches(const char *pattern, const char *path)
{
	size_t n = strlen(pattern);

	if (n > 0 && pattern[n - 1] == '*')
		return strncmp(path, pattern, n - 1) == 0 && path[n - 1] != '\0';
	return strcmp(path, pattern) == 0;
}

const struct route *route_find(const char *path, const char *method, const char **ret_allow)
{
	*ret_allow = NULL;
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (!matches(routes[i].path, path))
			continue;
		if (strcmp(routes[i].method, method) == 0)
			return &routes[i];
		*ret_allow = strcmp(routes[i].method, "GET") == 0 ? "GET, HEAD" : routes[i].method;
	}
	return NULL;
}
