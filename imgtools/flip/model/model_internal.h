/* What the files of this room share. */
#ifndef FLIP_MODEL_INTERNAL_H
#define FLIP_MODEL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n bytes out of 2 n lower-case hexadecimal digits (manifest.c). */
bool flip_model_parse_hex(const char *text, uint8_t *out, size_t n);

#endif
