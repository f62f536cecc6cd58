// The figures of the report, each one inline SVG of the same width.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "model/report_data.hpp"

namespace tersor::model_detail {

inline constexpr double kFigureWidth = 420;
/// Rows of the figure of tensor types.
inline constexpr std::size_t kMostTypes = 20;

/// What a symbol costs under `rank`: level 1 to 4, or 5 for an escape.
[[nodiscard]] int level_of(const codebook& book, unsigned symbol) noexcept;

/// Share of values per exponent, coloured by level; without the exponents that do not occur between far ones.
[[nodiscard]] std::string histogram_figure(const dtype_summary& d, bool logarithmic, std::string_view id);
/// Bits a value as they are, with each codec and at the entropy.
[[nodiscard]] std::string bits_figure(const dtype_summary& d, std::string_view id);
/// Share of values whose exponent is among the k most frequent.
[[nodiscard]] std::string coverage_figure(const dtype_summary& d, std::string_view id);
/// Predicted and ideal ratio of the kMostTypes largest tensor types.
[[nodiscard]] std::string types_figure(std::span<const type_summary> types, std::string_view id);

enum class kv_measure { entropy, ratio };
/// Keys against values by layer.
[[nodiscard]] std::string kv_figure(std::span<const kv_layer> layers, kv_measure measure,
                                    std::string_view id);

}  // namespace tersor::model_detail
