/* Shared by weights.c (opening, looking up) and the readers of the two formats. */
#ifndef ENG_WEIGHTS_INTERNAL_H
#define ENG_WEIGHTS_INTERNAL_H

#include "base/mapfile.h"
#include "weights/names.h"
#include "weights/weights.h"

/* One mapped file, or memory lent by the caller. */
struct eng_part {
	char *path; /* for messages */
	const uint8_t *data;
	size_t size;
	bool owned;      /* map is ours to unmap */
	bool may_arrive; /* its bytes may have to be waited for */
	struct base_mapfile map;
};

/* A GGUF metadata entry; value points into the file, checked to be complete. */
struct eng_gguf_kv {
	const char *key;
	size_t key_len;
	uint32_t type; /* enum eng_gguf_type; of the elements when is_array */
	bool is_array;
	uint64_t n; /* elements; 1 for a scalar */
	const uint8_t *value;
	size_t size; /* bytes of the value, without an array's type and count */
};

struct eng_weights {
	struct eng_part *parts;
	size_t n_parts;
	struct eng_tensor *tensors;
	size_t n_tensors, cap_tensors;
	struct eng_names tensor_names; /* to index in tensors */
	struct eng_arena arena;        /* names */
	uint64_t bytes;

	bool is_gguf;
	struct eng_gguf_kv *kvs;
	size_t n_kvs;
	struct eng_names kv_names; /* to index in kvs */
};

enum eng_gguf_type {
	ENG_GGUF_U8,
	ENG_GGUF_I8,
	ENG_GGUF_U16,
	ENG_GGUF_I16,
	ENG_GGUF_U32,
	ENG_GGUF_I32,
	ENG_GGUF_F32,
	ENG_GGUF_BOOL,
	ENG_GGUF_STRING,
	ENG_GGUF_ARRAY,
	ENG_GGUF_U64,
	ENG_GGUF_I64,
	ENG_GGUF_F64,
	ENG_GGUF_N_TYPES
};

/* Bytes of a fixed-size value type, 0 for strings and arrays. */
size_t eng_gguf_type_size(uint32_t type);
const char *eng_gguf_type_name(uint32_t type);

/* Maps a file as the next part. */
int eng_weights_add_part(struct eng_weights *w, const char *path, struct err *err);
/* Appends a tensor whose name lives in the arena (or as long as w); a second of the name is -EBADMSG. */
int eng_weights_add_tensor(struct eng_weights *w, const struct eng_part *part, const struct eng_tensor *t,
                           struct err *err);
/* Refuses tensors [first, n_tensors), all of one part, that share bytes; `dense` also refuses bytes of
 * [data, data + size) that belong to none. */
int eng_weights_check_layout(struct eng_weights *w, size_t first, const struct eng_part *part, const uint8_t *data,
                             size_t size, bool dense, struct err *err);
/* Product of the shape; -EBADMSG on overflow. */
int eng_tensor_elements(const struct eng_tensor *t, uint64_t *ret_n);

/* Readers of one part; tensors and (GGUF, first part) metadata are added to w. */
int eng_safetensors_read(struct eng_weights *w, const struct eng_part *part, struct err *err);
int eng_gguf_read(struct eng_weights *w, const struct eng_part *part, bool with_metadata, struct err *err);

/* Opens all shards that an index names; they lie beside it. */
int eng_safetensors_open_index(struct eng_weights *w, const char *index_path, struct err *err);
/* Opens a GGUF file and, when it is part of a split set, the others. */
int eng_gguf_open(struct eng_weights *w, const char *path, struct err *err);

/* Copies all metadata but the keys of the NULL-ended list. */
struct eng_gguf_writer;
int eng_gguf_add_copies(struct eng_gguf_writer *w, const struct eng_weights *weights, const char *const *without);

#endif
