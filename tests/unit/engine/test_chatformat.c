/* Tool calls and reasoning of every family; and that no way of cutting an answer changes what is told. */
#include <jansson.h>
#include <string.h>

#include "test.h"

#include "chat_parts.h"

static const char tools_text[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\"},\"opts\":{\"type\":\"object\"},"
        "\"zip\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]},\"ok\":{\"type\":\"boolean\"}}}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"now\",\"parameters\":{\"type\":\"object\"}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"function\"}}]";

static json_t *tools;

static const struct sample {
	const char *tool, *reasoning, *prompt, *answer;
	const char *think, *text, *calls; /* what is told */
	uint32_t max_calls;
} samples[] = {
	/* Hermes, Qwen */
	{ "hermes", "think", NULL, "Hello, w\xc3\xb6rld.\n\n", "", "Hello, w\xc3\xb6rld.\n\n", "", 0 },
	{ "hermes", "think", NULL,
	  "<think>\nHe wants weather.\n</think>\n\nLet me see.\n<tool_call>\n{\"name\": \"get_weather\", "
	  "\"arguments\": "
	  "{\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"}}\n</tool_call>",
	  "He wants weather.", "Let me see.", "get_weather({\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"})", 0 },
	{ "hermes", "think", "<|im_start|>assistant\n<think>\n", "thinking</think>\n\nanswer", "thinking", "answer", "",
	  0 },
	{ "hermes", "think", "<think>\n\n</think>\n\n", "a <think> b", "", "a <think> b", "", 0 },
	{ "hermes", "none", NULL, "<think>x</think>y", "", "<think>x</think>y", "", 0 },
	{ "none", "think", NULL, "<think>x</think><tool_call>{\"name\":\"now\"}</tool_call>", "x",
	  "<tool_call>{\"name\":\"now\"}</tool_call>", "", 0 },
	{ "hermes", "none", NULL,
	  "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"arguments\": {\"days\": "
	  "[1, "
	  "{\"a\": \"}\"}]}, \"name\": \"get_weather\"}\n</tool_call>\nDone",
	  "", "Done", "now({})get_weather({\"days\": [1, {\"a\": \"}\"}]})", 0 },
	{ "hermes", "none", NULL,
	  "<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"now\",\"arguments\":{}}"
	  "</tool_call> more",
	  "", "", "now({})", 1 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\"}</tool_call>", "", "", "now({})", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>", "", "",
	  "now({\"a\":1})", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"x\ny\"}}</tool_call>", "", "",
	  "now({\"a\":\"x\\u000ay\"})", 0 },
	/* Missing and superfluous brackets behind whole arguments. */
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":1}</tool_call>", "", "",
	  "now({\"a\":1})", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":1}}}</tool_call>ok", "", "ok",
	  "now({\"a\":1})", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":{}}", "", "", "now({})", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":{}} <tool_call>{\"name\":\"now\"}", "",
	  "", "now({})now({})", 0 },
	/* No calls. */
	{ "hermes", "none", NULL, "<tool_call>not json</tool_call>", "", "<tool_call>not json</tool_call>", "", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>", "",
	  "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>", "", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\": \"a b\", \"arguments\": {}}</tool_call>", "",
	  "<tool_call>{\"name\": \"a b\", \"arguments\": {}}</tool_call>", "", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>", "",
	  "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>", "", 0 },
	{ "hermes", "none", NULL, "a <tool_cal b <tool_call", "", "a <tool_cal b <tool_call", "", 0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\": \"no", "", "<tool_call>{\"name\": \"no", "", 0 },
	{ "hermes", "none", NULL, "<tool_call>{broken</tool_call>\n<tool_call>{\"name\":\"now\"}</tool_call>", "",
	  "<tool_call>{broken</tool_call>", "now({})", 0 },
	/* Cut off, or broken, behind the name: the call has no end. */
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"x", "", "", "now({\"a\":\"x!",
	  0 },
	{ "hermes", "none", NULL, "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":oops}}</tool_call>", "",
	  "oops}}</tool_call>", "now({\"a\":!", 0 },

	/* Qwen3-Coder */
	{ "qwen3-coder", "none", NULL,
	  "I look.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nSan "
	  "\"Francisco\"\n</parameter>\n<parameter=days>\n"
	  "3\n</parameter>\n<parameter=opts>\n{\"a\": [1,2]}\n</parameter>\n<parameter=zip>\n0123\n</parameter>\n"
	  "<parameter=ok>\nTrue\n</parameter>\n</function>\n</tool_call>",
	  "", "I look.",
	  "get_weather({\"city\": \"San \\\"Francisco\\\"\", \"days\": 3, \"opts\": {\"a\":[1,2]}, \"zip\": \"0123\", "
	  "\"ok\": true})",
	  0 },
	{ "qwen3-coder", "none", NULL,
	  "<tool_call>\n<function=get_weather>\n<parameter=city>\na\n\n  b\n\n</parameter>\n</function>\n</tool_call>\n"
	  "<tool_call>\n<function=now>\n</function>\n</tool_call>",
	  "", "", "get_weather({\"city\": \"a\\n\\n  b\\n\"})now({})", 0 },
	{ "qwen3-coder", "none", NULL, "<function=now>\n</function>", "", "", "now({})", 0 },
	{ "qwen3-coder", "none", NULL, "<tool_call>\nno function\n</tool_call>", "",
	  "<tool_call>\nno function\n</tool_call>", "", 0 },
	{ "qwen3-coder", "none", NULL, "<tool_call>\n<function=get_weather>\n<parameter=city>\nPar", "", "",
	  "get_weather({\"city\": \"Par!", 0 },

	/* GLM */
	{ "glm", "think", NULL,
	  "\n<think>hm</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Beijing</arg_value>\n"
	  "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
	  "hm", "", "get_weather({\"city\": \"Beijing\", \"days\": 2})", 0 },
	{ "glm", "none", NULL,
	  "<tool_call>get_weather<arg_key>city</arg_key><arg_value>B</arg_value></tool_call><tool_call>now</tool_call>",
	  "", "", "get_weather({\"city\": \"B\"})now({})", 0 },
	/* Hunyuan */
	{ "hunyuan", "hunyuan", NULL,
	  "<think>\nplan\n</think>\n<answer>\n<tool_calls>[{\"name\": \"now\", \"arguments\": {}}, {\"name\": "
	  "\"get_weather\", "
	  "\"arguments\": {\"city\": \"A\"}}]</tool_calls>\n</answer>",
	  "plan", "", "now({})get_weather({\"city\": \"A\"})", 0 },
	{ "hunyuan", "hunyuan", NULL, "<think>\n\n</think>\n<answer>\nhi there\n</answer>", "", "hi there\n", "", 0 },
	{ "hunyuan-v3", "think", NULL,
	  "<tool_calls>\n<tool_call>get_weather<tool_sep>\n<arg_key>city</arg_key>\n<arg_value>X</arg_value>\n</"
	  "tool_call>\n"
	  "<tool_call>now<tool_sep>\n</tool_call>\n</tool_calls>",
	  "", "", "get_weather({\"city\": \"X\"})now({})", 0 },

	/* DeepSeek V3, R1; V3.1 */
	{ "deepseek", "think", "<think>\n",
	  "r\n</think>\n\nok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
	  "```json\n{\"city\": \"Tokyo\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜"
	  ">now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
	  "r", "ok", "get_weather({\"city\": \"Tokyo\"})now({})", 0 },
	{ "deepseek", "none", NULL,
	  "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": "
	  "\"Tokyo\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{\"a\":1}<｜tool▁call▁end｜>"
	  "<｜tool▁calls▁end｜>",
	  "", "", "get_weather({\"city\": \"Tokyo\"})function({\"a\":1})", 0 },
	{ "deepseek", "none", NULL, "<｜tool▁calls▁begin｜>nothing", "", "<｜tool▁calls▁begin｜>nothing", "", 0 },

	/* DeepSeek V3.2 and V4 */
	{ "deepseek-v3.2", "think", "<think>",
	  "r</think>Let me see.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"get_weather\">\n"
	  "<｜DSML｜parameter name=\"city\" string=\"true\">S\xc3\xa3o \"P\"\n<b></｜DSML｜parameter>\n"
	  "<｜DSML｜parameter name=\"days\" string=\"false\">10</｜DSML｜parameter>\n"
	  "<｜DSML｜parameter name=\"zip\" string=\"false\">[1, {\"a\": null}]</｜DSML｜parameter>\n"
	  "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"now\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
	  "r", "Let me see.",
	  "get_weather({\"city\": \"S\xc3\xa3o \\\"P\\\"\\n<b>\", \"days\": 10, \"zip\": [1,{\"a\":null}]})now({})",
	  0 },
	{ "deepseek-v4", "none", NULL,
	  "<｜DSML｜tool_calls><｜DSML｜invoke name=\"get_weather\"><｜DSML｜parameter name=\"days\" "
	  "string=\"true\">3</｜DSML｜parameter><｜DSML｜parameter "
	  "name=\"ok\">true</｜DSML｜parameter></｜DSML｜invoke>"
	  "</｜DSML｜tool_calls>done",
	  "", "done", "get_weather({\"days\": \"3\", \"ok\": true})", 0 },
	{ "deepseek-v3.2", "none", NULL, "a <｜DSML｜function_calls>nothing", "", "a <｜DSML｜function_calls>nothing",
	  "", 0 },
	{ "deepseek-v3.2", "none", NULL,
	  "<｜DSML｜function_calls><｜DSML｜invoke name=\"now\"><｜DSML｜parameter name=\"a\" "
	  "string=\"true\">x</｜DSML",
	  "", "", "now({\"a\": \"x!", 0 },

	/* Python */
	{ "pythonic", "none", NULL, "[get_weather(city='Oslo', days=3), now()]", "", "",
	  "get_weather({\"city\": \"Oslo\", \"days\": 3})now({})", 0 },
	{ "pythonic", "none", NULL, "<|python_start|>[now(a=[1, (2,), {'k': None, \"l\": True,},], )]<|python_end|>ok",
	  "", "ok", "now({\"a\": [1, [2], {\"k\": null, \"l\": true}]})", 0 },
	{ "pythonic", "none", NULL,
	  "[now(a=\"q\\\"\\n\\x41\\u00e9\\U0001F600\\ud83d\\ude00\\ud800\\101\\q\", b='', c='''x'y''\nz''', "
	  "d=\"\"\"\"\"\")]",
	  "", "",
	  "now({\"a\": \"q\\\"\\u000aA\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xef\xbf\xbd"
	  "A\\\\q\", \"b\": \"\", \"c\": \"x'y''\\u000az\", \"d\": \"\"})",
	  0 },
	{ "pythonic", "none", NULL,
	  "[now(a=-1_000, b=.5, c=2., d=1e-3, e=0x1F, f=+7, g=007.5, h=-0b11, i=word, j=false, k=1__0)]", "", "",
	  "now({\"a\": -1000, \"b\": 0.5, \"c\": 2.0, \"d\": 1e-3, \"e\": 31, \"f\": 7, \"g\": 7.5, \"h\": -3, \"i\": "
	  "\"word\", \"j\": false, \"k\": \"1__0\"})",
	  0 },
	{ "pythonic", "none", NULL, "[now(a={1: 2, True: 'x'})] then", "", "then",
	  "now({\"a\": {\"1\": 2, \"True\": \"x\"}})", 0 },
	{ "pythonic", "none", NULL, "[now(), now()]", "", "", "now({})", 1 },
	{ "pythonic", "none", NULL, "[1, 2] and [see](x)", "", "[1, 2] and [see](x)", "", 0 },
	{ "pythonic", "none", NULL, "[]", "", "[]", "", 0 },
	{ "pythonic", "none", NULL, "[unknown(a=1)]", "", "[unknown(a=1)]", "", 0 },
	{ "pythonic", "none", NULL, "Call [now()]", "", "Call [now()]", "", 0 },
	{ "pythonic", "none", NULL, "[now(a=\"x", "", "", "now({\"a\": \"x!", 0 },
	{ "pythonic", "none", NULL, "[now(\"x\")]", "", "\"x\")]", "now(!", 0 },
	{ "llama4", "none", NULL,
	  "<|python_start|>{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}<|python_end|>", "", "",
	  "get_weather({\"city\": \"Oslo\"})", 0 },

	/* Llama 3 */
	{ "llama3", "none", NULL, "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}", "", "",
	  "get_weather({\"city\": \"Oslo\"})", 0 },
	{ "llama3", "none", NULL,
	  "<|python_tag|>{\"name\": \"now\", \"parameters\": {}}; {\"name\": \"now\", \"parameters\": {}}", "", "",
	  "now({})now({})", 0 },
	{ "llama3", "none", NULL, "{\"name\": \"somebody\", \"age\": 3}", "", "{\"name\": \"somebody\", \"age\": 3}",
	  "", 0 },
	{ "llama3", "none", NULL, "Here: {\"name\": \"now\", \"parameters\": {}}", "",
	  "Here: {\"name\": \"now\", \"parameters\": {}}", "", 0 },

	/* Mistral, both ways */
	{ "mistral", "mistral", NULL,
	  "[THINK]hm[/THINK]Sure[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}, \"id\": \"abc\"}, {\"name\": "
	  "\"get_weather\", "
	  "\"arguments\": {\"city\": \"Nice\"}}]",
	  "hm", "Sure", "now({})get_weather({\"city\": \"Nice\"})", 0 },
	{ "mistral", "none", NULL,
	  "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Nice\"}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}", "", "",
	  "get_weather({\"city\": \"Nice\"})now({})", 0 },

	/* gpt-oss */
	{ "harmony", "harmony", NULL,
	  "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant<|channel|>commentary "
	  "to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Rome\"}<|call|>",
	  "Need weather.", "", "get_weather({\"city\": \"Rome\"})", 0 },
	{ "harmony", "harmony", NULL,
	  "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>The answer is 4.", "a",
	  "The answer is 4.", "", 0 },
	{ "harmony", "harmony", NULL,
	  "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now<|channel|>commentary "
	  "json<|message|>{}<|call|>",
	  "", "I look.", "now({})", 0 },
	{ "harmony", "harmony", NULL, " to=functions.now<|channel|>commentary<|message|>{}", "", "", "now({})", 0 },
	{ "harmony", "harmony", NULL, "Just words without channels.", "", "Just words without channels.", "", 0 },
	{ "none", "harmony", NULL, "<|channel|>final<|message|>hi", "", "hi", "", 0 },
	{ "harmony", "none", NULL,
	  "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "", "ab", "", 0 },

	/* Constrained generation */
	{ "json", "none", NULL,
	  "[{\"name\":\"now\",\"arguments\":{}},{\"name\":\"get_weather\",\"arguments\":{\"city\":\"\"}}]", "", "",
	  "now({})get_weather({\"city\":\"\"})", 0 },
	{ "json", "none", NULL, "[ {\r\"n\\u0061me\"\t:\"no\\u0077\" ,\n\"\\u0061rguments\": {\"a\":1} }\n]", "", "",
	  "now({\"a\":1})", 0 },
	{ "json", "none", NULL, "[1, 2]", "", "[1, 2]", "", 0 },
};

