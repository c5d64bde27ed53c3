/* The functions of the table's rows. */
#ifndef AGENT_TOOLS_INTERNAL_H
#define AGENT_TOOLS_INTERNAL_H

#include "tools/tools.h"

int ag_tools_kb_search(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_read_file(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_man_page(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_list_processes(const struct ag_tools_context *c, const json_t *args, struct base_buf *out,
                            struct err *err);
int ag_tools_disk_usage(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_system_facts(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_perf_sample(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_unit_log(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_package_owner(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_package_verify(const struct ag_tools_context *c, const json_t *args, struct base_buf *out,
                            struct err *err);
int ag_tools_package_info(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err);
int ag_tools_package_history(const struct ag_tools_context *c, const json_t *args, struct base_buf *out,
                             struct err *err);

#endif
