// How faults name things.
#pragma once

#include <cstdint>
#include <string>

#include "cta.hpp"

namespace simt {

std::string hex(std::uint64_t value);
/// "shfl at codec/x.cuh:12"
std::string place(const char* call, site where);
/// "cta 0 warp 1 lane 2"
std::string name_of(const lane& l);
/// Where the warp's lanes stand that have not ended, one line for those that stand together.
std::string standing_of(const warp& w);

}  // namespace simt
