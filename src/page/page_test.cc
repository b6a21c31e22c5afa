// The page holds its data whole, and nothing of title or data becomes markup.
#include "page/page.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <zlib.h>

#include <string>
#include <vector>

namespace pb::page {
namespace {

constexpr std::string_view kOpens = R"(<script type="text/plain" id="data">)";

// What a browser reads of the page's data.
std::string DataOf(const std::string& page) {
  const size_t begin = page.find(kOpens) + kOpens.size(), end = page.find("</script>", begin);
  const std::string text = page.substr(begin, end - begin);
  std::vector<unsigned char> bytes(text.size());
  int length = EVP_DecodeBlock(bytes.data(), reinterpret_cast<const unsigned char*>(text.data()),
                               static_cast<int>(text.size()));
  std::string out(64 << 20, '\0');
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = bytes.data(), stream.avail_in = static_cast<uInt>(length);
  stream.next_out = reinterpret_cast<Bytef*>(out.data()), stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  inflateEnd(&stream);
  return out;
}

TEST(Page, HoldsItsDataWhole) {
  std::string large = "[";
  for (int i = 0; i < 3000000; i++) large += static_cast<char>('0' + (i * 7919LL % 104729) % 10);
  for (const std::string& json : {std::string("{\"a\":1}"), std::string(), large + "]"})
    EXPECT_EQ(DataOf(Render("t", json)), json);
}

TEST(Page, NothingOfItBecomesMarkup) {
  const std::string hostile = "</title></script><script>alert(1)</script><!--";
  const std::string page = Render(hostile, "\"" + hostile + "\"");
  EXPECT_EQ(page.find(hostile), std::string::npos);
  EXPECT_EQ(page.find("alert(1)</script>"), std::string::npos);
  EXPECT_NE(page.find("<title>&lt;/title&gt;"), std::string::npos);
  EXPECT_EQ(DataOf(page), "\"" + hostile + "\"");
}

TEST(Page, AsksForNothingFromElsewhere) {
  const std::string page = Render("t", "{}");
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  for (const char* reference : {"src=\"http", "href=\"http", "url(http", "@import", "fetch("})
    EXPECT_EQ(page.find(reference), std::string::npos) << reference;
}

}  // namespace
}  // namespace pb::page
