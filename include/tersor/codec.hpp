// Encode tensors to frames and decode frames to tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tersor/codebook.hpp>
#include <tersor/tensor.hpp>

namespace tersor {

/// Threads and instruction set of a series of calls. Creating one starts its threads; a context may be shared
/// by several caller threads, whose calls then take turns on its workers. The encoded bytes never depend on
/// it.
class context {
 public:
  /// `threads` = 0 takes the cores this process may use. `backend` names one of `backends()`; empty takes the
  /// environment variable TERSOR_BACKEND or, without it, the fastest this CPU runs.
  /// Errors: `backend_unavailable`.
  [[nodiscard]] static result<context> create(unsigned threads = 0, std::string_view backend = {});

  context(context&&) noexcept;
  context& operator=(context&&) noexcept;
  ~context();

  [[nodiscard]] unsigned threads() const noexcept;
  /// Name of the chosen CPU backend: "scalar", "avx2", "avx512" or "neon".
  [[nodiscard]] std::string_view backend() const noexcept;

  struct impl;
  [[nodiscard]] impl& get() const noexcept { return *impl_; }

 private:
  explicit context(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

/// One CPU backend of this build.
struct backend_info {
  std::string_view name;
  bool supported = false;  ///< this CPU runs it
  bool chosen = false;     ///< the default on this machine now
  std::string reason;      ///< why it is chosen or not
};
[[nodiscard]] std::vector<backend_info> backends();

struct encode_options {
  tersor::codec codec = codec::rank;
  /// A calibrated codebook; none = exact histogram of the tensor first (one more pass over the input).
  std::optional<tersor::codebook> book = {};
  /// Return a raw frame when the coded one is not smaller, or the dtype has no coded exponent.
  bool raw_fallback = true;
};

/// Upper bound of a frame's size in bytes for `n_values` values, known before encoding; 0 if it leaves 64
/// bits.
[[nodiscard]] std::uint64_t encode_bound(codec c, dtype type, std::uint64_t n_values) noexcept;

/// Encodes into `dst` and returns the frame's size. Source and destination must not overlap.
/// Errors: `destination_too_small` if `dst` is smaller than `encode_bound` (nothing is written);
/// `invalid_argument` if shape and data disagree; `unsupported` for a coded codec on a dtype without exponent
/// when `raw_fallback` is off.
[[nodiscard]] result<std::uint64_t> encode_into(const context& ctx, const tensor_view& src,
                                                std::span<std::byte> dst, const encode_options& options = {});

/// One-shot: returns a vector that holds exactly the frame.
[[nodiscard]] result<std::vector<std::byte>> encode(const context& ctx, const tensor_view& src,
                                                    const encode_options& options = {});

/// What a frame's header and index say, after both digests were checked.
struct frame_info {
  tersor::codec codec = codec::raw;
  dtype type = dtype::bytes;
  std::vector<std::uint64_t> shape = {};
  std::uint64_t n_values = 0;
  std::uint64_t decoded_bytes = 0;
  std::uint64_t frame_bytes = 0;
  std::uint64_t digest = 0;  ///< the frame digest: covers header, index and, through them, the decoded bytes
  codebook book = {};
  std::uint64_t n_chunks = 0;
  std::uint64_t tail_words = 0;
  std::uint64_t raw_tiles = 0;     ///< tiles stored raw
  std::uint64_t escape_tiles = 0;  ///< tiles with at least one escape
};

/// Reads header and index of the frame that begins `frame`; more bytes may follow it.
[[nodiscard]] result<frame_info> inspect(std::span<const std::byte> frame);

/// Decodes the frame that fills `frame` into `dst` (its first `decoded_bytes`) and returns that size; every
/// digest is compared. On an error the content of `dst` is unspecified, and nothing outside it was touched.
/// Errors: `destination_too_small`, `truncated`, `bad_magic`, `unsupported_version`, `malformed`,
/// `digest_mismatch` (with the chunk), `unsupported`.
[[nodiscard]] result<std::uint64_t> decode_into(const context& ctx, std::span<const std::byte> frame,
                                                std::span<std::byte> dst);

/// One-shot: the tensor that `frame` holds.
[[nodiscard]] result<tensor> decode(const context& ctx, std::span<const std::byte> frame);

/// Decodes chunks [first, first + count) only, into the start of `dst`; other chunks are neither read nor
/// checked. A chunk is 8,192 values (16,384 bytes of a raw frame). Returns the bytes written.
[[nodiscard]] result<std::uint64_t> decode_chunks(const context& ctx, std::span<const std::byte> frame,
                                                  std::uint64_t first, std::uint64_t count,
                                                  std::span<std::byte> dst);

/// Compares `decoded`, exactly what `frame` decodes to, with the frame's digests, reading every byte from
/// where it lies now: for memory that was written some time ago, or by another device. Errors:
/// `digest_mismatch` (with the chunk), `invalid_argument` (another size), those of inspect.
[[nodiscard]] status compare_digests(const context& ctx, std::span<const std::byte> frame,
                                     std::span<const std::byte> decoded);

/// The position-keyed 64-bit digest of a byte string (spec/codecs.md section 5, W = 2) in a domain. Not an
/// authentication tag.
[[nodiscard]] std::uint64_t digest_bytes(const context& ctx, std::uint8_t domain,
                                         std::span<const std::byte> data);

}  // namespace tersor
