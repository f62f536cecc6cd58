#include "core/thread_pool.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include <sched.h>

namespace tersor::core {

thread_pool::thread_pool(unsigned n_threads) {
  threads_.reserve(n_threads > 0 ? n_threads - 1 : 0);
  try {
    for (unsigned worker = 1; worker < n_threads; ++worker) {
      threads_.emplace_back([this, worker] { loop(worker); });
    }
  } catch (...) {
    // The destructor does not run for an object that was never made, and a running thread may not be dropped.
    stop();
    throw;
  }
}

thread_pool::~thread_pool() {
  stop();
}

void thread_pool::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void thread_pool::run(unsigned n_workers, const std::function<void(unsigned)>& work) {
  n_workers = std::clamp(n_workers, 1u, size());
  if (n_workers == 1) {
    work(0);
    return;
  }
  const std::lock_guard turn(turn_);
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    n_workers_ = n_workers;
    n_running_ = n_workers - 1;
    ++round_;
  }
  start_.notify_all();
  work(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return n_running_ == 0; });
  work_ = nullptr;
}

void thread_pool::loop(unsigned worker) {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stop_ || (round_ != seen && work_ != nullptr); });
    if (stop_) return;
    seen = round_;
    if (worker >= n_workers_) continue;
    const auto* work = work_;
    lock.unlock();
    (*work)(worker);
    lock.lock();
    if (--n_running_ == 0) done_.notify_all();
  }
}

unsigned usable_cores() noexcept {
  unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    cores = static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  }
  try {
    std::ifstream quota("/sys/fs/cgroup/cpu.max");
    std::string limit;
    double period = 0;
    if (quota >> limit >> period && limit != "max" && period > 0) {
      const double share = std::ceil(std::stod(limit) / period);
      if (share >= 1) cores = std::min(cores, static_cast<unsigned>(share));
    }
  } catch (...) {
    // A quota that cannot be read is no quota.
  }
  return cores;
}

}  // namespace tersor::core
