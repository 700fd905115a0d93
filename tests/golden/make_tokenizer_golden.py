#!/usr/bin/env python3
"""Makes tests/golden/tokenizers: two small byte-level BPE tokenizers with the patterns of Llama 3 and Qwen3, trained on this
project's documents, and what the Python packages tokenizers and transformers make of hard texts and of chats.

    pip install tokenizers transformers jinja2 && tests/golden/make_tokenizer_golden.py

The chat templates are written for this test; for text without tools they render as the families' own do.
"""
import json
import pathlib
import random

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent / "tokenizers"
ROOT = HERE.parent.parent.parent
VOCABULARY = 1200
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")

SPECIAL = {
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
               "<|eot_id|>", "<|python_tag|>"],
    "qwen3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
}
PLAIN = {"llama3": [], "qwen3": ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]}

LLAMA31 = """{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{%- set system_message = messages[0]['content'] | trim -%}
{%- set messages = messages[1:] -%}{%- else -%}{%- set system_message = "" -%}{%- endif -%}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n" -}}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" -}}
{%- for message in messages -%}{%- if message.role == 'tool' -%}
{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" + (message.content | tojson) + "<|eot_id|>" -}}
{%- else -%}{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""

QWEN3 = """{%- set ns = namespace(looking=true, asked=messages | length - 1) -%}
{%- for message in messages[::-1] -%}{%- set index = messages | length - 1 - loop.index0 -%}
{%- if ns.looking and message.role == 'user' and not (message.content.startswith('<tool_response>') and
       message.content.endswith('</tool_response>')) -%}
{%- set ns.looking = false -%}{%- set ns.asked = index -%}{%- endif -%}{%- endfor -%}
{%- for message in messages -%}{%- set content = message.content -%}
{%- if message.role == 'assistant' -%}{%- set thought = '' -%}
{%- if '</think>' in content -%}
{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.index0 > ns.asked and (loop.last or thought) -%}
{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}
{%- else -%}{{- content -}}{%- endif -%}{{- '<|im_end|>\\n' -}}
{%- elif message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
{{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' -}}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
{%- else -%}{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' -}}{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}"""
TEMPLATES = {"llama3": LLAMA31, "qwen3": QWEN3}

FOREIGN = """Größe und Übermut tun selten gut. Où sont passées les années d’été ? El niño comió piñas en Córdoba.
Съешь ещё этих мягких французских булок, да выпей чаю. Ταχίστη αλώπηξ βαφής ψημένη γη. Zażółć gęślą jaźń.
今天天气很好，我们去公园散步吧。吾輩は猫である。名前はまだ無い。カタカナとひらがな。 나는 오늘 학교에 갔습니다.
في البداية كان الكلمة. שלום עולם, מה שלומך היום? नमस्ते दुनिया, आप कैसे हैं? สวัสดีชาวโลก ภาษาไทยไม่มีเว้นวรรค
Tiếng Việt có nhiều dấu. Türkçe İstanbul ığdır. 😀 😃 👍🏽 👨‍👩‍👧‍👦 🇩🇪 🇯🇵 ❤️ ☃ → ∑ √2 ≠ ½ ² №5 ①②③ Ⅳ ٣٤٥ १२३ 𝟘𝟙 𝒳"""

HARD = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\r\n", "\r\n\r\n  \r\n", "\t", "\t\tx", "a\tb", " a", "a ", "  a  b   c    ",
    "Hello, world!", "Hello  world", "Hello   world\n\n\n  next", "don't won't I'll you're we've I'm he'd it's",
    "DON'T WON'T I'LL YOU'RE WE'VE I'M HE'D IT'S", "'s't're've'm'll'd", "it'ſ it’s 'K 'Kelvin", "x'S y'T", "''''", "' s",
    "1", "12", "123", "1234", "12345", "123456789", "3.14159", "1,000,000", "1 2 3", "2024-11-21T15:04:05Z", "0x1F", "1e-5",
    "٣٤٥٦٧", "१२३४५", "①②③④", "½⅓²³", "ⅣⅤⅥⅦ", "𝟘𝟙𝟚𝟛𝟜",
    "for (int i = 0; i < n; ++i) {\n\tsum += x[i] * y[i];  // dot\n}\n", "def f(x):\n    return x**2\n\n\nprint(f(3))\n",
    "SELECT * FROM t WHERE a != 'b';--", "<div class=\"a\">&nbsp;</div>", "{\"key\": [1, 2.5, null, true]}", "a=b==c===d!==e",
    "https://example.com/a/b?c=d&e=f#g", "user@example.com", "C:\\Users\\x", "$HOME/.cache", "foo_bar__baz-qux", "camelCaseXMLHttp",
    "...", "…", "!?!?!?", "———", "-----", "=====\n", "*** bold ***", "¿Qué?", "«quoted» “smart” ‘quotes’",
    "é", "e\u0301", "e\u0301\u0301", "\u0301", " \u0301x", "a\u0323\u0307", "a\u0307\u0323", "q\u0307\u0323", "Å", "A\u030a", "\u212b", "Ω\u2126",
    "ﬁ ﬂ ﬃ", "가", "\u1100\u1161", "각", "\u1100\u1161\u11a8", "한글", "\u0958", "\u0915\u093c", "क्षि", "நி", "ก็", "\u0344", "\u2adc", "x\u0338=\u0338",
    "Zalgo: h̵̛̘e̷̺͊l̸̤̈́l̶̰͝o̴̡͐", "日本語", "日本語 テキスト", "「引用」、句点。", "中文abc中文123", "ｆｕｌｌｗｉｄｔｈ　ＡＢＣ１２３",
    "עברית", "עִבְרִית", "العربية", "العَرَبِيَّة", "abc עברית 123 عربي", "\u202eabc\u202c", "a\u200bb", "a\u200db", "a\u00adb", "\ufeffbom", "a\u00a0b", "a\u2003b\u3000c",
    "\u1680x", "\u180ex y\u180e", "\u2028line\u2029para", "\u0085next", "\u001c\u001d\u001e\u001fx", "a\u0000b", "\u0001\u0002", "\u007f", "\ufffd", "\uffff", "\U0010ffff",
    "😀", "😀😀", "👍🏽", "👨‍👩‍👧‍👦", "🇩🇪🇯🇵🇩", "❤️", "☺︎", "1️⃣", "x😀y", " 😀 ", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "ſtraße STRASSE", "İstanbul ıİ", "ǅ ǆ Ǆ", "Σίσυφος ΣΑΣ", "ⓐⒶ", "ªº", "ʰʲ", "ـــ", "々〆〤", "ℝℂℕ", "𝒳𝓎", "\U00010400\U00010428", "\U0001f1e6a",
    "a" * 70, "ab" * 60, "xyz" * 40 + "\n" * 9 + " " * 33 + "end", "é" * 40, "日" * 50, " " * 100, " \n" * 30, "!" * 64, "0" * 50, "\u0301" * 40,
    "<|im_start|>user\nhi<|im_end|>\n", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "<think>\nhm\n</think>\n\nyes",
    "<|im_start|", "|im_start|>", "<|im_start|><|im_start|>", "<<|im_end|>>", "a<|im_end|>b<|eot_id|>c", "<think></think><think", "e<|im_end|>\u0301",
    " <|im_end|> ", "<|endoftext|>x", "</tool_call><tool_call", "<|IM_END|>", "<| im_end |>",
]

CHATS = [
    [["user", "Hello"]],
    [["system", "  You are terse.\n"], ["user", "  What is 2+2? \n"]],
    [["user", "a"], ["assistant", "b"], ["user", "c"]],
    [["system", ""], ["user", ""]],
    [["user", "a"], ["system", "later"], ["user", "b"]],
    [["user", "q"], ["assistant", "<think>\nI think.\n</think>\n\nAnswer."], ["user", "again"]],
    [["user", "q"], ["assistant", "<think>\nI think.\n</think>\n\nAnswer."]],
    [["user", "q"], ["assistant", "Answer."]],
    [["user", "q"], ["assistant", "\n\nx</think>\n\n\ny</think>z\n"]],
    [["user", "q"], ["assistant", "call"], ["tool", "1 \"x\" é\n"], ["tool", "2"], ["assistant", "done"], ["user", "ok"]],
    [["user", "q"], ["assistant", "<think>a</think>b"], ["tool", "r"], ["assistant", "<think>c</think>d"]],
    [["user", "<tool_response>x</tool_response>"], ["assistant", "<think>a</think>b"]],
    [["assistant", "first"]],
    [["system", "s"], ["assistant", "first"], ["user", "\u3000trim\u00a0\u001f"]],
    [["user", "日本語 <|im_end|> 👍"]],
]


def random_texts():
    draw = random.Random(3)
    alphabets = [" \n\t", "ab", "abcXYZ", "0123456789", " '.,!?-_", "éèüñçå", "\u0301\u0323\u0307\u0345", "日本語한글", "עבערבي", "😀👍🏽\u200d\ufe0f", "'stdmlrve",
                 "<|>im_end"]
    out = []
    for _ in range(60):
        chosen = draw.sample(alphabets, 3)
        out.append("".join(draw.choice(draw.choice(chosen)) for _ in range(draw.randint(5, 50))))
    return out


def train(family):
    tokenizer = Tokenizer(models.BPE(ignore_merges=family == "llama3"))
    if family == "qwen3":
        tokenizer.normalizer = normalizers.NFC()
    pattern = PATTERN % ("{1,3}" if family == "llama3" else "")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    texts = [p.read_text() for p in sorted((ROOT / "docs").glob("*.md"))] + [FOREIGN] * 4
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL[family]])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PLAIN[family]])
    if family == "llama3":
        begin = "<|begin_of_text|>"
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=begin + ":0 $A:0", special_tokens=[(begin, tokenizer.token_to_id(begin))])])
    return tokenizer


