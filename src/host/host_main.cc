// paritybit-host PLUGIN FD: the process an engine plugin lives in. Started by paritybit, never by
// hand: FD is its socket, FD + 1 the shared memory.
#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "host/server.h"

int main(int argc, char** argv) {
  int fd = argc == 3 ? std::atoi(argv[2]) : -1;
  if (fd < 3) {
    fmt::print(stderr, "usage: paritybit-host PLUGIN FD (started by paritybit)\n");
    return 2;
  }
  for (int own : {fd, fd + 1}) fcntl(own, F_SETFD, FD_CLOEXEC);
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its limit is an error to report, not a death
  auto memory = pb::host::SharedMemory::Attach(fd + 1);
  pb::Status status;
  if (memory.ok()) {
    memory->status()->host_began = 1;
    // what a plugin prints must not be lost when it crashes
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    pb::host::Server server(argv[1], pb::host::Channel(fd), std::move(memory).value());
    status = server.Run();
  } else {
    status = std::move(memory).error();
  }
  if (!status.ok()) fmt::print(stderr, "paritybit-host: {}\n", status.error().message);
  std::fflush(nullptr);
  _exit(status.ok() ? 0 : 1);  // destructors of the plugin's libraries are not ours to run
}
