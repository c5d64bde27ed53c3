/* The inside of a world, for world.c and needs.c. */
#ifndef IMG_WORLD_INTERNAL_H
#define IMG_WORLD_INTERNAL_H

#include "analyze/analyze.h"
#include "slices_internal.h"

enum { MAX_RULE_NEEDS = 64 }; /* that rules may add to one file */

struct img_world {
	struct img_rpm_set *set;
	struct img_world_opts o;
	struct img_rpm **packages; /* loaded, to choose from, by index */
	size_t n, cap;
	bool *is_member; /* by index of the set */
	struct img_rpm_aliases *aliases;
	struct img_tree *tree;
	struct img_analyze *analyze;
	char **texts;
	size_t n_texts, cap_texts;
};

/* The provider of a requirement, rich ones included; NULL: nobody, or no need. */
struct img_rpm *img_world_provider(struct img_world *w, const struct img_rpm_dep *d, int32_t *ret_file,
                                   struct err *err);
/* Requirements that speak of rpm itself. */
bool img_world_is_internal(const struct img_rpm_dep *d);
/* The file of a node of the tree; package NULL: no package's. */
struct img_file_id img_world_id(struct img_world *w, const struct img_node *n);

#endif
