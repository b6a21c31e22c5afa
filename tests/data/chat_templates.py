"""Writes chat_templates.json: templates, conversations and what Jinja2 renders, in the environment that Hugging Face
transformers uses for chat templates (sandboxed, trim_blocks, lstrip_blocks, json.dumps for tojson).

pip install jinja2==3.1.6 && python3 chat_templates.py > chat_templates.json
"""
import itertools
import json
import random

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


environment.globals["raise_exception"] = refuse
environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)


def conversation(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = [
    conversation(("user", "Hi")),
    conversation(("system", "Be brief."), ("user", "Hello\n\nthere ")),
    conversation(("system", "\u3000S\u00a0"), ("user", " 2+2=? "), ("assistant", "4"), ("user", '\u00fcber "x"\t')),
    conversation(("user", "a"), ("assistant", "b<think>z</think>c"), ("user", "d")),
    conversation(("user", "a"), ("user", "b")),
    [],
]

# In the styles of the families whose files we run: ChatML, LLaMA 3, Mistral, Zephyr, Gemma, Phi, DeepSeek R1.
FAMILIES = [
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results") %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] " }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
""",
    """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "{% for message in messages %}{{'<|' ~ message.role ~ '|>\n' ~ message.content ~ '<|end|>\n'}}{% endfor %}"
    "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set content = m.content %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}<A>{{ content }}{{ eos_token }}"
    "{% else %}<{{ m.role|upper }}>{{ m['content'].strip() }}{% endif %}{% endfor %}"
    "{{ '<A><think>\\n' if add_generation_prompt and messages|length > 1 }}",
]

# One construct each; many lean on white space control.
SMALL = [
    "  {% if true %}\n a \n  {% endif %}\n b {{ 1 }}\n\n",
    "a\n  {%- if true -%}  \n x {%- endif +%}\n y",
    "a\n  {%+ if true %}\n b{% endif %}\n",
    "a {#- note -#}  b\n  {# line #}\n c{#+ x +#}\n d",
    "line\r\nnext\rlast\r\n",
    "\u00a0{%- if true -%}\u3000x{% endif %}",
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}"
    "{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem.role if not loop.first }};{% else %}none{% endfor %}",
    "{% for k, v in {'a': 1, 'b': none}.items() %}{{ k }}={{ v }} {% endfor %}",
    "{% for x in range(5) if x is odd %}{{ x }}{{ loop.length }}{% endfor %}",
    "{% for c in 'a\u00e9\U0001f600' %}[{{ c }}]{% endfor %}{{ 'a\u00e9\U0001f600'|length }}{{ 'a\u00e9\U0001f600'[1] }}",
    "{% set x = 1 %}{% for m in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.content|length %}{% endfor %}{{ ns.n }}",
    "{{ messages[1:]|length }}{{ messages[:-1]|length }}{{ [1,2,3,4][::-1]|join(',') }}{{ 'abcdef'[1:5:2] }}{{ [1,2][5:]|length }}",
    "{{ messages[9] is defined }}{{ nothing is defined }}{{ nothing|default('d') }}{{ ''|default('e', true) }}{{ nothing }}",
    "{{ 1 + 2 * 3 - 4 // 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 1.5 + 1 }} {{ 2 * 3.0 }} {{ -(3) }}",
    "{{ 'a' ~ 1 ~ none ~ true }} {{ 'x' 'y' }} {{ \"q\\\"\\n\\t\\\\\\u00e9\\x41\\d\" }}",
    "{{ 1 < 2 }} {{ 'a' < 'b' }} {{ 2 >= 2.0 }} {{ 1 == true }} {{ 'a' != 'a' }} {{ 'b' in 'abc' }} {{ 2 not in [1] }} {{ 'k' in {'k': 0} }}",
    "{{ not true or true and false }} {{ 'x' or 'y' }} {{ '' and 'z' }} {{ 1 if false }}|{{ 1 if 0 else 2 }}",
    "{{ not messages is string }} {{ messages is iterable and messages is sequence }} {{ none is none }} {{ 1 is number }} {{ x is undefined }}",
    "{{ {'b': [1, 2.5, none, true], 'a': 'x\"\\n\u00e9\u0001'}|tojson }} {{ 'a\u2028</b>'|tojson }} {{ []|tojson }}",
    "{{ ' a '|trim }}|{{ ' a '.rstrip() }}|{{ '--a-'.strip('-') }}|{{ 'aXbX'.split('X')|join('+') }}|{{ 'a,b,c'.split(',', 1)[1] }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'AbC'.upper() }} {{ 'AbC'|lower }} {{ 'aba'|replace('a', 'cc') }}",
    "{{ messages|first is defined }} {{ ([1, 2]|last) }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('z', 7) }} {{ {'a': 1}.keys()|list|join }}",
    "{{ messages|map(attribute='role')|join }}",
    "{% if messages|selectattr('content')|list %}y{% elif true %}n{% endif %}{{ messages|rejectattr('role', 'equalto', 'user')|list|length }}",
    "{{ tools is none }}{{ documents }}",
    "{{ raise_exception('no: ' ~ messages|length) }}",
    "{{ missing.attribute }}",
    "{{ 'a' + 1 }}",
    "{{ 1 // 0 }}",
    "{% for x in none %}{% endfor %}",
    "{% if true %}",
    "{{ 'open }}",
    "{{ (1 }}",
    "{% endfor %}",
    "{{ a b }}",
    "{% if 1 if 2 else 3 %}{% endif %}",
    "{# open",
]


