// The messages of a child that may be anything: every truncation and every changed bit is read or
// refused, never believed.
#include "host/wire.h"

#include <gtest/gtest.h>

namespace pb::host {
namespace {

std::string PointMessage() {
  FrameWriter out(MessageType::kPoint);
  out.PutPoint({PB_STAGE_DOWN_PROJ, 3, 17, 1, "ffn_out-3", "MUL_MAT"});
  PutPlaced(out, Placed{"in", {5, 7}, 4096, 35});
  return std::move(out).Finish();
}

Status ReadPointMessage(const Frame& frame) {
  ByteReader in(BodyBytes(frame));
  PB_ASSIGN(PointRef point, ReadPoint(in));
  PB_ASSIGN(Placed placed, ReadPlaced(in, 8192));
  EXPECT_LE(placed.offset + placed.n_values * 4, 8192u);
  return ExpectEnd(in);
}

TEST(Wire, FramesArriveInAnyPieces) {
  std::string bytes = PointMessage() + PointMessage();
  for (size_t piece : {1u, 3u, 16u, 1000u}) {
    FrameBuffer buffer;
    int frames = 0;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      buffer.Append(bytes.data() + at, std::min(piece, bytes.size() - at));
      for (;;) {
        auto frame = buffer.Next();
        ASSERT_TRUE(frame.ok());
        if (!*frame) break;
        EXPECT_TRUE(ReadPointMessage(**frame).ok());
        ++frames;
      }
    }
    EXPECT_EQ(frames, 2);
  }
}

TEST(Wire, EveryTruncationAndBitFlipIsSurvived) {
  std::string good = PointMessage();
  std::string body = good.substr(16);
  for (size_t n = 0; n < body.size(); ++n)
    EXPECT_FALSE(ReadPointMessage({MessageType::kPoint, body.substr(0, n)}).ok()) << n;
  EXPECT_FALSE(ReadPointMessage({MessageType::kPoint, body + "x"}).ok());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    FrameBuffer buffer;
    buffer.Append(bytes.data(), bytes.size());
    auto frame = buffer.Next();
    if (frame.ok() && *frame) (void)ReadPointMessage(**frame).ok();
  }
}

TEST(Wire, ClaimsOfSizeAreRefusedBeforeAnythingIsAllocated) {
  for (uint64_t claim : {uint64_t{1} << 30, uint64_t{1} << 62, ~uint64_t{0}}) {
    FrameWriter out(MessageType::kReply);
    out.Put(claim);
    std::string bytes = std::move(out).Finish();
    Frame frame{MessageType::kReply, bytes.substr(16)};
    ByteReader ints(BodyBytes(frame)), text(BodyBytes(frame)), facts(BodyBytes(frame));
    EXPECT_FALSE(ReadInts(ints, "ids").ok());
    EXPECT_FALSE(ReadString(text, "text").ok());
    EXPECT_FALSE(ReadFacts(facts).ok());
  }
  std::string header = PointMessage().substr(0, 8) + std::string(7, '\xff') + '\x7f';
  FrameBuffer buffer;
  buffer.Append(header.data(), header.size());
  EXPECT_FALSE(buffer.Next().ok());
}

TEST(Wire, TensorsLieWithinTheSharedMemory) {
  auto read = [](std::vector<int64_t> shape, uint64_t offset) {
    FrameWriter out(MessageType::kPoint);
    PutPlaced(out, Placed{"t", std::move(shape), offset, 0});
    Frame frame{MessageType::kPoint, std::move(out).Finish().substr(16)};
    ByteReader in(BodyBytes(frame));
    return ReadPlaced(in, 1 << 16).ok();
  };
  EXPECT_TRUE(read({16, 256}, 4096));
  EXPECT_TRUE(read({1, 1, 1, 1}, 65472));
  EXPECT_TRUE(read({15, 1024}, 4096));
  EXPECT_FALSE(read({15, 1025}, 4096));
  EXPECT_FALSE(read({1}, 65536));
  EXPECT_FALSE(read({16, 256}, 4100));
  EXPECT_FALSE(read({}, 4096));
  EXPECT_FALSE(read({0, 4}, 4096));
  EXPECT_FALSE(read({-1, 4}, 4096));
  EXPECT_FALSE(read({int64_t{1} << 32, int64_t{1} << 32}, 4096));  // the product overflows to 0
  EXPECT_FALSE(read({int64_t{1} << 62, 4}, 4096));
  EXPECT_FALSE(read({4}, ~uint64_t{63}));
}

TEST(Wire, CodesBelongTogether) {
  auto read = [](const PlacedCodes& codes) {
    FrameWriter out(MessageType::kReply);
    PutCodes(out, codes);
    std::string bytes = std::move(out).Finish();
    Frame frame{MessageType::kReply, bytes.substr(16)};
    ByteReader in(BodyBytes(frame));
    return ReadCodes(in, 1 << 16).ok() && ExpectEnd(in).ok();
  };
  const PlacedCodes good{"q8_1", "by hand", 32, {"", {2, 80}, 4096, 160}, {"", {2, 3}, 8192, 6}, {}, {}};
  EXPECT_TRUE(read(good));
  auto changed = [&](auto change) {
    PlacedCodes codes = good;
    change(codes);
    return read(codes);
  };
  EXPECT_TRUE(changed([](auto& c) { c.sums = Placed{"", {2, 3}, 8192, 6}; }));
  EXPECT_TRUE(changed([](auto& c) { c.products = Placed{"", {2, 7}, 8192, 14}; }));
  EXPECT_FALSE(changed([](auto& c) { c.block = 0; }));
  EXPECT_FALSE(changed([](auto& c) { c.block = 81; }));
  EXPECT_FALSE(changed([](auto& c) { c.block = 16; }));  // five scales a row
  EXPECT_FALSE(changed([](auto& c) { c.codes.shape = {160}; }));
  EXPECT_FALSE(changed([](auto& c) { c.codes.offset = 1 << 16; }));
  EXPECT_FALSE(changed([](auto& c) { c.sums = Placed{"", {2, 2}, 8192, 4}; }));
  EXPECT_FALSE(changed([](auto& c) { c.products = Placed{"", {3, 7}, 8192, 21}; }));
}

TEST(Wire, PrintableKeepsTextAndReplacesTheRest) {
  EXPECT_EQ(Printable("a\nb\tc"), "a\nb\tc");
  EXPECT_EQ(Printable("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
  EXPECT_EQ(Printable("\x1b[31m\x7f"), "?[31m?");
  EXPECT_EQ(Printable("a\r\n"), "a?\n");
  EXPECT_EQ(Printable("a\r\n", true), "a\r\n");
  EXPECT_EQ(Printable("\xc0\xaf"), "??");            // overlong
  EXPECT_EQ(Printable("\xed\xa0\x80"), "???");       // a surrogate
  EXPECT_EQ(Printable("\xf4\x90\x80\x80"), "????");  // beyond U+10FFFF
  EXPECT_EQ(Printable("\xe2\x82"), "??");            // cut
}

}  // namespace
}  // namespace pb::host
