// Rows come back as they were appended; too many, or no room, is an error.
#include "drive/row_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <vector>

namespace pb::drive {
namespace {

TEST(RowStore, GivesBackWhatWasAppended) {
  auto store = RowStore::Create(3, 2);
  ASSERT_TRUE(store.ok());
  std::vector<float> first = {1, 2, 3, 4}, second = {5, 6};
  ASSERT_TRUE(store->Append(first).ok());
  ASSERT_TRUE(store->Append(second).ok());
  RowStore moved = std::move(store).value();
  EXPECT_EQ(moved.n_rows(), 3);
  EXPECT_EQ(moved.Row(1)[0], 3);
  EXPECT_EQ(moved.Row(2)[1], 6);
}

TEST(RowStore, HoldsWhatItsRowsArePartOf) {
  auto values = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4, 5, 6});
  RowStore store = RowStore::OfLasting(2);
  ASSERT_TRUE(store.AppendLasting(std::span(*values).first(4), values).ok());
  ASSERT_TRUE(store.AppendLasting(std::span(*values).last(2), values).ok());
  EXPECT_EQ(store.AppendLasting(std::span(*values).first(3), values).error().code, Code::kEngine);
  const float* first = values->data();
  std::weak_ptr<std::vector<float>> held = values;
  values.reset();
  RowStore moved = std::move(store);
  EXPECT_EQ(moved.n_rows(), 3);
  EXPECT_EQ(moved.Row(0).data(), first);  // no copy
  EXPECT_EQ(moved.Row(2)[1], 6);
  EXPECT_FALSE(held.expired());
  moved = RowStore::OfLasting(2);
  EXPECT_EQ(moved.n_rows(), 0);
}

// Bytes of this process's memory that are of files.
int64_t OfFiles() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0, of_files = 0;
  statm >> size >> resident >> of_files;
  return of_files * sysconf(_SC_PAGESIZE);
}

TEST(RowStore, GivesItsMemoryBackAndKeepsItsRows) {
  constexpr int64_t kRows = 64, kColumns = 1 << 16, kBytes = kRows * kColumns * 4;
  auto store = RowStore::Create(kRows, kColumns);
  ASSERT_TRUE(store.ok());
  const int64_t before = OfFiles();
  std::vector<float> row(kColumns);
  for (int64_t r = 0; r < kRows; ++r) {
    row.assign(row.size(), static_cast<float>(r));
    ASSERT_TRUE(store->Append(row).ok());
  }
  EXPECT_GE(OfFiles(), before + kBytes);
  store->Release();
  EXPECT_LT(OfFiles(), before + kBytes / 2);
  for (int64_t r = 0; r < kRows; ++r) EXPECT_EQ(store->Row(r)[kColumns - 1], static_cast<float>(r));
}

TEST(RowStore, RefusesMoreThanThereIsRoomForAndPartsOfRows) {
  auto store = RowStore::Create(1, 2);
  ASSERT_TRUE(store.ok());
  std::vector<float> values(4);
  EXPECT_EQ(store->Append(values).error().code, Code::kEngine);
  EXPECT_EQ(store->Append(std::span(values).first(1)).error().code, Code::kEngine);
  EXPECT_EQ(store->n_rows(), 0);
}

TEST(RowStore, NoRoomIsAnErrorNotACrash) {
  auto store = RowStore::Create(1ll << 30, 1ll << 20);  // 4 PiB
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, Code::kIo);
}

}  // namespace
}  // namespace pb::drive
