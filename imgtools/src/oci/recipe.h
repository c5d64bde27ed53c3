/* What an image is to be, written down: its configuration, its annotations, what is in it and in which layers. An INI
 * file (docs/formats/recipe.md), single settings on top of it, and the variables of both.
 *
 *   [recipe] include = ../family.recipe
 *   [image]  entrypoint, cmd, user, workdir, env, port, volume, stop-signal, author, healthcheck...
 *   [labels] [annotations]  NAME = VALUE
 *   [files]  request, exclude, generate
 *   [layers] NAME = REQUEST...      lowest first */
#ifndef IMG_RECIPE_H
#define IMG_RECIPE_H

#include "oci/oci.h"

struct img_recipe_layer {
	char *name;
	struct img_strings requests;
};

struct img_recipe {
	struct img_config *config;
	struct img_label *annotations; /* sorted by name */
	size_t n_annotations;
	struct img_strings requests, excludes, generate;
	struct img_recipe_layer *layers; /* lowest first */
	size_t n_layers;
	struct img_strings defines; /* "NAME=VALUE": what ${NAME} stands for */
};

/* Starts from `config` (a copy; NULL: an empty one of this machine's architecture). */
int img_recipe_new(const struct img_config *config, struct img_recipe **ret_recipe);
void img_recipe_free(struct img_recipe *r);

int img_recipe_define(struct img_recipe *r, const char *text, struct err *err); /* "NAME=VALUE" */
/* A setting; lists grow, single values are replaced. -EINVAL with words: unknown section or key, bad value, a variable
 * that nobody defined. */
int img_recipe_set(struct img_recipe *r, const char *section, const char *key, const char *value, struct err *err);
/* "SECTION.KEY=VALUE" */
int img_recipe_set_text(struct img_recipe *r, const char *text, struct err *err);
/* Reads a file and what it includes. Errors name file and line. */
int img_recipe_read(struct img_recipe *r, const char *path, struct err *err);
/* The same from memory; `dir`: where includes are looked up, NULL: they are refused. */
int img_recipe_parse(struct img_recipe *r, const char *name, const char *dir, const char *text, size_t size,
                     struct err *err);

#endif
