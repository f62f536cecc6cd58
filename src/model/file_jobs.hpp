// What is done to one file.
#pragma once

#include <filesystem>
#include <optional>

#include "model/container.hpp"
#include "model/session.hpp"
#include "model/tensor_source.hpp"
#include "safetensors/atomic_file.hpp"

namespace tersor::model_detail {

/// Writes the container of a plain safetensors file; without `out` it only counts. Nothing is committed.
[[nodiscard]] result<file_report> compress_file(session& run, const safetensors::input_file& src,
                                                safetensors::atomic_file* out);

/// The same for the tensors of a header, which come from anywhere.
[[nodiscard]] result<file_report> compress_tensors(session& run, const safetensors::header& head,
                                                   tensor_source& src, safetensors::atomic_file* out);

/// Writes the original of a container; without `out` it only checks. Nothing is committed.
[[nodiscard]] result<file_report> decompress_file(session& run, const container& src,
                                                  safetensors::atomic_file* out);

/// Decodes everything; with `original`, compares with its bytes.
[[nodiscard]] result<file_report> verify_file(session& run, const container& src,
                                              const safetensors::input_file* original);

/// Length field and header of the original.
[[nodiscard]] std::string restored_head(const container& src);

/// The report of a file without its tensors.
[[nodiscard]] file_report report_of(const container& src);

/// Copies any file.
[[nodiscard]] status copy_file(session& run, const std::filesystem::path& src, safetensors::atomic_file& out);

/// The whole of a file that is small by its nature.
[[nodiscard]] result<std::string> read_text(const std::filesystem::path& path);

/// mismatch if the files differ.
[[nodiscard]] status compare_files(session& run, const std::filesystem::path& a,
                                   const std::filesystem::path& b);

/// The first place where equally long byte strings differ.
[[nodiscard]] std::optional<std::uint64_t> first_difference(std::span<const std::byte> a,
                                                            std::span<const std::byte> b) noexcept;

[[nodiscard]] tl::unexpected<error> fail_file(errc code, std::string message,
                                              const std::filesystem::path& file);

}  // namespace tersor::model_detail
