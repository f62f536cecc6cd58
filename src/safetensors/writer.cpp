#include "safetensors/writer.hpp"

#include <array>
#include <span>

#include "core/bytes.hpp"

namespace tersor::safetensors {
namespace {

// The short escapes keep a text that is quoted here within twice its size.
void append_string(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  constexpr std::string_view kShort = "\"\\\b\f\n\r\t";
  constexpr std::string_view kShortNames = "\"\\bfnrt";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (const std::size_t at = kShort.find(c); at != std::string_view::npos) {
      out += '\\';
      out += kShortNames[at];
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4U];
      out += kHex[byte & 0xfU];
    } else {
      out += c;
    }
  }
  out += '"';
}

void append_entry(std::string& out, const tensor_entry& entry) {
  append_string(out, entry.name);
  out += ":{\"dtype\":";
  append_string(out, entry.dtype);
  out += ",\"shape\":[";
  for (std::size_t i = 0; i < entry.shape.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(entry.shape[i]);
  }
  out += "],\"data_offsets\":[";
  out += std::to_string(entry.begin);
  out += ',';
  out += std::to_string(entry.end);
  out += "]}";
}

}  // namespace

std::string build_header_json(const std::vector<tensor_entry>& tensors, const metadata_list& metadata,
                              std::uint64_t alignment) {
  std::string out = "{";
  if (!metadata.empty()) {
    out += "\"__metadata__\":{";
    for (std::size_t i = 0; i < metadata.size(); ++i) {
      if (i > 0) out += ',';
      append_string(out, metadata[i].first);
      out += ':';
      append_string(out, metadata[i].second);
    }
    out += '}';
  }
  for (const tensor_entry& entry : tensors) {
    if (out.size() > 1) out += ',';
    append_entry(out, entry);
  }
  out += '}';
  const std::uint64_t over = alignment > 1 ? (kLengthBytes + out.size()) % alignment : 0;
  if (over > 0) out.append(static_cast<std::size_t>(alignment - over), ' ');
  return out;
}

status write_prefix(atomic_file& file, std::string_view json) {
  if (json.size() > kMaxHeaderBytes) {
    return tl::unexpected<error>(error{.code = errc::invalid_argument,
                                       .message = "the header would be longer than 100,000,000 bytes",
                                       .file = file.final_path().string()});
  }
  std::array<std::byte, kLengthBytes> field{};
  core::store_le<std::uint64_t>(field.data(), json.size());
  TERSOR_CHECK(file.write(field));
  return file.write(std::as_bytes(std::span(json)));
}

}  // namespace tersor::safetensors