enum { N_SAMPLES = sizeof(samples) / sizeof(samples[0]) };

static struct eng_chat_parser_config config_of(const struct sample *s)
{
	return (struct eng_chat_parser_config){ .tool_format = s->tool,
		                                .reasoning_format = s->reasoning,
		                                .tools = tools,
		                                .prompt = s->prompt,
		                                .prompt_len = s->prompt ? strlen(s->prompt) : 0,
		                                .max_calls = s->max_calls };
}

static int load_tools(void **state)
{
	(void)state;
	tools = json_loads(tools_text, 0, NULL);
	return tools ? 0 : -1;
}

static int drop_tools(void **state)
{
	(void)state;
	json_decref(tools);
	return 0;
}

static void every_family_is_understood(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SAMPLES; i++) {
		const struct sample *s = &samples[i];
		struct eng_chat_parser_config c = config_of(s);
		struct told t;

		tell_all(&c, s->answer, strlen(s->answer), 0, &t);
		if (strcmp(base_buf_text(&t.reasoning), s->think) != 0 ||
		    strcmp(base_buf_text(&t.text), s->text) != 0 || strcmp(base_buf_text(&t.calls), s->calls) != 0 ||
		    t.is_bad)
			fail_msg("%s: %s\nreasoning: %s\ntext: %s\ncalls: %s", s->tool, s->answer,
			         base_buf_text(&t.reasoning), base_buf_text(&t.text), base_buf_text(&t.calls));
		told_done(&t);
	}
}

