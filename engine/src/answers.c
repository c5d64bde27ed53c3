/* Prompts and answers on different devices: which ones, whether a model can be served that way, and the runner of those
 * that answer. Everything else is the scheduler's matter (sched/split.h). */
#include <errno.h>
#include <stdlib.h>

#include "engine_internal.h"

/* "0,2"; `name` of the option, for errors. */
static int read_list(const char *name, const char *text, uint32_t ret[KN_MAX_RANKS], uint32_t *ret_n, struct err *err)
{
	const char *all = text;
	uint32_t n = 0;

	while (text && *text) {
		char *end;
		unsigned long device = strtoul(text, &end, 10);

		if (*text < '0' || *text > '9' || device > UINT16_MAX || (*end && (*end != ',' || !end[1])))
			return err_set(err, -EINVAL, "%s \"%s\": expected numbers with commas between them", name, all);
		if (n == KN_MAX_RANKS)
			return err_set(err, -EINVAL, "%s \"%s\": at most %d", name, all, KN_MAX_RANKS);
		ret[n++] = (uint32_t)device;
		text = *end ? end + 1 : end;
	}
	*ret_n = n;
	return 0;
}

static bool is_given(const char *text)
{
	return text && *text;
}

/* Prompts on some, answers on others. */
static int read_sides(const struct eng_options *o, struct eng_devices *d, struct err *err)
{
	int r;

	if (!is_given(o->prefill_devices) || !is_given(o->decode_devices))
		return err_set(err, -EINVAL, "prefill-devices and decode-devices belong together: %s is missing",
		               is_given(o->prefill_devices) ? "decode-devices" : "prefill-devices");
	if (is_given(o->devices) || o->tensor_parallel)
		return err_set(err, -EINVAL,
		               "prefill-devices and decode-devices name all devices: devices and tensor-parallel do "
		               "not go with them");
	r = read_list("prefill-devices", o->prefill_devices, d->numbers, &d->n, err);
	r = r < 0 ? r : read_list("decode-devices", o->decode_devices, d->decode, &d->n_decode, err);
	if (r == 0 && d->n != d->n_decode)
		r = err_set(
		        err, -ENOTSUP,
		        "%u devices for prompts and %u for answers: K and V are divided alike, so as many are needed",
		        d->n, d->n_decode);
	for (uint32_t i = 0; i < d->n && r == 0; i++) {
		for (uint32_t k = 0; k < d->n_decode && r == 0; k++) {
			/* Groups would wait for each other's kernels; and the first side takes all memory. */
			if (d->numbers[i] == d->decode[k] && (d->n > 1 || !o->kv_bytes))
				r = err_set(err, -EINVAL, "device %u is among prefill-devices and decode-devices: %s",
				            d->decode[k],
				            d->n > 1 ? "groups share none" : "both sides on one need kv-bytes");
		}
	}
	return r;
}

int eng_devices_read(const struct eng_options *o, struct eng_devices *ret, struct err *err)
{
	struct eng_devices d = { 0 };
	int r;

	if (is_given(o->prefill_devices) || is_given(o->decode_devices)) {
		r = read_sides(o, &d, err);
		if (r == 0)
			*ret = d;
		return r;
	}
	if (o->tensor_parallel > KN_MAX_RANKS)
		return err_set(err, -EINVAL, "%u devices: at most %d", o->tensor_parallel, KN_MAX_RANKS);
	r = read_list("devices", o->devices, d.numbers, &d.n, err);
	if (r < 0)
		return r;
	if (d.n > 0 && o->tensor_parallel && d.n != o->tensor_parallel)
		return err_set(err, -EINVAL, "devices \"%s\": %u of them, %u were asked for", o->devices, d.n,
		               o->tensor_parallel);
	for (; d.n < o->tensor_parallel; d.n++) /* none named */
		d.numbers[d.n] = d.n;
	*ret = d;
	return 0;
}

int eng_answers_check(const struct eng_engine *e, struct err *err)
{
	const struct eng_model_info *m = eng_model_info(e->model);

	if (m->state_bytes)
		return err_set(err, -ENOTSUP,
		               "%s: %s has recurrent layers, whose states are not handed from prefill-devices to "
		               "decode-devices; use devices",
		               e->path, m->arch);
	if (m->is_encoder || m->pooling != ENG_POOL_NONE)
		return err_set(err, -ENOTSUP, "%s: an embedding model gives no answers for decode-devices to compute",
		               e->path);
	return 0;
}

int eng_answers_start(struct eng_engine *e, const struct eng_runner_config *config, struct eng_exec *ret_exec,
                      struct err *err)
{
	bool is_direct = false;
	int r = eng_runner_new(e->answers.model, config, &e->answers.runner, err);

	r = r < 0 ? r : eng_runner_fetch_from(e->answers.runner, e->runner, &is_direct, err);
	if (r < 0)
		return r;
	eng_exec_of(e->answers.runner, e->answers.backend, eng_model_info(e->answers.model), config, ret_exec);
	eng_exec_fetches(ret_exec);
	if (!is_direct && e->on_note)
		e->on_note(e->note_arg, "the devices do not reach each other's memory: K and V of prompts go by way of "
		                        "the host's");
	return 0;
}
