/* The document as text: bars where looking beats reading, lists as tables, findings as numbered sentences.
 *
 * It renders what it finds: objects become lines, lists of objects become tables whose columns are the keys of their
 * items, units come from the keys' endings. A fact that a reader adds needs no change here, but a Chinese label
 * (sys_labels.c) if it is to have one. Text in the document is printed without control characters, whoever wrote it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <utf8proc.h>

#include "sys/sys_internal.h"

enum { MAX_ROWS = 12, MAX_COLUMNS = 12, MAX_CELL = 44, LABEL_WIDTH = 24, MAX_NESTING = 4 };

struct page {
	const struct ag_sys_style *style;
	struct base_buf *out;
	unsigned width;
};

/* Columns that text takes, cut to what fits: returns the bytes that fit, *ret_columns what they take. */
static size_t fit(const char *text, size_t n, unsigned max, unsigned *ret_columns)
{
	size_t at = 0;
	unsigned columns = 0;

	while (at < n) {
		utf8proc_int32_t c;
		utf8proc_ssize_t step =
		        utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
		unsigned w;

		if (step <= 0)
			break;
		w = (unsigned)utf8proc_charwidth(c);
		if (columns + w > max)
			break;
		columns += w;
		at += (size_t)step;
	}
	*ret_columns = columns;
	return at;
}

static unsigned columns_of(const char *text)
{
	unsigned columns;

	(void)fit(text, strlen(text), 100000, &columns);
	return columns;
}

/* Bytes of text a terminal may see. */
static void put_safe(struct base_buf *out, const char *text, size_t n)
{
	json_t *clean = ag_sys_string(text, n);

	if (clean)
		(void)base_buf_append(out, json_string_value(clean), json_string_length(clean));
	json_decref(clean);
}

static void put_padded(struct base_buf *out, const char *text, unsigned width)
{
	unsigned columns;
	size_t n = strlen(text), fits = fit(text, n, width, &columns);

	if (fits < n && width > 1) {
		fits = fit(text, n, width - 1, &columns);
		(void)base_buf_append(out, text, fits);
		(void)base_buf_puts(out, "~");
		columns++;
	} else {
		(void)base_buf_append(out, text, fits);
	}
	for (; columns < width; columns++)
		(void)base_buf_putc(out, ' ');
}

static void trim_line(struct base_buf *out)
{
	while (out->len && out->data[out->len - 1] == ' ')
		out->data[--out->len] = '\0';
}

static void paint(const struct page *p, const char *code)
{
	if (p->style->color)
		(void)base_buf_printf(p->out, "\033[%sm", code);
}

static void put_bytes(struct base_buf *out, double v)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t unit = 0;

	for (; v >= 1024 && unit < 6; unit++)
		v /= 1024;
	(void)base_buf_printf(out, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

static void put_time(struct base_buf *out, json_int_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[64];

	if (seconds > 0 && localtime_r(&t, &tm) && strftime(text, sizeof(text), "%F %T", &tm))
		(void)base_buf_puts(out, text);
	else
		(void)base_buf_puts(out, "-");
}

static bool is_time(const char *key)
{
	return strcmp(key, "since_s") == 0 || ag_sys_key_ends(key, "time_s");
}

static void put_number(const struct page *p, const char *key, const json_t *v, struct base_buf *out)
{
	double d = json_number_value(v);

	if (strcmp(key, "uptime_s") == 0) {
		json_int_t s = json_integer_value(v);

		(void)base_buf_printf(out, p->style->chinese ? "%lld 天 %lld 小时 %lld 分" : "%lld d %lld h %lld min",
		                      (long long)(s / 86400), (long long)(s / 3600 % 24), (long long)(s / 60 % 60));
	} else if (is_time(key)) {
		put_time(out, json_integer_value(v));
	} else if (ag_sys_key_ends(key, "bytes") || ag_sys_key_ends(key, "bytes_per_s")) {
		put_bytes(out, d);
		if (ag_sys_key_ends(key, "_per_s"))
			(void)base_buf_puts(out, "/s");
	} else if (json_is_integer(v)) {
		(void)base_buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		(void)base_buf_puts(out, ag_sys_key_ends(key, "_percent") ? " %" : "");
	} else {
		(void)base_buf_printf(out, fabs(d) >= 100 ? "%.0f" : fabs(d) >= 10 ? "%.1f" : "%.2f", d);
		(void)base_buf_puts(out, ag_sys_key_ends(key, "_percent") ? " %"
		                         : ag_sys_key_ends(key, "_per_s") ? "/s"
		                                                          : "");
	}
}

/* Text for one cell; nothing for objects and for lists of them. */
static void put_value(const struct page *p, const char *key, const json_t *v, struct base_buf *out)
{
	const json_t *item;
	size_t i;

	if (json_is_string(v))
		put_safe(out, json_string_value(v), json_string_length(v));
	else if (json_is_number(v))
		put_number(p, key, v, out);
	else if (json_is_boolean(v))
		(void)base_buf_puts(out, json_is_true(v) ? (p->style->chinese ? "是" : "yes")
		                                         : (p->style->chinese ? "否" : "no"));
	json_array_foreach(v, i, item)
	{
		if (!json_is_string(item))
			continue;
		(void)base_buf_puts(out, i ? ", " : "");
		put_safe(out, json_string_value(item), json_string_length(item));
	}
}

/* ---- Tables ------------------------------------------------------------------------------------------------ */

struct table {
	const char *keys[MAX_COLUMNS]; /* borrowed from the list */
	unsigned widths[MAX_COLUMNS];
	size_t n;
};

/* Keys that a person does not need beside the others; JSON has them. */
static bool is_hidden(const char *key)
{
	static const char *const keys[] = { "device_id", "uid",         "waiting",    "rotational", "first_time_s",
		                            "read_only", "description", "rx_packets", "last_lines" };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(keys[i], key) == 0)
			return true;
	}
	return false;
}

