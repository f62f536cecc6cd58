// A range of a tensor's bytes, decoded from as little of its frame as holds it.
#pragma once

#include <cstdint>
#include <span>

#include "model/container.hpp"
#include "model/session.hpp"

namespace tersor::model_detail {

/// The header of a coded tensor alone (its first 128 bytes), checked against the original's header and the
/// digest list as check_coded does.
[[nodiscard]] result<coded_info> check_coded_head(const container& from, const container_item& item);

/// Fills `dst`, which is not empty and inside the tensor, with its bytes from `begin` on. Every digest of
/// what is decoded is compared; that of a stored tensor where `dst` holds all of it and `has_digests`. Errors
/// name file and tensor.
[[nodiscard]] status read_range(const context& ctx, const container& from, const container_item& item,
                                bool has_digests, std::uint64_t begin, std::span<std::byte> dst);

/// What bytes from `offset` of a stored tensor add to its digest; `offset` is a multiple of
/// tensor_file::kStoredStep.
[[nodiscard]] std::uint64_t stored_share(const context& ctx, std::uint64_t offset,
                                         std::span<const std::byte> bytes) noexcept;

}  // namespace tersor::model_detail
