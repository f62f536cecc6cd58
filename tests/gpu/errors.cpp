// Wrong arguments come back as errors and launch nothing; a frame that is not the expected one is a mismatch.
#include <algorithm>

#include "error_cases.hpp"
#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {

using tersor::codec;
using tersor::dtype;
using tersor::errc;
using tersor::cuda::decode_task;
using tersor::cuda::encode_task;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;
using tersor::cuda::workspace;

void expect_error(section& s, const tersor::status& called, std::initializer_list<errc> codes,
                  std::string_view what) {
  s.check(!called && std::ranges::find(codes, called.error().code) != codes.end(),
          "expected an argument error, got " + text_of(called), what);
}

namespace {

constexpr std::uint64_t kValues = 5000;
constexpr auto kArgument = {errc::invalid_argument};
constexpr auto kUnsupported = {errc::unsupported, errc::invalid_argument};
constexpr auto kTooSmall = {errc::destination_too_small, errc::invalid_argument};

/// Good arguments, to be spoilt one at a time.
struct good_call {
  std::uint64_t shape[1] = {kValues};
  bytes data = make_data(dtype::bf16, kValues, kind::normal, 1);
  tersor::codebook book = cpu_book(dtype::bf16, data);
  device_memory src{2 * kValues + 16}, frame{1 << 16}, dst{2 * kValues + 16}, result{64}, out_book{64},
      work_dev;
  encode_task coding;
  decode_task decoding;
  workspace work;