static bool is_column(const struct table *t, const char *key)
{
	for (size_t i = 0; i < t->n; i++) {
		if (strcmp(t->keys[i], key) == 0)
			return true;
	}
	return false;
}

static void find_columns(const struct page *p, const json_t *list, struct table *t)
{
	char label[96];
	const char *key;
	json_t *item, *v;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (i >= MAX_ROWS)
			break;
		json_object_foreach(item, key, v)
		{
			CLEANUP(base_buf_done) struct base_buf cell = BASE_BUF_INIT(1 << 16);
			unsigned w;
			size_t c;

			if (json_is_object(v) || json_is_object(json_array_get(v, 0)) || is_hidden(key))
				continue;
			if (!is_column(t, key)) {
				if (t->n == MAX_COLUMNS)
					continue;
				ag_sys_label(key, p->style->chinese, label, sizeof(label));
				t->widths[t->n] = columns_of(label);
				t->keys[t->n++] = key;
			}
			for (c = 0; strcmp(t->keys[c], key) != 0; c++)
				;
			put_value(p, key, v, &cell);
			w = columns_of(base_buf_text(&cell));
			t->widths[c] = w > t->widths[c] ? w : t->widths[c];
		}
	}
}

/* The widest column gives way until the line fits; what still does not is left out from the right. */
static void fit_columns(const struct page *p, struct table *t)
{
	for (;;) {
		unsigned sum = 2;
		size_t widest = 0;

		for (size_t i = 0; i < t->n; i++) {
			sum += t->widths[i] + 2;
			widest = t->widths[i] > t->widths[widest] ? i : widest;
		}
		if (sum <= p->width || t->n == 0)
			return;
		if (t->widths[widest] > 14)
			t->widths[widest]--;
		else
			t->n--;
	}
}

static void put_rows(const struct page *p, const struct table *t, const json_t *list)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (i >= MAX_ROWS)
			break;
		(void)base_buf_puts(p->out, "  ");
		for (size_t c = 0; c < t->n; c++) {
			CLEANUP(base_buf_done) struct base_buf cell = BASE_BUF_INIT(1 << 16);

			put_value(p, t->keys[c], json_object_get(item, t->keys[c]), &cell);
			put_padded(p->out, base_buf_text(&cell), t->widths[c]);
			(void)base_buf_puts(p->out, c + 1 < t->n ? "  " : "");
		}
		trim_line(p->out);
		(void)base_buf_putc(p->out, '\n');
	}
	if (json_array_size(list) > MAX_ROWS)
		(void)base_buf_printf(p->out,
		                      p->style->chinese ? "  …… 另有 %zu 行(--json 显示全部)\n"
		                                        : "  ... and %zu more (--json shows all)\n",
		                      json_array_size(list) - MAX_ROWS);
}

static void put_heading(const struct page *p, const char *key)
{
	char label[96];

	ag_sys_label(key, p->style->chinese, label, sizeof(label));
	paint(p, "1");
	(void)base_buf_printf(p->out, "  %s\n", label);
	paint(p, "0");
}

