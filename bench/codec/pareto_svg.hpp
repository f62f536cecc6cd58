// The picture of a benchmark: ratio against speed.
#pragma once

#include <span>
#include <string>

#include "gpu_bench.hpp"

namespace tersor::bench {

/// Two panels, decode and encode, with one point a codec and a line through those that no other beats in
/// both. Shows the BF16 rows of one data set: the peers', else the first row's. `subtitle` names the machine.
[[nodiscard]] std::string pareto_svg(std::span<const gpu_row> rows, const std::string& subtitle);

}  // namespace tersor::bench
