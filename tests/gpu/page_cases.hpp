// The part of the section `pages` that is about slots too small for their pages.
#pragma once

#include "cache.hpp"

namespace gpu_test {

void check_slots(const env& e, section& s);

}  // namespace gpu_test
