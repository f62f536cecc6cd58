// Regions on one or two GPUs, moved by the library's links and compared.
#pragma once

#include "data.hpp"
#include <tersor/device_link.hpp>

namespace gpu_test {

/// Regions of many sizes side by side, some empty, some not aligned; each with its own codebook.
struct link_case {
  tersor::codec codec = tersor::codec::rank;
  tersor::dtype type = tersor::dtype::bf16;
  std::vector<bytes> data;
  device_memory source, target;
  std::vector<tersor::transfer::link_region> regions;
  std::uint64_t n_values = 0;

  /// `largest`: values of a region. The target is on `target_device`, with guards around each region.
  static link_case make(tersor::codec c, tersor::dtype type, std::uint64_t seed, std::uint64_t n_regions,
                        std::uint64_t largest, int source_device, int target_device);
  /// Everything that must be written is poison, everything else the guard.
  void poison() const;
  /// Checks every region and everything between them.
  bool expect_arrived(section& s, std::string_view where) const;
  [[nodiscard]] std::string label() const;

 private:
  std::vector<std::uint64_t> at_;
  std::uint64_t n_bytes_ = 0;
  int target_device_ = 0;
};

/// Makes a device current while it lives.
class current_device {
 public:
  explicit current_device(int device) {
    must(cudaGetDevice(&before_), "cudaGetDevice");
    must(cudaSetDevice(device), "cudaSetDevice");
  }
  current_device(const current_device&) = delete;
  current_device& operator=(const current_device&) = delete;
  ~current_device() { cudaSetDevice(before_); }

 private:
  int before_ = 0;
};

void check_peer_links(const env& e, section& s);
void check_host_links(const env& e, section& s);
void check_recheck(const env& e, section& s);

}  // namespace gpu_test
