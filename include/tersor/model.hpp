// Whole safetensors files and model directories: compress, decompress, verify, inspect, analyze, calibrate.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <tersor/codec.hpp>
#include <tersor/packed.hpp>

namespace tersor {

/// How source files are read: `mmap` is faster, `pread` does not raise SIGBUS when a network disk fails.
enum class read_mode { mmap, pread };

/// Codebooks by tensor, as `tersor calibrate` writes them to JSON. Lookup: the tensor's own name, else its
/// type (see tensor_type), else the default of its dtype, else none.
struct codebook_set {
  struct entry {
    tersor::dtype type = dtype::bf16;
    codebook book;
  };
  std::map<std::string, entry, std::less<>> by_name = {};
  std::map<std::string, entry, std::less<>> by_type = {};
  std::map<dtype, codebook> by_dtype = {};

  [[nodiscard]] std::optional<codebook> find(std::string_view tensor_name, dtype type) const;
  [[nodiscard]] std::string to_json() const;
  [[nodiscard]] static result<codebook_set> from_json(std::string_view json);
};

/// A tensor's type: its name with every run of digits between dots replaced by `*`, e.g.
/// "model.layers.*.mlp.up_proj.weight".
[[nodiscard]] std::string tensor_type(std::string_view name);

/// True if `name` matches a shell pattern of `*`, `?` and `[...]`.
[[nodiscard]] bool glob_match(std::string_view pattern, std::string_view name) noexcept;

/// Where a long call is; `done` and `total` count original bytes over all files, twice where what was written
/// is verified.
struct progress {
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  std::string_view file;
};

/// Smaller matrices are not worth a product of their own.
inline constexpr std::uint64_t kMinPackedSide = 64;

/// Options of the calls below; each uses those that concern it.
struct model_options {
  tersor::codec codec = codec::rank;
  /// compress: BF16 and FP16 tensors of two dimensions, each at least kMinPackedSide, become matrix frames
  /// (see packed.hpp) where that is smaller; `codec` codes the others, and `raw` stores them as they are.
  std::optional<pack_options> packing = {};
  codebook_set books = {};
  std::vector<std::string> include = {};  ///< globs on tensor names; empty = all
  std::vector<std::string> exclude = {};  ///< globs; wins over include
  bool overwrite = false;
  bool verify = false;  ///< decode what was written and compare with the source before the final name appears
  bool remove_source = false;  ///< after success; implies verify
  bool dry_run = false;        ///< do all but write
  tersor::read_mode read = read_mode::mmap;
  std::function<void(const progress&)> on_progress = {};  ///< called from the calling thread
  const std::atomic<bool>* cancel = nullptr;  ///< raised: stop with errc::cancelled and leave nothing behind
};

/// One tensor of a file.
struct tensor_report {
  std::string name;
  std::string dtype;  ///< safetensors' name, also for dtypes Tersor does not know
  std::vector<std::uint64_t> shape;
  std::uint64_t original_bytes = 0;
  std::uint64_t stored_bytes = 0;
  tersor::codec codec = codec::raw;          ///< raw: stored as it is, or a matrix frame
  std::optional<matrix_layout> layout = {};  ///< of a matrix frame
  std::uint64_t n_values = 0;
  std::uint64_t n_escape_tiles = 0;
  std::uint64_t n_raw_tiles = 0;
  std::uint64_t digest = 0;

