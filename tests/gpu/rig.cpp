#include "rig.hpp"

#include <algorithm>
#include <cstring>

namespace gpu_test {

using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

namespace {

std::uint64_t values_of(std::span<const std::uint64_t> shape) {
  std::uint64_t n = 1;
  for (const std::uint64_t dim : shape) n *= dim;
  return n;
}

byte_view book_bytes(const tersor::codebook& book) {
  return std::as_bytes(std::span(book.symbols));
}

}  // namespace

/// Under memcheck every second call gets memory of exactly the size it asked for; the others find the
/// workspace as another call left it.
tersor::cuda::workspace rig::work_of(std::uint64_t n_bytes) {
  if (env_.opt.quick && ++calls_ % 2 == 0) work_.drop();
  return work_.of(n_bytes);
}

encoded rig::encode(const encode_args& args, std::string_view where) {
  const std::uint64_t n_values = values_of(args.shape);
  const std::uint64_t capacity =
      args.capacity.value_or(tersor::cuda::encode_bound(args.codec, args.type, n_values));
  src_.grow(args.data.size() + args.src_offset);
  src_.put(args.src_offset, args.data);
  frame_.grow(capacity + kGuardBytes);
  env_.poison(frame_, 0, capacity);
  frame_.fill(capacity, kGuardBytes, kGuard);
  result_.grow(sizeof(frame_result));
  env_.poison(result_, 0, sizeof(frame_result));
  book_.grow(16);
  if (args.book_on_device) book_.put(0, book_bytes(args.book));
  const tersor::cuda::encode_task task{.type = args.type,
                                       .shape = args.shape,
                                       .src_dev = src_.get() + args.src_offset,
                                       .codebook_dev = args.book_on_device ? book_.get() : nullptr,
                                       .book = args.book_on_device ? tersor::codebook{} : args.book,
                                       .frame_dev = frame_.get(),
                                       .capacity = capacity,
                                       .result_dev = result_.as<frame_result>()};
  const auto work = work_of(tersor::cuda::encode_workspace_size(args.codec, args.order, {&task, 1}));
  encoded out{.call = tersor::cuda::encode_async(args.codec, task, args.order, work, as_stream(stream_)),
              .result = {},
              .frame = {}};
  env_.wait(stream_, section_, where);
  section_.check(frame_.holds(capacity, kGuardBytes, kGuard), "written behind the frame's capacity", where);
  if (!out.call) return out;
  out.result = take_result(result_);
  if (out.result.code == 0 && out.result.frame_bytes <= capacity) {
    out.frame = frame_.take(0, out.result.frame_bytes);
  }
  return out;
}

decoded rig::decode(const decode_args& args, std::string_view where) {
  const std::uint64_t size = args.n_values * tersor::value_bytes(args.type);
  const std::uint64_t begin = kGuardBytes + args.dst_offset;
  frame_.grow(args.frame.size());
  frame_.put(0, args.frame);
  dst_.grow(begin + size + kGuardBytes);
  dst_.fill(0, begin, kGuard);
  dst_.fill(begin + size, kGuardBytes, kGuard);
  env_.poison(dst_, begin, size);
  result_.grow(sizeof(frame_result));
  env_.poison(result_, 0, sizeof(frame_result));
  const tersor::cuda::decode_task task{.type = args.type,
                                       .n_values = args.n_values,
                                       .frame_dev = frame_.get(),
                                       .frame_bytes = args.frame.size(),
                                       .dst_dev = dst_.get() + begin,
                                       .result_dev = result_.as<frame_result>()};
  const auto work = work_of(tersor::cuda::decode_workspace_size({&task, 1}));
  decoded out{.call = tersor::cuda::decode_async(args.codec, task, work, as_stream(stream_)),
              .result = {},
              .data = {}};
  env_.wait(stream_, section_, where);
  const bool untouched = dst_.holds(0, begin, kGuard) && dst_.holds(begin + size, kGuardBytes, kGuard);
  section_.check(untouched, "written beside the destination", where);
  if (!out.call) return out;
  out.result = take_result(result_);
  if (out.result.code == 0) out.data = dst_.take(begin, size);
  return out;
}

void rig::expect_data(const decode_args& args, byte_view data, std::string_view where) {
  const decoded got = decode(args, where);
  if (!section_.check(got.call.has_value(), "decode_async: " + text_of(got.call), where)) return;
  const frame_result& r = got.result;
  if (!section_.check(r.code == 0, "decoding gave code " + std::to_string(r.code), where)) return;
  const bool same = got.data.size() == data.size() &&
                    (data.empty() || std::memcmp(got.data.data(), data.data(), data.size()) == 0);
  section_.check(same, "decoded values differ", where);
  const auto info = tersor::inspect(args.frame);
  section_.check(info && r.digest == info->digest && r.frame_bytes == info->frame_bytes &&
                     r.chunk == tersor::cuda::kNoChunk,
                 "result of decoding is wrong", where);
}

namespace {

/// Encodes and checks the result struct; an empty frame means that it failed.
bytes encode_well(rig& r, const encode_args& args, std::string_view where) {
  encoded got = r.encode(args, where);
  section& log = r.log();
  if (!log.check(got.call.has_value(), "encode_async: " + text_of(got.call), where)) return {};
  if (!log.check(got.result.code == 0 && !got.frame.empty(),
                 "encoding gave code " + std::to_string(got.result.code), where)) {
    return {};
  }
  const auto info = tersor::inspect(got.frame);
  if (!log.check(info.has_value(), "the CPU refuses the frame's header or index", where)) return {};
  log.check(info->frame_bytes == got.result.frame_bytes && info->digest == got.result.digest &&
                got.result.chunk == tersor::cuda::kNoChunk && got.result.overflow == tersor::cuda::kInPlace,
            "result of encoding is wrong", where);
  return std::move(got.frame);
}

std::string first_difference(byte_view a, byte_view b) {
  std::size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  return "sizes " + std::to_string(a.size()) + " and " + std::to_string(b.size()) +
         ", first difference at byte " + std::to_string(i);
}

}  // namespace

void check_tensor(rig& r, const encode_args& args, std::string_view where) {
  const env& e = r.environment();
  section& log = r.log();
  const tersor::context& ctx = args.data.size() > (1 << 20) ? e.cpu : e.single;
  const bytes expected = cpu_frame(ctx, args.codec, args.type, args.shape, args.data, args.book);
  encode_args a = args;
  a.order = tail_order::canonical;
  const bytes canonical = encode_well(r, a, where);
  if (!canonical.empty() && canonical != expected) {
    log.check(false, "the canonical frame is not the CPU's: " + first_difference(canonical, expected), where);
  } else {
    log.check(canonical == expected, "no canonical frame", where);
  }
  a.order = tail_order::free;
  const bytes free_order = encode_well(r, a, where);
  const std::uint64_t n_values = values_of(args.shape);
  const decode_args from{.codec = args.codec, .type = args.type, .n_values = n_values, .frame = expected};
  r.expect_data(from, args.data, where);
  if (!free_order.empty()) {
    log.check(free_order.size() == expected.size(), "the free frame has another size", where);
    const verdict v = cpu_verdict(ctx, free_order);
    log.check(v.code == tersor::errc::ok && std::ranges::equal(v.data, args.data),
              "the CPU does not decode the free frame to the input", where);
    decode_args again = from;
    again.frame = free_order;
    r.expect_data(again, args.data, where);
  }
  log.add_values(n_values);
}

}  // namespace gpu_test
