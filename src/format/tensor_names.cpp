#include <array>

#include <tersor/tensor.hpp>

namespace tersor {
namespace {

struct dtype_row {
  std::string_view name;
  std::uint32_t bytes;
};

/// In the order of the dtype ids of spec/frame.md.
constexpr std::array<dtype_row, 16> kDtypes = {{{"BYTES", 1},
                                                {"BF16", 2},
                                                {"F16", 2},
                                                {"F32", 4},
                                                {"F8_E4M3", 1},
                                                {"F8_E5M2", 1},
                                                {"BOOL", 1},
                                                {"U8", 1},
                                                {"I8", 1},
                                                {"U16", 2},
                                                {"I16", 2},
                                                {"U32", 4},
                                                {"I32", 4},
                                                {"U64", 8},
                                                {"I64", 8},
                                                {"F64", 8}}};
constexpr std::array<std::string_view, 3> kCodecs = {"raw", "top16", "rank"};

}  // namespace

std::uint32_t value_bytes(dtype type) noexcept {
  const auto id = static_cast<std::size_t>(type);
  return id < kDtypes.size() ? kDtypes[id].bytes : 1;
}

std::string_view to_string(dtype type) noexcept {
  const auto id = static_cast<std::size_t>(type);
  return id < kDtypes.size() ? kDtypes[id].name : "unknown";
}

std::optional<dtype> parse_dtype(std::string_view name) noexcept {
  for (std::size_t id = 1; id < kDtypes.size(); ++id) {
    if (kDtypes[id].name == name) return static_cast<dtype>(id);
  }
  return std::nullopt;
}

std::string_view to_string(codec c) noexcept {
  const auto id = static_cast<std::size_t>(c);
  return id < kCodecs.size() ? kCodecs[id] : "unknown";
}

std::optional<codec> parse_codec(std::string_view name) noexcept {
  for (std::size_t id = 0; id < kCodecs.size(); ++id) {
    if (kCodecs[id] == name) return static_cast<codec>(id);
  }
  return std::nullopt;
}

bool is_codable(dtype type) noexcept {
  return type >= dtype::bf16 && type <= dtype::f8_e5m2;
}

}  // namespace tersor
