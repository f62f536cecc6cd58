// The tables of the report page: the numbers behind the figures, and every tensor.
#pragma once

#include <span>
#include <string>

#include "model/report_data.hpp"

namespace tersor::model_detail {

[[nodiscard]] std::string exponent_table(const dtype_summary& d);
[[nodiscard]] std::string bits_table(const dtype_summary& d);
[[nodiscard]] std::string coverage_table(const dtype_summary& d);
[[nodiscard]] std::string types_table(std::span<const type_summary> types);
[[nodiscard]] std::string kv_table(std::span<const kv_layer> layers);
[[nodiscard]] std::string dtypes_table(std::span<const dtype_summary> dtypes);
/// The first rows in the open, the others behind a fold, and no more than a page can hold.
[[nodiscard]] std::string tensors_table(const analysis& a);

}  // namespace tersor::model_detail
