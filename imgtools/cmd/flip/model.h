/* What the two files of `flip model` share: cmd_model.c asks the daemon, model_folder.c has to do with folders. */
#ifndef FLIP_CMD_MODEL_H
#define FLIP_CMD_MODEL_H

#include "base/options.h"
#include "settings.h"

struct model_args {
	const char *control, *listen;
	struct opt_list urls;
	uint64_t chunk_size;
	bool keep, json, detach, preheat;
	const char *seeded; /* the folder: the source is ours then, and ends with us */
};

/* Has the daemon pull a model, and waits until all of it is there, with progress; o->detach: not. -EINTR: somebody
 * interrupted the waiting; the daemon goes on. */
int model_pull(const struct model_args *o, const struct flip_settings *s, const char *source, const char *name,
               struct err *err);
/* A name out of a source or folder: its last part, without tag, ".json", "model.json". -EINVAL. */
int model_default_name(const char *source, char *ret_name, size_t size, struct err *err);

int model_push(const struct model_args *o, const struct flip_settings *s, const char *dir, const char *ref,
               struct err *err);
int model_seed(const struct model_args *o, const struct flip_settings *s, const char *dir, const char *name,
               struct err *err);
int model_serve(const struct model_args *o, const char *dir, struct err *err);
int model_manifest(const struct model_args *o, const char *dir, struct err *err);

#endif
