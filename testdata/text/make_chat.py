"""Makes chat.json: conversations as transformers 5.23.0 renders them with the chat templates of well-known models.

Templates come from installed packages: trl 1.16.0 (Apache-2.0), llama-cpp-python 0.3.36 (MIT) and the model directory of
SmolLM2-135M-Instruct (Apache-2.0); Llama 2's and Zephyr's are written down here from the published models.

Usage: python make_chat.py path/to/smollm2 [--all]; with --all every template that trl ships, to standard output
"""

import datetime
import json
import sys
from pathlib import Path

import llama_cpp.llama_chat_format as llama_cpp
import transformers
import trl
from transformers.utils import chat_template_utils

assert transformers.__version__ == "5.23.0" and trl.__version__ == "1.16.0"


class Clock(datetime.datetime):
    """31 January 2026, 12:34:56: seconds 1769862896 of a clock in UTC."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 31, 12, 34, 56)


chat_template_utils.datetime = Clock

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
# What no template above uses, each in a line.
PROBE = """{%- set ns = namespace(found=false, n=0) %}
{%- for m in messages %}
    {%- if m.role == 'skip' %}{% continue %}{% endif %}
    {%- set ns.n = ns.n + 1 %}
    {%- if ns.n > 3 %}{% break %}{% endif %}
    {{- loop.index ~ ':' ~ m['role'].upper() ~ '/' ~ (loop.previtem.role if loop.previtem is defined else none) }};
{% endfor %}
{{ messages | tojson }}
{{ messages[0] | tojson(indent=2) }}
{{ {'b': [1, 2.0, 1e16, 1.5e-7, 123456.75, -0.0001], 'a': {'z': none, 'y': true}, 'e': [], 'o': {}} | tojson }}
{{ {'b': 'ü<>&"\\'/', 'a': '\U0001f600'} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}
{{ [1, [2, {}], 'x'] | tojson(indent=4) }}
{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %p %I %y') }}|{{ strftime_now is defined }}
{{ none }}|{{ true }}|{{ 1.0 }}|{{ [1, 'a', none, false] }}|{{ {'k': 'v'} }}|{{ undefined_thing }}|
{{ 'abc' is sequence }}{{ 'abc' is iterable }}{{ {} is sequence }}{{ none is iterable }}{{ [] is sequence }}{{ 3 is iterable }}
{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.py'.removesuffix('.py') }}{{ 'häbc'.index('b') }}
{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b,c'.split(',')[-1] }}|{{ 'a\\nb'.splitlines() }}|{{ 'Ab'.lower() }}
{{ 'abc'[::-1] }}|{{ messages[-1].role }}|{{ messages[1:] | length }}|{{ 'héllo'[1:3] }}
{{ ['a', 'b'] | join(', ') }}|{{ messages | map(attribute='role') | list }}|{{ {'a': 1}.items() | list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}|{{ 7 // 2 }}|{{ 7 % 4 }}|{{ 1 / 2 }}
{{ bos_token }}|{{ eos_token is defined }}|{{ tools is none }}|{{ documents }}|{{ add_generation_prompt }}|{{ extra }}
{%- macro shout(text, mark='!') %}{{ text | upper }}{{ mark }}{% endmacro %}
{{ shout('hey') }}{{ shout('ho', mark='?') }}
"""
GENERATION = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
<|assistant|>
        {% generation %}
{{ message.content }}{{ eos_token }}
        {% endgeneration %}
        {%- generation %}{{ message.role }}{% endgeneration %}
    {%- else %}
<|{{ message.role }}|>
{{ message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

QUESTION = {"role": "user", "content": "What is 2 + 3?"}
ANSWER = {"role": "assistant", "content": "2 + 3 = 5."}
SYSTEM = {"role": "system", "content": "You are a pirate.\n\nAnswer in rhyme."}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds <numbers> & more.", "parameters": {
    "type": "object", "properties": {"b": {"type": "number"}, "a": {"type": "number"}}, "required": ["b", "a"]}}}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "add", "arguments": {"b": 3, "a": 2.0}}}]}
CONVERSATIONS = {
    "one question": [QUESTION],
    "system": [SYSTEM, QUESTION],
    "turns": [QUESTION, ANSWER, {"role": "user", "content": "And 'times' \"ten\"?"}, ANSWER],
    "system and turns": [SYSTEM, QUESTION, ANSWER, {"role": "user", "content": "  spaces around  \n"}],
    "unicode": [{"role": "user", "content": "Grüße, 世界! \U0001f600 \u00a0\u2003x e\u0301"}, {"role": "assistant", "content": "<b>&amp;</b> {{ not_a_template }} {% raw %}"}, {"role": "user", "content": "\t\n"}],
    "thinking": [QUESTION, {"role": "assistant", "content": "<think>\nAdd them.\n</think>\n\n5"}, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Sure.", "reasoning_content": "Yes."}],
    "two questions": [QUESTION, QUESTION],
    "tools": [SYSTEM, QUESTION, CALL, {"role": "tool", "content": "5", "name": "add"}],
    "nothing said": [{"role": "user", "content": ""}],
}


def templates(smollm2):
    from_trl = {path.stem: path.read_text() for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))}
    if "--all" in sys.argv:
        return {name: (source, "<s>", "</s>") for name, source in from_trl.items()}
    smollm2 = (Path(smollm2) / "chat_template.jinja").read_text()
    return {
        "SmolLM2": (smollm2, "<|im_start|>", "<|im_end|>"),
        "ChatML": (llama_cpp.CHATML_CHAT_TEMPLATE, "<s>", "<|im_end|>"),
        "Llama 2": (LLAMA2, "<s>", "</s>"),
        "Llama 3": (from_trl["llama3"], "<|begin_of_text|>", "<|eot_id|>"),
        "Llama 3.1": (from_trl["llama3_1"], "<|begin_of_text|>", "<|eot_id|>"),
        "Llama 3.2": (from_trl["llama3_2"], "<|begin_of_text|>", "<|eot_id|>"),
        "Mistral": (llama_cpp.MISTRAL_INSTRUCT_CHAT_TEMPLATE, "<s>", "</s>"),
        "Qwen2.5": (from_trl["qwen2_5"], None, "<|im_end|>"),
        "Qwen3": (from_trl["qwen3"], None, "<|im_end|>"),
        "Qwen3 for training": (from_trl["qwen3_training"], None, "<|im_end|>"),
        "Zephyr": (ZEPHYR, "<s>", "</s>"),
        "Gemma": (from_trl["gemma"], "<bos>", "<eos>"),
        "Phi-3": (from_trl["phi3"], "<s>", "<|endoftext|>"),
        "probe": (PROBE, "<s>", "</s>"),
        "generation": (GENERATION, "<s>", "</s>"),
    }


def render(source, name, add_generation_prompt, bos, eos, variables):
    tools = [TOOL] if name == "tools" else None
    tokens = {key: token for key, token in [("bos_token", bos), ("eos_token", eos)] if token is not None}
    texts, ranges = chat_template_utils.render_jinja_template(
        [CONVERSATIONS[name]], tools=tools, chat_template=source, add_generation_prompt=add_generation_prompt,
        return_assistant_tokens_mask=True, **tokens, **variables,
    )
    in_bytes = lambda end: len(texts[0][:end].encode())
    return texts[0], [[in_bytes(start), in_bytes(end)] for start, end in ranges[0]]


entries = []
for template, (source, bos, eos) in templates(sys.argv[1]).items():
    cases = []
    for name in CONVERSATIONS:
        for add_generation_prompt in [False, True]:
            for variables in [{}, {"enable_thinking": False}] if "Qwen3" in template and add_generation_prompt else [{}]:
                case = {"messages": name, "add_generation_prompt": add_generation_prompt, "variables": variables}
                try:
                    case["text"], case["generated"] = render(source, name, add_generation_prompt, bos, eos, variables)
                except Exception as error:
                    case["error"] = str(error)
                cases.append(json.dumps(case, ensure_ascii=True))
    head = json.dumps({"name": template, "source": source, "bos_token": bos, "eos_token": eos}, ensure_ascii=True)
    entries.append(head[:-1] + ', "cases": [\n' + ",\n".join(cases) + "\n]}")
head = json.dumps({"conversations": CONVERSATIONS, "tools": [TOOL]}, ensure_ascii=True)
text = head[:-1] + ', "templates": [\n' + ",\n".join(entries) + "\n]}\n"
if "--all" in sys.argv:
    print(text)
else:
    Path(__file__).with_name("chat.json").write_text(text)
