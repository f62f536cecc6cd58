// Measures links of GPUs, raw beside compressed. What the parts of the program share.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "transfer/device/resources.hpp"
#include <tersor/device_link.hpp>

namespace tersor::bench {

using transfer::device::memory;
using transfer::device::on_device;
using transfer::device::own_event;
using transfer::device::own_stream;

struct link_bench_options {
  std::string kv;    ///< a safetensors file of BF16 tensors
  std::string json;  ///< written again after every row
  std::string commit = "unknown";
  std::string command;
  std::string nccl;  ///< libnccl.so.2; empty: no NCCL rows
  std::vector<std::uint64_t> megabytes = {16, 64, 256, 1024, 4096};
  std::vector<codec> codecs = {codec::top16, codec::rank};
  std::vector<transfer::part_sizes> part_sizes = {{}};
  std::vector<transfer::link_method> methods = {transfer::link_method::pull, transfer::link_method::push,
                                                transfer::link_method::copy,
                                                transfer::link_method::automatic};
  bool peers = true, host = true, processes = true;
  double seconds = 0.25;  ///< of timed work a row
};

/// One way of moving one size.
struct link_row {
  std::string link = {};    ///< "peer", "store" or "load"
  std::string method = {};  ///< "memcpy", "nccl", "raw", "pull", ...
  std::string codec = "raw";
  std::uint64_t n_bytes = 0;
  std::uint64_t first_bytes = 0, most_bytes = 0;  ///< part sizes; 0 for methods without parts
  double us = 0;                                  ///< a transfer in a row of transfers, median
  double single_us = 0;  ///< a transfer on idle GPUs, from the first launch to the last byte, median
  double ratio = 1;      ///< bytes of values over bytes of frames
  bool exact = false;    ///< every byte compared before timing, and again after it

  [[nodiscard]] double gb_s() const noexcept { return static_cast<double>(n_bytes) / (us * 1e3); }
};

/// Values on one device, a region a tensor of the input, laid out one behind the other.
struct link_data {
  struct tensor_info {
    std::uint64_t n_values = 0;
    codebook book;
  };
  std::vector<memory> base;  ///< the input's tensors on the source device
  std::vector<tensor_info> tensors;
};
[[nodiscard]] result<link_data> load_link_data(const std::string& path, int device);

/// Buffers of one transfer: values on the source, poisoned memory of the same size on the target.
struct link_buffers {
  memory source, target;
  std::uint64_t n_bytes = 0;
  std::vector<transfer::link_region> regions;
};
/// `target_device` < 0: the target is on the source device too.
[[nodiscard]] result<link_buffers> make_buffers(const link_data& data, std::uint64_t n_bytes,
                                                std::uint64_t salt, int source_device, int target_device);
[[nodiscard]] status poison(link_buffers& b, int target_device);
/// `internal` if a word of the target differs from the source.
[[nodiscard]] status expect_arrived(const link_buffers& b, int target_device, const std::string& what);

/// Streams and timing over two devices (or one twice).
class link_clock {
 public:
  [[nodiscard]] static result<link_clock> create(int source_device, int target_device);
  [[nodiscard]] cudaStream_t source() const noexcept { return source_.get(); }
  [[nodiscard]] cudaStream_t target() const noexcept { return target_.get(); }
  [[nodiscard]] status wait() const;
  /// `send(i)` enqueues a transfer of buffer set i on both streams. Sets us and single_us.
  [[nodiscard]] status time(const std::function<status(std::uint64_t)>& send, std::uint64_t n_sets,
                            double seconds, link_row& row) const;

 private:
  [[nodiscard]] result<double> run(const std::function<status(std::uint64_t)>& send, std::uint64_t n_sets,
                                   std::uint64_t n) const;
  int source_device_ = 0, target_device_ = 0;
  own_stream source_, target_;
  own_event begin_, end_;  ///< of the target, timed
};

class link_report {
 public:
  explicit link_report(const link_bench_options& options) : options_(options) {}
  [[nodiscard]] status add(link_row row);
  void note(const std::string& key, const std::string& value) { notes_.emplace_back(key, value); }

 private:
  [[nodiscard]] status write() const;
  const link_bench_options& options_;
  std::vector<link_row> rows_;
  std::vector<std::pair<std::string, std::string>> notes_;
};

[[nodiscard]] status bench_peers(const link_bench_options& o, link_report& report);
[[nodiscard]] status bench_host(const link_bench_options& o, link_report& report);
/// Two processes, one GPU each: frames in shared staging memory. Call before anything touches CUDA.
[[nodiscard]] int run_process_test(const link_bench_options& o);

}  // namespace tersor::bench
