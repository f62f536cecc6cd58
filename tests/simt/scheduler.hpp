// Who goes on next, and whether anybody still can.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cta.hpp"
#include "random.hpp"
#include "run.hpp"

namespace simt {

class scheduler {
 public:
  scheduler(memory& global, const grid& size, const std::function<void(void*)>& body);
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  /// Throws kernel_fault.
  void run();

  lane& current() { return *current_; }
  const grid& size() const { return size_; }
  memory& global() { return global_; }

  const lane_values& gather(const char* call, std::uint64_t value, site where);
  void barrier(site where);
  void barrier_of(std::uint32_t id, std::uint32_t n_threads, site where);
  void cluster_barrier(site where);
  void start_bulk_copy(bulk_copy copy);
  void poll(const char* call, site where);
  void crossing(const char* call, site where);
  void progress() { n_idle_ = 0; }
  /// The run ends with this fault once the calling lane stops. Two calls, so that the caller can free its
  /// text.
  void report(const std::string& what, site where);
  /// The lane never goes on.
  [[noreturn]] void stop();

 private:
  static void enter(void* one_lane);
  void start_cluster(std::size_t first_slot);
  void start_next(cta& slot);
  warp* pick();
  bool land_bulk_copy();
  void run_warp(warp& w);
  void resume(lane& l);
  void end_lane(lane& l);
  void suspend(const char* call, site where);
  void check_arrival(const lane& l, const char* call, site where);
  void check_idle();
  std::string standing() const;

  memory& global_;
  const grid& size_;
  const std::function<void(void*)>& body_;
  random random_;
  /// Whether the first warp in the order goes on, not any: some warps run far ahead, others starve.
  bool by_order_;
  std::vector<std::unique_ptr<cta>> slots_;
  std::vector<warp*> order_;
  std::uint32_t next_cta_ = 0;
  std::uint32_t n_live_ = 0;
  std::uint32_t n_bulk_copies_ = 0;
  lane* current_ = nullptr;
  bool polled_ = false;
  std::uint64_t n_idle_ = 0;
  std::uint64_t n_steps_ = 0;
  std::string fault_;
};

}  // namespace simt
