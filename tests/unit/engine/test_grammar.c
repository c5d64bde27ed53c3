/* Grammars through their masks: every keyword with texts that are accepted and refused, expressions, EBNF, refusals,
 * and masks against single bytes. */
#include "base/buf.h"
#include "grammar_test.h"

struct texts {
	const char *grammar;
	const char *good[8], *bad[10];
};

static void check_texts(enum eng_grammar_kind kind, const struct texts *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct eng_grammar *g = compile(kind, cases[i].grammar);

		for (size_t k = 0; k < 8 && cases[i].good[k]; k++) {
			if (!accepts(g, cases[i].good[k]))
				fail_msg("%s refuses %s", cases[i].grammar, cases[i].good[k]);
		}
		for (size_t k = 0; k < 10 && cases[i].bad[k]; k++) {
			if (accepts(g, cases[i].bad[k]))
				fail_msg("%s accepts %s", cases[i].grammar, cases[i].bad[k]);
		}
		eng_grammar_unref(g);
	}
}

/* clang-format off */
static const struct texts schemas[] = {
	{ "{}", { "1", "\"a\"", "null", "[1,{\"a\":[]}]", "-0.5e+3", " {}" }, { "", "01", "+1", "[1,]", "{\"a\"}", "{a:1}", "'a'", "1.", "nul", "{}}" } },
	{ "true", { "[]" }, { "]" } },
	{ "{\"type\":\"null\"}", { "null" }, { "0", "false" } },
	{ "{\"type\":\"boolean\"}", { "true", "false" }, { "True", "0", "\"true\"" } },
	{ "{\"type\":\"integer\"}", { "0", "-12", "123456789012345678901234567890" }, { "1.0", "1e2", "00", "-", "\"1\"" } },
	{ "{\"type\":\"number\"}", { "0", "-1.50", "1e9", "1E-7" }, { ".5", "1.", "0x1", "1e" } },
	{ "{\"type\":[\"string\",\"null\"]}", { "\"\"", "null" }, { "1" } },
	{ "{\"type\":\"string\",\"nullable\":true}", { "\"a\"", "null" }, { "true" } },
	{ "{\"type\":\"string\"}", { "\"é\"", "\"\\u00e9\\n\"", "\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\"", "\"a\\\"b\"" },
	  { "\"\n\"", "\"\\x\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\xc3\"", "\"\xe4\xb8\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\"a" } },
	{ "{\"enum\":[\"red\",\"a\\\"b\",1,2.5,null,true,[1],{\"a\":[]}]}",
	  { "\"red\"", "\"\\u0072ed\"", "\"a\\\"b\"", "2.5", "null", "[ 1 ]", "{\"a\": []}", "1" },
	  { "\"blue\"", "3", "false", "[1,1]", "[]", "{\"a\":[1]}", "{}" } },
	{ "{\"const\":{\"k\":\"v\",\"n\":1}}", { "{\"k\":\"v\",\"n\":1}", "{\"n\": 1, \"k\": \"v\"}" }, { "{\"k\":\"v\"}", "{\"k\":\"v\",\"n\":2}" } },
	{ "{\"enum\":[1,\"a\",\"abc\"],\"type\":\"string\",\"maxLength\":2}", { "\"a\"" }, { "1", "\"abc\"" } },
	{ "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", { "\"ab\"", "\"中文é\"", "\"\\u00e9a\"" }, { "\"a\"", "\"abcd\"", "\"\"" } },
	{ "{\"type\":\"string\",\"pattern\":\"^a+b?$\"}", { "\"a\"", "\"aab\"", "\"\\u0061\"" }, { "\"b\"", "\"abb\"", "\"\"" } },
	{ "{\"type\":\"string\",\"pattern\":\"b\"}", { "\"b\"", "\"abc\"", "\"中b\"" }, { "\"a\"", "\"\"" } },
	{ "{\"type\":\"string\",\"pattern\":\"^(ab)+$\",\"maxLength\":5}", { "\"ab\"", "\"abab\"" }, { "\"ababab\"", "\"aba\"" } },
	{ "{\"type\":\"string\",\"pattern\":\"^(ab)*$\",\"minLength\":3}", { "\"abab\"" }, { "\"ab\"", "\"\"" } },
	{ "{\"allOf\":[{\"type\":\"string\",\"pattern\":\"^a\"},{\"pattern\":\"b$\"},{\"not\":{\"enum\":[\"ab\"]}}]}", { "\"acb\"", "\"abb\"" }, { "\"ab\"", "\"a\"", "\"b\"" } },
	{ "{\"not\":{\"type\":[\"string\",\"object\"]}}", { "1", "[]" }, { "\"a\"", "{}" } },
	{ "{\"type\":\"string\",\"not\":{\"pattern\":\"^x\"}}", { "\"a\"", "\"\"" }, { "\"x\"", "\"xa\"" } },
	{ "{\"type\":\"string\",\"format\":\"date\"}", { "\"2024-02-29\"", "\"1999-12-31\"" }, { "\"2023-02-29\"", "\"2024-04-31\"", "\"24-01-01\"", "\"0000-01-01\"" } },
	{ "{\"type\":\"string\",\"format\":\"date-time\"}", { "\"2024-01-01T00:00:00Z\"", "\"2024-01-01T23:59:59.5+01:00\"" }, { "\"2024-01-01\"", "\"2024-01-01T24:00:00Z\"" } },
	{ "{\"type\":\"string\",\"format\":\"ipv4\"}", { "\"1.2.3.255\"" }, { "\"1.2.3.256\"", "\"1.2.3\"", "\"01.2.3.4\"" } },
	{ "{\"type\":\"string\",\"format\":\"ipv6\"}", { "\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"::ffff:1.2.3.4\"" }, { "\":::\"", "\"1::2::3\"", "\"1:2:3:4:5:6:7\"" } },
	{ "{\"type\":\"string\",\"format\":\"uuid\"}", { "\"123e4567-e89b-12d3-a456-426614174000\"" }, { "\"123e4567e89b12d3a456426614174000\"" } },
	{ "{\"type\":\"string\",\"format\":\"email\"}", { "\"a.b+c@ex-ample.org\"" }, { "\"a@\"", "\"@b\"", "\"a b@c\"", "\"a@b..c\"" } },
	{ "{\"type\":\"string\",\"format\":\"uri\"}", { "\"https://u@ex.org:80/a/%20?q=1#f\"", "\"urn:isbn:1\"" }, { "\"//ex.org\"", "\"http://a b\"", "\"http://%zz\"" } },
	{ "{\"type\":\"string\",\"format\":\"color-of-mine\"}", { "\"any\"" }, { "1" } },
	{ "{\"type\":\"integer\",\"minimum\":-5,\"maximum\":120}", { "-5", "0", "99", "120" }, { "-6", "121", "1000", "-12" } },
	{ "{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":12}", { "10", "11" }, { "9", "12" } },
	{ "{\"type\":\"integer\",\"minimum\":1,\"exclusiveMinimum\":true}", { "2" }, { "1" } },
	{ "{\"type\":\"number\",\"minimum\":0.25,\"exclusiveMaximum\":12.5}", { "0.25", "0.3", "12.49", "1.0" }, { "0.2", "12.5", "12.50", "-1", "1e1" } },
	{ "{\"type\":\"number\",\"maximum\":-1.5}", { "-1.5", "-2", "-1.51" }, { "-1.4", "0", "-1" } },
	{ "{\"type\":\"integer\",\"multipleOf\":7}", { "0", "49", "-14" }, { "1", "48" } },
	{ "{\"type\":\"number\",\"multipleOf\":0.25}", { "0.5", "1.75", "3", "-0.250" }, { "0.3", "0.125" } },
	{ "{\"type\":\"integer\",\"format\":\"int32\"}", { "2147483647" }, { "2147483648" } },
	{ "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":2}", { "[1]", "[1, 2]" }, { "[]", "[1,2,3]", "[\"a\"]" } },
	{ "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},{\"const\":1}],\"items\":{\"type\":\"boolean\"}}", { "[]", "[null]", "[null,1,true,true]" }, { "[1]", "[null,2]", "[null,1,1]" } },
	{ "{\"type\":\"array\",\"items\":[{\"const\":1}],\"additionalItems\":false}", { "[]", "[1]" }, { "[1,1]", "[2]" } },
	{ "{\"type\":\"array\",\"uniqueItems\":true,\"maxItems\":1}", { "[]", "[1]" }, { "[1,1]" } },
	{ "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"],\"additionalProperties\":false}",
	  { "{\"n\":1}", "{\"name\":\"a\",\"n\":1}", "{\"n\":1,\"name\":\"a\"}", "{ \"\\u006e\" : 1 }" },
	  { "{}", "{\"name\":\"a\"}", "{\"n\":1,\"n\":2}", "{\"n\":\"a\"}", "{\"n\":1,\"x\":1}", "{\"n\":1,}", "{\"na\":1,\"n\":1}" } },
	{ "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"integer\"}}}",
	  { "{}", "{\"name\":1}", "{\"nam\":\"a\",\"names\":[],\"\":null}", "{\"n\":1,\"n\":\"twice\"}" },
	  { "{\"name\":\"a\"}", "{\"\\u006eame\":\"a\"}", "{\"na\\u006d\\u0065\":true}", "{\"name\":1,\"name\":1}" } },
	{ "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}", { "{\"a\":1,\"b\":2}" }, { "{\"a\":\"1\"}" } },
	{ "{\"type\":\"object\",\"patternProperties\":{\"^x-\":{\"type\":\"integer\"},\"a$\":{\"minimum\":5}},\"additionalProperties\":false}",
	  { "{}", "{\"x-\":1}", "{\"x-a\":5}", "{\"ba\":\"s\"}" }, { "{\"x-\":\"s\"}", "{\"x-a\":4}", "{\"b\":1}", "{\"ba\":4}" } },
	{ "{\"type\":\"object\",\"patternProperties\":{\"^x-\":false}}", { "{\"x\":1,\"y-\":2}" }, { "{\"x-\":1}", "{\"x-a\":1}" } },
	{ "{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[a-z]*$\",\"maxLength\":3}}", { "{\"abc\":1}", "{}" }, { "{\"A\":1}", "{\"abcd\":1}" } },
	{ "{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\"]}}", { "{\"a\":1,\"b\":2}" }, { "{\"c\":1}" } },
	{ "{\"type\":\"object\",\"minProperties\":1,\"maxProperties\":2}", { "{\"a\":1}", "{\"a\":1,\"b\":2}" }, { "{}", "{\"a\":1,\"b\":2,\"c\":3}" } },
	{ "{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{},\"c\":{}},\"required\":[\"c\"],\"maxProperties\":2,\"additionalProperties\":false}",
	  { "{\"a\":1,\"c\":1}" }, { "{\"a\":1,\"b\":1}", "{\"a\":1,\"b\":1,\"c\":1}" } },
	{ "{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"dependentRequired\":{\"a\":[\"b\"]}}", { "{\"b\":1}", "{\"a\":1,\"b\":1}", "{}" }, { "{\"a\":1}" } },
	{ "{\"type\":\"object\",\"not\":{\"required\":[\"a\"]}}", { "{}", "{\"ab\":1}" }, { "{\"a\":1}" } },
	{ "{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}}},{\"properties\":{\"b\":{\"type\":\"null\"}},\"required\":[\"a\"]}],\"unevaluatedProperties\":false}",
	  { "{\"a\":1}", "{\"b\":null,\"a\":1}" }, { "{}", "{\"a\":1,\"c\":1}", "{\"a\":1,\"b\":1}" } },
	{ "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"a\"},\"v\":{\"type\":\"null\"}},\"required\":[\"t\"]},{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"b\"},\"v\":{\"const\":1}},\"required\":[\"t\"]}]}",
	  { "7", "{\"v\":null,\"t\":\"a\"}", "{\"v\":1,\"t\":\"b\"}" }, { "{\"v\":null,\"t\":\"b\"}", "{}", "\"a\"" } },
	{ "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"a\"}},\"required\":[\"t\"]},{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"b\"}},\"required\":[\"t\"]}]}",
	  { "{\"t\":\"a\"}", "{\"x\":1,\"t\":\"b\"}" }, { "{\"t\":\"c\"}", "{}" } },
	{ "{\"oneOf\":[{\"type\":\"string\",\"pattern\":\"^a\"},{\"type\":\"string\",\"pattern\":\"^b\"}]}", { "\"a\"", "\"b\"" }, { "\"c\"" } },
	{ "{\"type\":\"object\",\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}", { "{\"a\":1}", "{\"x\":1,\"b\":1}" }, { "{}", "{\"a\":1,\"b\":1}" } },
	{ "{\"type\":\"object\",\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}", { "{\"a\":1}", "{\"a\":1,\"b\":1}" }, { "{}", "{\"c\":1}" } },
	{ "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":\"#/$defs/n\"}},\"additionalProperties\":false}},\"$ref\":\"#/$defs/n\"}",
	  { "{}", "{\"n\":{\"n\":{}}}" }, { "{\"n\":1}", "{\"n\":{\"x\":1}}" } },
	{ "{\"definitions\":{\"a/b\":{\"const\":1}},\"properties\":{\"a\":{\"$ref\":\"#/definitions/a~1b\"},\"b\":{\"$ref\":\"#\"}}}", { "{\"a\":1,\"b\":{\"a\":1}}" }, { "{\"a\":2}", "{\"b\":{\"a\":2}}" } },
	{ "{\"$defs\":{\"x\":{\"$anchor\":\"here\",\"type\":\"null\"}},\"$ref\":\"#here\"}", { "null" }, { "1" } },
	{ "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]},{\"const\":0}]}", { "0", "{\"a\":{\"a\":0}}" }, { "{\"a\":{}}", "{}" } },
	{ "{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"$comment\":\"c\",\"x-mine\":[],\"type\":\"null\"}", { "null" }, { "1" } },
};

