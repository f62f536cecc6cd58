// Which codec the next part takes: a model of three stages that work at the same time, fed with what they
// took.
#pragma once

#include <array>
#include <cstdint>

#include <tersor/transfer.hpp>

namespace tersor::transfer {

/// What one part cost. Seconds that are not known are 0.
struct part_sample {
  codec code = codec::raw;
  std::uint64_t raw_bytes = 0, sent_bytes = 0;
  double encode_seconds = 0;
  double decode_seconds = 0;
  /// Between this part's credit and the one before, if this part was already on its way then: so link and
  /// receiver had no rest in between, and the slower of them set the pace.
  double interval_seconds = 0;
};

class coding_choice {
 public:
  explicit coding_choice(coding wanted) noexcept;

  /// The codec for the next part of a dtype. Raw for one that has no exponent to code.
  [[nodiscard]] codec next(dtype type) noexcept;
  void note(const part_sample& sample) noexcept;
  /// True if `c` was taken because raw is faster, not because it was asked for.
  [[nodiscard]] bool is_bypass(codec c) const noexcept {
    return wanted_ == coding::automatic && c == codec::raw;
  }
  /// Seconds a decoded byte through the pipeline, as the model sees it now.
  [[nodiscard]] double seconds_per_byte(codec c) const noexcept;
  /// 0 while it is not known.
  [[nodiscard]] double link_bytes_per_second() const noexcept;

 private:
  struct stage_costs {
    double encode = 0, decode = 0;  ///< seconds a decoded byte
    double ratio = 1;
  };
  coding wanted_;
  std::array<stage_costs, 3> costs_;
  double link_ = 0;                 ///< seconds a byte on the wire; 0: not known
  bool link_is_bound_ = false;      ///< link_ is only an upper bound: something else was slower
  std::uint32_t since_probe_ = 24;  ///< the first look is an early one
};

}  // namespace tersor::transfer
