// One tensor at a time through the GPU, in buffers that are kept from call to call.
#pragma once

#include <optional>

#include "data.hpp"

namespace gpu_test {

/// What to encode, and how.
struct encode_args {
  tersor::codec codec = tersor::codec::rank;
  tersor::dtype type = tersor::dtype::bf16;
  std::span<const std::uint64_t> shape = {};
  byte_view data = {};
  tersor::codebook book = {};
  bool book_on_device = false;
  tersor::cuda::tail_order order = tersor::cuda::tail_order::canonical;
  std::uint64_t src_offset = 0;                ///< bytes past an address of cudaMalloc
  std::optional<std::uint64_t> capacity = {};  ///< none = the bound
};

struct encoded {
  tersor::status call;
  tersor::cuda::frame_result result;
  bytes frame;  ///< empty unless the result is good
};

struct decode_args {
  tersor::codec codec = tersor::codec::rank;
  tersor::dtype type = tersor::dtype::bf16;
  std::uint64_t n_values = 0;
  byte_view frame = {};
  std::uint64_t dst_offset = 0;
};

struct decoded {
  tersor::status call;
  tersor::cuda::frame_result result;
  bytes data;
};

class rig {
 public:
  rig(const env& e, section& s) : env_(e), section_(s), stream_(own_.get()) {}
  rig(const env& e, section& s, cudaStream_t stream) : env_(e), section_(s), stream_(stream) {}

  /// Encodes; checks that nothing behind the capacity was touched.
  encoded encode(const encode_args& args, std::string_view where);
  /// Decodes; checks that nothing beside the destination was touched.
  decoded decode(const decode_args& args, std::string_view where);
  /// Decodes a frame and checks that it holds `data`.
  void expect_data(const decode_args& args, byte_view data, std::string_view where);

  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }
  [[nodiscard]] const env& environment() const noexcept { return env_; }
  [[nodiscard]] section& log() const noexcept { return section_; }

 private:
  tersor::cuda::workspace work_of(std::uint64_t n_bytes);

  const env& env_;
  section& section_;
  side_stream own_;
  cudaStream_t stream_;
  device_memory src_, frame_, dst_, book_, result_;
  work_memory work_;
  std::uint64_t calls_ = 0;
};

/// Checks everything about one tensor: the canonical frame against the CPU's, the free one, and decoding of
/// both.
void check_tensor(rig& r, const encode_args& args, std::string_view where);

}  // namespace gpu_test
