// A fuzz target: under libFuzzer one executable each, elsewhere one entry of the replay program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

namespace fuzz {

using input = std::span<const std::uint8_t>;
using target_fn = void (*)(input);

/// Adds a target to the replay program; returns true.
bool add_target(std::string_view name, target_fn run);

/// What a target calls when the library broke a promise.
inline void require(bool holds) {
  if (!holds) std::abort();
}

/// Takes bytes off the front of an input.
class reader {
 public:
  explicit reader(input data) : data_(data) {}
  std::uint8_t byte() {
    if (data_.empty()) return 0;
    const std::uint8_t b = data_.front();
    data_ = data_.subspan(1);
    return b;
  }
  [[nodiscard]] input rest() const { return data_; }

 private:
  input data_;
};

inline std::span<const std::byte> as_bytes(input data) {
  return std::as_bytes(data);
}

}  // namespace fuzz

#ifdef TERSOR_FUZZ_REPLAY
#define TERSOR_FUZZ_TARGET(name)                                                           \
  static void fuzz_##name(fuzz::input data);                                               \
  [[maybe_unused]] static const bool kAdded_##name = fuzz::add_target(#name, fuzz_##name); \
  static void fuzz_##name(fuzz::input data)
#else
#define TERSOR_FUZZ_TARGET(name)                                                      \
  static void fuzz_##name(fuzz::input data);                                          \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    fuzz_##name(fuzz::input(data, size));                                             \
    return 0;                                                                         \
  }                                                                                   \
  static void fuzz_##name(fuzz::input data)
#endif
