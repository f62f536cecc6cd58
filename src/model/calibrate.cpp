#include <algorithm>
#include <numeric>

#include "model/analysis_stats.hpp"
#include <tersor/model.hpp>

namespace tersor {
namespace {

/// Tensors of one name or type with different dtypes cannot share a codebook: the dtype with more values gets
/// it.
using counts_by_dtype = std::map<dtype, histogram>;

/// The canonical codebook of `counts`, but entries that no value of the sample needs go to the exponents that
/// are frequent elsewhere: the codebook will meet other data.
codebook widened_book(dtype type, const histogram& counts, const histogram& elsewhere) {
  std::array<std::size_t, 256> order;
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return elsewhere.counts[a] < elsewhere.counts[b]; });
  histogram weights;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const std::size_t symbol = order[rank];
    if (counts.counts[symbol] != 0) {
      weights.counts[symbol] = counts.counts[symbol] * order.size();
    } else if (elsewhere.counts[symbol] != 0) {
      weights.counts[symbol] = rank;
    }
  }
  return model_detail::book_of(type, weights);
}

codebook_set::entry entry_of(const counts_by_dtype& counts, const counts_by_dtype& elsewhere) {
  const auto* best = &*counts.begin();
  for (const auto& candidate : counts) {
    if (candidate.second.total() > best->second.total()) best = &candidate;
  }
  return {.type = best->first, .book = widened_book(best->first, best->second, elsewhere.at(best->first))};
}

}  // namespace

codebook_set calibrate(const analysis& a) {
  std::map<std::string, counts_by_dtype, std::less<>> names;
  std::map<std::string, counts_by_dtype, std::less<>> types;
  counts_by_dtype dtypes;
  for (const tensor_analysis& t : a.tensors) {
    if (!is_codable(t.type) || t.counts.total() == 0) continue;
    names[t.name][t.type] += t.counts;
    types[tensor_type(t.name)][t.type] += t.counts;
    dtypes[t.type] += t.counts;
  }
  codebook_set set;
  for (const auto& [name, counts] : names) set.by_name.emplace(name, entry_of(counts, dtypes));
  for (const auto& [type, counts] : types) set.by_type.emplace(type, entry_of(counts, dtypes));
  for (const auto& [type, counts] : dtypes) set.by_dtype.emplace(type, model_detail::book_of(type, counts));
  return set;
}

}  // namespace tersor