static const struct texts expressions[] = {
	{ "", { "" }, { "a" } },
	{ "a|bc*", { "a", "b", "bccc" }, { "", "ab", "ac" } },
	{ "^(foo|ba[rz]){2}$", { "foobar", "bazbaz" }, { "foo", "foobarfoo" } },
	{ "[^a-c\\d]", { "d", "é", "\n" }, { "a", "1", "" } },
	{ "\\w+\\s\\S", { "ab x", "a\t." }, { "ab  ", " x" } },
	{ "a{2}b{1,}c{0,2}?d{,2}", { "aab", "aabbccd", "aabdd" }, { "ab", "aabccc", "aabddd" } },
	{ ".", { "a", "é", "\xf0\x9f\x98\x80" }, { "\n", "", "ab" } },
	{ "[\\s\\S]{2}", { "é\n", "\x1c\x1c" }, { "a" } },
	{ "(?:a|(?P<n>b))\\.\\u00e9\\x41", { "a.éA" }, { "aéA" } },
	{ "\\p{Lu}\\P{L}", { "É1" }, { "é1", "Éa" } },
};
/* clang-format on */

static void keywords_accept_and_refuse(void **state)
{
	(void)state;
	check_texts(ENG_GRAMMAR_JSON_SCHEMA, schemas, sizeof(schemas) / sizeof(schemas[0]));
}

