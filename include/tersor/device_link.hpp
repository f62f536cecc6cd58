// KV values from one GPU to another of this host, or between a GPU and pinned host memory, compressed on the
// way: encoding, the link and decoding work on different parts at the same time.
//
//   auto link = device_link::create({.source_device = 0, .target_device = 1});
//   auto verdicts = pinned_verdicts::create(*link->count_pieces(regions));
//   link->send_async(regions, link_method::automatic, verdicts->all(), source_stream, target_stream);
//   ... cudaStreamSynchronize(target_stream), then
//   if (auto good = check_verdicts(verdicts->all()); !good) discard the destination;
//
// The one rule: what arrived must not be used before its verdicts were checked. Until then the destination
// holds unspecified bytes. `raw` transfers carry no digest: their verdicts are good from the call on, and
// what there is to know is what the stream says when it is waited for.
//
// Calls enqueue work on the caller's streams (and on streams of the link's own that begin and end with them),
// wait for nothing and allocate no device memory; all of that is taken when the link is created. A link is
// used by one thread at a time. In a build without CUDA every call returns `backend_unavailable`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include <tersor/cuda.hpp>

namespace tersor::transfer {

/// How values move.
enum class link_method : std::uint8_t {
  automatic,  ///< raw or `link_speed::coded_method`, whichever the link's speed says is faster
  raw,        ///< one copy of the values; no digest
  copy,  ///< encode here, copy frames with the copy engines, decode there: keeps multiprocessors free. Parts
         ///< of small pieces are pushed (and, loaded from host memory, pulled)
  pull,  ///< encode here; the decoding kernel reads the frames straight out of this memory over the link
  push,  ///< the encoding kernel writes the frames over the link; decode there
};
[[nodiscard]] std::string_view to_string(link_method m) noexcept;

/// A contiguous tensor that moves: one layer's K or V, say. Any alignment.
struct link_region {
  const void* src = nullptr;
  void* dst = nullptr;
  std::uint64_t n_values = 0;
  codebook book = {};                          ///< calibrated, or made by make_codebook_async
  const std::uint8_t* codebook_dev = nullptr;  ///< instead of `book`: 16 symbols in the source's memory
};

/// What encoding and decoding one piece of a region found out.
struct link_verdict {
  cuda::frame_result sent, received;
  cuda::frame_result again;  ///< of recheck_async; as constructed unless the link was asked for it
};
static_assert(sizeof(link_verdict) == 96);

/// Good if every piece was encoded and decoded well and the frames that arrived are those that were sent.
/// Errors: the first bad code, with the piece in the message.
[[nodiscard]] status check_verdicts(std::span<const link_verdict> verdicts);

/// Pinned host memory for verdicts that every GPU can write.
class pinned_verdicts {
 public:
  [[nodiscard]] static result<pinned_verdicts> create(std::uint64_t n);
  pinned_verdicts(pinned_verdicts&& other) noexcept;
  pinned_verdicts& operator=(pinned_verdicts&& other) noexcept;
  ~pinned_verdicts();
  [[nodiscard]] std::span<link_verdict> all() const noexcept { return all_; }

 private:
  pinned_verdicts() = default;
  std::span<link_verdict> all_;
};

// ---- Does it pay? ----

/// Microseconds for n bytes of values: fixed_us + n / gb_s.
struct link_cost {
  double fixed_us = 0;
  double gb_s = 0;  ///< 1e9 bytes a second
  /// Infinite for a speed that is not positive.
  [[nodiscard]] double us(std::uint64_t n_bytes) const noexcept;
};
/// What moving values over one link costs, measured end to end.
struct link_speed {
  link_cost raw, coded;
  link_method coded_method = link_method::pull;
};
/// What bench/transfer measured between two GPUs of this name; nullopt if no figures are built in.
[[nodiscard]] std::optional<link_speed> known_link(codec c, std::string_view device_name) noexcept;
/// The same between a GPU of this name and pinned host memory; the figures of the slower direction.
[[nodiscard]] std::optional<link_speed> known_host_link(codec c, std::string_view device_name) noexcept;
/// `raw` unless coding is faster by more than `margin` (0.02 = 2%).
[[nodiscard]] link_method choose_method(std::uint64_t n_bytes, const link_speed& speed,
                                        double margin = 0.02) noexcept;

// ---- GPU to GPU ----

/// How transfers are cut: parts of `first_bytes` of values where a step is not hidden (at the begin, at the
/// end or at both, as the method needs), of up to `most_bytes` in the middle, because launches cost time. A
/// part holds pieces of up to 14 regions.
struct part_sizes {
  std::uint64_t first_bytes = std::uint64_t{8} << 20;
  std::uint64_t most_bytes = std::uint64_t{128} << 20;
  std::uint32_t n_slots = 3;  ///< parts that are under way at a time
};

struct device_link_options {
  int source_device = 0, target_device = 1;
  tersor::codec codec = codec::rank;
  dtype type = dtype::bf16;
  part_sizes parts = {};
  /// For `automatic`; none: known_link, and raw where that has none either.
  std::optional<link_speed> speed = {};
  bool recheck = false;  ///< read the stored values once more and compare them with the frames' digests
  /// Memory for frames, `staging_bytes` each, 128-byte aligned, on the source (pull, copy) and on the target
  /// (push, copy). Null: allocated here for the methods that are `used`.
  void* source_staging = nullptr;
  void* target_staging = nullptr;
  bool use_pull = true, use_push = false, use_copy = false;
};
/// Size of a staging area; 0 for a codec or dtype that the GPU does not code.
[[nodiscard]] std::uint64_t staging_bytes(codec c, dtype type, const part_sizes& sizes) noexcept;

/// One direction between two GPUs that can reach each other's memory.
class device_link {
 public:
  /// Enables peer access in both directions. Errors: `invalid_argument`, `unsupported` (no peer access,
  /// codec or dtype), `out_of_memory`, `backend_unavailable`, `internal`.
  [[nodiscard]] static result<device_link> create(const device_link_options& options);
  device_link(device_link&&) noexcept;
  device_link& operator=(device_link&&) noexcept;
  /// Waits for the link's own streams.
  ~device_link();

