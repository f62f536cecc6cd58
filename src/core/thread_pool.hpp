// A fixed set of threads that run one function at a time together with the caller.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tersor::core {

class thread_pool {
 public:
  /// `n_threads` >= 1 counts the caller; n_threads - 1 threads are started.
  explicit thread_pool(unsigned n_threads);
  ~thread_pool();
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  [[nodiscard]] unsigned size() const noexcept { return static_cast<unsigned>(threads_.size()) + 1; }

  /// Runs `work(worker)` for worker = 0 .. n_workers - 1 (at most size()) at the same time and waits for all.
  /// `work` must not throw. Calls from several threads take turns.
  void run(unsigned n_workers, const std::function<void(unsigned)>& work);

 private:
  void loop(unsigned worker);
  void stop() noexcept;

  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const std::function<void(unsigned)>* work_ = nullptr;
  std::uint64_t round_ = 0;
  unsigned n_workers_ = 0;
  unsigned n_running_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

/// Cores this process may use: CPU affinity and, where there is one, the cgroup's CPU quota.
[[nodiscard]] unsigned usable_cores() noexcept;

}  // namespace tersor::core
