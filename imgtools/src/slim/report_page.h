/* The page's fixed parts. */
#ifndef IMG_REPORT_PAGE_H
#define IMG_REPORT_PAGE_H

extern const char img_report_head[]; /* up to the data */
extern const char img_report_tail[]; /* from behind it */

#endif
