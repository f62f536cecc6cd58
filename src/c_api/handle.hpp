// What a handle of the C ABI holds.
#pragma once

#include <tersor/codec.hpp>
#include <tersor/tersor.h>

struct tersor_context {
  tersor::context ctx;
};
