// The global memory that a kernel may touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace simt {

enum class access {
  read,
  read_write,
  /// Readable where it has been written.
  uninitialized,
};

enum class memory_error { none, outside, misaligned, not_writable, not_written };

class memory {
 public:
  memory();
  ~memory();
  memory(const memory&) = delete;
  memory& operator=(const memory&) = delete;

  /// Lets kernels touch [begin, begin + n_bytes), which the caller keeps alive. Regions do not overlap.
  void add(const void* begin, std::size_t n_bytes, access allowed, std::string name);
  /// Memory of exactly this size, aligned and full of garbage as the GPU gives it.
  void* allocate(std::size_t n_bytes, std::string name, access allowed = access::uninitialized);
  template <class T>
  T* allocate_array(std::size_t n, std::string name, access allowed = access::uninitialized) {
    return static_cast<T*>(allocate(n * sizeof(T), std::move(name), allowed));
  }

  /// What a kernel's load and store do.
  memory_error read(const void* at, std::size_t n_bytes, std::size_t alignment, void* out);
  memory_error write(void* at, std::size_t n_bytes, std::size_t alignment, const void* value);
  /// The place in words: the region that holds it or the one below.
  std::string describe(const void* at) const;

 private:
  struct region;
  struct block;
  const region* below(std::uintptr_t at) const;
  region* find(std::uintptr_t at, std::size_t n_bytes);

  std::vector<region> regions_;
  std::vector<block> blocks_;
};

}  // namespace simt
