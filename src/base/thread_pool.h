// A fixed set of threads that share the indices of a loop. Results never depend on the number of
// threads.
#ifndef PARITYBIT_BASE_THREAD_POOL_H_
#define PARITYBIT_BASE_THREAD_POOL_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pb {

class ThreadPool {
 public:
  // n_threads counts the calling thread; below 1 means 1.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Calls body(begin, end, thread) over contiguous, disjoint ranges that cover [0, n); returns when
  // all are done. Each thread gets one range, multiples of `grain` apart. One caller at a time;
  // body must not call For.
  void For(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body);

 private:
  void Work(int thread);
  void Stop();
  void RunShare(int thread) const;

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  uint64_t generation_ = 0;
  int running_ = 0;
  bool stop_ = false;
  int64_t n_ = 0, grain_ = 1;
  const std::function<void(int64_t, int64_t, int)>* body_ = nullptr;
};

}  // namespace pb

#endif  // PARITYBIT_BASE_THREAD_POOL_H_
