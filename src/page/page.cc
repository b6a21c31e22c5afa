// Puts a report into the bundled page: gzip, which browsers undo by themselves, in base64.
#include "page/page.h"

#include <openssl/evp.h>
#include <zlib.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "page/template.h"

namespace pb::page {
namespace {

std::vector<unsigned char> Gzip(std::string_view text) {
  constexpr int kWindowBits = 15 + 16;  // the largest window, with a gzip header
  z_stream stream{};
  PB_CHECK(deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kWindowBits, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::vector<unsigned char> out, piece(1 << 16);
  size_t begun = 0;
  int state = Z_OK;
  while (state != Z_STREAM_END) {
    // Lengths are of 32 bits there.
    constexpr size_t kMostAtOnce = 1 << 30;
    const size_t n = std::min(text.size() - begun, kMostAtOnce);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data() + begun));
    stream.avail_in = static_cast<uInt>(n);
    begun += n;
    do {
      stream.next_out = piece.data(), stream.avail_out = static_cast<uInt>(piece.size());
      state = deflate(&stream, begun == text.size() ? Z_FINISH : Z_NO_FLUSH);
      PB_CHECK(state == Z_OK || state == Z_STREAM_END || state == Z_BUF_ERROR);
      out.insert(out.end(), piece.data(), piece.data() + (piece.size() - stream.avail_out));
    } while (stream.avail_out == 0);
  }
  deflateEnd(&stream);
  return out;
}

std::string Base64(const std::vector<unsigned char>& bytes) {
  constexpr size_t kPiece = 3 << 20;  // whole groups of three, so that pieces join without padding
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += kPiece) {
    const size_t n = std::min(bytes.size() - i, kPiece);
    std::vector<unsigned char> text((n + 2) / 3 * 4 + 1);
    const int length = EVP_EncodeBlock(text.data(), bytes.data() + i, static_cast<int>(n));
    out.append(text.begin(), text.begin() + length);
  }
  return out;
}

std::string EscapeMarkup(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string Render(std::string_view title, std::string_view json) {
  std::string out(kBeforeTitle);
  out += EscapeMarkup(title);
  out += kBeforeData;
  out += Base64(Gzip(json));
  return out += kAfterData;
}

}  // namespace pb::page
