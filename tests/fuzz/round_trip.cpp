// Any bytes as values of any dtype, with any codebook: what is encoded decodes to the same, on every backend
// to the same frame.
#include <algorithm>

#include "frames.hpp"

TERSOR_FUZZ_TARGET(round_trip) {
  fuzz::reader in(data);
  const auto c = static_cast<tersor::codec>(in.byte() % 3);
  const auto type = static_cast<tersor::dtype>(in.byte() % 16);
  const std::uint8_t flags = in.byte();
  tersor::encode_options options{.codec = c, .raw_fallback = (flags & 1) != 0};
  if ((flags & 2) != 0) {
    options.book.emplace();
    for (std::uint8_t& symbol : options.book->symbols) symbol = in.byte();
  }
  // Short inputs become long tensors, so that whole tiles are reached.
  std::vector<std::byte> values;
  const auto seed = fuzz::as_bytes(in.rest());
  const std::size_t repeats = (flags & 4) != 0 ? 1 + flags % 64 : 1;
  for (std::size_t i = 0; i < repeats && values.size() < 300'000; ++i)
    values.insert(values.end(), seed.begin(), seed.end());
  values.resize(values.size() / tersor::value_bytes(type) * tersor::value_bytes(type));
  const std::uint64_t shape[] = {values.size() / tersor::value_bytes(type)};
  const tersor::tensor_view view{.type = type, .shape = shape, .data = values};
  const auto expected = tersor::encode(fuzz::contexts().back(), view, options);
  for (const tersor::context& ctx : fuzz::contexts()) {
    const auto frame = tersor::encode(ctx, view, options);
    fuzz::require(frame.has_value() == expected.has_value());
    if (!frame) {
      fuzz::require(frame.error().code == expected.error().code);
      fuzz::require(frame.error().code == tersor::errc::invalid_argument ||
                    frame.error().code == tersor::errc::unsupported);
      continue;
    }
    fuzz::require(*frame == *expected);
    fuzz::require(frame->size() <= tersor::encode_bound(c, type, shape[0]));
    const auto back = tersor::decode(ctx, *frame);
    fuzz::require(back.has_value() && back->type == type && back->data == values);
  }
}
