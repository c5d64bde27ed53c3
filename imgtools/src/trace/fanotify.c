#include <errno.h>
#include "tracer_internal.h"
int img_trace_fanotify(const struct img_run *run, struct img_trace **ret_trace, struct img_run_result *ret_result,
                       struct err *err)
{
	return err_set(err, -ENOSYS, "x");
}
