// One safetensors file, plain or compressed, tensor by tensor: read lazily, or written from memory.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tersor/model.hpp>

namespace tersor {

/// A tensor of an open file: what it is, and where its bytes lie.
struct file_tensor {
  std::string name = {};
  std::string dtype = {};  ///< safetensors' name, also for dtypes Tersor does not know
  std::vector<std::uint64_t> shape = {};
  std::uint64_t original_bytes = 0;
  std::uint64_t file_offset = 0;     ///< of the frame or of the stored bytes, from the file's first byte
  std::uint64_t stored_bytes = 0;    ///< size of the frame; `original_bytes` of a stored tensor
  bool is_stored = true;             ///< the bytes of the tensor, not a frame
  tersor::codec codec = codec::raw;  ///< of a frame
  std::optional<matrix_layout> layout = {};  ///< of a matrix frame (packed.hpp)
  /// Of the container's list: the frame's digest, or that of the stored bytes; 0 in a plain file.
  std::uint64_t digest = 0;

  /// "stored", a codec's name or a matrix layout's.
  [[nodiscard]] std::string_view coding() const noexcept {
    if (is_stored) return "stored";
    return layout ? to_string(*layout) : to_string(codec);
  }
};

/// A file open for reading. Nothing but headers is read before a tensor is asked for. Every const call may be
/// made from several threads at once; the decoding takes turns on the context's threads.
class tensor_file {
 public:
  /// Reads and checks the file's header and the headers of its frames as strictly as decompress. Errors:
  /// those of reading and of a header (`malformed`, `digest_mismatch`, ...).
  [[nodiscard]] static result<tensor_file> open(const std::filesystem::path& path,
                                                read_mode mode = read_mode::mmap);

  tensor_file(tensor_file&&) noexcept;
  tensor_file& operator=(tensor_file&&) noexcept;
  ~tensor_file();

  [[nodiscard]] const std::filesystem::path& path() const noexcept;
  [[nodiscard]] bool is_container() const noexcept;
  /// Size of the safetensors file that a container restores to; of a plain file its own.
  [[nodiscard]] std::uint64_t original_bytes() const noexcept;
  /// `__metadata__` of the original.
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept;
  /// In the order of the original's data.
  [[nodiscard]] const std::vector<file_tensor>& tensors() const noexcept;
  /// Null if there is none; valid as long as this object.
  [[nodiscard]] const file_tensor* find(std::string_view name) const noexcept;

  /// Decodes or copies a tensor into the first `original_bytes` of `dst`; every digest is compared, also with
  /// the container's list. On an error the content of `dst` is unspecified. Errors: `not_found`,
  /// `destination_too_small`, those of decode_into and unpack_into. Memory with read_mode::pread: the frame.
  [[nodiscard]] status read_into(const context& ctx, std::string_view name, std::span<std::byte> dst) const;

  /// The same for rows [first, first + count) of dimension 0, which are contiguous. Of a frame only the
  /// chunks that hold them are decoded and checked, of a matrix frame of layout `packed` the blocks of 16
  /// rows; layout `tcatbe` is unpacked whole. Rows of a stored tensor are copied, and only compared with its
  /// digest when they are all of them. Errors beyond read_into's: `invalid_argument` (rows that the tensor
  /// does not have, no dimension), `unsupported` (rows that are not whole bytes).
  [[nodiscard]] status read_rows(const context& ctx, std::string_view name, std::uint64_t first,
                                 std::uint64_t count, std::span<std::byte> dst) const;

  /// Bytes of the file as they are: `dst.size()` of them from `offset` of the tensor's frame or stored bytes.
  /// Nothing is checked. Errors: `not_found`, `invalid_argument` (past the end), those of reading.
  [[nodiscard]] status read_raw(std::string_view name, std::uint64_t offset, std::span<std::byte> dst) const;

  /// Reads part of a stored tensor, from an `offset` that is a multiple of kStoredStep on, and returns the
  /// part's share of the digest: over parts that make up the whole tensor, the shares add up (mod 2^64) to
  /// file_tensor::digest. Runs on the calling thread alone. Errors: `not_found`, `invalid_argument` (a coded
  /// tensor, past the end, not at a step), those of reading.
  [[nodiscard]] result<std::uint64_t> read_stored(const context& ctx, std::string_view name,
                                                  std::uint64_t offset, std::span<std::byte> dst) const;
  static constexpr std::uint64_t kStoredStep = 2048;

  struct impl;

 private:
  explicit tensor_file(std::unique_ptr<const impl> p) noexcept;
  std::unique_ptr<const impl> impl_;
};

/// A tensor in somebody else's memory that is to be written: row-major, contiguous, little-endian.
struct named_tensor {
  std::string name = {};
  std::string dtype = {};  ///< safetensors' name
  std::vector<std::uint64_t> shape = {};
  std::span<const std::byte> data = {};
};

/// `__metadata__`; nothing leaves it out.
using tensor_metadata = std::optional<std::map<std::string, std::string>>;

/// Writes a container whose original is the file that the safetensors library writes for these tensors
/// (wider dtypes first, then names; metadata by key). Nothing carries the name `dst` before everything was
/// written and synced. Of the options: codec, packing, books, include, exclude, overwrite, dry_run,
/// on_progress, cancel. Errors: `invalid_argument` (names twice or not UTF-8, shape and data disagree,
/// metadata of Tersor's own), `unsupported` (dtype), those of compress. Memory as compress.
[[nodiscard]] result<file_report> save_tensors(const context& ctx, std::span<const named_tensor> tensors,
                                               const tensor_metadata& metadata,
                                               const std::filesystem::path& dst,
                                               const model_options& options = {});

/// The plain safetensors file itself, written by the same means.
[[nodiscard]] status save_plain(std::span<const named_tensor> tensors, const tensor_metadata& metadata,
                                const std::filesystem::path& dst, bool overwrite = false);

}  // namespace tersor