static void expressions_match_whole_texts(void **state)
{
	(void)state;
	check_texts(ENG_GRAMMAR_REGEX, expressions, sizeof(expressions) / sizeof(expressions[0]));
}

static void ebnf_follows_rules(void **state)
{
	static const struct texts cases[] = {
		{ "root ::= \"a\" root \"b\" | \"ab\"", { "ab", "aabb", "aaaabbbb" }, { "aab", "abb", "", "ba" } },
		{ "root ::= e # left recursion becomes a loop\ne ::= e \"+\" t | e \"-\" t | t\nt ::= \"(\" e \")\" | "
		  "[a-z]",
		  { "a", "a+b-c", "(a+(b))-c" },
		  { "a+", "+a", "(a", "a b" } },
		{ "root ::= <item> (',' <item>)* ; <item> ::= #x61 [#x30-#x39]+ /* c */ (* d *) // e",
		  { "a1", "a1,a23" },
		  { "a", "a1,", "b1" } },
		{ "root ::= s\ns ::= \"\" | \"a\" s | \"[\" s \"]\" s", { "", "aa", "[a]a[]" }, { "[", "]", "[a" } },
		{ "root ::= \"\\\"\" [^\"\\\\\\x00-\\x1f]{1,3} \"\\\"\" | .",
		  { "\"ab\"", "é", "\"" },
		  { "\"\"", "\"abcd\"" } },
		{ "root ::= v\nv ::= \"{\" ws (s ws \":\" v (\",\" ws s ws \":\" v)*)? \"}\" ws | s ws | [0-9]+ ws\n"
		  "s ::= \"\\\"\" [^\"]* \"\\\"\"\nws ::= [ \\t]*",
		  { "{\"a\":{\"b\" :1}, \"c\":\"\" }" },
		  { "{\"a\"}", "{,}" } },
		/* What never ends is cut off; what is left goes on. */
		{ "root ::= \"a\" | \"b\" x\nx ::= \"c\" x", { "a" }, { "b", "bc" } },
	};

	(void)state;
	check_texts(ENG_GRAMMAR_EBNF, cases, sizeof(cases) / sizeof(cases[0]));
}

