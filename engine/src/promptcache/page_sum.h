/* A sum over the bytes of a page of K and V. */
#ifndef ENG_PC_PAGE_SUM_H
#define ENG_PC_PAGE_SUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t eng_pc_page_sum(const void *page, size_t n);

#endif
