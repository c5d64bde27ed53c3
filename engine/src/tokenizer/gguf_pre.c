/* tokenizer.ggml.pre: the name under which a GGUF file says how text is split before byte-level BPE.
 *
 * The name stands for what the model's own tokenizer.json has: a list of regexes, each isolating its matches
 * in what the one before left, and a few switches. The patterns are those of the published tokenizer.json
 * files. A name that is not here is refused: splitting differently gives ids that are silently wrong. */
#include <errno.h>
#include <string.h>

#include "tokenizer/tok_gguf.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TAIL " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SLASH_TAIL " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" TAIL
#define QWEN2 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" TAIL
#define QWEN35                                            \
	CONTRACTIONS                                      \
	"|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| " \
	"?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define GPT4O                                                                                                \
	"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER \
	"*" CONTRACTIONS "?|\\p{N}{1,3}|" SLASH_TAIL
#define TEKKEN \
	"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*|\\p{N}|" SLASH_TAIL
#define KIMI_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI                                                                            \
	"[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+" CONTRACTIONS \
	"?|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "+" KIMI_LOWER "*" CONTRACTIONS "?|\\p{N}{1,3}|" TAIL
#define DEEPSEEK3_CJK "[一-龥぀-ゟ゠-ヿ]+"
#define DEEPSEEK3                                                                                             \
	"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| " \
	"?[\\p{P}\\p{S}]"                                                                                     \
	"+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK_LETTERS                                                                                                                                                                                            \
	"\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-"                                          \
	"Ἕἠ-"                                                                                                                                                                                                   \
	"ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ί"                                                                                                                                \
	"ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-" \
	"𐓓𐓘-"                                                                                                                                                                                                 \
	"𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
#define BLOOM " ?[^(\\s|.,!?…。，、।۔،)]+"

static const struct tok_gguf_pre table[] = {
	{ "default", { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" }, 0 },
	{ "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
	  { LLAMA3 },
	  TOK_PRE_IGNORE_MERGES | TOK_PRE_ADD_BOS },
	{ "dbrx smaug-bpe glm4 chatglm-bpe", { LLAMA3 }, 0 },
	{ "qwen2", { QWEN2 }, TOK_PRE_NFC },
	{ "qwen35", { QWEN35 }, TOK_PRE_NFC },
	{ "deepseek-r1-qwen stablelm2 megrez hunyuan solar-open grok-2 kormo", { QWEN2 }, 0 },
	{ "deepseek-v3 hunyuan-dense joyai-llm hy_v4", { "\\p{N}{1,3}", DEEPSEEK3_CJK, DEEPSEEK3 }, 0 },
	{ "deepseek-llm",
	  { "[\\r\\n]", DEEPSEEK_LETTERS, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", "[一-龥ࠀ-一가-퟿]+",
	    "\\p{N}+" },
	  0 },
	{ "deepseek-coder", { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}" }, 0 },
	{ "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert mpt olmo jais "
	  "trillion "
	  "granite-docling exaone4",
	  { GPT2 },
	  0 },
	{ "jina-v1-en jina-v2-code roberta-bpe", { GPT2 }, TOK_PRE_ADD_SEP },
	{ "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", { "\\p{N}", GPT2 }, 0 },
	{ "falcon", { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]" }, 0 },
	{ "gpt-4o llama4 kanana2 minimax-m2 talkie", { GPT4O }, 0 },
	{ "tekken", { TEKKEN }, TOK_PRE_IGNORE_MERGES | TOK_PRE_ADD_BOS },
	{ "kimi-k2", { KIMI }, 0 },
	{ "bailingmoe bailingmoe2 llada-moe",
	  { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|"
	    "\\s+(?!\\S)|\\s+" },
	  0 },
	{ "seed-coder",
	  { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|"
	                 "\\s+(?!\\S)|\\s+" },
	  0 },
	{ "exaone-moe",
	  { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| "
	                 "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+" },
	  0 },
	{ "poro-chat bloom gpt3-finnish", { BLOOM }, 0 },
	{ "viking", { BLOOM, "\\p{N}" }, 0 },
};

static bool listed(const char *names, const char *name, size_t n)
{
	size_t len;

	for (; *names; names += len + (names[len] == ' ')) {
		len = strcspn(names, " ");
		if (len == n && memcmp(names, name, n) == 0)
			return true;
	}
	return false;
}

const struct tok_gguf_pre *tok_gguf_pre_find(const char *name, size_t n)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		if (n && listed(table[i].names, name, n))
			return &table[i];
	}
	return NULL;
}
