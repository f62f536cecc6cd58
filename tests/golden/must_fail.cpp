#include "must_fail.hpp"

#include <algorithm>
#include <cstdlib>

#include "must_fail_cases.hpp"

namespace golden {

frame_edit bad_frames::good(tersor::codec c, tersor::dtype type, std::uint64_t n, pattern p) const {
  const bytes data = sample(type, n, p, n);
  const tersor::tensor_view view{.type = type, .shape = {&n, 1}, .data = data};
  return frame_edit(tersor::encode(*ctx_, view, {.codec = c, .raw_fallback = false}).value());
}

void bad_frames::add(std::string name, tersor::errc code, frame_edit from,
                     const std::function<void(frame_edit&)>& change) {
  // Two cases of one name would overwrite each other's file.
  if (std::ranges::find(all, name, &bad_frame::name) != all.end()) std::abort();
  change(from);
  all.push_back({std::move(name), code, std::move(from.data())});
}

std::vector<bad_frame> must_fail(const tersor::context& ctx) {
  bad_frames to(ctx);
  add_header_cases(to);
  add_length_cases(to);
  add_index_cases(to);
  add_tile_cases(to);
  add_chunk_cases(to);
  return std::move(to.all);
}

}  // namespace golden
