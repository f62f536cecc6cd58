#include "codec_bench.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "bench_input.hpp"
#include "contender.hpp"
#include "huge_buffer.hpp"
#include <tersor/codec.hpp>

namespace tersor::bench {
namespace {

using clock = std::chrono::steady_clock;

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t mid = values.size() / 2;
  return values.size() % 2 == 1 ? values[mid] : (values[mid - 1] + values[mid]) / 2;
}

template <class Work>
double seconds_of(Work&& work) {
  const auto start = clock::now();
  work();
  return std::chrono::duration<double>(clock::now() - start).count();
}

/// A contender with its buffer and its times in seconds.
struct lane {
  std::unique_ptr<contender> who;
  huge_buffer encoded = {};
  std::uint64_t encoded_bytes = 0;
  std::vector<double> encode = {};
  std::vector<double> encode_auto = {};
  std::vector<double> decode = {};
};

struct bench_state {
  huge_buffer by_tensor;  ///< the input in both orders
  huge_buffer by_copy;
  huge_buffer restored;
  std::vector<lane> lanes = {};
  std::vector<double> copies = {};
};

std::span<const std::byte> source_of(const bench_state& state, const lane& l) {
  return l.who->by_tensor() ? state.by_tensor.bytes() : state.by_copy.bytes();
}

void copy_all(core::thread_pool& pool, std::span<const std::byte> src, std::span<std::byte> dst) {
  const std::size_t share = (src.size() / pool.size() + 4095) / 4096 * 4096;
  pool.run(pool.size(), [&](unsigned worker) {
    const std::size_t begin = std::min(src.size(), worker * share);
    const std::size_t end = worker + 1 == pool.size() ? src.size() : std::min(src.size(), begin + share);
    std::memcpy(dst.data() + begin, src.data() + begin, end - begin);
  });
}

status check_restored(const bench_state& state, const lane& l) {
  const auto want = source_of(state, l);
  if (std::memcmp(want.data(), state.restored.bytes().data(), want.size()) == 0) return {};
  return fail(errc::internal, l.who->name() + " did not give the input back bit for bit");
}

status decode_lane(bench_state& state, lane& l) {
  return l.who->decode(l.encoded.bytes().first(l.encoded_bytes), state.restored.bytes());
}

/// Decodes over a pattern that differs from the input, then compares.
status decode_and_check(bench_state& state, lane& l) {
  std::memset(state.restored.bytes().data(), 0xa5, state.restored.bytes().size());
  TERSOR_CHECK(decode_lane(state, l));
  return check_restored(state, l);
}

status check_lane(bench_state& state, lane& l) {
  if (l.who->has_auto()) {
    TERSOR_TRY(l.encoded_bytes, l.who->encode_auto(source_of(state, l), l.encoded.bytes()));
    TERSOR_CHECK(decode_and_check(state, l));
  }
  TERSOR_TRY(l.encoded_bytes, l.who->encode(source_of(state, l), l.encoded.bytes()));
  return decode_and_check(state, l);
}

status timed_encode(const bench_state& state, lane& l) {
  result<std::uint64_t> size = 0;
  if (l.who->has_auto()) {
    l.encode_auto.push_back(
        seconds_of([&] { size = l.who->encode_auto(source_of(state, l), l.encoded.bytes()); }));
    if (!size) return tl::unexpected<error>(std::move(size).error());
  }
  // Last, so that what is decoded comes from this one.
  l.encode.push_back(seconds_of([&] { size = l.who->encode(source_of(state, l), l.encoded.bytes()); }));
  TERSOR_TRY(l.encoded_bytes, std::move(size));
  return {};
}

/// One round: memcpy and every contender once, begun at another contender each time. All encode before any
/// decodes, so that no decoder finds its input in the cache because it was written just before.
status run_round(bench_state& state, core::thread_pool& pool, unsigned round) {
  const std::size_t n = state.lanes.size();
  for (std::size_t i = 0; i < n; ++i) TERSOR_CHECK(timed_encode(state, state.lanes[(i + round) % n]));
  state.copies.push_back(seconds_of([&] { copy_all(pool, state.by_copy.bytes(), state.restored.bytes()); }));
  for (std::size_t i = 0; i < n; ++i) {
    lane& l = state.lanes[(i + round) % n];
    status outcome;
    l.decode.push_back(seconds_of([&] { outcome = decode_lane(state, l); }));
    TERSOR_CHECK(std::move(outcome));
  }
  return {};
}

struct environment {
  const context& ctx;
  core::thread_pool& pool;
  std::span<const segment> segments;
};

status add_lane(const environment& env, const std::string& name, bench_state& state,
                codec_bench_report& report) {
  std::unique_ptr<contender> who;
  const auto peers = peer_names();
  if (const auto which = parse_codec(name)) {
    who = make_tersor(env.ctx, *which, env.segments);
  } else if (std::find(peers.begin(), peers.end(), name) != peers.end()) {
    who = make_peer(name, env.pool);
  } else {
    return fail(errc::invalid_argument,
                "no contender '" + name + "' (rank, top16, raw, zstd-1, zstd-3, lz4)");
  }
  if (who == nullptr) {
    report.absent.push_back(name);
    return {};
  }
  TERSOR_TRY(huge_buffer encoded, huge_buffer::allocate(who->bound(report.n_bytes)));
  state.lanes.push_back({.who = std::move(who), .encoded = std::move(encoded)});
  return {};
}

status run_rounds(const codec_bench_options& options, bench_state& state, core::thread_pool& pool,
                  codec_bench_report& report) {
  if (options.on_round) options.on_round(0, options.repeats);
  for (lane& l : state.lanes) TERSOR_CHECK(check_lane(state, l));
  const auto start = clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(clock::now() - start).count(); };
  while (report.rounds < options.repeats || elapsed() < options.seconds) {
    ++report.rounds;
    if (options.on_round) options.on_round(report.rounds, options.repeats);
    TERSOR_CHECK(run_round(state, pool, report.rounds));
  }
  // Once more on what the measured runs left behind.
  for (lane& l : state.lanes) TERSOR_CHECK(decode_and_check(state, l));
  return {};
}