static void tags_shape_what_is_between_them(void **state)
{
	static const char two[] =
	        "{\"structures\":[{\"begin\":\"<f=a>\",\"schema\":{\"type\":\"object\",\"properties\":{\"k\":{"
	        "\"enum\":[1,22]}},\"required\":[\"k\"],\"additionalProperties\":false},\"end\":\"</f>\"},{"
	        "\"begin\":\"<f=\u00e9>\",\"schema\":{\"type\":\"string\"},\"end\":\";\"}],\"triggers\":["
	        "\"<f=\"]}";
	static const char first[] =
	        "{\"format\":{\"type\":\"triggered_tags\",\"triggers\":[\"aab\",\"b!\"],\"at_least_one\":true,"
	        "\"stop_after_first\":true,\"tags\":[{\"type\":\"tag\",\"begin\":\"aabc\",\"content\":{\"type\":"
	        "\"json_schema\",\"json_schema\":{\"type\":\"integer\"}},\"end\":\"\"},{\"begin\":\"b!\",\"content\":{"
	        "\"type\":\"json_schema\",\"json_schema\":true},\"end\":\".\"}]}}";
	static const char within[] =
	        "{\"structures\":[{\"begin\":\"aab\",\"schema\":{\"const\":1},\"end\":\"\"}],\"triggers\":[\"aab\"]}";
	static const struct texts cases[] = {
		{ two,
		  { "", "just text <f <b <f:", "a<f=a>{\"k\":1}</f>b<f=\u00e9>\"x\";<f=a> {\"k\": 22}</f>",
		    "<<f=\u00e9>\"<f=\";" },
		  { "<f=", "<f=b>", "x<f=a>{}</f>", "<f=a>{\"k\":1}</g>", "<f=a>{\"k\":1}", "a<f=\u00e9>1;" } },
		{ first, { "aabc-12", "b!{\"x\":[]}." }, { "", "x", "aabc1 ", "b!1.x", "aab", "b!" } },
		/* Beginnings that overlap: the longest that was said counts. */
		{ within, { "aaaab1", "aab1aab1 ab", "aaa", "abaa" }, { "aaab", "aab2", "abaab " } },
	};

	(void)state;
	check_texts(ENG_GRAMMAR_STRUCTURAL_TAG, cases, sizeof(cases) / sizeof(cases[0]));
}