static void put_table(const struct page *p, const char *key, const json_t *list)
{
	struct table t = { .n = 0 };
	char label[96];

	find_columns(p, list, &t);
	fit_columns(p, &t);
	if (t.n == 0)
		return;
	put_heading(p, key);
	paint(p, "2");
	(void)base_buf_puts(p->out, "  ");
	for (size_t c = 0; c < t.n; c++) {
		ag_sys_label(t.keys[c], p->style->chinese, label, sizeof(label));
		put_padded(p->out, label, t.widths[c]);
		(void)base_buf_puts(p->out, c + 1 < t.n ? "  " : "");
	}
	trim_line(p->out);
	paint(p, "0");
	(void)base_buf_putc(p->out, '\n');
	put_rows(p, &t, list);
}

/* ---- Objects ------------------------------------------------------------------------------------------------- */

static void put_notes(const struct page *p, const json_t *notes)
{
	const json_t *note;
	size_t i;

	json_array_foreach(notes, i, note)
	{
		const char *text = json_string_value(json_object_get(note, p->style->chinese ? "zh" : "en"));

		if (!text)
			continue;
		paint(p, "33");
		(void)base_buf_puts(p->out, "  ! ");
		put_safe(p->out, text, strlen(text));
		paint(p, "0");
		(void)base_buf_putc(p->out, '\n');
	}
}

static void put_line(const struct page *p, const char *key, const json_t *v)
{
	CLEANUP(base_buf_done) struct base_buf cell = BASE_BUF_INIT(1 << 16);
	char label[96];

	put_value(p, key, v, &cell);
	if (cell.len == 0)
		return;
	ag_sys_label(key, p->style->chinese, label, sizeof(label));
	(void)base_buf_puts(p->out, "  ");
	put_padded(p->out, label, LABEL_WIDTH);
	(void)base_buf_printf(p->out, " %s\n", base_buf_text(&cell));
}

static void put_object(const struct page *p, const json_t *object, unsigned depth)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		if (!json_is_object(v) && !json_is_object(json_array_get(v, 0)))
			put_line(p, key, v);
	}
	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		if (strcmp(key, "notes") == 0)
			continue;
		if (json_is_object(json_array_get(v, 0)))
			put_table(p, key, v);
		else if (json_is_object(v) && json_object_size(v) && depth < MAX_NESTING) {
			put_heading(p, key);
			put_object(p, v, depth + 1);
		}
	}
	put_notes(p, json_object_get(object, "notes"));
}

/* What a failed unit said last, below the table of units. */
static void put_last_lines(const struct page *p, const json_t *services)
{
	const json_t *unit, *line;
	size_t i, k;

	json_array_foreach(json_object_get(services, "failed"), i, unit)
	{
		const char *name = json_string_value(json_object_get(unit, "unit"));

		json_array_foreach(json_object_get(unit, "last_lines"), k, line)
		{
			if (!json_is_string(line) || !name)
				continue;
			(void)base_buf_puts(p->out, "  ");
			put_safe(p->out, name, strlen(name));
			(void)base_buf_puts(p->out, ": ");
			put_safe(p->out, json_string_value(line), json_string_length(line));
			(void)base_buf_putc(p->out, '\n');
		}
	}
}

/* ---- Bars ------------------------------------------------------------------------------------------------------ */

static void put_bar(const struct page *p, const char *label, double percent)
{
	unsigned room = p->width > LABEL_WIDTH + 16 ? p->width - LABEL_WIDTH - 14 : 10;
	double clamped = fmin(100, fmax(0, percent));
	unsigned cells;

	if (room > 40)
		room = 40;
	cells = (unsigned)lround(clamped * room / 100);
	(void)base_buf_puts(p->out, "  ");
	put_padded(p->out, label, LABEL_WIDTH);
	(void)base_buf_puts(p->out, p->style->ascii ? " [" : " ");
	paint(p, clamped >= 90 ? "31" : clamped >= 70 ? "33" : "32");
	for (unsigned i = 0; i < room; i++)
		(void)base_buf_puts(p->out, p->style->ascii ? (i < cells ? "#" : ".") : i < cells ? "█" : "░");
	paint(p, "0");
	(void)base_buf_printf(p->out, "%s %5.1f %%\n", p->style->ascii ? "]" : "", clamped);
}

static void put_bar_at(const struct page *p, const json_t *document, const char *path, bool rest, const char *en,
                       const char *zh)
{
	const json_t *v = ag_sys_lookup(document, path);

	if (json_is_number(v))
		put_bar(p, p->style->chinese ? zh : en, rest ? 100 - json_number_value(v) : json_number_value(v));
}

