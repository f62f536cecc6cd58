// The state of one CTA under way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "device.hpp"
#include "fiber.hpp"

namespace simt {

class scheduler;
struct warp;

/// A copy to shared memory that is under way.
struct pending_copy {
  std::byte* to = nullptr;
  std::array<std::byte, 16> value = {};
  std::size_t n_bytes = 0;
  std::uint64_t group = 0;
};

/// Copies that land together when they like, and then report to a counter: bytes in bulk, or an arrival.
struct bulk_copy {
  struct piece {
    std::byte* to = nullptr;
    std::vector<std::byte> value = {};
  };
  std::vector<piece> pieces = {};
  std::uint64_t* counter = nullptr;
  std::uint64_t n_bytes = 0;
  std::uint64_t n_arrivals = 0;
};

struct lane {
  fiber thread;
  scheduler* owner = nullptr;
  warp* group = nullptr;
  std::uint32_t index = 0;
  /// Where it last let others go on.
  const char* call = "start";
  site where{};
  std::vector<pending_copy> copies = {};
  /// Groups of copies that the lane has ended.
  std::uint64_t n_copy_groups = 0;

  std::uint32_t bit() const { return 1u << index; }
};

struct cta;

/// Each lane is in one of the masks: it can go on, waits for its warp, waits for its CTA, or has ended.
struct warp {
  cta* group = nullptr;
  std::uint32_t index = 0;
  std::uint32_t ready = ~0u;
  std::uint32_t gathering = 0;
  std::uint32_t at_barrier = 0;
  /// Those of them that wait at a barrier of some threads, by its number.
  std::array<std::uint32_t, 16> at_barrier_of = {};
  std::uint32_t ended = 0;
  /// What the gathering lanes are in.
  const char* call = "";
  site where{};
  /// Two sets in turn: a lane may be in the next call before another has read the values of this one.
  std::uint32_t turn = 0;
  lane_values values[2] = {};
  lane lanes[kLanes];
};

/// Shared memory of exactly its size, full of garbage as the GPU gives it.
class shared_memory {
 public:
  explicit shared_memory(std::size_t n_bytes);
  std::byte* begin() const { return bytes_.get(); }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{1024};
  struct release {
    void operator()(std::byte* at) const { ::operator delete(at, kAlignment); }
  };
  std::size_t size_;
  std::unique_ptr<std::byte, release> bytes_;
};

struct cta {
  explicit cta(std::size_t n_warps) : warps(n_warps) {}

  std::uint32_t index = 0;
  std::uint32_t n_at_barrier = 0;
  std::uint32_t n_at_cluster_barrier = 0;
  std::array<std::uint32_t, 16> n_at_barrier_of = {};
  std::vector<bulk_copy> bulk_copies = {};
  std::uint32_t n_ended = 0;
  /// The CTAs of the cluster by rank, this one among them.
  std::vector<cta*> peers = {};
  std::unique_ptr<shared_memory> shared;
  std::vector<warp> warps;
};

}  // namespace simt