static void refusals_say_what_and_where(void **state)
{
	static const struct {
		enum eng_grammar_kind kind;
		const char *text, *words;
	} cases[] = {
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"properties\":{\"a/b\":{\"contains\":{}}}}",
		  "#/properties/a~1b/contains: not supported" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"if\":{}}", "#/if: not supported" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"items\":{\"type\":\"strnig\"}}", "#/items/type: unknown type" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"type\":\"array\",\"uniqueItems\":true}",
		  "#/uniqueItems: not supported" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"anyOf\":[{},{\"pattern\":\"(?=a)\"}]}",
		  "#/anyOf/1/pattern: regular expression: a look-around" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":3}]}",
		  "#/oneOf: alternatives 0 and 1" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"not\":{\"minimum\":1}}", "#/not: not supported" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"http://x/y\"}", "#/$ref: only references" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"#/$defs/none\"}", "#/$ref: there is nothing" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"format\":\"idn-email\"}", "#/format" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}",
		  "no value can satisfy" },
		{ ENG_GRAMMAR_JSON_SCHEMA,
		  "{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"$ref\":\"#\"}}}",
		  "no value can satisfy" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "false", "no value can satisfy" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"minLength\":-1}", "#/minLength" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "[1]", "expected an object" },
		{ ENG_GRAMMAR_JSON_SCHEMA, "{\"a\":", "line 1" },
		{ ENG_GRAMMAR_REGEX, "a\\1", "back-reference" },
		{ ENG_GRAMMAR_REGEX, "(?<!a)b", "look-around" },
		{ ENG_GRAMMAR_REGEX, "\\bfoo", "word boundary" },
		{ ENG_GRAMMAR_REGEX, "(?i)foo", "inline flags" },
		{ ENG_GRAMMAR_REGEX, "a++", "possessive" },
		{ ENG_GRAMMAR_REGEX, "(a", "at position 2" },
		{ ENG_GRAMMAR_REGEX, "a)", "at position 1" },
		{ ENG_GRAMMAR_REGEX, "[z-a]", "wrong order" },
		{ ENG_GRAMMAR_REGEX, "*a", "repeat of nothing" },
		{ ENG_GRAMMAR_REGEX, "a$b", "nothing matches" },
		{ ENG_GRAMMAR_REGEX, "a\xff", "invalid UTF-8" },
		{ ENG_GRAMMAR_STRUCTURAL_TAG, "{}", "no tags" },
		{ ENG_GRAMMAR_STRUCTURAL_TAG, "{\"format\":{\"type\":\"sequence\"}}", "triggered_tags" },
		{ ENG_GRAMMAR_STRUCTURAL_TAG,
		  "{\"structures\":[{\"begin\":\"a\",\"schema\":{},\"end\":\"\"}],\"triggers\":[\"b\"]}",
		  "trigger \"b\"" },
		{ ENG_GRAMMAR_STRUCTURAL_TAG,
		  "{\"structures\":[{\"begin\":\"a\",\"schema\":{},\"end\":\"\"},{\"begin\":\"b\",\"schema\":{},"
		  "\"end\":"
		  "\"\"}],\"triggers\":[\"a\"]}",
		  "\"b\" begins with no trigger" },
		{ ENG_GRAMMAR_STRUCTURAL_TAG,
		  "{\"structures\":[{\"begin\":\"a\",\"schema\":{\"if\":{}},\"end\":\"\"}],\"triggers\":[\"a\"]}",
		  "\"a\": schema: #/if" },
		{ ENG_GRAMMAR_EBNF, "", "empty" },
		{ ENG_GRAMMAR_EBNF, "x ::= \"a\"", "no rule \"root\"" },
		{ ENG_GRAMMAR_EBNF, "root ::= a", "\"a\": grammar: line 1" },
		{ ENG_GRAMMAR_EBNF, "root ::= a\na ::= b \"x\"\nb ::= a | \"y\"", "left-recursive" },
		{ ENG_GRAMMAR_EBNF, "root ::= \"a\" root", "never ends" },
		{ ENG_GRAMMAR_EBNF, "root ::= [a-z] - [c]", "exclusion" },
		{ ENG_GRAMMAR_EBNF, "root ::= \"a\\zb\"", "a wrong escape" },
		{ ENG_GRAMMAR_EBNF, "root ::= \"a\n", "closing quote" },
		{ ENG_GRAMMAR_EBNF, "root ::= \"a\"\nroot ::= \"b\"", "was there before" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct eng_grammar *g = NULL;
		struct err err = { 0 };

		if (gr_grammar_compile(vocab, cases[i].kind, cases[i].text, strlen(cases[i].text), &g, &err) !=
		            -EINVAL ||
		    !strstr(err_text(&err), cases[i].words) || g)
			fail_msg("%s: %d %s", cases[i].text, err.code, err_text(&err));
	}
}

