#include <algorithm>
#include <chrono>

#include "gpu_link_bench.hpp"

namespace tersor::bench {

using namespace transfer::device;

namespace {

constexpr std::uint64_t kRepeats = 7, kSingles = 21;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t mid = values.size() / 2;
  return values.size() % 2 == 1 ? values[mid] : (values[mid - 1] + values[mid]) / 2;
}

result<own_event> timed_event() {
  cudaEvent_t e = nullptr;
  TERSOR_CHECK(ok(cudaEventCreate(&e), "event"));
  return own_event(e);
}

}  // namespace

result<link_clock> link_clock::create(int source_device, int target_device) {
  link_clock clock;
  clock.source_device_ = source_device;
  clock.target_device_ = target_device;
  {
    const on_device here(source_device);
    TERSOR_CHECK(here.good());
    TERSOR_TRY(clock.source_, make_stream());
  }
  const on_device here(target_device);
  TERSOR_CHECK(here.good());
  TERSOR_TRY(clock.target_, make_stream());
  TERSOR_TRY(clock.begin_, timed_event());
  TERSOR_TRY(clock.end_, timed_event());
  return clock;
}

status link_clock::wait() const {
  TERSOR_CHECK(ok(cudaStreamSynchronize(source()), "the source's work"));
  return ok(cudaStreamSynchronize(target()), "the target's work");
}

/// Microseconds of `n` transfers, from an event that both streams wait for to the end of both.
result<double> link_clock::run(const std::function<status(std::uint64_t)>& send, std::uint64_t n_sets,
                               std::uint64_t n) const {
  {
    const on_device here(target_device_);
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(record(begin_, target()));
  }
  TERSOR_CHECK(transfer::device::wait(source(), begin_));
  for (std::uint64_t i = 0; i < n; ++i) TERSOR_CHECK(send(i % n_sets));
  {
    const on_device here(source_device_);
    TERSOR_CHECK(here.good());
    TERSOR_TRY(const own_event source_done, make_event());
    TERSOR_CHECK(record(source_done, source()));
    TERSOR_CHECK(transfer::device::wait(target(), source_done));
    const on_device there(target_device_);
    TERSOR_CHECK(there.good());
    TERSOR_CHECK(record(end_, target()));
    TERSOR_CHECK(ok(cudaEventSynchronize(end_.get()), "timed work"));
  }
  float ms = 0;
  TERSOR_CHECK(ok(cudaEventElapsedTime(&ms, begin_.get(), end_.get()), "timing"));
  return 1e3 * static_cast<double>(ms);
}

status link_clock::time(const std::function<status(std::uint64_t)>& send, std::uint64_t n_sets,
                        double seconds, link_row& row) const {
  TERSOR_TRY(const double warm, run(send, n_sets, n_sets));
  const double one = std::max(warm / static_cast<double>(n_sets), 1.0);
  const double wanted = seconds * 1e6 / static_cast<double>(kRepeats) / one;
  const std::uint64_t n = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(wanted), n_sets, 2000);
  std::vector<double> rows, singles;
  for (std::uint64_t i = 0; i < kRepeats; ++i) {
    TERSOR_TRY(const double us, run(send, n_sets, n));
    rows.push_back(us / static_cast<double>(n));
  }
  for (std::uint64_t i = 0; i < kSingles; ++i) {
    TERSOR_TRY(const double us, run([&](std::uint64_t) { return send(i % n_sets); }, 1, 1));
    singles.push_back(us);
  }
  row.us = median(std::move(rows));
  row.single_us = median(std::move(singles));
  return {};
}

}  // namespace tersor::bench
