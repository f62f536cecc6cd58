#include "huge_buffer.hpp"

#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

namespace tersor::bench {

huge_buffer::~huge_buffer() {
  std::free(data_);
}

result<huge_buffer> huge_buffer::allocate(std::uint64_t n_bytes) {
  constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;
  const std::uint64_t rounded = (n_bytes + kHugePage - 1) / kHugePage * kHugePage;
  huge_buffer buffer;
  if (rounded >= n_bytes && rounded > 0) {
    buffer.data_ = static_cast<std::byte*>(std::aligned_alloc(kHugePage, rounded));
  }
  if (buffer.data_ == nullptr) return fail(errc::out_of_memory, "no memory for a benchmark buffer");
  // Advice only: without huge pages every contender meets the same small ones.
  (void)::madvise(buffer.data_, rounded, MADV_HUGEPAGE);
  std::memset(buffer.data_, 0x5a, rounded);
  buffer.n_bytes_ = n_bytes;
  return buffer;
}

}  // namespace tersor::bench
