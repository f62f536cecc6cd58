// The tile primitives per instruction set, and which of them this CPU runs.
#pragma once

#include <span>
#include <string_view>

#include "codec/tile_ops.hpp"
#include <tersor/error.hpp>

namespace tersor::cpu {

[[nodiscard]] const codec_detail::tile_ops& scalar_ops() noexcept;
#ifdef TERSOR_HAVE_AVX2
[[nodiscard]] const codec_detail::tile_ops& avx2_ops() noexcept;
#endif
#ifdef TERSOR_HAVE_AVX512
[[nodiscard]] const codec_detail::tile_ops& avx512_ops() noexcept;
#endif
#ifdef TERSOR_HAVE_NEON
[[nodiscard]] const codec_detail::tile_ops& neon_ops() noexcept;
#endif

/// One backend of this build, fastest first.
struct backend {
  const codec_detail::tile_ops* ops;
  bool supported;
  const char* needs;  ///< the instruction sets it needs, for people
};
[[nodiscard]] std::span<const backend> all_backends() noexcept;

/// The backend of that name; empty: TERSOR_BACKEND, else the first supported one.
[[nodiscard]] result<const codec_detail::tile_ops*> choose_backend(std::string_view name);

}  // namespace tersor::cpu
