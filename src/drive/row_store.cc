// Maps an unlinked temporary file and appends rows to it.
#include "drive/row_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/system_error.h"

namespace pb::drive {

Result<RowStore> RowStore::Create(int64_t n_rows, int64_t n_columns) {
  PB_CHECK(n_rows > 0 && n_columns > 0);
  std::error_code ignored;
  std::string name = (std::filesystem::temp_directory_path(ignored) / "paritybit-rows-XXXXXX").string();
  int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return MakeError(Code::kIo, "{}: cannot create a temporary file: {}", name, ErrnoText(errno));
  unlink(name.c_str());
  size_t bytes = static_cast<size_t>(n_rows) * static_cast<size_t>(n_columns) * sizeof(float);
  // Allocated now: a full disk is an error here, not a bus error at a later store.
  int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  void* data = error == 0 ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (error == 0 && data == MAP_FAILED) error = errno;
  close(fd);
  if (data == MAP_FAILED)
    return MakeError(Code::kIo, "{}: cannot keep {} logits rows ({} bytes): {}; set TMPDIR to a larger disk",
                     name, n_rows, bytes, ErrnoText(error));
  return RowStore(static_cast<float*>(data), n_rows, n_columns);
}

RowStore::RowStore(RowStore&& other) noexcept { *this = std::move(other); }

RowStore& RowStore::operator=(RowStore&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(capacity_, other.capacity_);
  std::swap(n_columns_, other.n_columns_);
  std::swap(n_rows_, other.n_rows_);
  std::swap(lasting_, other.lasting_);
  std::swap(held_, other.held_);
  return *this;
}

RowStore::~RowStore() {
  if (data_) munmap(data_, static_cast<size_t>(capacity_) * static_cast<size_t>(n_columns_) * sizeof(float));
}

Status RowStore::Append(std::span<const float> values) {
  int64_t rows = static_cast<int64_t>(values.size()) / n_columns_;
  if (rows * n_columns_ != static_cast<int64_t>(values.size()) || n_rows_ + rows > capacity_)
    return MakeError(Code::kEngine,
                     "the engine sent {} logits values where rows of {} and at most {} rows were asked",
                     values.size(), n_columns_, capacity_ - n_rows_);
  std::memcpy(data_ + n_rows_ * n_columns_, values.data(), values.size_bytes());
  n_rows_ += rows;
  return {};
}

Status RowStore::AppendLasting(std::span<const float> values, std::shared_ptr<const void> held) {
  PB_CHECK(!data_ && held && (!held_ || held_ == held));
  const int64_t rows = static_cast<int64_t>(values.size()) / n_columns_;
  if (rows * n_columns_ != static_cast<int64_t>(values.size()))
    return MakeError(Code::kEngine, "{} logits values where rows of {} were asked", values.size(),
                     n_columns_);
  for (int64_t row = 0; row < rows; ++row) lasting_.push_back(values.data() + row * n_columns_);
  held_ = std::move(held);
  n_rows_ += rows;
  return {};
}

void RowStore::Release() const {
  if (data_)
    madvise(data_, static_cast<size_t>(capacity_) * static_cast<size_t>(n_columns_) * sizeof(float),
            MADV_DONTNEED);
}

std::span<const float> RowStore::Row(int64_t row) const {
  PB_CHECK(row >= 0 && row < n_rows_);
  const float* values = data_ ? data_ + row * n_columns_ : lasting_[static_cast<size_t>(row)];
  return {values, static_cast<size_t>(n_columns_)};
}

}  // namespace pb::drive
