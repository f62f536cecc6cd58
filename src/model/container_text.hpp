// The header of a container that is about to be written.
#pragma once

#include <string>
#include <vector>

#include "safetensors/header.hpp"
#include <tersor/codec.hpp>

namespace tersor::model_detail {

/// N of the container, fixed before any frame is coded (spec/container.md "Header"): `selected[i]` says that
/// tensor i may become a frame. unsupported if the container's header would be too long.
[[nodiscard]] result<std::uint64_t> reserve_header(const safetensors::header& original,
                                                   const std::vector<bool>& selected);

/// The JSON text, padded to `n_bytes`. `entries` in any order, `digests` in the order of the original's data.
[[nodiscard]] result<std::string> container_text(const context& ctx, const safetensors::header& original,
                                                 const std::vector<safetensors::tensor_entry>& entries,
                                                 const std::vector<std::uint64_t>& digests,
                                                 std::uint64_t n_bytes);

/// The entry of a coded tensor.
[[nodiscard]] safetensors::tensor_entry frame_entry(const std::string& name, std::uint64_t begin,
                                                    std::uint64_t frame_bytes);

}  // namespace tersor::model_detail
