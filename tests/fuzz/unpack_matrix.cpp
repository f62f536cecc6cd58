// Hostile matrix frames with right header and content digests, so that what lies behind them is reached:
// unpacking fits into memory of exactly the declared size, and what it accepts packs to a matrix of the same
// values.
#include <cstring>
#include <memory>

#include "codec/packed_matrix.hpp"
#include "frames.hpp"

namespace {

namespace detail = tersor::codec_detail;

/// The content digest of the digests at hand; nothing if the header does not say where they are.
void fix_digests(std::vector<std::byte>& matrix) {
  auto* p = reinterpret_cast<std::uint8_t*>(matrix.data());
  auto words = detail::load_matrix_words(p);
  detail::seal_matrix(words, p);
  const auto info = tersor::inspect_packed(matrix);
  if (!info || info->n_bytes > matrix.size() || info->layout != tersor::matrix_layout::packed) return;
  const auto sections = detail::make_packed_sections(info->type, info->rows, info->cols, info->inline_escapes,
                                                     info->n_overflow);
  std::uint64_t content = 0;
  for (std::uint64_t b = 0; b < sections->n_blocks; ++b) {
    content += detail::matrix_index_hash(
        b, tersor::core::load_le<std::uint64_t>(p + sections->digests_at + 8 * b), 0);
  }
  words[detail::kWordContentDigest] = content;
  detail::seal_matrix(words, p);
}

}  // namespace

TERSOR_FUZZ_TARGET(unpack_matrix) {
  fuzz::reader in(data);
  const std::uint8_t how = in.byte();
  const auto rest = fuzz::as_bytes(in.rest());
  std::vector<std::byte> matrix(rest.begin(), rest.end());
  if ((how & 1) != 0 && matrix.size() >= 128) fix_digests(matrix);
  const auto info = tersor::inspect_packed(matrix);
  if (!info || info->n_bytes > matrix.size()) {
    std::byte none{};
    fuzz::require(!tersor::unpack_into(fuzz::any_context(), matrix, {&none, 0}));
    return;
  }
  // A value takes more than 8 bits in every layout.
  fuzz::require(info->rows * info->cols <= info->n_bytes);
  const std::uint64_t n_bytes = 2 * info->rows * info->cols;
  const auto dst = std::make_unique<std::byte[]>(n_bytes);
  const std::span<std::byte> out(dst.get(), n_bytes);
  const auto order = (how & 2) != 0 ? tersor::matrix_order::column_major : tersor::matrix_order::row_major;
  matrix.resize(info->n_bytes);
  if (!tersor::unpack_into(fuzz::any_context(), matrix, out, order)) return;
  const auto again =
      tersor::pack(fuzz::any_context(),
                   {.type = info->type, .rows = info->rows, .cols = info->cols, .order = order, .data = out},
                   {.layout = info->layout, .inline_escapes = info->inline_escapes});
  fuzz::require(again.has_value());
  std::vector<std::byte> back(n_bytes);
  fuzz::require(tersor::unpack_into(fuzz::any_context(), *again, back, order).has_value());
  fuzz::require(std::memcmp(back.data(), out.data(), n_bytes) == 0);
}
