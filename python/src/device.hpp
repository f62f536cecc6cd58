// What the GPU bindings share: addresses and streams are integers.
#pragma once

#include "common.hpp"
#include <tersor/cuda.hpp>

namespace tersor::python {

using address = std::uintptr_t;

[[nodiscard]] inline cuda::stream stream_of(address s) noexcept {
  return pointer<CUstream_st>(s);
}
[[nodiscard]] inline cuda::tail_order tails_of(bool canonical) noexcept {
  return canonical ? cuda::tail_order::canonical : cuda::tail_order::free;
}

}  // namespace tersor::python