/* What multiplies out, nests or repeats beyond the limits is refused with words, soon. */
static void bombs_are_refused(void **state)
{
	static const char *const regexes[] = { "((a{1000}){1000}){1000}", "(((){10000}){10000}){10000}", "a{99999}" };
	struct base_buf text = BASE_BUF_INIT(1 << 20);
	struct eng_grammar *g = NULL;
	struct err err = { 0 };

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(gr_grammar_compile(vocab, ENG_GRAMMAR_REGEX, regexes[i], strlen(regexes[i]), &g, &err),
		                 -E2BIG);
	for (int i = 0; i < 200000; i++)
		assert_int_equal(base_buf_putc(&text, '('), 0);
	assert_int_equal(gr_grammar_compile(vocab, ENG_GRAMMAR_REGEX, text.data, text.len, &g, &err), -E2BIG);

	base_buf_reset(&text);
	for (int i = 0; i < 400; i++)
		(void)base_buf_puts(&text, "{\"items\":");
	(void)base_buf_puts(&text, "{}");
	for (int i = 0; i < 400; i++)
		(void)base_buf_puts(&text, "}");
	assert_int_equal(gr_grammar_compile(vocab, ENG_GRAMMAR_JSON_SCHEMA, text.data, text.len, &g, &err), 0);
	eng_grammar_unref(g);
	g = NULL;

	/* 3^20 cases */
	base_buf_reset(&text);
	for (int i = 0; i < 20; i++)
		(void)base_buf_printf(&text, "%s{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d},{\"multipleOf\":%d}]}",
		                      i ? "," : "{\"allOf\":[", i, i, i + 2);
	(void)base_buf_puts(&text, "]}");
	assert_int_equal(gr_grammar_compile(vocab, ENG_GRAMMAR_JSON_SCHEMA, text.data, text.len, &g, &err), -E2BIG);

	/* 60 alternatives that a string tells apart are no trouble. */
	base_buf_reset(&text);
	for (int i = 0; i < 60; i++)
		(void)base_buf_printf(&text,
		                      "%s{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"v%d\"},\"a\":{},"
		                      "\"b\":{},\"c\":{}},\"required\":[\"k\"]}",
		                      i ? "," : "{\"oneOf\":[", i);
	(void)base_buf_puts(&text, "]}");
	assert_int_equal(gr_grammar_compile(vocab, ENG_GRAMMAR_JSON_SCHEMA, text.data, text.len, &g, &err), 0);
	assert_true(accepts(g, "{\"b\":1,\"k\":\"v17\"}"));
	assert_false(accepts(g, "{\"k\":\"v60\"}"));
	eng_grammar_unref(g);
	g = NULL;

	/* Doubling is no trouble: rules stay rules where they are too large to be put into one another. */
	base_buf_reset(&text);
	(void)base_buf_puts(&text, "root ::= a0\n");
	for (int i = 0; i < 60; i++)
		(void)base_buf_printf(&text, "a%d ::= a%d a%d\n", i, i + 1, i + 1);
	(void)base_buf_puts(&text, "a60 ::= \"x\"\n");
	assert_int_equal(gr_grammar_compile(vocab, ENG_GRAMMAR_EBNF, text.data, text.len, &g, &err), 0);
	eng_grammar_unref(g);
	base_buf_done(&text);
}

