// The groups of must_fail(), one source file per part of a frame.
#pragma once

#include <functional>

#include "must_fail.hpp"
#include "sample_data.hpp"

namespace golden {

/// Collects cases: each starts from a copy of a good frame.
class bad_frames {
 public:
  explicit bad_frames(const tersor::context& ctx) : ctx_(&ctx) {}

  [[nodiscard]] frame_edit good(tersor::codec c, tersor::dtype type, std::uint64_t n, pattern p) const;
  [[nodiscard]] const tersor::context& ctx() const noexcept { return *ctx_; }

  void add(std::string name, tersor::errc code, frame_edit from,
           const std::function<void(frame_edit&)>& change);

  std::vector<bad_frame> all;

 private:
  const tersor::context* ctx_;
};

void add_header_cases(bad_frames& to);
void add_length_cases(bad_frames& to);
void add_index_cases(bad_frames& to);
void add_tile_cases(bad_frames& to);
void add_chunk_cases(bad_frames& to);

}  // namespace golden
