// Destinations of any size: either enough, or the one error and nothing written.
#include <algorithm>

#include "frames.hpp"

TERSOR_FUZZ_TARGET(small_destination) {
  constexpr std::byte kCanary{0x77};
  fuzz::reader in(data);
  const auto c = static_cast<tersor::codec>(in.byte() % 3);
  const std::uint64_t less = in.byte() + std::uint64_t{256} * in.byte();
  const auto rest = fuzz::as_bytes(in.rest());
  const std::vector<std::byte> values(rest.begin(),
                                      rest.end() - static_cast<std::ptrdiff_t>(rest.size() % 2));
  const std::uint64_t shape[] = {values.size() / 2};
  const tersor::context& ctx = fuzz::any_context();
  const tersor::tensor_view view{.type = tersor::dtype::bf16, .shape = shape, .data = values};
  const std::uint64_t bound = tersor::encode_bound(c, view.type, shape[0]);
  std::vector<std::byte> dst(bound - std::min(bound, less), kCanary);
  const auto size = tersor::encode_into(ctx, view, dst, {.codec = c});
  fuzz::require(size.has_value() == (less == 0));
  if (!size) {
    fuzz::require(size.error().code == tersor::errc::destination_too_small);
    fuzz::require(std::ranges::all_of(dst, [](std::byte b) { return b == kCanary; }));
  }
  const auto frame = tersor::encode(ctx, view, {.codec = c});
  fuzz::require(frame.has_value());
  std::vector<std::byte> out(values.size() - std::min<std::uint64_t>(values.size(), less), kCanary);
  const auto decoded = tersor::decode_into(ctx, *frame, out);
  fuzz::require(decoded.has_value() == (out.size() == values.size()));
  if (!decoded) fuzz::require(decoded.error().code == tersor::errc::destination_too_small);
}