  explicit good_call(const env& e) {
    const bytes expected = cpu_frame(e.single, codec::rank, dtype::bf16, shape, data, book);
    src.put(0, data);
    frame.fill(0, frame.size(), kGuard);
    frame.put(0, expected);
    dst.fill(0, dst.size(), kGuard);
    result.fill(0, result.size(), kGuard);
    out_book.fill(0, out_book.size(), kGuard);
    coding = {.type = dtype::bf16,
              .shape = shape,
              .src_dev = src.get(),
              .book = book,
              .frame_dev = frame.get(),
              .capacity = frame.size(),
              .result_dev = result.as<frame_result>()};
    decoding = {.type = dtype::bf16,
                .n_values = kValues,
                .frame_dev = frame.get(),
                .frame_bytes = expected.size(),
                .dst_dev = dst.get(),
                .result_dev = result.as<frame_result>()};
    const std::uint64_t size = std::max(
        {tersor::cuda::encode_workspace_size(codec::rank, tail_order::canonical, {&coding, 1}),
         tersor::cuda::decode_workspace_size({&decoding, 1}), tersor::cuda::codebook_workspace_size()});
    work_dev.grow(size + 64);
    work_dev.fill(0, size + 64, 0);
    work = {.data_dev = work_dev.get(), .n_bytes = size};
  }
};

template <class Spoil>
void encode_error(section& s, const good_call& g, std::initializer_list<errc> codes, const char* what,
                  const Spoil& spoil) {
  encode_task task = g.coding;
  workspace work = g.work;
  codec c = codec::rank;
  spoil(c, task, work);
  expect_error(s, tersor::cuda::encode_async(c, task, tail_order::canonical, work, nullptr), codes, what);
  // The same in a batch behind a good one: nothing of the batch may run.
  const encode_task both[] = {g.coding, task};
  expect_error(s, tersor::cuda::encode_batch_async(c, both, tail_order::free, work, nullptr), codes, what);
}

template <class Spoil>
void decode_error(section& s, const good_call& g, std::initializer_list<errc> codes, const char* what,
                  const Spoil& spoil) {
  decode_task task = g.decoding;
  workspace work = g.work;
  codec c = codec::rank;
  spoil(c, task, work);
  expect_error(s, tersor::cuda::decode_async(c, task, work, nullptr), codes, what);
  const decode_task both[] = {g.decoding, task};
  expect_error(s, tersor::cuda::decode_batch_async(c, both, work, nullptr), codes, what);
}

void encode_errors(section& s, good_call& g) {
  using W = workspace;
  const auto fail = [&](std::initializer_list<errc> codes, const char* what, const auto& spoil) {
    encode_error(s, g, codes, what, spoil);
  };
  fail(kArgument, "encode: source null", [](codec&, encode_task& t, W&) { t.src_dev = nullptr; });
  fail(kArgument, "encode: frame null", [](codec&, encode_task& t, W&) { t.frame_dev = nullptr; });
  fail(kArgument, "encode: result null", [](codec&, encode_task& t, W&) { t.result_dev = nullptr; });
  fail(kArgument, "encode: frame misaligned",
       [](codec&, encode_task& t, W&) { t.frame_dev = static_cast<std::byte*>(t.frame_dev) + 8; });
  fail(kArgument, "encode: codebook misaligned",
       [&](codec&, encode_task& t, W&) { t.codebook_dev = g.out_book.get() + 1; });
  fail(kUnsupported, "encode: F32", [](codec&, encode_task& t, W&) { t.type = dtype::f32; });
  fail(kUnsupported, "encode: I64", [](codec&, encode_task& t, W&) { t.type = dtype::i64; });
  fail(kUnsupported, "encode: raw", [](codec& c, encode_task&, W&) { c = codec::raw; });
  fail(kTooSmall, "encode: capacity 0", [](codec&, encode_task& t, W&) { t.capacity = 0; });
  fail(kTooSmall, "encode: capacity 127", [](codec&, encode_task& t, W&) { t.capacity = 127; });
  fail(kTooSmall, "encode: workspace of 15 bytes", [](codec&, encode_task&, W& w) { w.n_bytes = 15; });
  fail(kTooSmall, "encode: workspace of 0 bytes", [](codec&, encode_task&, W& w) { w = {}; });
  fail(kArgument, "encode: workspace null", [](codec&, encode_task&, W& w) { w.data_dev = nullptr; });
  fail(kArgument, "encode: workspace misaligned",
       [](codec&, encode_task&, W& w) { w.data_dev = static_cast<std::byte*>(w.data_dev) + 8; });
  static constexpr std::uint64_t kWraps[] = {std::uint64_t{1} << 33, std::uint64_t{1} << 33};
  fail({errc::size_overflow, errc::invalid_argument, errc::destination_too_small},
       "encode: shape leaves 64 bits", [](codec&, encode_task& t, W&) { t.shape = kWraps; });
  encode_task one = g.coding;
  workspace less = g.work;
  for (const auto order : {tail_order::canonical, tail_order::free}) {
    less.n_bytes = tersor::cuda::encode_workspace_size(codec::rank, order, {&one, 1}) - 1;
    expect_error(s, tersor::cuda::encode_async(codec::rank, one, order, less, nullptr), kTooSmall,
                 "encode: workspace one byte too small");
  }
}

void decode_errors(section& s, good_call& g) {
  using W = workspace;
  const auto fail = [&](std::initializer_list<errc> codes, const char* what, const auto& spoil) {
    decode_error(s, g, codes, what, spoil);
  };
  fail(kArgument, "decode: frame null", [](codec&, decode_task& t, W&) { t.frame_dev = nullptr; });
  fail(kArgument, "decode: destination null", [](codec&, decode_task& t, W&) { t.dst_dev = nullptr; });
  fail(kArgument, "decode: result null", [](codec&, decode_task& t, W&) { t.result_dev = nullptr; });
  fail(kArgument, "decode: frame misaligned",
       [](codec&, decode_task& t, W&) { t.frame_dev = static_cast<const std::byte*>(t.frame_dev) + 8; });
  fail(kUnsupported, "decode: F32", [](codec&, decode_task& t, W&) { t.type = dtype::f32; });
  fail(kUnsupported, "decode: raw", [](codec& c, decode_task&, W&) { c = codec::raw; });
  fail(kTooSmall, "decode: workspace of 15 bytes", [](codec&, decode_task&, W& w) { w.n_bytes = 15; });
  fail(kArgument, "decode: workspace null", [](codec&, decode_task&, W& w) { w.data_dev = nullptr; });
  fail(kArgument, "decode: workspace misaligned",
       [](codec&, decode_task&, W& w) { w.data_dev = static_cast<std::byte*>(w.data_dev) + 8; });
}

void book_errors(section& s, good_call& g) {
  const auto make = [&](codec c, dtype type, const void* src, std::uint8_t* to, const workspace& work) {
    return tersor::cuda::make_codebook_async(c, type, src, kValues, to, work, nullptr);
  };
  std::uint8_t* to = g.out_book.get();
  expect_error(s, make(codec::rank, dtype::bf16, nullptr, to, g.work), kArgument, "codebook: source null");
  expect_error(s, make(codec::rank, dtype::bf16, g.src.get(), nullptr, g.work), kArgument,
               "codebook: destination null");
  expect_error(s, make(codec::rank, dtype::f32, g.src.get(), to, g.work), kUnsupported, "codebook: F32");
  expect_error(s, make(codec::raw, dtype::bf16, g.src.get(), to, g.work), kUnsupported, "codebook: raw");
  workspace less = g.work;
  less.n_bytes = tersor::cuda::codebook_workspace_size() - 1;
  expect_error(s, make(codec::rank, dtype::bf16, g.src.get(), to, less), kTooSmall,
               "codebook: workspace too small");
  expect_error(s, make(codec::rank, dtype::bf16, g.src.get(), to, {}), kTooSmall, "codebook: no workspace");
}

void sizes(section& s) {
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) {
      for (const std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1023},
                                    std::uint64_t{8193}, std::uint64_t{1} << 33, ~std::uint64_t{0}})
        s.check(tersor::cuda::encode_bound(c, type, n) == tersor::encode_bound(c, type, n),
                "encode_bound differs from the CPU's", label(c, type, n));
    }
    s.check(tersor::cuda::encode_bound(c, dtype::f32, 100) == 0, "encode_bound of F32 is not 0");
  }
  s.check(tersor::cuda::encode_bound(codec::raw, dtype::bf16, 100) == 0, "encode_bound of raw is not 0");
}

