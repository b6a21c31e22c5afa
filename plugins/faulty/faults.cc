// Reads the name of a fault from the settings, and commits it where the engine asks for it.
#include "faults.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iterator>
#include <stdexcept>

namespace faulty {
namespace {

constexpr const char* kDeeds[] = {"crash",    "abort",   "exit",       "hang",    "spin",  "oom", "throw",
                                  "overflow", "garbage", "disconnect", "chatter", "error", "work"};
constexpr const char* kLies[] = {"nan",
                                 "inf",
                                 "wrong_vocab",
                                 "skip_rows",
                                 "repeat_rows",
                                 "reverse_rows",
                                 "skip_points",
                                 "repeat_points",
                                 "extra_rows",
                                 "huge_shape",
                                 "negative_shape",
                                 "null_data",
                                 "token_range",
                                 "token_value",
                                 "token_count",
                                 "stage_twice",
                                 "layer_twice",
                                 "no_model",
                                 "slow",
                                 "wrong_unwatched",
                                 "shown_not_used",
                                 "shown_not_used_a_bit",
                                 "ignores_overwrites",
                                 "other_logits",
                                 "constant_logits",
                                 "wrong_late",
                                 "hides_points",
                                 "wrong_batches",
                                 "nondeterministic",
                                 "wrong_long_unwatched"};
constexpr const char* kPlaces[] = {"create", "model", "session", "eval", "point"};

template <size_t N>
int Find(const char* const (&names)[N], std::string_view name) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  return -1;
}

int Recurse(int depth, volatile char* above) {
  volatile char frame[4096];
  frame[0] = above ? above[0] : 0;
  frame[sizeof frame - 1] = static_cast<char>(depth);
  if (depth < 0) return frame[0];
  return Recurse(depth + 1, frame) + frame[sizeof frame - 1];
}

void TakeAllMemory() {
  for (;;) {
    // volatile: a compiler may leave out memory that nobody sees
    char* volatile block = new char[32 << 20];
    std::memset(block, 1, 32 << 20);
  }
}

void WriteEverywhere() {
  char noise[4096];
  for (size_t i = 0; i < sizeof noise; ++i) noise[i] = static_cast<char>(i * 37 + 11);
  for (int fd = 3; fd < 64; ++fd) (void)!write(fd, noise, sizeof noise);
}

// Half a second of a processor, without a word.
void Work() {
  timespec used{};
  do {
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  } while (used.tv_sec == 0 && used.tv_nsec < 500'000'000);
}

void Chatter() {
  for (int i = 0; i < 20000; ++i) {
    std::printf("line %d on stdout, of a plugin that talks too much\n", i);
    std::fprintf(stderr, "line %d on stderr, \x01\xff\xfe not all of it text\n", i);
  }
  std::fflush(stdout);
}

}  // namespace

bool SetMode(Faults& faults, std::string_view value) {
  faults.deed = Find(kDeeds, value);
  faults.lie = Find(kLies, value);
  return faults.deed >= 0 || faults.lie >= 0 || value == "none";
}

bool SetPlace(Faults& faults, std::string_view value) {
  int place = Find(kPlaces, value);
  if (place >= 0) faults.at = static_cast<Place>(place);
  return place >= 0;
}

std::string Commit(const Faults& faults, Place place) {
  if (faults.deed < 0 || faults.at != place) return "";
  std::fprintf(stderr, "faulty: about to %s\n", kDeeds[faults.deed]);
  switch (static_cast<Deed>(faults.deed)) {
    case Deed::kCrash: {
      volatile int* volatile nowhere = nullptr;
      *nowhere = 1;
      break;
    }
    case Deed::kAbort:
      std::abort();
    case Deed::kExit:
      std::exit(3);
    case Deed::kHang:
      for (;;) pause();
    case Deed::kSpin:
      for (volatile bool spinning = true; spinning;) {
      }
      break;
    case Deed::kOom:
      TakeAllMemory();
      break;
    case Deed::kThrow:
      throw std::runtime_error("thrown by faulty");
    case Deed::kOverflow:
      return Recurse(0, nullptr) == 42 ? "never" : "";
    case Deed::kGarbage:
      WriteEverywhere();
      break;
    case Deed::kDisconnect:
      for (int fd = 3; fd < 64; ++fd) close(fd);
      break;
    case Deed::kChatter:
      Chatter();
      break;
    case Deed::kWork:
      Work();
      break;
    case Deed::kError:
      return "an error that faulty was told to report";
  }
  return "";
}

}  // namespace faulty
