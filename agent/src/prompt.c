/* What is sent to the model. Which models want which words is one table: the first row whose prefix the
 * model's id has. A model trained for the task gets its keyword; any other one gets instructions in the
 * language of the question. */
#include "agent.h"

#include <string.h>

static const char general_en[] =
        "You are a Linux command assistant for administrators of an RPM-based server (dnf, systemd, firewalld, "
        "NetworkManager). Answer with exactly one shell command that does what is asked, on one line. No explanation, "
        "no Markdown, no alternatives. Prefer commands that only read when the question only asks. If no command can "
        "do it, answer with the single word NONE.";

static const char general_zh[] =
        "你是 Linux 命令助手,服务于基于 RPM 的服务器(dnf、systemd、firewalld、NetworkManager)的管理员。"
        "只回答一条能完成要求的 shell 命令,写成一行。不要解释,不要 Markdown,不要给出多个方案。"
        "如果只是查询,请使用只读命令。如果没有命令能完成,只回答 NONE。";

static const struct {
	const char *id_prefix;
	const char *system_en, *system_zh;
} prompts[] = {
	{ "ocai-mini", "cmd", "cmd" }, /* trained with "cmd": one shell command and nothing else */
	{ "", general_en, general_zh },
};

/* Han characters are U+3400..U+9FFF and U+20000 and up: three bytes from E3 90, or four. */
bool ag_is_chinese(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if ((*p >= 0xe4 && *p <= 0xe9) || (*p == 0xe3 && p[1] >= 0x90) ||
		    (*p == 0xf0 && p[1] >= 0xa0 && p[1] < 0xb4))
			return true;
	}
	return false;
}

json_t *ag_cmd_messages(const char *model, const char *question)
{
	const char *system = NULL;

	for (size_t i = 0; !system; i++) {
		if (strncmp(model, prompts[i].id_prefix, strlen(prompts[i].id_prefix)) == 0)
			system = ag_is_chinese(question) ? prompts[i].system_zh : prompts[i].system_en;
	}
	return json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "system", "content", system, "role", "user", "content",
	                 question);
}
