// Counters that several threads add to.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include <tersor/transfer.hpp>

namespace tersor::transfer {

struct shared_counters {
  std::atomic<std::uint64_t> connections{0}, refused{0}, failed_connections{0};
  std::atomic<std::uint64_t> requests_published{0}, requests_discarded{0}, resumptions{0};
  std::atomic<std::uint64_t> parts{0}, raw_parts{0}, rejected_parts{0};
  std::atomic<std::uint64_t> raw_bytes{0}, wire_bytes{0};
  std::atomic<std::uint64_t> receive_ns{0}, decode_ns{0};

  [[nodiscard]] transfer_counters read() const noexcept {
    constexpr double kNs = 1e-9;
    transfer_counters c;
    c.connections = connections;
    c.refused = refused;
    c.failed_connections = failed_connections;
    c.requests_published = requests_published;
    c.requests_discarded = requests_discarded;
    c.resumptions = resumptions;
    c.parts = parts;
    c.raw_parts = raw_parts;
    c.rejected_parts = rejected_parts;
    c.raw_bytes = raw_bytes;
    c.wire_bytes = wire_bytes;
    c.receive_seconds = static_cast<double>(receive_ns) * kNs;
    c.decode_seconds = static_cast<double>(decode_ns) * kNs;
    return c;
  }
};

/// Nanoseconds since it was made.
class stopwatch {
 public:
  [[nodiscard]] std::uint64_t ns() const noexcept {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_)
            .count());
  }
  [[nodiscard]] double seconds() const noexcept { return static_cast<double>(ns()) * 1e-9; }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace tersor::transfer
