// Chat templates against Jinja2 (tests/data/chat_templates.json, made by chat_templates.py beside
// it), and their bounds.
#include "chat/chat_template.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/paths.h"

namespace pb::chat {
namespace {

Result<std::string> Render(std::string_view text,
                           const std::vector<ChatMessage>& messages = {{"user", "hi"}}) {
  return ApplyChatTemplate(text, messages, true, "<bos>", "<eos>");
}

std::string Rendered(std::string_view text) {
  auto result = Render(text);
  return result.ok() ? *result : "error: " + result.error().message;
}

TEST(ChatTemplate, RendersAsJinja) {
  std::ifstream file(SourcePath("tests/data/chat_templates.json"));
  ASSERT_TRUE(file.good());
  nlohmann::json data = nlohmann::json::parse(file);
  int equal = 0, refused = 0, unsupported = 0;
  for (const auto& c : data["cases"]) {
    std::vector<ChatMessage> messages;
    for (const auto& m : c["messages"]) messages.push_back({m["role"], m["content"]});
    const std::string text = c["template"];
    auto result = ApplyChatTemplate(text, messages, c["add_generation_prompt"], "<bos>", "<eos>");
    if (c.contains("refused")) {
      EXPECT_FALSE(result.ok()) << text << "\nJinja: " << c["refused"];
      ++refused;
    } else if (!result.ok() && result.error().code == Code::kUnsupported) {
      EXPECT_NE(result.error().message.find("line"), std::string::npos);
      ++unsupported;
    } else {
      ASSERT_TRUE(result.ok()) << text << "\n" << result.error().message;
      EXPECT_EQ(*result, c["expected"].get<std::string>()) << text;
      ++equal;
    }
  }
  EXPECT_EQ(equal, 247);
  EXPECT_EQ(refused, 24);
  EXPECT_EQ(unsupported, 1);  // map(attribute=...)
}

TEST(ChatTemplate, NamesWhatIsNotSupportedWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% macro f() %}{% endmacro %}", "line 2: {% macro %}"},
      {"\n\n{% set x %}a{% endset %}", "line 3: {% set %} with a body"},
      {"{{ messages|groupby('role') }}", "line 1: the filter \"groupby\""},
      {"{{ 'a' is divisibleby(3) }}", "the test \"is divisibleby\""},
      {"{{ 3 is divisibleby 3 }}", "an argument of the test \"divisibleby\" without brackets"},
      {"{{ 'abc'.title() }}", "the method \"title\" of a string"},
      {"{{ strftime_now('%d') }}", "the function \"strftime_now\""},
      {"{% for a in messages recursive %}{% endfor %}", "a recursive loop"},
      {"{{ 1 < 2 < 3 }}", "a chain of comparisons"},
      {"{{ (1, 2) }}", "a tuple"},
      {"{{ messages }}", "writing a list as text"},
      {"{{ 2 ** 3 }}", "the operator **"},
      {"{% raw %}{{ x }}{% endraw %}", "{% raw %}"},
      {"{{ '\xC3\xA9'|upper }}", "upper of characters beyond ASCII"},
  };
  for (auto [text, message] : cases) {
    auto result = Render(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.error().code, Code::kUnsupported) << text;
    EXPECT_NE(result.error().message.find(message), std::string::npos)
        << text << ": " << result.error().message;
  }
}

TEST(ChatTemplate, TellsWhyItRefuses) {
  auto result = Render("{{ raise_exception('roles must alternate') }}");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, Code::kUsage);
  EXPECT_EQ(result.error().message,
            "chat template, line 1: the template refuses this conversation: roles must alternate");
}

// What is not reached is not judged: real templates guard tool calls this way.
TEST(ChatTemplate, UnsupportedCallsInBranchesNotTakenAreHarmless) {
  EXPECT_EQ(Rendered("{% if tools %}{{ tools|groupby('x') }}{{ f() }}{% endif %}ok"), "ok");
}

TEST(ChatTemplate, BytesThatAreNotUtf8PassThrough) {
  auto result =
      Render("{{ messages[0].content|trim }}{{ messages[0].content|length }}", {{"user", " \xFF\xC3 "}});
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(*result,
            "\xFF\xC3"
            "4");
}