  /// "rank", "packed" and so on; "raw" if it is stored.
  [[nodiscard]] std::string_view coding() const noexcept {
    return layout ? to_string(*layout) : to_string(codec);
  }
};

/// One file of a model; tensors empty for files that are copied as they are.
struct file_report {
  std::string name;  ///< relative to the model directory, or the file's name
  bool is_safetensors = false;
  bool is_compressed = false;  ///< what was read (inspect) or written (compress) is a Tersor container
  std::uint64_t original_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::vector<tensor_report> tensors;
};

struct model_report {
  std::vector<file_report> files;
  std::uint64_t original_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t n_tensors = 0;
  double seconds = 0;
};

/// Name for the result when the user gives none: `model.safetensors` -> `model.tersor.safetensors`, `DIR` ->
/// `DIR-tersor`; and back.
[[nodiscard]] std::filesystem::path default_compressed_path(const std::filesystem::path& src);
[[nodiscard]] std::filesystem::path default_decompressed_path(const std::filesystem::path& src);

/// Compresses a .safetensors file or a model directory. Memory beyond the mapped source: the largest frame
/// bound, and as much again, at most 256 MiB, so that one frame is written while the next is coded; with
/// read_mode::pread also the largest tensor. Nothing carries the name `dst` before everything was written and
/// synced; on any error nothing is left behind.
[[nodiscard]] result<model_report> compress(const context& ctx, const std::filesystem::path& src,
                                            const std::filesystem::path& dst,
                                            const model_options& options = {});

/// The inverse, byte for byte; every digest is compared first. Memory beyond the mapped source: two blocks of
/// 16 MiB or of a sixteenth of the largest tensor; with read_mode::pread also the largest frame. Matrix
/// frames are unpacked whole: the largest of their tensors, and as much again, at most 256 MiB.
[[nodiscard]] result<model_report> decompress(const context& ctx, const std::filesystem::path& src,
                                              const std::filesystem::path& dst,
                                              const model_options& options = {});

/// Decodes everything in memory and compares every digest; with `against`, also compares the restored bytes
/// with that original (errc::mismatch names file and tensor). Success means right; is_data_error(code) means
/// wrong; other codes: could not check.
[[nodiscard]] result<model_report> verify(const context& ctx, const std::filesystem::path& src,
                                          const std::optional<std::filesystem::path>& against,
                                          const model_options& options = {});

/// Reads headers and indexes only; works on plain and compressed files and directories.
[[nodiscard]] result<model_report> inspect_model(const std::filesystem::path& src,
                                                 const model_options& options = {});

/// One tensor's statistics; works on plain and compressed sources.
struct tensor_analysis {
  std::string file = {};
  std::string name = {};
  tersor::dtype type = dtype::bytes;
  std::vector<std::uint64_t> shape = {};
  std::uint64_t n_values = 0;
  histogram counts = {};
  double entropy = 0;                    ///< bits a value
  std::array<double, 17> coverage = {};  ///< coverage[k], k = 0..16
  double ideal_ratio = 1;                ///< value bits / (rest bits + entropy)
  double rank_bits = 0;                  ///< bits a value, records and digests included
  double top16_bits = 0;
  std::uint64_t n_bytes = 0;
  /// Predicted size of the frame, rounding to words and tiles estimated; n_bytes where that is not smaller.
  std::uint64_t rank_bytes = 0;
  std::uint64_t top16_bytes = 0;
};

struct analysis {
  std::vector<tensor_analysis> tensors = {};  ///< tensors with a coded exponent
  std::uint64_t other_bytes = 0;  ///< bytes of all other tensors, those left out by the options among them
  std::uint64_t n_other_tensors = 0;
  std::uint64_t n_files = 0;
  /// Per dtype over all its tensors, one codebook each (per-tensor codebooks' bits are the weighted means of
  /// `tensors`).
  std::map<dtype, tensor_analysis> overall = {};
};

/// Counts the exponents of every source, a file or a directory. `sources` that hold no safetensors file:
/// `not_found`. Memory: 64 MiB, and with read_mode::pread the largest frame; the largest tensor that is a
/// matrix frame.
[[nodiscard]] result<analysis> analyze(const context& ctx, const std::vector<std::filesystem::path>& sources,
                                       const model_options& options = {});

/// JSON of an analysis; and one self-contained HTML page with inline SVG figures.
[[nodiscard]] std::string to_json(const analysis& a);
[[nodiscard]] std::string to_html(const analysis& a, std::string_view title);

/// Codebooks per tensor, per tensor type and per dtype from the exponents of all sources.
[[nodiscard]] codebook_set calibrate(const analysis& a);

}  // namespace tersor
