/* In place of fabric_open.c, fabric_line.c and fabric_step.c, where libfabric's headers were missing when this was
 * built.
 */
#include <errno.h>

#include "peer/fabric_line.h"

int peer_fabric_check(const char *provider, struct err *err)
{
	(void)provider;
	return err_set(err, -ENOSYS, "this program was built without libfabric's headers");
}

int peer_fabric_open(const char *provider, const char *listen, const struct peer_fabric_events *events, void *arg,
                     struct peer_fabric **ret_fabric, struct err *err)
{
	return peer_fabric_check(provider, err);
}

/* ---- Nothing of this is reached ---- */

void peer_fabric_close(struct peer_fabric *f)
{
}

void peer_fabric_step(struct peer_fabric *f, int timeout_ms)
{
}

void peer_fabric_wake(struct peer_fabric *f)
{
}

int peer_line_connect(struct peer_fabric *f, const char *to, void *line_arg, struct peer_line **ret_line,
                      struct err *err)
{
	return peer_fabric_check(to, err);
}

void peer_line_close(struct peer_line *l)
{
}

const char *peer_line_from(const struct peer_line *l)
{
	return "?";
}

uint8_t *peer_line_slot(struct peer_line *l, unsigned slot)
{
	return NULL;
}

void peer_line_offer(const struct peer_line *l, uint64_t *ret_key, uint64_t *ret_base)
{
}

int peer_line_send(struct peer_line *l, const void *data, size_t size)
{
	return -ENOSYS;
}

int peer_line_write(struct peer_line *l, unsigned slot, size_t size, uint64_t key, uint64_t to)
{
	return -ENOSYS;
}
