#include "safetensors/header.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <new>
#include <stdexcept>
#include <tuple>

#include "core/bytes.hpp"
#include "core/checked.hpp"
#include "safetensors/header_sax.hpp"

namespace tersor::safetensors {
namespace {

struct dtype_width {
  std::string_view name;
  unsigned bits;
};

constexpr std::array kDtypes = {
    dtype_width{"BF16", 16},   dtype_width{"F32", 32},        dtype_width{"F16", 16},
    dtype_width{"F64", 64},    dtype_width{"BOOL", 8},        dtype_width{"F4", 4},
    dtype_width{"F6_E2M3", 6}, dtype_width{"F6_E3M2", 6},     dtype_width{"U8", 8},
    dtype_width{"I8", 8},      dtype_width{"F8_E5M2", 8},     dtype_width{"F8_E4M3", 8},
    dtype_width{"F8_E8M0", 8}, dtype_width{"F8_E4M3FNUZ", 8}, dtype_width{"F8_E5M2FNUZ", 8},
    dtype_width{"I16", 16},    dtype_width{"U16", 16},        dtype_width{"I32", 32},
    dtype_width{"U32", 32},    dtype_width{"C64", 64},        dtype_width{"I64", 64},
    dtype_width{"U64", 64},
};

// Walks the text and tells the event receiver how far the parser is.
class counting_iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  counting_iterator(const char* at, std::uint64_t* count) : at_(at), count_(count) {}
  reference operator*() const { return *at_; }
  counting_iterator& operator++() {
    ++at_;
    ++*count_;
    return *this;
  }
  counting_iterator operator++(int) {
    counting_iterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const counting_iterator& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  std::uint64_t* count_;
};

[[nodiscard]] tl::unexpected<error> fail_tensor(errc code, std::string message, const parsed_tensor& tensor) {
  return tl::unexpected<error>(error{.code = code,
                                     .message = std::move(message),
                                     .tensor = tensor.entry.name,
                                     .byte_offset = kLengthBytes + tensor.json_offset});
}

// Dimensions are multiplied in order, as the reference implementation does: a zero after an overflow is too
// late.
[[nodiscard]] status check_size(const parsed_tensor& tensor) {
  const auto bits = dtype_bits(tensor.entry.dtype);
  if (!bits) return {};
  std::optional<std::uint64_t> n_values = 1;
  for (const std::uint64_t dimension : tensor.entry.shape) {
    n_values = core::checked_mul(*n_values, dimension);
    if (!n_values) return fail_tensor(errc::size_overflow, "the shape's product leaves 64 bits", tensor);
  }
  const auto n_bits = core::checked_mul(*n_values, *bits);
  if (!n_bits) return fail_tensor(errc::size_overflow, "the tensor's size in bits leaves 64 bits", tensor);
  if (*n_bits % 8 != 0) return fail_tensor(errc::malformed, "the tensor does not fill whole bytes", tensor);
  if (tensor.entry.end - tensor.entry.begin != *n_bits / 8) {
    return fail_tensor(errc::malformed, "data_offsets do not fit the shape and dtype", tensor);
  }
  return {};
}

// Every byte of the data section belongs to exactly one tensor.
[[nodiscard]] status check_layout(const std::vector<parsed_tensor>& tensors, std::uint64_t data_bytes,
                                  std::uint64_t data_offset) {
  std::uint64_t covered = 0;
  for (const parsed_tensor& tensor : tensors) {
    const tensor_entry& entry = tensor.entry;
    if (entry.begin > entry.end)
      return fail_tensor(errc::malformed, "data_offsets end before they begin", tensor);
    if (entry.begin > covered)
      return fail_tensor(errc::malformed, "bytes before the tensor are unused", tensor);
    if (entry.begin < covered) return fail_tensor(errc::malformed, "the tensor overlaps another", tensor);
    TERSOR_CHECK(check_size(tensor));
    if (entry.end > data_bytes)
      return fail_tensor(errc::truncated, "the file ends before the tensor does", tensor);
    covered = entry.end;
  }
  if (covered != data_bytes) {
    return fail_at(errc::malformed, "bytes after the last tensor are unused", data_offset + covered);
  }
  return {};
}

[[nodiscard]] result<header> parse(std::span<const std::byte> json, std::optional<std::uint64_t> data_bytes) {
  header parsed{};
  parsed.json.assign(reinterpret_cast<const char*>(json.data()), json.size());
  const std::string& text = parsed.json;
  if (text.empty() || text.front() != '{') {
    return fail_at(errc::malformed, "the header does not begin with '{'", kLengthBytes);
  }
  // The parser takes a zero byte for the end of its input.
  if (const std::size_t zero = text.find('\0'); zero != std::string::npos) {
    return fail_at(errc::malformed, "the header is not valid UTF-8 JSON", kLengthBytes + zero);
  }
  std::uint64_t position = 0;
  header_sax sax(position);
  const counting_iterator first(text.data(), &position);
  const counting_iterator last(text.data() + text.size(), &position);
  if (!nlohmann::json::sax_parse(first, last, &sax)) return tl::unexpected<error>(sax.take_error());

  std::vector<parsed_tensor> tensors = sax.take_tensors();
  std::sort(tensors.begin(), tensors.end(), [](const parsed_tensor& a, const parsed_tensor& b) {
    return std::tie(a.entry.begin, a.entry.end, a.entry.name) <
           std::tie(b.entry.begin, b.entry.end, b.entry.name);
  });
  parsed.data_bytes = data_bytes.value_or(tensors.empty() ? 0 : tensors.back().entry.end);
  TERSOR_CHECK(check_layout(tensors, parsed.data_bytes, parsed.data_offset()));
  parsed.metadata = sax.take_metadata();
  parsed.tensors.reserve(tensors.size());
  for (parsed_tensor& tensor : tensors) parsed.tensors.push_back(std::move(tensor.entry));
  return parsed;
}

// The length field, checked against the limit and the file.
[[nodiscard]] result<std::uint64_t> read_length(const input_file& file) {
  if (file.size() < kLengthBytes) {
    return fail_at(errc::truncated, "too short for a safetensors file", file.size());
  }
  std::array<std::byte, kLengthBytes> field{};
  TERSOR_CHECK(file.read_at(0, field));
  const auto length = core::load_le<std::uint64_t>(field.data());
  if (length > kMaxHeaderBytes)
    return fail_at(errc::malformed, "the header is longer than 100,000,000 bytes", 0);
  if (length > file.size() - kLengthBytes) {
    return fail_at(errc::truncated, "the file ends before its header does", file.size());
  }
  return length;
}

[[nodiscard]] result<header> read(const input_file& file) {
  TERSOR_TRY(const std::uint64_t length, read_length(file));
  std::vector<std::byte> scratch;
  TERSOR_TRY(const std::span<const std::byte> json, file.view(kLengthBytes, length, scratch));
  return parse_header(json, file.size() - kLengthBytes - length);
}

[[nodiscard]] result<header> parse_guarded(std::span<const std::byte> json,
                                           std::optional<std::uint64_t> data_bytes) {
  if (json.size() > kMaxHeaderBytes) {
    return fail_at(errc::malformed, "the header is longer than 100,000,000 bytes", 0);
  }
  try {
    return parse(json, data_bytes);
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "no memory for the header");
  } catch (const std::exception& e) {
    return fail(errc::internal, std::string("the header could not be parsed: ") + e.what());
  }
}

}  // namespace

std::optional<unsigned> dtype_bits(std::string_view dtype) noexcept {
  for (const dtype_width& known : kDtypes) {
    if (known.name == dtype) return known.bits;
  }
  return std::nullopt;
}

result<header> parse_header(std::span<const std::byte> json, std::uint64_t data_bytes) {
  return parse_guarded(json, data_bytes);
}

result<header> parse_header(std::span<const std::byte> json) {
  return parse_guarded(json, std::nullopt);
}

result<header> read_header(const input_file& file) {
  result<header> parsed = read(file);
  if (!parsed && parsed.error().file.empty()) parsed.error().file = file.path().string();
  return parsed;
}

}  // namespace tersor::safetensors
