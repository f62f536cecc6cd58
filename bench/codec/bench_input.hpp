// The bytes that a codec benchmark runs on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tersor/codec.hpp>

namespace tersor::bench {

/// One tensor's values.
struct bench_tensor {
  std::string name;
  std::vector<std::byte> bytes;
};

/// The BF16 tensors of a safetensors file, or of all safetensors files of a directory in the order of their
/// names. `not_found` if there is none.
[[nodiscard]] result<std::vector<bench_tensor>> load_bf16(const std::filesystem::path& path);

/// BF16 values drawn from a normal distribution of the spread of trained weights; the same on every machine.
[[nodiscard]] bench_tensor synthetic_bf16(std::size_t n_bytes);

/// Copies of one tensor, side by side in the input: what Tersor encodes as one tensor with one codebook.
struct segment {
  std::uint64_t offset = 0;
  std::uint64_t n_bytes = 0;
  codebook book = {};
};

/// Fills `dst` with the tensors, each repeated equally often and side by side, so that one codebook and one
/// frame hold all copies of a tensor. The last segments are cut or dropped where `dst` ends.
[[nodiscard]] std::vector<segment> tile_by_tensor(const std::vector<bench_tensor>& tensors,
                                                  std::span<std::byte> dst);

/// Fills `dst` with copies of the whole input, so that a compressor with a window does not find the copies of
/// one tensor.
void tile_by_copy(const std::vector<bench_tensor>& tensors, std::span<std::byte> dst) noexcept;

/// Gives every segment its codebook: of its own values in `source`, or of the calibration input's tensor of
/// that name, type or dtype. `names` are the tensors'.
[[nodiscard]] status calibrate_segments(const context& ctx,
                                        const std::optional<std::filesystem::path>& calibration_input,
                                        dtype type, std::span<const std::string> names,
                                        std::span<const std::byte> source, std::span<segment> segments);

}  // namespace tersor::bench