/// Good frames that hold something else than the task says.
void mismatches(const env& e, section& s) {
  rig r(e, s);
  const std::uint64_t shape[] = {kValues};
  const bytes data = make_data(dtype::bf16, kValues, kind::normal, 1);
  const bytes frame = cpu_frame(e.single, codec::rank, dtype::bf16, shape, data, cpu_book(dtype::bf16, data));
  const auto expect = [&](decode_args args, const char* what) {
    args.frame = frame;
    const decoded got = r.decode(args, what);
    s.check(got.call && got.result.code == static_cast<int>(errc::mismatch),
            "code " + std::to_string(got.result.code), what);
  };
  expect({.codec = codec::rank, .type = dtype::bf16, .n_values = kValues + 1}, "a value more expected");
  expect({.codec = codec::rank, .type = dtype::bf16, .n_values = kValues - 1}, "a value less expected");
  expect({.codec = codec::rank, .type = dtype::bf16, .n_values = 0}, "no values expected");
  expect({.codec = codec::rank, .type = dtype::f16, .n_values = kValues}, "another dtype expected");
  expect({.codec = codec::top16, .type = dtype::bf16, .n_values = kValues}, "another codec expected");
}

/// A host codebook that is none must not make a frame.
void bad_books(const env& e, section& s) {
  rig r(e, s);
  const std::uint64_t shape[] = {kValues};
  const bytes data = make_data(dtype::f8_e5m2, kValues, kind::normal, 1);
  tersor::codebook twice = cpu_book(dtype::f8_e5m2, data), wide = twice;
  twice.symbols[3] = twice.symbols[4];
  wide.symbols[14] = 32;
  for (const auto& book : {twice, wide, tersor::codebook{}}) {
    const encoded got =
        r.encode({.codec = codec::rank, .type = dtype::f8_e5m2, .shape = shape, .data = data, .book = book},
                 "a codebook that is none");
    s.check(!got.call || got.result.code != 0, "a codebook that is none was taken");
  }
}

}  // namespace

void run_errors(const env& e, section& s) {
  good_call g(e);
  encode_errors(s, g);
  decode_errors(s, g);
  book_errors(s, g);
  must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  s.check(g.result.holds(0, g.result.size(), kGuard) && g.dst.holds(0, g.dst.size(), kGuard) &&
              g.out_book.holds(0, g.out_book.size(), kGuard),
          "a refused call launched something");
  page_errors(s);
  sizes(s);
  mismatches(e, s);
  bad_books(e, s);
}

}  // namespace gpu_test
