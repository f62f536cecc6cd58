// The bytes that a codec benchmark runs on.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include <tersor/error.hpp>

namespace tersor::bench {

/// The BF16 tensors of a safetensors file, or of all safetensors files of a directory in the order of their
/// names, one after another. `not_found` if there is none.
[[nodiscard]] result<std::vector<std::byte>> load_bf16(const std::filesystem::path& path);

/// BF16 values drawn from a normal distribution of the spread of trained weights; the same on every machine.
[[nodiscard]] std::vector<std::byte> synthetic_bf16(std::size_t n_bytes);

/// Repeats `content` until `dst` is full. Each copy lies at its own address, so no cache serves it.
void tile(std::span<const std::byte> content, std::span<std::byte> dst) noexcept;

}  // namespace tersor::bench
