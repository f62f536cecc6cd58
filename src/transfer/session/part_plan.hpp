// A manifest cut into parts: both ends compute the same list from the same numbers.
#pragma once

#include <cstdint>
#include <vector>

#include <tersor/transfer.hpp>

namespace tersor::transfer {

/// What one end accepts of the other.
struct plan_limits {
  std::uint64_t max_request_bytes = ~std::uint64_t{0};
  std::uint64_t max_part_bytes = ~std::uint64_t{0};
};

class part_plan {
 public:
  /// Cuts every region into parts of as many whole pages as `part_bytes` holds, at least one. Errors:
  /// `invalid_argument` (pages that are no whole values, names, dimensions, too many parts), `size_overflow`,
  /// `destination_too_small` (past the limits).
  [[nodiscard]] static result<part_plan> make(const manifest& m, std::uint64_t part_bytes,
                                              const plan_limits& limits);

  [[nodiscard]] std::uint64_t n_parts() const noexcept { return n_parts_; }
  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return total_bytes_; }
  /// Decoded size of the largest part.
  [[nodiscard]] std::uint64_t largest_part() const noexcept { return largest_part_; }
  /// Part `index` < n_parts(); parts follow in the order of the regions.
  [[nodiscard]] part at(std::uint64_t index) const noexcept;
  /// The index of the part that begins at this page of this region; nothing if there is no such part.
  [[nodiscard]] std::optional<std::uint64_t> find(std::uint32_t region, std::uint64_t first_page,
                                                  std::uint64_t n_pages) const noexcept;

 private:
  struct cut {
    std::uint64_t first_part = 0, n_parts = 0;
    std::uint64_t n_bytes = 0, page_bytes = 1;
    std::uint64_t n_pages = 0, pages_per_part = 1;
  };
  [[nodiscard]] part make_part(std::uint32_t region, std::uint64_t part_of_region) const noexcept;

  std::vector<cut> cuts_;
  std::uint64_t n_parts_ = 0, total_bytes_ = 0, largest_part_ = 0;
};

/// Digest of one part for the request's totals: added up, they tell every set of parts from every other.
[[nodiscard]] std::uint64_t part_digest(std::uint64_t index, std::uint64_t frame_digest) noexcept;

}  // namespace tersor::transfer
