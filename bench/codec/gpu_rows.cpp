#include "gpu_contiguous.hpp"
#include "gpu_copy.hpp"

namespace tersor::bench {

result<std::vector<cuda::frame_result>> good_results(const gpu_env& env, const device_buffer& results,
                                                     std::uint64_t n, const std::string& what) {
  TERSOR_CHECK(env.stream.wait());
  std::vector<cuda::frame_result> found(n);
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(found)), results.data()));
  for (std::uint64_t i = 0; i < n; ++i) {
    if (found[i].code == 0) continue;
    error e{.code = errc::internal,
            .message = what + ": frame " + std::to_string(i) + " has the code " +
                       std::to_string(found[i].code) + " (" +
                       std::string(to_string(static_cast<errc>(found[i].code))) + ")"};
    if (found[i].chunk != cuda::kNoChunk) e.chunk = found[i].chunk;
    return tl::unexpected<error>(std::move(e));
  }
  return found;
}

status check_against_cpu(const gpu_env& env, codec which, const tensor_view& values, const codebook& book,
                         const void* frame_dev, const cuda::frame_result& got, const std::string& what) {
  const std::uint64_t bound = encode_bound(which, values.type, values.data.size() / value_bytes(values.type));
  std::vector<std::byte> want(bound);
  TERSOR_TRY(const std::uint64_t n,
             encode_into(env.cpu, values, want, {.codec = which, .book = book, .raw_fallback = false}));
  want.resize(n);
  if (got.frame_bytes != n) {
    return fail(errc::internal, what + ": the GPU's frame has " + std::to_string(got.frame_bytes) +
                                    " bytes, the CPU's " + std::to_string(n));
  }
  TERSOR_CHECK(expect_equal(frame_dev, want, what + ": the GPU's frame, beside the CPU's,"));
  TERSOR_TRY(const frame_info info, inspect(want));
  if (info.digest != got.digest) return fail(errc::internal, what + ": another frame digest than the CPU's");
  // The bytes are equal, so this is the GPU's frame.
  TERSOR_TRY(const tensor back, decode(env.cpu, want));
  if (!std::equal(back.data.begin(), back.data.end(), values.data.begin(), values.data.end())) {
    return fail(errc::internal, what + ": the CPU does not get the values back");
  }
  return {};
}

status measure_copy(gpu_env& env, gpu_bench_report& report) {
  env.step("copying");
  constexpr std::uint64_t kBytes = std::uint64_t{1} << 30;
  constexpr std::uint64_t kPiece = std::uint64_t{64} << 20;
  const workload random = make_synthetic(env.pool, synthetic_kind::normal, dtype::bf16, 1, kPiece / 2);
  TERSOR_TRY(const device_buffer src, device_buffer::allocate(kBytes));
  TERSOR_TRY(const device_buffer dst, device_buffer::allocate(kBytes));
  for (std::uint64_t at = 0; at < kBytes; at += kPiece) {
    TERSOR_CHECK(upload(src.data() + at, random.bytes));
  }
  timing_plan plan = env.plan();
  plan.graph = false;
  TERSOR_TRY(const double engine_us, device_us(env.stream, plan, 1, [&](std::uint64_t) {
               return cuda_ok(cudaMemcpyAsync(dst.data(), src.data(), kBytes, cudaMemcpyDeviceToDevice,
                                              env.stream.get()),
                              "copy");
             }));
  TERSOR_TRY(const double kernel_us, device_us(env.stream, plan, 1, [&](std::uint64_t) {
               return cuda_ok(
                   static_cast<cudaError_t>(launch_copy(src.data(), dst.data(), kBytes / 16,
                                                        env.device.multiprocessors, env.stream.get())),
                   "copy kernel");
             }));
  TERSOR_CHECK(expect_equal(dst.data() + kBytes - kPiece, random.bytes, "the copy"));
  report.copy_engine_gb_s = gb_s(2 * kBytes, engine_us);
  report.copy_kernel_gb_s = gb_s(2 * kBytes, kernel_us);
  report.copy_gb_s = std::max(report.copy_engine_gb_s, report.copy_kernel_gb_s);
  env.copy_gb_s = report.copy_gb_s;
  return {};
}

