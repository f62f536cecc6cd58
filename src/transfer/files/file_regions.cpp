#include "transfer/files/file_regions.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "core/bytes.hpp"

namespace tersor::transfer {
namespace {

constexpr std::size_t kMaxRegionName = 1024;
constexpr std::size_t kMaxShape = 8;
constexpr std::uint64_t kPageValues = 8192;  // a chunk of a coded frame
constexpr std::uint64_t kBytesPage = 16384;  // a chunk of a raw one

/// At most `limit` bytes that end with a whole character.
[[nodiscard]] std::string cut_text(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  std::size_t cut = limit;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xc0U) == 0x80U) --cut;
  return std::string(text.substr(0, cut));
}

[[nodiscard]] std::uint64_t page_of(dtype type) noexcept {
  return type == dtype::bytes ? kBytesPage : kPageValues * value_bytes(type);
}

[[nodiscard]] file_region bytes_region(std::string name, std::uint64_t begin, std::uint64_t n_bytes) {
  return {.what = {.name = std::move(name), .shape = {n_bytes}, .page_bytes = kBytesPage},
          .begin = begin,
          .n_bytes = n_bytes};
}

[[nodiscard]] file_region tensor_region(const safetensors::tensor_entry& entry, std::uint64_t data_offset) {
  const std::uint64_t n_bytes = entry.end - entry.begin;
  const auto known = parse_dtype(entry.dtype);
  file_region out = bytes_region(cut_text(entry.name, kMaxRegionName), data_offset + entry.begin, n_bytes);
  const cache_place place = place_of(entry.name);
  out.what.layer = place.layer;
  out.what.kind = place.kind;
  if (!known || *known == dtype::bytes) return out;
  out.what.type = *known;
  out.what.page_bytes = page_of(*known);
  out.what.shape = entry.shape;
  if (entry.shape.size() > kMaxShape) out.what.shape = {n_bytes / value_bytes(*known)};
  return out;
}

/// Neighbours of one dtype become one region.
[[nodiscard]] std::vector<file_region> joined(const std::vector<file_region>& regions) {
  std::vector<file_region> out;
  for (const file_region& next : regions) {
    if (out.empty() || out.back().what.type != next.what.type) {
      out.push_back(next);
      out.back().what.layer = 0;
      out.back().what.kind = part_kind::other;
    } else {
      out.back().n_bytes += next.n_bytes;
    }
    out.back().what.shape = {out.back().n_bytes / value_bytes(next.what.type)};
  }
  return out;
}

[[nodiscard]] std::vector<std::string_view> words_of(std::string_view name) {
  constexpr std::string_view kBetween = "./:_- ";
  std::vector<std::string_view> words;
  while (!name.empty()) {
    const auto end = std::min(name.find_first_of(kBetween), name.size());
    if (end > 0) words.push_back(name.substr(0, end));
    name.remove_prefix(std::min(end + 1, name.size()));
  }
  return words;
}

