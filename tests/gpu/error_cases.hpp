// The parts of the section `errors`.
#pragma once

#include <initializer_list>

#include "device.hpp"

namespace gpu_test {

void expect_error(section& s, const tersor::status& called, std::initializer_list<tersor::errc> codes,
                  std::string_view what);
void page_errors(section& s);

}  // namespace gpu_test
