/* Services: systemd's own state by D-Bus, each failed unit with its result and last words from the journal.
 * The interface is org.freedesktop.systemd1(5). */
#include <stdio.h>
#include <string.h>

#include "base/library.h"
#include "sys/sys_systemd.h"

enum { MAX_UNITS = 100, TAIL_LINES = 5, MAX_TAILS = 20 };

static const char destination[] = "org.freedesktop.systemd1";

const struct systemd *ag_sys_systemd(void)
{
	static struct systemd table;
	static bool is_loaded;
#define X(f) { #f, &table.f },
	static const struct base_symbol symbols[] = { SYSTEMD_FUNCTIONS(X) };
#undef X

	if (!is_loaded)
		is_loaded =
		        base_library_load("libsystemd.so.0", symbols, sizeof(symbols) / sizeof(symbols[0]), NULL) == 0;
	return is_loaded ? &table : NULL;
}

/* Where a unit's Result is: the interface of its kind. */
static const char *unit_interface(const char *name)
{
	static const char *const kinds[][2] = {
		{ ".service", "org.freedesktop.systemd1.Service" },    { ".mount", "org.freedesktop.systemd1.Mount" },
		{ ".socket", "org.freedesktop.systemd1.Socket" },      { ".timer", "org.freedesktop.systemd1.Timer" },
		{ ".swap", "org.freedesktop.systemd1.Swap" },          { ".path", "org.freedesktop.systemd1.Path" },
		{ ".automount", "org.freedesktop.systemd1.Automount" }
	};
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(dot, kinds[i][0]) == 0)
			return kinds[i][1];
	}
	return NULL;
}

static void put_text_property(const struct systemd *sd, sd_bus *bus, const char *path, const char *interface,
                              const char *member, const char *key, json_t *out)
{
	CLEANUP(freep) char *value = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;

	if (interface && sd->sd_bus_get_property_string(bus, destination, path, interface, member, &error, &value) >= 0)
		ag_sys_set_text(out, key, value);
	sd->sd_bus_error_free(&error);
}

static void put_unit_details(const struct systemd *sd, sd_bus *bus, const char *name, const char *path, json_t *unit)
{
	const char *interface = unit_interface(name);
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int32_t status = 0;
	uint64_t since = 0;

	put_text_property(sd, bus, path, interface, "Result", "result", unit);
	if (interface && strstr(interface, ".Service") &&
	    sd->sd_bus_get_property_trivial(bus, destination, path, interface, "ExecMainStatus", &error, 'i',
	                                    &status) >= 0)
		(void)json_object_set_new(unit, "exit_status", json_integer(status));
	sd->sd_bus_error_free(&error);
	error = SD_BUS_ERROR_NULL;
	if (sd->sd_bus_get_property_trivial(bus, destination, path, "org.freedesktop.systemd1.Unit",
	                                    "InactiveEnterTimestamp", &error, 't', &since) >= 0 &&
	    since)
		ag_sys_set_u64(unit, "since_s", since / 1000000);
	sd->sd_bus_error_free(&error);
}

/* Reads a(ssssssouso): name, description, load, active and sub state, following, object path, job id, type, path. */
static void put_units(const struct systemd *sd, sd_bus *bus, sd_bus_message *reply, json_t *units)
{
	const char *name, *description, *load, *active, *sub, *following, *path, *job_type, *job_path;
	uint32_t job;

	if (sd->sd_bus_message_enter_container(reply, 'a', "(ssssssouso)") < 0)
		return;
	while (json_array_size(units) < MAX_UNITS &&
	       sd->sd_bus_message_read(reply, "(ssssssouso)", &name, &description, &load, &active, &sub, &following,
	                               &path, &job, &job_type, &job_path) > 0) {
		json_t *unit = json_object();

		ag_sys_set_text(unit, "unit", name);
		ag_sys_set_text(unit, "description", description);
		ag_sys_set_text(unit, "state", sub);
		put_unit_details(sd, bus, name, path, unit);
		ag_sys_append_take(units, unit);
	}
}

static void put_failed(const struct systemd *sd, sd_bus *bus, const struct sys_ctx *ctx, json_t *out)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	json_t *units = ag_sys_array(out, "failed"), *unit;
	size_t i;

	if (sd->sd_bus_call_method(bus, destination, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
	                           "ListUnitsFiltered", &error, &reply, "as", 1, "failed") >= 0)
		put_units(sd, bus, reply, units);
	else
		ag_sys_note(out, "systemd did not list its units: {why}.", "systemd 没有列出单元:{why}。",
		            json_pack("{s:s}", "why", error.message ? error.message : "no answer"));
	sd->sd_bus_message_unref(reply);
	sd->sd_bus_error_free(&error);
	json_array_foreach(units, i, unit)
	{
		if (i >= MAX_TAILS)
			break;
		ag_sys_journal_tail(sd, ctx, json_string_value(json_object_get(unit, "unit")), TAIL_LINES,
		                    ag_sys_array(unit, "last_lines"));
	}
	ag_sys_set_u64(out, "failed_units", json_array_size(units));
}

void ag_sys_services(const struct sys_ctx *ctx, json_t *out)
{
	const struct systemd *sd;
	sd_bus *bus = NULL;
	char init[64];

	if (ag_sys_read_line(ctx, init, sizeof(init), "/proc/1/comm") == 0)
		ag_sys_set_text(out, "init", init);
	if (*ctx->root) {
		ag_sys_note(out, "Units can be asked for on the running system only.", "只能查询正在运行的系统的单元。",
		            NULL);
		return;
	}
	sd = ag_sys_systemd();
	if (!sd) {
		ag_sys_note(out, "libsystemd is not on this machine, or too old: services cannot be asked for.",
		            "本机没有 libsystemd,或版本太旧:无法查询服务。", NULL);
		return;
	}
	if (sd->sd_bus_open_system(&bus) < 0) {
		ag_sys_note(out, "The system bus cannot be reached: systemd does not run here, or not for us.",
		            "无法连接系统总线:这里没有运行 systemd,或无权访问。", NULL);
		return;
	}
	(void)sd->sd_bus_set_method_call_timeout(bus, 5000000);
	put_text_property(sd, bus, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Version",
	                  "version", out);
	put_text_property(sd, bus, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "SystemState",
	                  "state", out);
	put_failed(sd, bus, ctx, out);
	(void)sd->sd_bus_flush_close_unref(bus);
}
