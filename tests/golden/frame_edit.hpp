// Opens a good frame, lets its parts be changed one at a time, and makes the digests above the change right
// again.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <tersor/codec.hpp>

namespace golden {

using bytes = std::vector<std::byte>;

struct section {
  std::string name;
  std::uint64_t offset = 0, size = 0, tile_bytes = 0;
};

/// One chunk record of a coded frame.
struct record {
  std::uint64_t digest = 0, first_word = 0;
  std::uint8_t escapes = 0, raw = 0;
  std::array<std::uint8_t, 8> words = {};
};

class frame_edit {
 public:
  explicit frame_edit(bytes frame);

  [[nodiscard]] std::uint64_t get(std::uint64_t at, unsigned size) const;
  void set(std::uint64_t at, unsigned size, std::uint64_t value);
  void flip(std::uint64_t at, std::uint8_t mask = 1);
  void resize(std::uint64_t size) { data_.resize(size); }

  /// A section by name: "index", "rest bytes", "rest fields", "codes", "tails", "payload".
  [[nodiscard]] const section& find(const std::string& name) const;
  [[nodiscard]] std::uint64_t at(const std::string& name) const { return find(name).offset; }

  [[nodiscard]] record chunk(std::uint64_t i) const;
  /// Writes a record and the digests over it.
  void put_chunk(std::uint64_t i, const record& r);

  void fix_header();
  void fix_index();

  [[nodiscard]] const std::vector<section>& sections() const noexcept { return sections_; }
  [[nodiscard]] const bytes& data() const noexcept { return data_; }
  [[nodiscard]] bytes& data() noexcept { return data_; }

 private:
  /// Hash of 64-bit words at an offset (spec/codecs.md section 5), written here once more on purpose.
  [[nodiscard]] std::uint64_t chain(std::uint64_t domain, std::uint64_t number, std::uint64_t at,
                                    std::uint64_t words) const;

  bytes data_;
  std::vector<section> sections_;
};

}  // namespace golden
