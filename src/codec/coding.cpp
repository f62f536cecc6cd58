#include "codec/coding.hpp"

#include <algorithm>
#include <span>

namespace tersor::codec_detail {

level_plan make_plan(codec c, std::uint32_t symbol_bits) noexcept {
  level_plan plan;
  plan.symbol_bits = static_cast<std::uint8_t>(symbol_bits);
  if (c == codec::rank) {
    plan.widths = {2, 2, 2, 3};
    plan.n_levels = 4;
    plan.n_entries = 16;
  } else {
    plan.widths = {4, 0, 0, 0};
    plan.n_levels = 1;
    plan.n_entries = 15;
  }
  return plan;
}

coding make_coding(const level_plan& plan, const codebook& book) noexcept {
  coding result;
  result.plan = plan;
  result.book = book;
  result.place.fill(kNoPlace);
  for (std::uint8_t i = 0; i < plan.n_entries; ++i) result.place[book.symbols[i]] = i;
  const auto used = std::span(book.symbols).first(plan.n_entries);
  result.first_symbol = std::ranges::min(used);
  result.last_symbol = std::ranges::max(used);
  return result;
}

bool is_valid_book(const level_plan& plan, const codebook& book) noexcept {
  std::array<bool, 256> seen = {};
  for (std::size_t i = 0; i < book.symbols.size(); ++i) {
    const std::uint8_t symbol = book.symbols[i];
    if (i >= plan.n_entries) {
      if (symbol != 0) return false;
      continue;
    }
    if ((symbol >> plan.symbol_bits) != 0 || seen[symbol]) return false;
    seen[symbol] = true;
  }
  return true;
}

}  // namespace tersor::codec_detail
