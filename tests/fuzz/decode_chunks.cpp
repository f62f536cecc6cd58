// Single chunks: the range must agree with the whole.
#include <algorithm>

#include "frames.hpp"

TERSOR_FUZZ_TARGET(decode_chunks) {
  fuzz::reader in(data);
  const std::uint64_t first = in.byte();
  const std::uint64_t count = in.byte() % 8;
  const auto frame = fuzz::frame_of(in.rest(), std::nullopt);
  const tersor::context& ctx = fuzz::any_context();
  const auto info = tersor::inspect(frame);
  std::vector<std::byte> part(std::size_t{8} * 8192 * 4 + 16384);
  const auto n = tersor::decode_chunks(ctx, frame, first, count, part);
  if (!n) return;
  fuzz::require(info.has_value() && first + count <= info->n_chunks && *n <= part.size());
  const auto whole = tersor::decode(ctx, std::span(frame).first(info->frame_bytes));
  if (!whole) return;
  const std::uint64_t chunk =
      info->codec == tersor::codec::raw ? 16384 : 8192 * tersor::value_bytes(info->type);
  const auto begin = whole->data.begin() +
                     static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(first * chunk, whole->data.size()));
  fuzz::require(std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(*n), begin));
}
