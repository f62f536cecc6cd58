// What the CPU says: the truth that the GPU is held against.
#include <fstream>
#include <iterator>

#include "data.hpp"

namespace gpu_test {

using tersor::codec;
using tersor::dtype;

tersor::codebook cpu_book(dtype type, byte_view data) {
  const auto counts = tersor::count_symbols(type, data);
  const auto book = counts ? tersor::make_codebook(type, *counts) : tersor::result<tersor::codebook>{};
  if (!counts || !book) throw std::runtime_error("the CPU makes no codebook");
  return *book;
}

bytes cpu_frame(const tersor::context& ctx, codec c, dtype type, std::span<const std::uint64_t> shape,
                byte_view data, const tersor::codebook& book) {
  std::uint64_t n_values = 1;
  for (const std::uint64_t dim : shape) n_values *= dim;
  bytes frame(tersor::encode_bound(c, type, n_values));
  const auto size = tersor::encode_into(ctx, {.type = type, .shape = shape, .data = data}, frame,
                                        {.codec = c, .book = book, .raw_fallback = false});
  if (!size) throw std::runtime_error("the CPU does not encode: " + size.error().describe());
  frame.resize(*size);
  return frame;
}

verdict cpu_verdict(const tersor::context& ctx, byte_view frame) {
  verdict v;
  const auto note = [&](const tersor::error& e) {
    v.code = e.code;
    if (e.chunk) v.chunk = static_cast<std::uint32_t>(*e.chunk);
  };
  const auto info = tersor::inspect(frame);
  if (!info) {
    note(info.error());
    const bool header_digest = v.code == tersor::errc::digest_mismatch && info.error().byte_offset == 40;
    v.believed = frame.size() >= 128 && !header_digest && v.code != tersor::errc::bad_magic &&
                 v.code != tersor::errc::unsupported_version;
    return v;
  }
  v.believed = v.opened = true;
  v.frame_bytes = info->frame_bytes;
  v.digest = info->digest;
  v.n_chunks = info->n_chunks;
  v.data.resize(info->decoded_bytes);
  const auto decoded = tersor::decode_into(ctx, frame.first(info->frame_bytes), v.data);
  if (!decoded) note(decoded.error());
  return v;
}

bytes read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) throw std::runtime_error("cannot read " + path);
  bytes data(static_cast<std::size_t>(in.tellg()));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
  return data;
}

std::string label(codec c, dtype type, std::uint64_t n_values, std::string_view more) {
  std::string text = std::string(tersor::to_string(c)) + " " + std::string(tersor::to_string(type)) + " " +
                     std::to_string(n_values);
  if (!more.empty()) text += " " + std::string(more);
  return text;
}

}  // namespace gpu_test
