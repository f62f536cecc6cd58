// NCCL, opened at run time, for the rows it is measured in.
#pragma once

#include <memory>

#include "gpu_link_bench.hpp"
#include "transfer/device/parts.hpp"

namespace tersor::bench {

/// Two ranks in this process, one a device.
class nccl_pair {
 public:
  [[nodiscard]] static result<nccl_pair> open(const std::string& library, int source_device,
                                              int target_device);
  nccl_pair(nccl_pair&&) noexcept;
  ~nccl_pair();
  [[nodiscard]] std::string version() const;

  struct message {
    const void* src;
    void* dst;
    std::uint64_t n_bytes;
  };
  /// One group of sends and receives.
  [[nodiscard]] status send(std::span<const message> messages, cudaStream_t source,
                            cudaStream_t target) const;

 private:
  struct impl;
  explicit nccl_pair(std::unique_ptr<impl> p);
  std::unique_ptr<impl> impl_;
};

/// Encodes parts, sends each frame in its real size as soon as the host knows it, decodes the last part
/// meanwhile.
class nccl_link {
 public:
  [[nodiscard]] static result<nccl_link> create(const nccl_pair& nccl, codec c,
                                                const transfer::part_sizes& sizes, int source_device,
                                                int target_device);
  nccl_link(nccl_link&&) noexcept;
  ~nccl_link();
  [[nodiscard]] std::uint64_t count_pieces(std::span<const transfer::link_region> regions) const;
  [[nodiscard]] status send(std::span<const transfer::link_region> regions,
                            std::span<transfer::link_verdict> verdicts, cudaStream_t source,
                            cudaStream_t target);

 private:
  struct impl;
  explicit nccl_link(std::unique_ptr<impl> p);
  std::unique_ptr<impl> impl_;
};

}  // namespace tersor::bench
