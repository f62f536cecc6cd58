// Tensors at every byte of an address: sources are read and destinations written right, and nothing beside
// them.
#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;

void check_offset(rig& r, const encode_args& args, const bytes& frame, const std::string& what) {
  const encoded got = r.encode(args, what);
  if (r.log().check(got.call.has_value(), "encode_async: " + text_of(got.call), what))
    r.log().check(got.frame == frame, "the frame depends on the source's alignment", what);
  const decode_args from{.codec = args.codec,
                         .type = args.type,
                         .n_values = args.shape[0],
                         .frame = frame,
                         .dst_offset = args.src_offset};
  r.expect_data(from, args.data, what);
  r.log().add_values(args.shape[0]);
}

}  // namespace

void run_alignment(const env& e, section& s) {
  rig r(e, s);
  const std::vector<std::uint64_t> sizes = e.opt.quick
                                               ? std::vector<std::uint64_t>{1500}
                                               : std::vector<std::uint64_t>{1, 31, 1023, 1025, 8193, 20'001};
  for (const dtype type : kTypes) {
    for (const std::uint64_t n : sizes) {
      const bytes data = make_data(type, n, n % 2 == 0 ? kind::normal : kind::lognormal_columns, n);
      const tersor::codebook book = cpu_book(type, data);
      for (const codec c : kCodecs) {
        const std::uint64_t shape[] = {n};
        const bytes frame = cpu_frame(e.single, c, type, shape, data, book);
        for (std::uint64_t offset = 0; offset < 16; ++offset) {
          if (e.opt.quick && offset % 3 != static_cast<std::uint64_t>(c) % 2) continue;
          check_offset(
              r, {.codec = c, .type = type, .shape = shape, .data = data, .book = book, .src_offset = offset},
              frame, label(c, type, n, "offset " + std::to_string(offset)));
        }
      }
    }
  }
}

}  // namespace gpu_test