static bool same(const struct told *a, const struct told *b)
{
	return strcmp(base_buf_text(&a->text), base_buf_text(&b->text)) == 0 &&
	       strcmp(base_buf_text(&a->reasoning), base_buf_text(&b->reasoning)) == 0 &&
	       strcmp(base_buf_text(&a->calls), base_buf_text(&b->calls)) == 0 &&
	       strcmp(base_buf_text(&a->trace), base_buf_text(&b->trace)) == 0;
}

static void check_cuts(const struct sample *s, const char *answer, size_t len, unsigned seed)
{
	struct eng_chat_parser_config c = config_of(s);
	struct told whole, cut;

	tell_all(&c, answer, len, 0, &whole);
	for (unsigned k = 1; k < 8; k++) {
		tell_all(&c, answer, len, k == 1 ? 1 : seed * 31 + k, &cut);
		if (!same(&whole, &cut) || cut.is_bad)
			fail_msg("%s, seed %u/%u: %s\nwhole: %s | %s | %s\ncut:   %s | %s | %s", s->tool, seed, k,
			         answer, base_buf_text(&whole.reasoning), base_buf_text(&whole.text),
			         base_buf_text(&whole.calls), base_buf_text(&cut.reasoning), base_buf_text(&cut.text),
			         base_buf_text(&cut.calls));
		told_done(&cut);
	}
	assert_false(whole.is_bad);
	told_done(&whole);
}