  /// What `automatic` means for this many bytes.
  [[nodiscard]] link_method choose(std::uint64_t n_bytes) const noexcept;
  /// Verdicts that a transfer of these regions needs at most, whatever the method.
  [[nodiscard]] result<std::uint64_t> count_pieces(std::span<const link_region> regions) const;
  /// Moves the regions. The source is read after what was enqueued on `source` before and before what is
  /// enqueued afterwards, and so is the destination written on `target`; coded transfers that follow
  /// each other overlap. `verdicts`: count_pieces of them, in pinned host memory; they are bad from the call
  /// on until the GPUs have set them. Returns the method taken. Errors: `invalid_argument`, `unsupported` (a
  /// method without staging), `internal` (a launch failed; the work enqueued so far still runs).
  [[nodiscard]] result<link_method> send_async(std::span<const link_region> regions, link_method method,
                                               std::span<link_verdict> verdicts, cuda::stream source,
                                               cuda::stream target);

 private:
  struct impl;
  explicit device_link(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

// ---- GPU to pinned host memory and back ----

struct host_link_options {
  int device = 0;
  tersor::codec codec = codec::rank;
  dtype type = dtype::bf16;
  part_sizes parts = {.first_bytes = std::uint64_t{4} << 20, .most_bytes = std::uint64_t{64} << 20};
  std::optional<link_speed> speed = {};  ///< for `automatic`; none: known_host_link
  bool recheck = false;                  ///< of loads
};

/// Frames in host memory: piece i of a transfer lies behind those before it.
struct host_store {
  void* data = nullptr;  ///< pinned, 128-byte aligned
  std::uint64_t n_bytes = 0;
};

/// Offloads values of one GPU and brings them back.
class host_link {
 public:
  /// Errors: as device_link::create.
  [[nodiscard]] static result<host_link> create(const host_link_options& options);
  host_link(host_link&&) noexcept;
  host_link& operator=(host_link&&) noexcept;
  ~host_link();

  [[nodiscard]] link_method choose(std::uint64_t n_bytes) const noexcept;
  [[nodiscard]] result<std::uint64_t> count_pieces(std::span<const link_region> regions) const;
  /// Bytes of host memory that storing these regions needs at most, whatever the method.
  [[nodiscard]] result<std::uint64_t> store_bytes(std::span<const link_region> regions) const;
  /// Device to host; `dst` of the regions is not looked at. The `sent` verdicts must be checked before the
  /// store is relied on. Methods: raw, copy, push. Errors: as device_link::send_async.
  [[nodiscard]] result<link_method> store_async(std::span<const link_region> regions, link_method method,
                                                const host_store& to, std::span<link_verdict> verdicts,
                                                cuda::stream s);
  /// Host to device; `src` and codebooks are not looked at. `method` is what store_async returned, or `pull`
  /// to let the decoding kernel read host memory; `verdicts` are those of the store, finished and checked:
  /// they say how large the frames are. Sets their `received`.
  [[nodiscard]] status load_async(std::span<const link_region> regions, link_method method,
                                  const host_store& from, std::span<link_verdict> verdicts, cuda::stream s);

 private:
  struct impl;
  explicit host_link(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

// ---- Two processes of one host ----

/// What another process needs to open memory or an event; plain bytes, to be sent over any channel between
/// processes that trust each other.
using ipc_token = std::array<std::byte, 64>;

/// Staging memory on one GPU that another process can open. Frames that one process encodes into it
/// (cuda::encode_async), the other decodes straight out of it (cuda::decode_async).
class shared_staging {
 public:
  /// Memory of this process on `device`. Errors: `out_of_memory`, `backend_unavailable`, `internal`.
  [[nodiscard]] static result<shared_staging> create(int device, std::uint64_t n_bytes);
  /// The memory of another process, for use on `device`. `n_bytes` is what that process said it has: the
  /// driver maps the whole allocation and does not say how large it is. Errors: as create.
  [[nodiscard]] static result<shared_staging> open(int device, const ipc_token& token, std::uint64_t n_bytes);
  shared_staging(shared_staging&& other) noexcept;
  shared_staging& operator=(shared_staging&& other) noexcept;
  ~shared_staging();

  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return n_bytes_; }
  /// Errors: `invalid_argument` for memory that was opened.
  [[nodiscard]] result<ipc_token> token() const;

 private:
  shared_staging() = default;
  void* data_ = nullptr;
  std::uint64_t n_bytes_ = 0;
  int device_ = 0;
  bool opened_ = false;
};

/// An event that one process records and another waits for on its own stream. Between two uses of an event
/// the processes must tell each other (over their channel) that it was recorded.
class shared_event {
 public:
  [[nodiscard]] static result<shared_event> create(int device);
  [[nodiscard]] static result<shared_event> open(int device, const ipc_token& token);
  shared_event(shared_event&& other) noexcept;
  shared_event& operator=(shared_event&& other) noexcept;
  ~shared_event();

  [[nodiscard]] result<ipc_token> token() const;
  [[nodiscard]] status record(cuda::stream s) const;
  [[nodiscard]] status wait(cuda::stream s) const;

 private:
  shared_event() = default;
  void* event_ = nullptr;
  int device_ = 0;
};

}  // namespace tersor::transfer
