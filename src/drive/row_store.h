// Logits rows of one evaluation, kept on disk-backed memory: whole prompts times a vocabulary need
// not fit in RAM.
#ifndef PARITYBIT_DRIVE_ROW_STORE_H_
#define PARITYBIT_DRIVE_ROW_STORE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace pb::drive {

// An unlinked temporary file, mapped; or rows that lie elsewhere for as long as they are needed.
// Rows are appended in order and read at random. Movable; gone with the object.
class RowStore {
 public:
  // Room for up to n_rows rows of n_columns float32. kIo when the temporary directory has no room
  // for them.
  static Result<RowStore> Create(int64_t n_rows, int64_t n_columns);
  // For rows that last (host::TensorRef) alone.
  static RowStore OfLasting(int64_t n_columns) { return RowStore(nullptr, 0, n_columns); }
  RowStore(RowStore&& other) noexcept;
  RowStore& operator=(RowStore&& other) noexcept;
  ~RowStore();

  int64_t n_rows() const { return n_rows_; }
  int64_t n_columns() const { return n_columns_; }
  // values: whole rows. More rows than there is room for is kEngine: the engine sent more than was
  // asked.
  Status Append(std::span<const float> values);
  // The same of rows that are part of what is held and stay where they are.
  Status AppendLasting(std::span<const float> values, std::shared_ptr<const void> held);
  std::span<const float> Row(int64_t row) const;
  // Gives the memory of all rows back, but for those that lie elsewhere; they are read again from the
  // file when they are needed.
  void Release() const;

 private:
  RowStore(float* data, int64_t capacity, int64_t n_columns)
      : data_(data), capacity_(capacity), n_columns_(n_columns) {}
  float* data_ = nullptr;
  int64_t capacity_ = 0, n_columns_ = 0, n_rows_ = 0;
  std::vector<const float*> lasting_;  // each row, where they lie elsewhere
  std::shared_ptr<const void> held_;   // what they are part of
};

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_ROW_STORE_H_
