// Safetensors files and directories for the tests of the model room.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <stdlib.h>

#include <tersor/model.hpp>

namespace tersor::model_test {

namespace fs = std::filesystem;

inline void put(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A safetensors file of a header and data.
inline std::string file_of(const std::string& json, std::string_view data) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return file + json + std::string(data);
}

/// Reproducible numbers.
class numbers {
 public:
  explicit numbers(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return state_ >> 33;
  }

 private:
  std::uint64_t state_;
};

inline std::string random_bytes(std::size_t n, std::uint64_t seed) {
  numbers random(seed);
  std::string bytes(n, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

/// BF16 values whose exponents are skewed like those of weights.
inline std::string weights(std::size_t n_values, std::uint64_t seed) {
  numbers random(seed);
  std::string bytes(2 * n_values, '\0');
  for (std::size_t i = 0; i < n_values; ++i) {
    const std::uint64_t r = random.next();
    std::uint64_t exponent = 121;
    for (std::uint64_t bits = r >> 8; (bits & 1) != 0 && exponent > 90; bits >>= 1) --exponent;
    const std::uint64_t value = (r & 0x807f) | exponent << 7;
    bytes[2 * i] = static_cast<char>(value);
    bytes[2 * i + 1] = static_cast<char>(value >> 8);
  }
  return bytes;
}

class ModelTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "tersor-model-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override {
    std::error_code ec;
    fs::remove_all(dir_, ec);
  }

  /// Compresses, verifies and restores a file; returns the container's bytes.
  std::string round_trip(const std::string& bytes, model_options options = {}) {
    put(dir_ / "in", bytes);
    options.overwrite = true;
    const auto packed = compress(ctx_, dir_ / "in", dir_ / "packed", options);
    EXPECT_TRUE(packed) << packed.error().describe();
    const auto checked = verify(ctx_, dir_ / "packed", dir_ / "in", options);
    EXPECT_TRUE(checked) << checked.error().describe();
    const auto restored = decompress(ctx_, dir_ / "packed", dir_ / "out", options);
    EXPECT_TRUE(restored) << restored.error().describe();
    EXPECT_TRUE(content(dir_ / "out") == bytes);
    const std::string container = content(dir_ / "packed");
    if (packed) {
      EXPECT_EQ(packed->stored_bytes, container.size());
      EXPECT_EQ(packed->original_bytes, bytes.size());
    }
    return container;
  }

  [[nodiscard]] std::size_t n_entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }

  fs::path dir_;
  context ctx_ = *context::create(2);
};

}  // namespace tersor::model_test
