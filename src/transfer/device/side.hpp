// One GPU's share of a link: lanes (streams with a workspace each) that begin and end with the caller's
// stream, and what a lane does with a part.
#pragma once

#include <array>

#include "transfer/device/parts.hpp"
#include "transfer/device/resources.hpp"

namespace tersor::transfer::device {

/// Lane 0 is the caller's stream of the call under way; the others are the link's own.
inline constexpr std::uint32_t kLanes = 3;
/// Own lanes take turns, so that one step begins while the end of the one before is still at work.
[[nodiscard]] constexpr std::uint32_t lane_of(std::uint64_t turn) noexcept {
  return 1 + static_cast<std::uint32_t>(turn % (kLanes - 1));
}

class side {
 public:
  [[nodiscard]] static result<side> create(int device);

  /// Lane 0 waits for the previous call, the others for lane 0. The device is current.
  [[nodiscard]] status begin(cudaStream_t callers);
  /// Lane 0 waits for the others.
  [[nodiscard]] status end();

  [[nodiscard]] int device() const noexcept { return device_; }
  [[nodiscard]] cudaStream_t lane(std::uint32_t i) const noexcept {
    return i == 0 ? callers_ : own_[i].get();
  }
  [[nodiscard]] cuda::workspace work(std::uint32_t i) const noexcept {
    return {.data_dev = static_cast<std::byte*>(work_.get()) + i * kWorkBytes, .n_bytes = kWorkBytes};
  }
  [[nodiscard]] status wait_for_all() const;

 private:
  static constexpr std::uint64_t kWorkBytes = 16 * 1024;
  int device_ = 0;
  memory work_;
  cudaStream_t callers_ = nullptr;
  std::array<own_stream, kLanes> own_;  ///< [0] is empty
  std::array<own_event, kLanes> ends_;
  own_event begins_, idle_;
};

/// A transfer under way.
struct job {
  std::span<const link_region> regions;
  const part_plan& plan;
  std::span<link_verdict> verdicts;
  codec code;
  dtype type;
  bool recheck = false;

  [[nodiscard]] std::span<const piece> pieces(const part& p) const {
    return std::span(plan.pieces).subspan(p.first_piece, p.n_pieces);
  }
  [[nodiscard]] link_verdict* verdict_of(const part& p) const { return verdicts.data() + p.first_piece; }
};

// `frames`: where the part's frames lie, each at its piece's slot_at or (by_store) store_at.
struct frames_at {
  std::byte* base = nullptr;
  bool by_store = false;
  [[nodiscard]] std::byte* of(const piece& p) const { return base + (by_store ? p.store_at : p.slot_at); }
};

[[nodiscard]] status encode_part(const job& j, const part& p, const frames_at& to, const side& s,
                                 std::uint32_t lane);
/// Decodes, and checks again if the job says so. `exact`: frames have the sizes in their `sent` verdicts.
[[nodiscard]] status decode_part(const job& j, const part& p, const frames_at& from, bool exact,
                                 const side& s, std::uint32_t lane);
/// The sections of known size with a copy engine, the tails with a kernel.
[[nodiscard]] status copy_frames(const job& j, const part& p, const frames_at& from, const frames_at& to,
                                 cudaStream_t s);

/// Whether the part's pieces have fewer than `few` bytes of values on average.
[[nodiscard]] bool has_small_pieces(const job& j, const part& p, std::uint64_t few) noexcept;

// The first `used` verdicts are bad until the GPUs say otherwise; the others are good.
void reset_sent(std::span<link_verdict> all, std::uint64_t used);
void reset_received(std::span<link_verdict> all, std::uint64_t used, bool recheck);

[[nodiscard]] status copy_raw(std::span<const raw_run> runs, cudaStream_t s);

}  // namespace tersor::transfer::device
