/* ocai code: code to standard output alone, or to a file. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "front.h"

const struct opt code_opts[] = { { "language", 'l', OPT_STR, offsetof(struct ag_settings, language), "LANG",
	                           "language to write in", NULL },
	                         { "output", 'o', OPT_STR, offsetof(struct ag_settings, output), "FILE",
	                           "write to this file instead of standard output", NULL },
	                         FRONT_BACKEND_OPTS,
	                         { 0 } };

/* The file is written whole or not at all: nothing that was there is lost to half an answer. */
static int to_file(struct front *f, struct err *err)
{
	CLEANUP(freep) char *text = NULL;
	size_t len = 0;
	struct ag_io io = f->io;
	int r;

	io.out = open_memstream(&text, &len);
	if (!io.out)
		return err_set(err, -ENOMEM, "out of memory");
	r = ag_answer(&f->s, ag_settings_assistant(&f->s, "code"), &io, base_buf_text(&f->question),
	              f->has_input ? base_buf_text(&f->input) : NULL, err);
	if (fclose(io.out) != 0 && r >= 0)
		r = err_set(err, -ENOMEM, "out of memory");
	return r < 0 ? r : base_write_file_atomic(f->s.output, text, len, 0644, err);
}

int cmd_code(int argc, char **argv)
{
	struct err err = { 0 };
	struct front f;
	int code;

	if (front_begin(&f, "code", argc, argv, &code) || front_read_question(&f, argv, f.n_words, &code))
		return code;
	if (!f.s.output || strcmp(f.s.output, "-") == 0)
		return front_answer(&f, ag_settings_assistant(&f.s, "code"));
	return front_end(&f, to_file(&f, &err), &err);
}