def save(family, tokenizer):
    folder = HERE / family
    folder.mkdir(parents=True, exist_ok=True)
    saved = json.loads(tokenizer.to_str())
    if family == "llama3":  # as Meta's file has them
        saved["model"]["merges"] = [" ".join(pair) for pair in saved["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False, separators=(",", ":")) + "\n")
    ends = {"llama3": "<|eot_id|>", "qwen3": "<|im_end|>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": ends[family],
              "chat_template": TEMPLATES[family]}
    if family == "llama3":
        config["bos_token"] = "<|begin_of_text|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return Tokenizer.from_file(str(folder / "tokenizer.json")), transformers.AutoTokenizer.from_pretrained(folder)


def encoded(tokenizer, texts, specials):
    tokenizer.encode_special_tokens = not specials
    return [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]


def main():
    texts = HARD + random_texts()
    golden = {"texts": texts, "chats": CHATS}
    for family in SPECIAL:
        tokenizer, chatter = save(family, train(family))
        golden[family] = {
            "plain": encoded(tokenizer, texts, False),
            "specials": encoded(tokenizer, texts, True),
            "with_begin": tokenizer.encode("x").ids,
            "chats": [chatter.apply_chat_template([{"role": r, "content": c} for r, c in chat], tokenize=False,
                                                  add_generation_prompt=True) for chat in CHATS]}
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in golden.items())
    (HERE / "golden.json").write_text("{" + lines + "}\n")


main()
