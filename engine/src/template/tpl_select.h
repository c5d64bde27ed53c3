/* Reading a dotted attribute path, as the filters' `attribute` argument has it. */
#ifndef ENG_TPL_SELECT_H
#define ENG_TPL_SELECT_H

#include "tpl_interp.h"

/* item.a.b for the path "a.b" (numbers are positions); the item itself when path is missing or None.
 * def (may be NULL) replaces what is undefined on the way. */
int eng_tpl_attr_path(struct tpl_rt *rt, const struct tpl_value *item, const struct tpl_value *path,
                      const struct tpl_value *def, struct tpl_value *ret);
int eng_tpl_dict_items(struct tpl_rt *rt, const struct tpl_dict *d, enum tpl_list_kind kind, struct tpl_list **ret);

#endif
