/* Progress of reading and writing images on a terminal: bytes, rate and remaining time on one line of standard error.
 */
#ifndef IMG_COMMON_IMAGE_PROGRESS_H
#define IMG_COMMON_IMAGE_PROGRESS_H

#include <stdio.h>

#include "oci/oci.h"

/* For img_open_opts and img_write_plan; silent when standard error is no terminal. Stops on SIGINT, SIGTERM and SIGHUP,
 * so that nothing half done stays behind. */
img_progress_fn image_progress(void);
int image_is_interrupted(void *ignored); /* whether one of those signals has come */
void image_progress_clear(void);         /* takes the line away */

/* "1.2 MB" of 10^6 bytes; buf holds 16. Returns buf. */
const char *image_size_text(uint64_t bytes, char buf[16]);

/* Standard output, or a new file beside `path` that image_output_close() gives its name when it is whole. */
struct image_output {
	FILE *file;
	const char *path; /* NULL: standard output */
	char *temp;
};
int image_output_open(const char *path, struct image_output *ret_out, struct err *err);
int image_output_close(struct image_output *out, bool keep, struct err *err);

#endif