[[nodiscard]] std::optional<std::uint32_t> number_of(std::string_view word) {
  std::uint32_t value = 0;
  const auto [end, fault] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (word.empty() || fault != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

/// What the words say, if they say one thing.
[[nodiscard]] part_kind kind_of(std::span<const std::string_view> words) {
  constexpr auto kKeys = std::to_array<std::string_view>({"k", "key", "keys"});
  constexpr auto kValues = std::to_array<std::string_view>({"v", "value", "values"});
  const auto any_of = [&](const auto& known) {
    return std::ranges::any_of(words,
                               [&](auto word) { return std::ranges::find(known, word) != known.end(); });
  };
  const bool key = any_of(kKeys);
  const bool value = any_of(kValues);
  if (key == value) return part_kind::other;
  return key ? part_kind::key : part_kind::value;
}

}  // namespace

cache_place place_of(std::string_view tensor_name) {
  constexpr auto kWeightWords = std::to_array<std::string_view>({"proj", "norm", "weight", "bias"});
  const auto words = words_of(tensor_name);
  const auto number = std::ranges::find_if(words, [](auto word) { return number_of(word).has_value(); });
  if (number == words.end()) return {};
  cache_place place{.layer = *number_of(*number)};
  for (const std::string_view word : words) {
    if (std::ranges::find(kWeightWords, word) != kWeightWords.end()) return place;
  }
  // "past_key_values.3.key": what follows the layer says more than what leads to it.
  const auto at = static_cast<std::size_t>(number - words.begin());
  place.kind = kind_of(std::span(words).subspan(at + 1));
  if (place.kind == part_kind::other) place.kind = kind_of(std::span(words).first(at));
  return place;
}

std::vector<file_region> regions_of(const safetensors::header& header) {
  std::vector<file_region> tensors;
  for (const safetensors::tensor_entry& entry : header.tensors) {
    if (entry.end > entry.begin) tensors.push_back(tensor_region(entry, header.data_offset()));
  }
  if (tensors.size() >= kMaxFileRegions) tensors = joined(tensors);
  if (tensors.size() >= kMaxFileRegions) {
    tensors = {bytes_region("data", header.data_offset(), header.data_bytes)};
  }
  std::vector<file_region> out = {bytes_region("header", 0, header.data_offset())};
  out.insert(out.end(), std::make_move_iterator(tensors.begin()), std::make_move_iterator(tensors.end()));
  return out;
}

namespace {

constexpr std::uint32_t kNoteMagic = 0x46564B54;  // "TKVF"
constexpr std::uint16_t kNoteVersion = 1;
constexpr std::size_t kNoteHead = 16;

}  // namespace

std::vector<std::byte> write_note(const file_note& note) {
  const std::string_view name = std::string_view(note.name).substr(0, kMaxOfferedName);
  std::vector<std::byte> out(kNoteHead + name.size());
  core::store_le(out.data(), kNoteMagic);
  core::store_le(out.data() + 4, kNoteVersion);
  core::store_le(out.data() + 6, static_cast<std::uint16_t>(name.size()));
  core::store_le(out.data() + 8, note.file_bytes);
  if (!name.empty()) std::memcpy(out.data() + kNoteHead, name.data(), name.size());
  return out;
}

result<file_note> read_note(std::span<const std::byte> bytes) {
  if (bytes.size() < kNoteHead || core::load_le<std::uint32_t>(bytes.data()) != kNoteMagic) {
    return fail(errc::malformed, "the request is not a file");
  }
  if (const auto version = core::load_le<std::uint16_t>(bytes.data() + 4); version != kNoteVersion) {
    return fail(errc::unsupported_version, "files of version " + std::to_string(version) + " are not known");
  }
  const std::size_t n_name = core::load_le<std::uint16_t>(bytes.data() + 6);
  if (n_name > kMaxOfferedName || bytes.size() != kNoteHead + n_name) {
    return fail(errc::malformed, "the request's note does not have the size that it says");
  }
  const auto name = bytes.subspan(kNoteHead);
  return file_note{.file_bytes = core::load_le<std::uint64_t>(bytes.data() + 8),
                   .name = std::string(reinterpret_cast<const char*>(name.data()), name.size())};
}

std::string harmless_name(std::string_view offered) {
  constexpr std::size_t kMaxBytes = 200;
  constexpr std::string_view kSuffix = ".safetensors";
  std::string name(offered.substr(0, kMaxOfferedName));
  for (char& c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!plain && std::string_view("._-+=,@").find(c) == std::string_view::npos) c = '_';
  }
  // No hidden files, and nothing that a command would take for an option.
  if (name.starts_with('.') || name.starts_with('-')) name.front() = '_';
  if (name.empty()) name = "received";
  const bool has_suffix = name.ends_with(kSuffix);
  if (has_suffix) name.resize(name.size() - kSuffix.size());
  name.resize(std::min(name.size(), kMaxBytes - kSuffix.size()));
  return name += kSuffix;
}

}  // namespace tersor::transfer
