// Tensors, their frames and what is decoded from them, in as many copies as it takes to get past the L2
// cache.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gpu_env.hpp"

namespace tersor::bench {

class contiguous_set {
 public:
  [[nodiscard]] static result<contiguous_set> create(const gpu_env& env, codec which, const workload& work,
                                                     std::uint64_t n_slots);

  /// Codebooks, both tail orders and decoding of one slot against the host; frames against the CPU's where
  /// they are at most 64 MiB, else those of the first 64 MiB. Leaves decodable frames in every slot.
  [[nodiscard]] status verify(const gpu_env& env);
  /// Every slot's frames are good and decode to the values; call it after the timed calls.
  [[nodiscard]] status verify_left_behind(const gpu_env& env);

  [[nodiscard]] status encode(std::uint64_t i, cuda::tail_order order, cudaStream_t s) const;
  [[nodiscard]] status decode(std::uint64_t i, cudaStream_t s) const;
  [[nodiscard]] status make_codebooks(std::uint64_t i, cudaStream_t s) const;
  /// Makes decoded values of earlier calls unreadable.
  [[nodiscard]] status poison();

  [[nodiscard]] std::uint64_t n_slots() const noexcept { return slots_.size(); }
  [[nodiscard]] std::uint64_t n_bytes() const noexcept { return n_bytes_; }
  [[nodiscard]] std::uint64_t frame_bytes() const noexcept { return frame_bytes_; }

 private:
  struct slot {
    device_buffer source, frames, restored, books, encoded, decoded;
    std::vector<std::vector<std::uint64_t>> shapes;
    std::vector<cuda::encode_task> encode_tasks;
    std::vector<cuda::decode_task> decode_tasks;
  };

  [[nodiscard]] status place(const workload& work);
  [[nodiscard]] status fill(slot& s, bool first);
  [[nodiscard]] status allocate_workspaces();
  [[nodiscard]] status check_codebooks(const gpu_env& env);
  [[nodiscard]] status round_trip(const gpu_env& env, std::uint64_t i, cuda::tail_order order);
  [[nodiscard]] status check_frames(const gpu_env& env);
  [[nodiscard]] status check_restored(const slot& s) const;
  [[nodiscard]] status check_prefix(const gpu_env& env, const segment& part) const;

  codec codec_ = codec::rank;
  const workload* work_ = nullptr;
  std::string name_;
  std::uint64_t n_bytes_ = 0, frame_bytes_ = 0, source_bytes_ = 0, capacity_ = 0;
  std::vector<std::uint64_t> source_at_, frame_at_, bounds_;
  std::vector<slot> slots_;
  gpu_workspace free_ws_, canonical_ws_, decode_ws_, book_ws_;
};

}  // namespace tersor::bench
