// What run() throws when a kernel does what the GPU would punish or never finish.
#pragma once

#include <stdexcept>

namespace simt {

class kernel_fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace simt
