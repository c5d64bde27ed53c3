/* One page that holds everything it needs: numbers, tables, runs, and a map of all files, kept and dropped. */
#ifndef IMG_REPORT_HTML_H
#define IMG_REPORT_HTML_H

#include "slim/job.h"

int img_report_html_write(const struct img_job *j, const struct img_slim_sums *sums, const char *path, struct err *err);

#endif
