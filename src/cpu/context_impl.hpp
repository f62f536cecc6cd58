// What a context holds, and what the public calls of this room share.
#pragma once

#include <exception>
#include <new>
#include <span>

#include "codec/frame_codec.hpp"
#include <tersor/codec.hpp>

namespace tersor {

struct context::impl {
  impl(const codec_detail::tile_ops* chosen, unsigned threads) : ops(chosen), pool(threads) {}
  const codec_detail::tile_ops* ops;
  core::thread_pool pool;
};

namespace cpu {

[[nodiscard]] inline codec_detail::engine engine_of(const context& ctx) noexcept {
  return {.ops = ctx.get().ops, .pool = &ctx.get().pool};
}

[[nodiscard]] inline std::span<const std::uint8_t> as_u8(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

[[nodiscard]] inline std::span<std::uint8_t> as_u8(std::span<std::byte> bytes) noexcept {
  return {reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size()};
}

/// Runs `body` and turns the only exceptions the library meets, failed allocations and thread starts, into
/// codes.
template <class Body>
auto guarded(Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  } catch (const std::exception& e) {
    return fail(errc::internal, e.what());
  }
}

}  // namespace cpu
}  // namespace tersor
