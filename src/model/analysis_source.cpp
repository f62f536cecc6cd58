#include "model/analysis_source.hpp"

#include <algorithm>

#include "codec/packed_matrix.hpp"
#include "model/container.hpp"
#include "safetensors/header.hpp"

namespace tersor::model_detail {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kPieceBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kChunkValues = 8192;
constexpr std::uint64_t kRawChunkBytes = 16384;
constexpr std::string_view kExtension = ".safetensors";

tl::unexpected<error> fail_in(errc code, std::string message, const fs::path& path) {
  return tl::unexpected<error>(error{.code = code, .message = std::move(message), .file = path.string()});
}

result<std::vector<fs::path>> files_below(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code ec;
  fs::recursive_directory_iterator it(directory, ec);
  for (; !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    if (it->path().extension() != kExtension) continue;
    std::error_code unknown;
    if (!it->is_directory(unknown)) found.push_back(it->path());
  }
  if (ec) return fail_in(errc::io_error, "cannot list the directory: " + ec.message(), directory);
  if (found.empty()) return fail_in(errc::not_found, "no .safetensors file in the directory", directory);
  std::ranges::sort(found);
  return found;
}

source_tensor plain_tensor(const safetensors::header& header, const safetensors::tensor_entry& entry) {
  return {.name = entry.name,
          .type = parse_dtype(entry.dtype),
          .shape = entry.shape,
          .n_bytes = entry.end - entry.begin,
          .stored_at = header.data_offset() + entry.begin,
          .stored_bytes = entry.end - entry.begin};
}

source_tensor contained_tensor(const container_item& item) {
  return {.name = item.original.name,
          .type = parse_dtype(item.original.dtype),
          .shape = item.original.shape,
          .n_bytes = item.original_bytes(),
          .stored_at = item.at,
          .stored_bytes = item.n_bytes,
          .frame_digest = item.coded ? std::optional(item.digest) : std::nullopt};
}

result<std::vector<source_tensor>> read_tensors(const context& ctx, const fs::path& path,
                                                const model_options& options) {
  TERSOR_TRY(auto file, open_input(path, options.read));
  TERSOR_TRY(const auto header, safetensors::read_header(file));
  std::vector<source_tensor> tensors;
  tensors.reserve(header.tensors.size());
  if (is_container(header)) {
    TERSOR_TRY(const auto opened, open_container(ctx, std::move(file)));
    for (const container_item& item : opened.items) tensors.push_back(contained_tensor(item));
  } else {
    for (const auto& entry : header.tensors) tensors.push_back(plain_tensor(header, entry));
  }
  return tensors;
}

result<source_file> read_source(const context& ctx, const fs::path& path, std::string label,
                                const model_options& options) {
  auto tensors = read_tensors(ctx, path, options);
  if (!tensors) {
    error e = std::move(tensors).error();
    if (e.file.empty()) e.file = path.string();
    return tl::unexpected<error>(std::move(e));
  }
  return source_file{.path = path, .label = std::move(label), .tensors = std::move(*tensors)};
}

status read_stored(const safetensors::input_file& file, const source_tensor& tensor, const piece_sink& sink) {
  std::vector<std::byte> scratch;
  for (std::uint64_t at = 0; at < tensor.stored_bytes; at += kPieceBytes) {
    const std::uint64_t n_bytes = std::min(kPieceBytes, tensor.stored_bytes - at);
    TERSOR_TRY(const auto piece, file.view(tensor.stored_at + at, n_bytes, scratch));
    TERSOR_CHECK(sink(piece));
    file.drop(tensor.stored_at + at, n_bytes);
  }
  return {};
}

/// The frame's dtype and shape are those of the original header (one dimension stands for more than 8).
status check_frame(const frame_info& info, const source_tensor& tensor) {
  const std::vector<std::uint64_t> flat = {info.n_values};
  const bool same_shape = tensor.shape.size() > 8 ? info.shape == flat : info.shape == tensor.shape;
  if (info.type != tensor.type || !same_shape || info.decoded_bytes != tensor.n_bytes) {
    return fail_at(errc::malformed, "the frame holds another dtype or shape than the header says",
                   tensor.stored_at);
  }
  if (info.digest != *tensor.frame_digest) {
    return fail_at(errc::digest_mismatch, "the frame is not the one that the header's digest list names",
                   tensor.stored_at);
  }
  return {};
}

status read_matrix(const context& ctx, const safetensors::input_file& file, const source_tensor& tensor,
                   std::span<const std::byte> matrix, const piece_sink& sink) {
  TERSOR_TRY(const matrix_info info, inspect_packed(matrix));
  if (info.type != tensor.type || tensor.shape != std::vector{info.rows, info.cols}) {
    return fail_at(errc::malformed, "the matrix frame holds another dtype or shape than the header says",
                   tensor.stored_at);
  }
  if (info.digest != *tensor.frame_digest) {
    return fail_at(errc::digest_mismatch,
                   "the matrix frame is not the one that the header's digest list names", tensor.stored_at);
  }
  std::vector<std::byte> unpacked(tensor.n_bytes);
  TERSOR_CHECK(unpack_into(ctx, matrix, unpacked));
  file.drop(tensor.stored_at, tensor.stored_bytes);
  for (std::uint64_t at = 0; at < tensor.n_bytes; at += kPieceBytes)
    TERSOR_CHECK(sink(std::span(unpacked).subspan(at, std::min(kPieceBytes, tensor.n_bytes - at))));
  return {};
}

status read_coded(const context& ctx, const safetensors::input_file& file, const source_tensor& tensor,
                  const piece_sink& sink) {
  std::vector<std::byte> scratch;
  TERSOR_TRY(const auto frame, file.view(tensor.stored_at, tensor.stored_bytes, scratch));
  if (codec_detail::is_matrix_frame(frame)) return read_matrix(ctx, file, tensor, frame, sink);
  TERSOR_TRY(const frame_info info, inspect(frame));
  TERSOR_CHECK(check_frame(info, tensor));
  const std::uint64_t chunk_bytes =
      info.codec == codec::raw ? kRawChunkBytes : kChunkValues * value_bytes(info.type);
  const std::uint64_t step = kPieceBytes / chunk_bytes;
  std::vector<std::byte> decoded(std::min(step * chunk_bytes, info.decoded_bytes));
  for (std::uint64_t first = 0; first < info.n_chunks; first += step) {
    const std::uint64_t count = std::min(step, info.n_chunks - first);
    TERSOR_TRY(const std::uint64_t n_bytes, decode_chunks(ctx, frame, first, count, decoded));
    TERSOR_CHECK(sink(std::span(decoded).first(n_bytes)));
  }
  file.drop(tensor.stored_at, tensor.stored_bytes);
  return {};
}

}  // namespace

result<std::vector<source_file>> read_sources(const context& ctx, const std::vector<fs::path>& sources,
                                              const model_options& options) {
  std::vector<source_file> files;
  for (const fs::path& source : sources) {
    std::error_code ec;
    if (!fs::is_directory(source, ec)) {
      const fs::path label = sources.size() == 1 ? source.filename() : source;
      TERSOR_TRY(auto file, read_source(ctx, source, label.string(), options));
      files.push_back(std::move(file));
      continue;
    }
    TERSOR_TRY(const auto paths, files_below(source));
    for (const fs::path& path : paths) {
      const fs::path label = sources.size() == 1 ? path.lexically_relative(source) : path;
      TERSOR_TRY(auto file, read_source(ctx, path, label.string(), options));
      files.push_back(std::move(file));
    }
  }
  if (files.empty()) return fail(errc::not_found, "no source to analyze");
  return files;
}

status read_pieces(const context& ctx, const safetensors::input_file& file, const source_tensor& tensor,
                   const piece_sink& sink) {
  return tensor.frame_digest ? read_coded(ctx, file, tensor, sink) : read_stored(file, tensor, sink);
}

}  // namespace tersor::model_detail