/* ---- Masks ---- */

static bool takes(struct eng_grammar *g, const uint8_t *text, size_t len, int32_t id)
{
	struct eng_matcher *m = NULL;
	bool ok;

	assert_int_equal(eng_matcher_new(g, &m), 0);
	ok = eng_matcher_accept_bytes(m, text, len) == len &&
	     eng_matcher_accept_bytes(m, tokens[id], lens[id]) == lens[id];
	eng_matcher_free(m);
	return ok;
}

/* A walk along the masks: at each step every token is in the mask exactly when its bytes are taken one by one. */
static void walk_and_compare(struct eng_grammar *g, uint32_t seed, unsigned steps)
{
	struct eng_matcher *m = NULL;
	uint8_t text[4096];
	size_t len = 0;
	uint32_t n = 0;

	assert_int_equal(eng_matcher_new(g, &m), 0);
	for (unsigned i = 0; i < steps; i++) {
		const uint64_t *mask = eng_matcher_mask(m, &n);
		int32_t id = -1, k;

		assert_non_null(mask);
		for (int32_t t = 0; t < N_VOCAB; t++) {
			if (takes(g, text, len, t) != has(mask, t))
				fail_msg("token %d (%.*s) behind %.*s: mask %d", t, (int)lens[t], tokens[t], (int)len,
				         text, has(mask, t));
		}
		if (n == 0)
			break;
		seed = seed * 1664525u + 1013904223u;
		/* Rather long tokens: they are what runs over borders. */
		for (k = 0; k < 4 * N_VOCAB && id < 0; k++) {
			int32_t t = (int32_t)((seed >> 8) + (uint32_t)k * 97u) % N_VOCAB;

			if (has(mask, t) && (lens[t] > 1 || k > N_VOCAB))
				id = t;
		}
		assert_true(id >= 0);
		assert_int_equal(eng_matcher_accept(m, id), 0);
		memcpy(text + len, tokens[id], lens[id]);
		len += lens[id];
	}
	eng_matcher_free(m);
}

static void masks_hold_what_the_bytes_say(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++) {
		struct eng_grammar *g = compile(ENG_GRAMMAR_JSON_SCHEMA, schemas[i].grammar);

		for (uint32_t seed = 1; seed <= 2; seed++)
			walk_and_compare(g, seed * 77 + (uint32_t)i, 8);
		eng_grammar_unref(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keywords_accept_and_refuse),
		cmocka_unit_test(expressions_match_whole_texts),
		cmocka_unit_test(ebnf_follows_rules),
		cmocka_unit_test(tags_shape_what_is_between_them),
		cmocka_unit_test(refusals_say_what_and_where),
		cmocka_unit_test(bombs_are_refused),
		cmocka_unit_test(masks_hold_what_the_bytes_say),
	};

	return cmocka_run_group_tests(tests, grammar_setup, grammar_teardown);
}
