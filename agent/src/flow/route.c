/* Which assistant a question is for. A table of words, each with a weight for one assistant; the heaviest wins. Words
 * of ASCII letters match at word boundaries and without case, Chinese ones anywhere. Nothing found: a question with
 * something piped in is talked about, anything else is a command wanted. */
#include "flow/flow.h"

#include <ctype.h>
#include <string.h>

enum { CHAT, CMD, CODE, SYS, KB, N };

static const struct {
	int of, weight;
	const char *words;
} rules[] = {
	/* code: something is to be written in a language */
	{ CODE, 6,
	  "write a script|write a program|write a function|write code|write me a|implement a|shell script that" },
	{ CODE, 6, "写一个脚本|写个脚本|写一段|写一个函数|写个函数|写一个程序|写个程序|编写|帮我写|写代码|实现一个" },
	{ CODE, 4,
	  "in python|in c++|in rust|in golang|in javascript|python script|python code|bash script|dockerfile for" },
	{ CODE, 4,
	  "unit file for|regex for|regular expression for|python脚本|python 脚本|shell脚本|shell 脚本|正则表达式" },
	/* sys: the state of this machine, explained */
	{ SYS, 7,
	  "why is this machine|why is my machine|why is the system|why is the server|why is this server|why is it "
	  "slow" },
	{ SYS, 7,
	  "health check|what is wrong with|diagnose|performance problem|triage|system slow|server slow|machine slow" },
	{ SYS, 7,
	  "系统为什么|服务器为什么|机器为什么|为什么这么慢|为什么很慢|为什么卡|系统卡|机器卡|系统慢|很卡|变慢|诊断" },
	{ SYS, 7, "体检|健康检查|性能分析|性能问题|负载为什么|哪里有问题|系统状态怎么样|系统有什么问题|整体情况" },
	/* kb: what the documents say */
	{ KB, 8,
	  "knowledge base|in my documents|in the docs|in our docs|according to the docs|according to the "
	  "documentation" },
	{ KB, 8, "知识库|文档里|文档中|根据文档|手册里|资料里|内部文档" },
	/* chat: to be told something */
	{ CHAT, 4,
	  "what is|what are|what does|explain|why|difference between|how does|tell me about|should i|which is better" },
	{ CHAT, 4,
	  "什么是|是什么意思|是什么|解释|为什么|区别|原理|介绍一下|有什么不同|优缺点|哪个好|怎么理解|讲讲|说说" },
	{ CHAT, 6, "hello|hi|hey|thanks|thank you|who are you|你好|您好|谢谢|你是谁|在吗" },
	{ CHAT, 3, "summarize|translate|总结|翻译|概括" },
	/* cmd: to be done or looked up here */
	{ CMD, 3,
	  "how to|how do i|how can i|command|show|list|find|display|print|check|count|install|remove|delete|create" },
	{ CMD, 3,
	  "start|stop|restart|enable|disable|add|set|change|open|close|kill|mount|copy|move|compress|extract|update" },
	{ CMD, 3,
	  "如何|怎么|怎样|命令|查看|显示|列出|查找|找出|统计|安装|卸载|删除|创建|新建|启动|停止|重启|设置|修改|添加" },
	{ CMD, 3,
	  "打开|关闭|开放|挂载|复制|移动|压缩|解压|更新|升级|配置|杀掉|清理|查询|看看|看一下|哪个进程|谁占用|多少" },
	{ CMD, 5,
	  "what is my ip|what is the ip|what is listening|what is "
	  "using|什么命令|用什么命令|是什么版本|什么占用|什么进程" },
};

static bool is_letter(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* The word at text[i..], with boundaries where the word has letters at its ends. */
static bool holds(const char *text, const char *word, size_t n)
{
	for (const char *p = text; *p; p++) {
		if (strncasecmp(p, word, n) != 0)
			continue;
		if (is_letter(word[0]) && p > text && is_letter(p[-1]))
			continue;
		if (is_letter(word[n - 1]) && is_letter(p[n]))
			continue;
		return true;
	}
	return false;
}

const struct ag_assistant *ag_route(const char *question, bool has_input)
{
	static const char *const names[N] = { "chat", "cmd", "code", "sys", "kb" };
	int score[N] = { 0 }, best = has_input ? CHAT : CMD;

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
		for (const char *w = rules[i].words; *w;) {
			size_t n = strcspn(w, "|");

			if (holds(question, w, n)) {
				score[rules[i].of] += rules[i].weight;
				break; /* a row counts once */
			}
			w += n + (w[n] == '|');
		}
	}
	/* What is piped in is to be talked about, unless code is wanted from it. */
	if (has_input) {
		score[CMD] = score[SYS] = 0;
		score[CHAT] += 3;
	}
	for (int i = 0; i < N; i++) {
		if (score[i] > score[best])
			best = i;
	}
	return ag_assistant_find(names[best]);
}
