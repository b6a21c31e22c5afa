// Threads that wait for work between calls, as starting them costs more than a layer of a small
// model.
#include "base/thread_pool.h"

#include <algorithm>

namespace pb {

ThreadPool::ThreadPool(int n_threads) {
  // Where too few threads are allowed, those that run are ended before the error leaves.
  struct Guard {
    ThreadPool* pool;
    ~Guard() {
      if (pool) pool->Stop();
    }
  } guard{this};
  for (int i = 1; i < n_threads; i++) workers_.emplace_back([this, i] { Work(i); });
  guard.pool = nullptr;
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& w : workers_) w.join();
}

void ThreadPool::For(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body) {
  if (n <= 0) return;
  if (workers_.empty() || n <= grain) return body(0, n, 0);
  {
    std::lock_guard lock(mutex_);
    n_ = n, grain_ = grain, body_ = &body;
    running_ = static_cast<int>(workers_.size());
    generation_++;
  }
  start_.notify_all();
  RunShare(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
}

void ThreadPool::RunShare(int thread) const {
  int64_t units = (n_ + grain_ - 1) / grain_, threads = n_threads();
  int64_t begin = units * thread / threads * grain_,
          end = std::min(n_, units * (thread + 1) / threads * grain_);
  if (begin < end) (*body_)(begin, end, thread);
}

void ThreadPool::Work(int thread) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    start_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    lock.unlock();
    RunShare(thread);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace pb
