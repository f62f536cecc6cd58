// Any bytes as a matrix of any shape, order and options: what is packed unpacks to the same, on every backend
// from the same bytes.
#include "frames.hpp"
#include <tersor/packed.hpp>

TERSOR_FUZZ_TARGET(pack_matrix) {
  fuzz::reader in(data);
  const std::uint8_t flags = in.byte();
  const auto type = (flags & 1) != 0 ? tersor::dtype::f16 : tersor::dtype::bf16;
  const auto order = (flags & 2) != 0 ? tersor::matrix_order::column_major : tersor::matrix_order::row_major;
  const tersor::pack_options options{
      .layout = (flags & 4) != 0 ? tersor::matrix_layout::tcatbe : tersor::matrix_layout::packed,
      .inline_escapes = static_cast<std::uint32_t>(in.byte() % 132) * 8};
  const std::uint64_t cols = std::uint64_t{1} + in.byte() + (flags & 8);
  const auto seed = fuzz::as_bytes(in.rest());
  std::vector<std::byte> values;
  for (std::size_t i = 0; i <= (flags >> 4) && values.size() < 200'000; ++i)
    values.insert(values.end(), seed.begin(), seed.end());
  const std::uint64_t rows = values.size() / 2 / cols;
  values.resize(rows * cols * 2);
  const tersor::matrix_view view{.type = type, .rows = rows, .cols = cols, .order = order, .data = values};
  const auto expected = tersor::pack(fuzz::contexts().back(), view, options);
  for (const tersor::context& ctx : fuzz::contexts()) {
    const auto packed = tersor::pack(ctx, view, options);
    fuzz::require(packed.has_value() == expected.has_value());
    if (!packed) {
      fuzz::require(packed.error().code == tersor::errc::invalid_argument ||
                    packed.error().code == tersor::errc::unsupported);
      continue;
    }
    fuzz::require(*packed == *expected && packed->size() <= tersor::pack_bound(type, rows, cols, options));
    std::vector<std::byte> back(values.size());
    fuzz::require(tersor::unpack_into(ctx, *packed, back, order).has_value() && back == values);
  }
}
