// Seals objects with the digest of their canonical text, and tells what is no longer what was sealed.
#include "receipt/sealed.h"

#include <algorithm>

#include "base/json_text.h"
#include "base/sha256.h"
#include "base/text.h"
#include "receipt/canonical.h"

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

// Where two texts part, for a person.
size_t FirstDifference(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

Result<std::string> Seal(Json object) {
  object = Json::parse(DumpJson(object));  // escapes what is no UTF-8
  object.erase(kDigestField);
  PB_ASSIGN(const std::string body, Canonical(object));
  object[kDigestField] = Sha256Hex(body);
  PB_ASSIGN(std::string text, Canonical(object));
  return text + "\n";
}

Opened Open(std::string_view text) {
  Opened opened;
  auto parsed = ParseJson(text);
  if (!parsed.ok()) {
    opened.problem = parsed.error().message;
    return opened;
  }
  opened.object = std::move(parsed).value();
  if (!opened.object.is_object()) {
    opened.problem = "it holds no JSON object";
    return opened;
  }
  Json content = opened.object;
  const auto digest = content.find(kDigestField);
  if (digest == content.end() || !digest->is_string()) {
    opened.problem = fmt::format("it has no {}, so nothing says that it is what was written", kDigestField);
    return opened;
  }
  opened.digest = digest->get<std::string>();
  auto canonical = Canonical(opened.object);
  if (!canonical.ok()) {
    opened.problem = canonical.error().message;
    return opened;
  }
  if (*canonical + "\n" != text) {
    opened.problem = fmt::format("byte {}: it is not in canonical form (RFC 8785, one newline at the end)",
                                 FirstDifference(text, *canonical + "\n"));
    return opened;
  }
  content.erase(kDigestField);
  opened.content_digest = Sha256Hex(*Canonical(content));
  if (opened.content_digest != opened.digest)
    opened.problem =
        fmt::format("its content has the digest {:.16}..., and it says {:.16}...: it was changed",
                    opened.content_digest, opened.digest);
  return opened;
}

}  // namespace pb::receipt