static void put_bars_of(const struct page *p, const json_t *list, const char *name_key, const char *value_key)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		const char *name = json_string_value(json_object_get(item, name_key));
		const json_t *v = json_object_get(item, value_key);

		if (name && json_is_number(v) && i < MAX_ROWS) {
			CLEANUP(base_buf_done) struct base_buf label = BASE_BUF_INIT(1 << 16);

			put_safe(&label, name, strlen(name));
			put_bar(p, base_buf_text(&label), json_number_value(v));
		}
	}
}

static void put_perf_bars(const struct page *p, const json_t *document)
{
	put_bar_at(p, document, "perf.cpu.busy_percent", false, "processors", "CPU 忙碌");
	put_bar_at(p, document, "perf.cpu.busiest_percent", false, "busiest processor", "最忙的 CPU");
	put_bar_at(p, document, "perf.memory.available_percent", true, "memory in use", "内存占用");
	put_bar_at(p, document, "perf.memory.swap_used_percent", false, "swap in use", "交换占用");
	put_bar_at(p, document, "perf.pressure.cpu_some_percent", false, "waiting for CPU", "等 CPU");
	put_bar_at(p, document, "perf.pressure.memory_some_percent", false, "waiting for memory", "等内存");
	put_bar_at(p, document, "perf.pressure.io_some_percent", false, "waiting for I/O", "等 I/O");
	put_bars_of(p, ag_sys_lookup(document, "perf.disks"), "name", "util_percent");
}

/* ---- Findings, the whole --------------------------------------------------------------------------------------- */

static void put_finding(const struct page *p, size_t number, const json_t *f)
{
	const char *text = json_string_value(json_object_get(f, p->style->chinese ? "zh" : "en"));
	const char *severity = json_string_value(json_object_get(f, "severity"));
	bool critical = severity && strcmp(severity, "critical") == 0;
	const json_t *next;
	size_t i;

	if (!text)
		return;
	(void)base_buf_printf(p->out, "  %zu. ", number);
	paint(p, critical ? "1;31" : "33");
	(void)base_buf_puts(p->out, p->style->chinese ? (critical ? "[严重] " : "[警告] ")
	                                              : (critical ? "[critical] " : "[warning] "));
	paint(p, "0");
	put_safe(p->out, text, strlen(text));
	(void)base_buf_putc(p->out, '\n');
	json_array_foreach(json_object_get(f, "next"), i, next)
	{
		if (!json_is_string(next))
			continue;
		(void)base_buf_puts(p->out, "       $ ");
		put_safe(p->out, json_string_value(next), json_string_length(next));
		(void)base_buf_putc(p->out, '\n');
	}
}

static void put_title(const struct page *p, const char *text)
{
	paint(p, "1;36");
	(void)base_buf_puts(p->out, p->style->ascii ? "== " : "━━ ");
	put_safe(p->out, text, strlen(text));
	(void)base_buf_puts(p->out, p->style->ascii ? " ==" : " ━━");
	paint(p, "0");
	(void)base_buf_putc(p->out, '\n');
}

static void put_findings(const struct page *p, const json_t *findings)
{
	const json_t *f;
	size_t i;

	put_title(p, p->style->chinese ? "发现" : "findings");
	json_array_foreach(findings, i, f) put_finding(p, i + 1, f);
	if (json_array_size(findings) == 0)
		(void)base_buf_puts(p->out,
		                    p->style->chinese ? "  没有超过阈值的指标。\n" : "  Nothing passed a threshold.\n");
}

int ag_sys_render(const json_t *document, const struct ag_sys_style *style, struct base_buf *out)
{
	const struct page p = { style, out, style->width >= 40 ? style->width : style->width ? 40 : 80 };
	const char *key;
	json_t *section;
	char label[96];

	json_object_foreach((json_t *)(uintptr_t)document, key, section)
	{
		if (strcmp(key, "findings") == 0 || !json_is_object(section))
			continue;
		ag_sys_label(key, p.style->chinese, label, sizeof(label));
		put_title(&p, label);
		if (strcmp(key, "perf") == 0)
			put_perf_bars(&p, document);
		if (strcmp(key, "storage") == 0)
			put_bars_of(&p, json_object_get(section, "mounts"), "point", "used_percent");
		put_object(&p, section, 0);
		if (strcmp(key, "services") == 0)
			put_last_lines(&p, section);
		(void)base_buf_putc(out, '\n');
	}
	if (json_is_array(json_object_get(document, "findings")))
		put_findings(&p, json_object_get(document, "findings"));
	return base_buf_error(out);
}
