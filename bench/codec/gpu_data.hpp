// The tensors that the GPU benchmark encodes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench_input.hpp"
#include "core/thread_pool.hpp"
#include <tersor/codec.hpp>

namespace tersor::bench {

/// Tensors side by side in host memory, each encoded to a frame of its own.
struct workload {
  std::string data;  ///< its name in the report
  dtype type = dtype::bf16;
  std::vector<std::byte> bytes = {};
  std::vector<segment> segments = {};
  std::vector<std::uint64_t> shape = {};  ///< of the only segment; empty = one dimension

  [[nodiscard]] std::vector<std::uint64_t> shape_of(const segment& part) const {
    if (!shape.empty()) return shape;
    return {part.n_bytes / value_bytes(type)};
  }
};

enum class synthetic_kind {
  normal,             ///< N(0, 1)
  lognormal_columns,  ///< N(0, 1) times exp(N(0, 1)) of the column
  row_scaled,         ///< N(0, 1) times exp(N(0, 1) / 2) of the row
};
/// Null for a name that is none.
[[nodiscard]] std::optional<synthetic_kind> parse_synthetic(std::string_view name) noexcept;

/// `value` rounded to the nearest value of `type` (bf16, f16, f8_e4m3, f8_e5m2), ties to even; the largest
/// finite one where it is beyond.
[[nodiscard]] std::uint16_t round_to(dtype type, float value) noexcept;

/// One tensor of rows x columns, the same on every machine up to its math library; no codebook yet.
[[nodiscard]] workload make_synthetic(core::thread_pool& pool, synthetic_kind kind, dtype type,
                                      std::uint64_t rows, std::uint64_t columns);
/// The BF16 tensors of a file or directory, repeated to `n_bytes`; no codebooks yet. `tensors` are theirs.
[[nodiscard]] result<workload> make_from_input(const std::filesystem::path& path,
                                               const std::vector<bench_tensor>& tensors,
                                               std::uint64_t n_bytes);

}  // namespace tersor::bench
