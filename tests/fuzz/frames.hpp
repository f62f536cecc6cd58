// Hostile frames for the decoders. The first byte of an input chooses the disguise, the rest is the frame:
// made to have right digests and, where a target is about one codec, that codec's header fields.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fuzz_target.hpp"
#include <tersor/codec.hpp>

namespace fuzz {

/// One context for each backend that this CPU runs; the reference backend last.
[[nodiscard]] const std::vector<tersor::context>& contexts();
[[nodiscard]] const tersor::context& any_context();

/// The frame of an input; with a codec, its header says that codec.
[[nodiscard]] std::vector<std::byte> frame_of(input data, std::optional<tersor::codec> c);

/// Decodes into memory of exactly the size that the header declares; what succeeds must encode to a frame
/// that decodes to the same.
void decode_and_check(const tersor::context& ctx, std::span<const std::byte> frame);

}  // namespace fuzz
