// One tensor through the public calls.
#pragma once

#include <optional>

#include "twin_data.hpp"

namespace twin {

struct encoded {
  tersor::status call;
  tersor::cuda::frame_result result;
  bytes frame;  ///< empty unless the result is good
};
struct encode_choice {
  tersor::cuda::tail_order order = tersor::cuda::tail_order::canonical;
  bool book_on_device = false;
  std::size_t src_offset = 0;
  std::optional<std::uint64_t> capacity = {};  ///< none = the bound
};
encoded encode(device& d, tersor::codec c, tersor::dtype type, std::span<const std::uint64_t> shape,
               byte_view data, const tersor::codebook& book, const encode_choice& choice = {});

struct decoded {
  tersor::status call;
  tersor::cuda::frame_result result;
  bytes data;         ///< empty unless the result is good
  bytes chunk_codes;  ///< empty unless the result is good
  const std::uint8_t* chunk_codes_dev = nullptr;
};
decoded decode(device& d, tersor::codec c, tersor::dtype type, std::uint64_t n_values, byte_view frame,
               std::size_t dst_offset = 0);

/// Expects a good result that says what the frame's header says.
void expect_good(const tersor::cuda::frame_result& result, byte_view frame);

}  // namespace twin
