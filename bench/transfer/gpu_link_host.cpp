// A GPU and pinned host memory: copies raw, and the library's stores and loads.
#include <algorithm>
#include <cstring>

#include "gpu_link_bench.hpp"

namespace tersor::bench {

using namespace transfer;
using namespace transfer::device;

namespace {

using pinned = owned<void*, cudaFreeHost>;

result<pinned> make_pinned(std::uint64_t n_bytes) {
  void* data = nullptr;
  TERSOR_CHECK(ok(cudaHostAlloc(&data, n_bytes, cudaHostAllocPortable), "pinned memory"));
  std::memset(data, 0xa5, n_bytes);
  return pinned(data);
}

struct host_set {
  link_buffers values;
  pinned frames;
  pinned_verdicts verdicts;
};

struct host_bench {
  const link_bench_options& options;
  link_report& report;
  const link_clock& clock;
  std::vector<host_set> sets;
  std::uint64_t store_bytes = 0;

  [[nodiscard]] host_store store(std::uint64_t i) const { return {sets[i].frames.get(), store_bytes}; }
  [[nodiscard]] status expect_back(const std::string& what) {
    TERSOR_CHECK(clock.wait());
    for (host_set& set : sets) TERSOR_CHECK(expect_arrived(set.values, 0, what));
    return {};
  }
  [[nodiscard]] status poison_all() {
    for (host_set& set : sets) TERSOR_CHECK(poison(set.values, 0));
    return {};
  }
};

using call = std::function<status(std::uint64_t)>;

/// Stores and loads once, compares every byte, times both, loads what timing left, compares again.
status measure_pair(host_bench& b, link_row row, const std::string& load_method, const call& store,
                    const call& load, bool with_store) {
  const std::string what = row.method + "/" + load_method + " " + row.codec;
  const auto there_and_back = [&]() -> status {
    TERSOR_CHECK(b.poison_all());
    for (std::uint64_t i = 0; i < b.sets.size(); ++i) TERSOR_CHECK(store(i));
    TERSOR_CHECK(b.clock.wait());
    for (std::uint64_t i = 0; i < b.sets.size(); ++i) TERSOR_CHECK(load(i));
    TERSOR_CHECK(b.expect_back(what));
    if (row.codec == "raw") return {};
    // Raw if that is what `automatic` chose.
    row.ratio = 1;
    std::uint64_t frames = 0;
    for (host_set& set : b.sets) {
      TERSOR_CHECK(check_verdicts(set.verdicts.all()));
      for (const link_verdict& v : set.verdicts.all()) frames += v.sent.frame_bytes;
    }
    if (frames != 0)
      row.ratio = static_cast<double>(row.n_bytes * b.sets.size()) / static_cast<double>(frames);
    return {};
  };
  TERSOR_CHECK(there_and_back());
  row.link = "store";
  row.exact = true;
  if (with_store) {
    TERSOR_CHECK(b.clock.time(store, b.sets.size(), b.options.seconds, row));
    TERSOR_CHECK(b.clock.wait());
    TERSOR_CHECK(b.report.add(row));
  }
  TERSOR_CHECK(b.poison_all());
  row.link = "load";
  row.method = load_method;
  TERSOR_CHECK(b.clock.time(load, b.sets.size(), b.options.seconds, row));
  TERSOR_CHECK(b.expect_back(what + ", after timing"));
  return b.report.add(row);
}

status measure_raw(host_bench& b) {
  const std::uint64_t n = b.sets[0].values.n_bytes;
  const auto copy = [&](void* to, const void* from, cudaMemcpyKind kind) {
    return ok(cudaMemcpyAsync(to, from, n, kind, b.clock.source()), "copy");
  };
  return measure_pair(
      b, {.method = "memcpy", .n_bytes = n}, "memcpy",
      [&](std::uint64_t i) {
        return copy(b.sets[i].frames.get(), b.sets[i].values.source.get(), cudaMemcpyDeviceToHost);
      },
      [&](std::uint64_t i) {
        return copy(b.sets[i].values.target.get(), b.sets[i].frames.get(), cudaMemcpyHostToDevice);
      },
      true);
}

status measure_codec(host_bench& b, codec c, const part_sizes& sizes) {
  TERSOR_TRY(host_link link, host_link::create({.codec = c, .parts = sizes}));
  TERSOR_TRY(const std::uint64_t n, link.count_pieces(b.sets[0].values.regions));
  for (host_set& set : b.sets) {
    TERSOR_TRY(pinned_verdicts verdicts, pinned_verdicts::create(n));
    set.verdicts = std::move(verdicts);
  }
  const link_row row{.codec = std::string(to_string(c)),
                     .n_bytes = b.sets[0].values.n_bytes,
                     .first_bytes = sizes.first_bytes,
                     .most_bytes = sizes.most_bytes};
  const auto store = [&](link_method method) {
    return [&, method](std::uint64_t i) -> status {
      const auto done = link.store_async(b.sets[i].values.regions, method, b.store(i),
                                         b.sets[i].verdicts.all(), b.clock.source());
      return done ? status{} : tl::unexpected<error>(done.error());
    };
  };
  const auto load = [&](link_method method) {
    return [&, method](std::uint64_t i) {
      return link.load_async(b.sets[i].values.regions, method, b.store(i), b.sets[i].verdicts.all(),
                             b.clock.source());
    };
  };
  link_row one = row;
  one.method = "copy";
  TERSOR_CHECK(measure_pair(b, one, "copy", store(link_method::copy), load(link_method::copy), true));
  one.method = "push";
  TERSOR_CHECK(measure_pair(b, one, "pull", store(link_method::push), load(link_method::pull), true));
  one.method = "automatic";
  const link_method taken = link.choose(row.n_bytes);
  return measure_pair(b, one, "automatic", store(link_method::automatic), load(taken), true);
}

}  // namespace

status bench_host(const link_bench_options& o, link_report& report) {
  TERSOR_TRY(const link_data data, load_link_data(o.kv, 0));
  TERSOR_TRY(const link_clock clock, link_clock::create(0, 0));
  for (const std::uint64_t megabytes : o.megabytes) {
    if (megabytes > 1024) continue;
    const std::uint64_t n = megabytes << 20;
    host_bench b{.options = o, .report = report, .clock = clock, .sets = {}};
    // Frames' bounds are a little larger than the values.
    b.store_bytes = n + n / 8 + (std::uint64_t{8} << 20);
    for (std::uint64_t i = 0; i < std::max<std::uint64_t>(2, (std::uint64_t{192} << 20) / n); ++i) {
      TERSOR_TRY(link_buffers values, make_buffers(data, n, i, 0, -1));
      TERSOR_TRY(pinned frames, make_pinned(b.store_bytes));
      TERSOR_TRY(pinned_verdicts none, pinned_verdicts::create(0));
      b.sets.push_back({std::move(values), std::move(frames), std::move(none)});
    }
    TERSOR_CHECK(measure_raw(b));
    for (const codec c : o.codecs) {
      for (const part_sizes& sizes : o.part_sizes) {
        TERSOR_CHECK(measure_codec(b, c, sizes));
      }
    }
  }
  return {};
}

}  // namespace tersor::bench
