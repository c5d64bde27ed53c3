/* What the kernel opens by itself when it executes a file: no system call names it. */
#ifndef IMG_TRACE_INTERP_H
#define IMG_TRACE_INTERP_H

enum { IMG_INTERP_MAX = 4096, IMG_INTERP_DEPTH = 6 };

/* The interpreter of an executable file: that of its #! line, or its PT_INTERP. 1: in ret_path; 0: it has none (or is
 * no such file); negative errno when it cannot be read. */
int img_interp_of(int fd, char ret_path[IMG_INTERP_MAX]);

#endif
