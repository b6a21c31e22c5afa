// Limits are set on this process and read back from the words of an error.
#include "base/system_error.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>

namespace pb {
namespace {

TEST(SystemError, NamesTheLimitThatWasMet) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few{3, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), error = errno;
  const Error told = SystemError("/dev/null: cannot open", error);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_EQ(fd, -1);
  EXPECT_EQ(told.code, Code::kIo);
  EXPECT_EQ(told.message, "/dev/null: cannot open: Too many open files (ulimit -n is 3)");
}

TEST(SystemError, OtherErrorsHaveNoLimit) {
  EXPECT_EQ(SystemError("x", ENOENT).code, Code::kNotFound);
  EXPECT_EQ(SystemError("x", EACCES).code, Code::kIo);
  EXPECT_EQ(SystemError("x", EACCES).message, "x: Permission denied");
  EXPECT_EQ(LimitText(EIO), "");
}

}  // namespace
}  // namespace pb