static void no_way_of_cutting_changes_what_is_told(void **state)
{
	(void)state;
	for (unsigned i = 0; i < N_SAMPLES; i++) {
		for (unsigned seed = 2; seed < 40; seed++)
			check_cuts(&samples[i], samples[i].answer, strlen(samples[i].answer), seed * 977 + i);
	}
}

/* Answers with a piece lost, doubled or taken from another family. */
static void the_same_holds_for_broken_answers(void **state)
{
	char text[4096];

	(void)state;
	for (unsigned seed = 2; seed < 4000; seed++) {
		unsigned r = seed;
		const struct sample *s = &samples[(unsigned)rand_r(&r) % N_SAMPLES];
		const struct sample *o = &samples[(unsigned)rand_r(&r) % N_SAMPLES];
		size_t n = strlen(s->answer), a = (size_t)rand_r(&r) % (n + 1),
		       b = a + (size_t)rand_r(&r) % (n - a + 1);
		size_t from = (size_t)rand_r(&r) % (strlen(o->answer) + 1);

		/* At characters, so that the answer stays text. */
		while (a > 0 && ((unsigned char)s->answer[a] & 0xc0) == 0x80)
			a--;
		while (b < n && ((unsigned char)s->answer[b] & 0xc0) == 0x80)
			b++;
		while (from > 0 && ((unsigned char)o->answer[from] & 0xc0) == 0x80)
			from--;
		(void)snprintf(text, sizeof(text), "%.*s%s%s", (int)a, s->answer, seed % 3 ? "" : o->answer + from,
		               s->answer + b);
		check_cuts(s, text, strlen(text), seed);
	}
}

