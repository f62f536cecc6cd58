// GPU 0 to GPU 1: copies and NCCL raw, the library's methods, and compressed frames through NCCL.
#include <algorithm>

#include "gpu_link_nccl.hpp"

namespace tersor::bench {

using namespace transfer;
using namespace transfer::device;

namespace {

constexpr int kSource = 0, kTarget = 1;
/// NCCL takes longer to start than a kernel.
constexpr part_sizes kNcclParts = {.first_bytes = 16 << 20, .most_bytes = 256 << 20};

/// One size: its buffers, and verdicts of the method under way for each.
struct workbench {
  const link_bench_options& options;
  link_report& report;
  const link_clock& clock;
  std::vector<link_buffers> sets;
  std::vector<pinned_verdicts> verdicts;

  using send = std::function<status(std::uint64_t)>;

  [[nodiscard]] status check(const std::string& what, bool coded, link_row& row) {
    std::uint64_t frames = 0;
    for (std::uint64_t i = 0; i < sets.size(); ++i) {
      TERSOR_CHECK(expect_arrived(sets[i], kTarget, what));
      if (!coded) continue;
      TERSOR_CHECK(check_verdicts(verdicts[i].all()));
      for (const link_verdict& v : verdicts[i].all()) frames += v.received.frame_bytes;
    }
    if (frames != 0)
      row.ratio = static_cast<double>(sets.size() * sets[0].n_bytes) / static_cast<double>(frames);
    row.exact = true;
    return {};
  }

  [[nodiscard]] status make_verdicts(std::uint64_t n) {
    verdicts.clear();
    for (std::uint64_t i = 0; i < sets.size(); ++i) {
      TERSOR_TRY(pinned_verdicts one, pinned_verdicts::create(n));
      verdicts.push_back(std::move(one));
    }
    return {};
  }

  /// Checks every byte, times, and checks what timing left behind.
  [[nodiscard]] status measure(link_row row, bool coded, const send& call) {
    const std::string what = row.method + " " + row.codec + ", " + std::to_string(row.n_bytes) + " bytes";
    row.link = "peer";
    for (link_buffers& set : sets) TERSOR_CHECK(poison(set, kTarget));
    for (std::uint64_t i = 0; i < sets.size(); ++i) TERSOR_CHECK(call(i));
    TERSOR_CHECK(clock.wait());
    TERSOR_CHECK(check(what, coded, row));
    for (link_buffers& set : sets) TERSOR_CHECK(poison(set, kTarget));
    TERSOR_CHECK(clock.time(call, sets.size(), options.seconds, row));
    TERSOR_CHECK(check(what + ", after timing", coded, row));
    return report.add(std::move(row));
  }
};

status measure_raw(workbench& w, const nccl_pair* nccl) {
  const std::uint64_t n = w.sets[0].n_bytes;
  TERSOR_CHECK(w.measure({.method = "memcpy", .n_bytes = n}, false, [&](std::uint64_t i) {
    return ok(cudaMemcpyPeerAsync(w.sets[i].target.get(), kTarget, w.sets[i].source.get(), kSource, n,
                                  w.clock.source()),
              "peer copy");
  }));
  if (nccl == nullptr) return {};
  return w.measure({.method = "nccl", .n_bytes = n}, false, [&](std::uint64_t i) {
    const nccl_pair::message all{w.sets[i].source.get(), w.sets[i].target.get(), n};
    return nccl->send({&all, 1}, w.clock.source(), w.clock.target());
  });
}

/// `recheck`: the values that arrived are read once more.
status measure_link(workbench& w, codec c, const part_sizes& sizes, link_method method, bool recheck) {
  TERSOR_TRY(device_link link, device_link::create({.source_device = kSource,
                                                    .target_device = kTarget,
                                                    .codec = c,
                                                    .parts = sizes,
                                                    .recheck = recheck,
                                                    .use_pull = method != link_method::push,
                                                    .use_push = method != link_method::pull,
                                                    .use_copy = method == link_method::copy}));
  TERSOR_TRY(const std::uint64_t n, link.count_pieces(w.sets[0].regions));
  TERSOR_CHECK(w.make_verdicts(n));
  link_row row{.method = std::string(to_string(method)) + (recheck ? "+recheck" : ""),
               .codec = std::string(to_string(c)),
               .n_bytes = w.sets[0].n_bytes,
               .first_bytes = sizes.first_bytes,
               .most_bytes = sizes.most_bytes};
  return w.measure(std::move(row), true, [&](std::uint64_t i) -> status {
    const auto sent =
        link.send_async(w.sets[i].regions, method, w.verdicts[i].all(), w.clock.source(), w.clock.target());
    return sent ? status{} : tl::unexpected<error>(sent.error());
  });
}

status measure_nccl_coded(workbench& w, const nccl_pair& nccl, codec c, const part_sizes& sizes) {
  TERSOR_TRY(nccl_link link, nccl_link::create(nccl, c, sizes, kSource, kTarget));
  TERSOR_CHECK(w.make_verdicts(link.count_pieces(w.sets[0].regions)));
  link_row row{.method = "nccl-coded",
               .codec = std::string(to_string(c)),
               .n_bytes = w.sets[0].n_bytes,
               .first_bytes = sizes.first_bytes,
               .most_bytes = sizes.most_bytes};
  return w.measure(std::move(row), true, [&](std::uint64_t i) {
    return link.send(w.sets[i].regions, w.verdicts[i].all(), w.clock.source(), w.clock.target());
  });
}

/// Enough sets that none is found in the L2 cache.
std::uint64_t sets_for(std::uint64_t n_bytes) {
  constexpr std::uint64_t kCold = std::uint64_t{192} << 20;
  return std::max<std::uint64_t>(2, (kCold + n_bytes - 1) / n_bytes);
}

}  // namespace

status bench_peers(const link_bench_options& o, link_report& report) {
  TERSOR_TRY(const link_data data, load_link_data(o.kv, kSource));
  TERSOR_TRY(const link_clock clock, link_clock::create(kSource, kTarget));
  // Peer access for the comparisons and the raw copies, too.
  TERSOR_TRY(const device_link access, device_link::create({.parts = {.n_slots = 1}}));
  std::optional<nccl_pair> nccl;
  if (!o.nccl.empty()) {
    TERSOR_TRY(nccl_pair opened, nccl_pair::open(o.nccl, kSource, kTarget));
    report.note("nccl", opened.version());
    nccl.emplace(std::move(opened));
  }
  for (const std::uint64_t megabytes : o.megabytes) {
    workbench w{.options = o, .report = report, .clock = clock, .sets = {}, .verdicts = {}};
    for (std::uint64_t i = 0; i < sets_for(megabytes << 20); ++i) {
      TERSOR_TRY(link_buffers set, make_buffers(data, megabytes << 20, i, kSource, kTarget));
      w.sets.push_back(std::move(set));
    }
    TERSOR_CHECK(measure_raw(w, nccl ? &*nccl : nullptr));
    for (const codec c : o.codecs) {
      if (nccl) TERSOR_CHECK(measure_nccl_coded(w, *nccl, c, kNcclParts));
      for (const part_sizes& sizes : o.part_sizes) {
        for (const link_method method : o.methods) TERSOR_CHECK(measure_link(w, c, sizes, method, false));
        TERSOR_CHECK(measure_link(w, c, sizes, link_method::pull, true));
      }
    }
  }
  return {};
}

}  // namespace tersor::bench
