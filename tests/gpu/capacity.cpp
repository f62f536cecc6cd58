// Frames that do not fit: the code says so, and nothing is written behind the capacity.
#include "../golden/frame_edit.hpp"
#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::errc;
using tersor::cuda::tail_order;

std::vector<std::uint64_t> capacities(const env& e, const bytes& frame, std::uint64_t bound) {
  const golden::frame_edit parts(frame);
  const std::uint64_t size = frame.size(), tails = parts.at("tails");
  std::vector<std::uint64_t> all = {bound,     size + 128, size + 1, size, tails,
                                    tails + 4, tails - 4,  128,      256,  0};
  for (std::uint64_t less = 1; less < 140; less += e.pick<std::uint64_t>(45, 1)) all.push_back(size - less);
  for (std::uint64_t at = tails; at < size; at += e.pick<std::uint64_t>(1000, 36)) all.push_back(at);
  for (std::uint64_t at = 128; at < tails; at += e.pick<std::uint64_t>(9000, 1000)) all.push_back(at);
  return all;
}

void check_capacity(rig& r, const encode_args& args, const bytes& frame, std::uint64_t no_tails,
                    const std::string& what) {
  section& log = r.log();
  const encoded got = r.encode(args, what);
  const std::uint64_t capacity = *args.capacity;
  const bool fits = capacity >= frame.size();
  if (!got.call) {
    log.check(capacity < no_tails && got.call.error().code == errc::destination_too_small,
              "encode_async: " + text_of(got.call), what);
    return;
  }
  const auto code = static_cast<errc>(got.result.code);
  log.check(code == (fits ? errc::ok : errc::destination_too_small),
            "code " + std::to_string(got.result.code), what);
  log.check(got.result.frame_bytes == frame.size(),
            "the result has another frame size: " + std::to_string(got.result.frame_bytes), what);
  if (!fits || code != errc::ok) return;
  if (args.order == tail_order::canonical)
    log.check(got.frame == frame, "another frame than the CPU's", what);
  log.check(cpu_verdict(r.environment().single, got.frame).code == errc::ok, "the CPU refuses the frame",
            what);
}

}  // namespace

void run_capacity(const env& e, section& s) {
  rig r(e, s);
  for (const auto type : kTypes) {
    for (const kind k : {kind::normal, kind::uniform_bits}) {
      const std::uint64_t shape[] = {20'001};
      const bytes data = make_data(type, shape[0], k, 4);
      const tersor::codebook book = cpu_book(type, data);
      for (const auto c : kCodecs) {
        if (e.opt.quick && (static_cast<unsigned>(type) + static_cast<unsigned>(c)) % 2 != 0) continue;
        const bytes frame = cpu_frame(e.single, c, type, shape, data, book);
        const std::uint64_t no_tails = golden::frame_edit(frame).at("tails");
        for (const std::uint64_t capacity :
             capacities(e, frame, tersor::cuda::encode_bound(c, type, shape[0]))) {
          for (const auto order : {tail_order::canonical, tail_order::free}) {
            check_capacity(
                r,
                {.codec = c,
                 .type = type,
                 .shape = shape,
                 .data = data,
                 .book = book,
                 .order = order,
                 .capacity = capacity},
                frame, no_tails,
                label(c, type, shape[0],
                      "capacity " + std::to_string(capacity) + " of " + std::to_string(frame.size())));
          }
        }
        s.add_values(shape[0]);
      }
    }
  }
}

}  // namespace gpu_test
