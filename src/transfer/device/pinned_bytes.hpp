// Host memory that GPUs copy from and to at full speed.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tersor/error.hpp>

namespace tersor::transfer::device {

/// Page-aligned; freed by free_pinned. Errors: `out_of_memory`, `backend_unavailable`.
[[nodiscard]] result<std::byte*> allocate_pinned(std::uint64_t n_bytes);
void free_pinned(std::byte* data) noexcept;

}  // namespace tersor::transfer::device