static void streams_of_arguments_come_before_their_end(void **state)
{
	static const char begin[] = "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"0123456789";
	struct told t;
	struct eng_chat_parser *p = NULL;
	struct eng_chat_parser_config c = { .tool_format = "hermes", .on_part = told_part, .arg = &t };

	(void)state;
	told_init(&t);
	assert_int_equal(eng_chat_parser_new(&c, &p, NULL), 0);
	eng_chat_parser_feed(p, begin, strlen(begin));
	assert_string_equal(base_buf_text(&t.calls), "now({\"a\":\"0123456789");
	eng_chat_parser_free(p);
	told_done(&t);
}

static void templates_tell_the_format(void **state)
{
	static const struct {
		const char *text, *tools, *reasoning;
	} cases[] = {
		{ "<|im_start|>{{ m.content }}", "none", "none" },
		{ "<tool_call>{{ t }}</tool_call> {% if '</think>' in c %}", "hermes", "think" },
		{ "<tool_call>\n<function=f>\n<parameter=p>", "qwen3-coder", "none" },
		{ "<tool_call>{{ n }}\n<arg_key>k</arg_key></think>", "glm", "think" },
		{ "<tool_calls><tool_call>n<tool_sep><arg_key>", "hunyuan-v3", "none" },
		{ "<tool_calls>[ </think> <answer>", "hunyuan", "hunyuan" },
		{ "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜></think>", "deepseek", "think" },
		{ "{{ dsml }}<｜DSML｜function_calls></think>", "deepseek-v3.2", "think" },
		{ "<｜DSML｜tool_calls></think>", "deepseek-v4", "think" },
		{ "the format [func_name1(params_name1=params_value1...)] <|header_start|> {\"parameters\":",
		  "pythonic", "none" },
		{ "<|header_start|> {\"name\": f, \"parameters\": {", "llama4", "none" },
		{ "[TOOL_CALLS][ [THINK]", "mistral", "mistral" },
		{ "<|start_header_id|> {\"name\": f, \"parameters\": {", "llama3", "none" },
		{ "<|start|>assistant<|channel|>final", "harmony", "harmony" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_string_equal(eng_chat_detect_tools(cases[i].text, strlen(cases[i].text)), cases[i].tools);
		assert_string_equal(eng_chat_detect_reasoning(cases[i].text, strlen(cases[i].text)),
		                    cases[i].reasoning);
	}
}

static void an_unknown_format_is_refused(void **state)
{
	struct eng_chat_parser_config c = { .tool_format = "kling" };
	struct eng_chat_parser *p = NULL;
	struct err err = { 0 };

	(void)state;
	assert_true(eng_chat_parser_new(&c, &p, &err) < 0);
	assert_non_null(strstr(err_text(&err), "kling"));
	assert_null(p);
}

static void a_schema_names_the_tools(void **state)
{
	json_t *one = eng_chat_call_schema(tools, "now", 1), *any = eng_chat_call_schema(tools, NULL, 0);

	(void)state;
	assert_int_equal(json_integer_value(json_object_get(one, "maxItems")), 1);
	assert_string_equal(
	        json_string_value(json_array_get(
	                json_object_get(
	                        json_object_get(json_object_get(json_object_get(one, "items"), "properties"), "name"),
	                        "enum"),
	                0)),
	        "now");
	assert_int_equal(json_array_size(json_object_get(json_object_get(any, "items"), "anyOf")), 3);
	json_decref(one);
	json_decref(any);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_family_is_understood),
		cmocka_unit_test(no_way_of_cutting_changes_what_is_told),
		cmocka_unit_test(the_same_holds_for_broken_answers),
		cmocka_unit_test(streams_of_arguments_come_before_their_end),
		cmocka_unit_test(templates_tell_the_format),
		cmocka_unit_test(an_unknown_format_is_refused),
		cmocka_unit_test(a_schema_names_the_tools),
	};

	return cmocka_run_group_tests(tests, load_tools, drop_tools);
}