def random_templates(n):
    rng = random.Random(1)
    blanks = [" ", "\n", "  ", "\t", "a", "", "x\n", "\u00a0"]
    atoms = ["'a '", "1", "none", "true", "m.role", "m", "loop.index", "messages[0]", "x", "[1,2]", "'\u00e9'", "bos_token"]
    shapes = ["({}|tojson ~ 'k')", "(({}) == ({}))", "{} or {}", "{} and {}", "{} if {} else 'n'", "{} is defined",
              "[{}, {}]|length", "{}|default('d')", "(({}) in [{}, 1])", "(not {})", "{}|tojson"]

    def expression(depth=0):
        if depth > 2 or rng.random() < 0.3:
            return rng.choice(atoms)
        shape = rng.choice(shapes)
        return shape.format(*(expression(depth + 1) for _ in range(shape.count("{}"))))

    def tag(begin, end, inside):
        return begin + rng.choice(["", "", "-", "+" if begin == "{%" else ""]) + " " + inside + " " + rng.choice(["", "", "-"]) + end

    def blank():
        return "".join(rng.choice(blanks) for _ in range(rng.randint(0, 3)))

    def body(depth=0):
        out = ""
        for _ in range(rng.randint(1, 3)):
            kind = rng.randint(0, 4) if depth < 3 else 0
            out += blank()
            if kind <= 1:
                out += tag("{{", "}}", expression())
            elif kind == 2:
                out += tag("{%", "%}", "if " + expression()) + body(depth + 1)
                out += tag("{%", "%}", "else") + body(depth + 1) + tag("{%", "%}", "endif")
            elif kind == 3:
                out += tag("{%", "%}", "for m in messages") + body(depth + 1) + tag("{%", "%}", "endfor")
            else:
                out += tag("{%", "%}", "set x = " + expression())
        return out + blank()

    return [body() for _ in range(n)]


def render(template, messages, generate):
    case = {"template": template, "messages": messages, "add_generation_prompt": generate}
    try:
        case["expected"] = environment.from_string(template).render(
            messages=messages, add_generation_prompt=generate, bos_token="<bos>", eos_token="<eos>", tools=None, documents=None)
    except Exception as error:
        case["refused"] = f"{type(error).__name__}: {error}"
    return case


def main():
    cases = [render(t, m, g) for t, m, g in itertools.product(FAMILIES, CONVERSATIONS, [False, True])]
    cases += [render(t, CONVERSATIONS[2], True) for t in SMALL]
    drawn = [render(t, CONVERSATIONS[i % 4], i % 2 == 0) for i, t in enumerate(random_templates(600))]
    # Without Python's writing of lists and dictionaries, which the interpreter does not offer.
    cases += [c for c in drawn if "refused" not in c and "{'" not in c["expected"] and "[" not in c["expected"]][:150]
    print(json.dumps({"made_by": f"tests/data/chat_templates.py, jinja2 {jinja2.__version__}"})[:-1] + ', "cases": [')
    print(",\n".join(json.dumps(c, ensure_ascii=True) for c in cases))
    print("]}")


main()