std::string Repeated(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

TEST(ChatTemplate, HostileTemplatesEndSoonWithAnError) {
  const std::string cases[] = {
      "{{ " + Repeated("(", 100000) + "1" + Repeated(")", 100000) + " }}",
      "{{ " + Repeated("[", 100000) + Repeated("]", 100000) + " }}",
      "{{ " + Repeated("not ", 100000) + "1 }}",
      "{{ " + Repeated("-", 100000) + "1 }}",
      "{{ 1" + Repeated(" + 1", 100000) + " }}",
      "{{ messages" + Repeated("|list", 100000) + " }}",
      "{{ messages" + Repeated("[0]", 100000) + " }}",
      Repeated("{% if 1 %}", 100000) + Repeated("{% endif %}", 100000),
      Repeated("{% for x in [1] %}", 100000),
      "{% for a in range(1000000) %}{% for b in range(1000000) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='ab') %}{% for a in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for a in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for a in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ "
      "ns.s == ns.s }}",
      "{% set ns = namespace(s=[1]) %}{% for a in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}",
      "{% set ns = namespace() %}{% set ns.self = ns %}",
      "{% set ns = namespace() %}{% for a in range(9) %}{% set ns = namespace(inner=ns) %}{% endfor %}{{ "
      "[ns] }}",
      "{% for a in range(1000000) %}{{ 'a very long line that is written again and again and again' }}{% "
      "endfor %}",
      "{{ ('a' ~ 'b').replace('', 'x') }}",
      "{{ range(99999999999) }}",
      "{{ range(0, 10, 0) }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ 99999999999999999999 }}",
      "{{ 'a'[1:2:0] }}",
      "{{ '\\ud80z' }}",
  };
  for (const std::string& text : cases) {
    const std::clock_t begin = std::clock();
    auto result = Render(text);
    EXPECT_FALSE(result.ok()) << text.substr(0, 200);
    EXPECT_LT(std::clock() - begin, 20 * CLOCKS_PER_SEC) << text.substr(0, 200);
  }
  EXPECT_EQ(Rendered("{{ (-9223372036854775807 - 1) % -1 }}"), "0");
  EXPECT_EQ(Rendered("{{ [1, 2][9223372036854775807::-9223372036854775807]|length }}"), "1");
}

// Each of these kept a processor busy for minutes, or took gigabytes: work that no step and no
// value showed.
TEST(ChatTemplate, WorkThatValuesDoNotShowIsCounted) {
  auto doubled = [](const std::string& text, int times) {
    return "{% set ns = namespace(s=" + text + ") %}{% for i in range(" + std::to_string(times) +
           ") %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{% set s = ns.s %}";
  };
  auto often = [](const std::string& body) {
    return "{% for i in range(1000000) %}" + body + "{% endfor %}";
  };
  auto listed = [](const std::string& before, const std::string& after, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += (i > 0 ? "," : "") + before + std::to_string(i) + after;
    return out;
  };
  const std::string long_name(100000, 'a'), long_text = doubled("'ab'", 22), spaces = doubled("' '", 23);
  const std::string keys = "{% set d = {" + listed("'k", "': 1", 1000) + "} %}";
  const std::string attributes = "{% set d = namespace(" + listed("k", "=1", 15000) + ") %}";
  const std::string cases[] = {
      long_text + often("{% set d = {s: 1} %}{{ d[s] }}"),
      long_text + "{% set t = s[:4194304] ~ 'c' %}" + often("{% if t in s %}{% endif %}"),
      long_text + "{% set t = s[:4194304] ~ 'c' %}" + often("{% set x = s.replace(t, 'y') %}"),
      long_text + often("{% set x = s.strip(s) %}"),
      long_text + often("{{ s[-1] }}"),
      long_text + often("{{ s[5:7] }}"),
      long_text + "{{ s.split('a')|length }}",
      long_text + "{{ [s, s, s, s]|join }}",
      long_text + "{% set x = s ~ s ~ s %}",
      spaces + often("{% set x = s|trim %}"),
      doubled("'\x01'", 23) + "{{ s|tojson }}",
      doubled("'ab'", 17) + often("{{ s[::-1]|length }}"),
      doubled("'ab'", 17) + listed("{% set x", " = s|list %}", 100),
      "{% set " + long_name + " = 1 %}" + often("{{ " + long_name + " }}"),
      Repeated("{% for a in [1] %}", 60) + often("{{ b }}{{ b }}") + Repeated("{% endfor %}", 60),
      keys + often("{{ d.get('k999') }}"),
      keys + often("{% if d == d %}{% endif %}"),
      "{% set d = {" + listed("'k", "': 1", 15000) + "} %}",
      attributes + often("{% set d.k14999 = 1 %}"),
      listed("{% set x", " = range(1000000) %}", 100),
      often("{% for " + listed("a", "", 10000) + " in [[" + listed("", "", 10000) + "]] %}{% endfor %}"),
      often(std::string(200000, 'x')),
      std::string(300000, 'x'),
  };
  for (const std::string& text : cases) {
    const std::clock_t begin = std::clock();
    auto result = Render(text);
    ASSERT_FALSE(result.ok()) << text.substr(0, 200);
    EXPECT_LT(result.error().message.size(), 1000u);
    EXPECT_LT(std::clock() - begin, 20 * CLOCKS_PER_SEC) << text.substr(0, 200);
  }
  EXPECT_EQ(Rendered(doubled("'ab'", 23) + "{{ s|length }}"), "16777216");
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

// Renders with 128 MiB of address space to grow by: exit 0 when that suffices, an abort of
// std::bad_alloc when not.
[[noreturn]] void RenderWithinLittleMemory(const std::string& text) {
  uint64_t n_pages = 0;
  std::ifstream("/proc/self/statm") >> n_pages;
  rlimit limit;
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = n_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + (128 << 20);
  setrlimit(RLIMIT_AS, &limit);
  (void)Render(text).ok();
  _exit(0);
}

TEST(ChatTemplate, MemoryIsBounded) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer reserves more address space than any limit";
  const std::string doubled =
      "{% set ns = namespace(s='ab') %}{% for i in range(23) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
  for (const std::string& text :
       {doubled + "{{ ns.s|length }}", doubled + "{{ ns.s[-1] }}", doubled + "{{ ns.s[5:7] }}",
        doubled + "{{ ns.s.split('a')|length }}", doubled + "{{ ns.s|list|length }}",
        doubled + "{{ [ns.s, ns.s, ns.s]|tojson|length }}", doubled + "{{ [ns.s, ns.s, ns.s]|join }}"})
    EXPECT_EXIT(RenderWithinLittleMemory(text), testing::ExitedWithCode(0), "") << text;
}

// As Python counts them: by characters.
TEST(ChatTemplate, CharactersOfAStringAreCountedNotBytes) {
  EXPECT_EQ(Rendered("{{ 'h\u00e9llo\u20ac'|length }}{{ 'h\u00e9llo'[1] }}{{ 'h\u00e9llo'[-4] }}"
                     "{{ 'h\u00e9llo'[9] }}{{ 'h\u00e9llo'[-9] }}"),
            "6\xC3\xA9\xC3\xA9");
  EXPECT_EQ(
      Rendered("{{ 'h\u00e9llo'[1:3] }}|{{ 'h\u00e9llo'[::-1] }}|{{ 'h\u00e9llo'[-2:] }}|{{ 'abc'[2:1] }}|"
               "{{ 'h\u00e9llo'[::2] }}"),
      "\xC3\xA9l|oll\xC3\xA9h|lo||hlo");
}

// Every prefix, and every single changed byte, of a template that uses all constructs: a result or
// an error.
TEST(ChatTemplate, DamagedTemplatesNeverCrash) {
  const std::string whole =
      "{%- set ns = namespace(a='x', b=[1, 2.5]) -%}{# c #}{% for m in messages[1:] if m.role != 'x' %}{{ "
      "m['content']|trim ~ "
      "loop.index0 if not loop.last else \"\\u00e9\" }}{% else %}{{- {'k': -1}.items()|list|length is "
      "defined }}{% endfor +%}";
  for (size_t n = 0; n <= whole.size(); ++n) (void)Render(whole.substr(0, n)).ok();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (char c : {'{', '}', '%', '\'', '\\', '(', ']', '-', '\0', '\xFF', ' ', '.', '|'}) {
      std::string changed = whole;
      changed[i] = c;
      (void)Render(changed).ok();
    }
  }
}

}  // namespace
}  // namespace pb::chat