void fill_report(const bench_state& state, codec_bench_report& report) {
  const auto bytes = static_cast<double>(report.n_bytes);
  const auto gb_s = [&](const std::vector<double>& times) { return bytes / median(times) / 1e9; };
  report.memcpy_gb_s = gb_s(state.copies);
  for (const lane& l : state.lanes) {
    codec_row row{.name = l.who->name(),
                  .ratio = bytes / static_cast<double>(l.encoded_bytes),
                  .encode_gb_s = gb_s(l.encode),
                  .decode_gb_s = gb_s(l.decode)};
    if (!l.encode_auto.empty()) row.encode_auto_gb_s = gb_s(l.encode_auto);
    report.rows.push_back(std::move(row));
  }
}

result<codec_bench_report> run_checked(const codec_bench_options& options) {
  if (options.n_bytes < 2 || options.repeats == 0 || options.threads == 0) {
    return fail(errc::invalid_argument, "size, repeats and threads must be positive");
  }
  codec_bench_report report;
  report.n_bytes = options.n_bytes / 2 * 2;
  std::vector<bench_tensor> tensors;
  if (options.input) {
    TERSOR_TRY(tensors, load_bf16(*options.input));
    report.input = options.input->string();
  } else {
    constexpr std::size_t kSyntheticBytes = std::size_t{32} << 20;
    tensors.push_back(synthetic_bf16(kSyntheticBytes));
    report.input = "synthetic";
  }
  for (const bench_tensor& tensor : tensors) report.input_bytes += tensor.bytes.size();
  report.input_bytes = std::min(report.input_bytes, report.n_bytes);

  TERSOR_TRY(const context ctx, context::create(options.threads));
  core::thread_pool pool(options.threads);
  report.threads = ctx.threads();
  report.backend = std::string(ctx.backend());

  TERSOR_TRY(huge_buffer by_tensor, huge_buffer::allocate(report.n_bytes));
  TERSOR_TRY(huge_buffer by_copy, huge_buffer::allocate(report.n_bytes));
  TERSOR_TRY(huge_buffer restored, huge_buffer::allocate(report.n_bytes));
  std::vector<segment> segments = tile_by_tensor(tensors, by_tensor.bytes());
  tile_by_copy(tensors, by_copy.bytes());
  std::vector<std::string> tensor_names;
  for (const bench_tensor& tensor : tensors) tensor_names.push_back(tensor.name);
  TERSOR_CHECK(calibrate_segments(ctx, options.calibration_input, dtype::bf16, tensor_names,
                                  by_tensor.bytes(), segments));
  bench_state state{
      .by_tensor = std::move(by_tensor), .by_copy = std::move(by_copy), .restored = std::move(restored)};
  std::vector<std::string> names = options.codecs;
  if (names.empty()) names = {"rank", "top16", "zstd-1", "zstd-3", "lz4"};
  const environment env{.ctx = ctx, .pool = pool, .segments = segments};
  for (const std::string& name : names) TERSOR_CHECK(add_lane(env, name, state, report));
  if (state.lanes.empty())
    return fail(errc::backend_unavailable, "none of the asked contenders is in this build");
  TERSOR_CHECK(run_rounds(options, state, pool, report));
  fill_report(state, report);
  return report;
}

}  // namespace

result<codec_bench_report> run_codec_bench(const codec_bench_options& options) {
  try {
    return run_checked(options);
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  }
}

}  // namespace tersor::bench