namespace {

/// Share of values whose exponent has a code in its segment's codebook.
result<double> coverage_of(const gpu_env& env, codec which, const workload& work) {
  const std::size_t n_symbols = which == codec::top16 ? 15 : 16;
  std::uint64_t covered = 0, total = 0;
  for (const segment& part : work.segments) {
    TERSOR_TRY(const histogram counts,
               count_symbols(env.cpu, work.type, std::span(work.bytes).subspan(part.offset, part.n_bytes)));
    for (std::size_t i = 0; i < n_symbols; ++i) covered += counts.counts[part.book.symbols[i]];
    total += counts.total();
  }
  return total == 0 ? 1.0 : static_cast<double>(covered) / static_cast<double>(total);
}

}  // namespace

result<gpu_row> measure_row(const gpu_env& env, codec which, const workload& work) {
  TERSOR_TRY(auto set, contiguous_set::create(env, which, work, env.slots_for(work.bytes.size())));
  TERSOR_CHECK(set.verify(env));
  env.step("timing " + std::string(to_string(which)) + " " + short_name(work.type) + " " + work.data);
  const cudaStream_t s = env.stream.get();
  const auto time = [&](const enqueue& call) {
    return device_us(env.stream, env.plan(), set.n_slots(), call);
  };
  TERSOR_TRY(const double book_us, time([&](std::uint64_t i) { return set.make_codebooks(i, s); }));
  TERSOR_TRY(const double canonical_us,
             time([&](std::uint64_t i) { return set.encode(i, cuda::tail_order::canonical, s); }));
  TERSOR_TRY(const double encode_us,
             time([&](std::uint64_t i) { return set.encode(i, cuda::tail_order::free, s); }));
  TERSOR_CHECK(set.poison());
  TERSOR_TRY(const double decode_us, time([&](std::uint64_t i) { return set.decode(i, s); }));
  TERSOR_CHECK(set.verify_left_behind(env));
  TERSOR_TRY(const double coverage, coverage_of(env, which, work));
  const std::uint64_t moved = set.n_bytes() + set.frame_bytes();
  return gpu_row{.codec = std::string(to_string(which)),
                 .type = short_name(work.type),
                 .data = work.data,
                 .n_bytes = set.n_bytes(),
                 .ratio = static_cast<double>(set.n_bytes()) / static_cast<double>(set.frame_bytes()),
                 .coverage = coverage,
                 .encode_gb_s = gb_s(set.n_bytes(), encode_us),
                 .encode_canonical_gb_s = gb_s(set.n_bytes(), canonical_us),
                 .decode_gb_s = gb_s(set.n_bytes(), decode_us),
                 .encode_roofline = env.roofline(moved, encode_us),
                 .decode_roofline = env.roofline(moved, decode_us),
                 .codebook_gb_s = gb_s(set.n_bytes(), book_us),
                 .graph = env.options.graph};
}

result<gpu_latency_row> measure_latency(const gpu_env& env, codec which, const workload& work) {
  TERSOR_TRY(auto set, contiguous_set::create(env, which, work, env.slots_for(work.bytes.size())));
  TERSOR_CHECK(set.verify(env));
  const cudaStream_t s = env.stream.get();
  const enqueue encode = [&](std::uint64_t i) { return set.encode(i, cuda::tail_order::free, s); };
  const enqueue decode = [&](std::uint64_t i) { return set.decode(i, s); };
  timing_plan graph = env.plan();
  graph.graph = true;
  gpu_latency_row row{.codec = std::string(to_string(which)), .n_bytes = set.n_bytes()};
  TERSOR_TRY(row.encode_us, wall_us(env.stream, env.plan(), set.n_slots(), encode));
  TERSOR_TRY(row.encode_graph_us, device_us(env.stream, graph, set.n_slots(), encode));
  TERSOR_CHECK(set.poison());
  TERSOR_TRY(row.decode_us, wall_us(env.stream, env.plan(), set.n_slots(), decode));
  TERSOR_TRY(row.decode_graph_us, device_us(env.stream, graph, set.n_slots(), decode));
  TERSOR_CHECK(set.verify_left_behind(env));
  return row;
}

}  // namespace tersor::bench
