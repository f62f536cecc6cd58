#include "support.hpp"

#include <filesystem>
#include <fstream>
#include <thread>

#include <unistd.h>

#include "../golden/sample_data.hpp"
#include "cpu/context_impl.hpp"
#include "transfer/session/handshake.hpp"
#include "transfer/session/send_run.hpp"

namespace transfer_test {

using tersor::errc;
using tersor::fail;

namespace {

constexpr std::uint64_t kPageBytes = 2048;
constexpr std::uint64_t kContents = 8;

}  // namespace

const tersor::context& shared_context() {
  static const tersor::context ctx = faults::make_context(1);
  return ctx;
}

const std::vector<bytes>& expected_data(std::uint64_t request, std::uint32_t layers, std::uint64_t pages) {
  static std::mutex mutex;
  static std::map<std::array<std::uint64_t, 3>, std::vector<bytes>> all;
  const std::lock_guard lock(mutex);
  auto& data = all[{request % kContents, layers, pages}];
  if (data.empty()) {
    for (std::uint64_t i = 0; i < std::uint64_t{2} * layers; ++i) {
      data.push_back(golden::sample(tersor::dtype::bf16, pages * kPageBytes / 2, golden::pattern::weights,
                                    100 * (request % kContents) + i + 1));
    }
  }
  return data;
}

cache make_cache(std::uint64_t request, std::uint32_t layers, std::uint64_t pages) {
  cache c;
  c.manifest.request = request;
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    for (const kv::part_kind kind : {kv::part_kind::key, kv::part_kind::value}) {
      c.manifest.regions.push_back({.name = std::to_string(layer) + (kind == kv::part_kind::key ? "k" : "v"),
                                    .layer = layer,
                                    .kind = kind,
                                    .type = tersor::dtype::bf16,
                                    .shape = {pages, kPageBytes / 2},
                                    .page_bytes = kPageBytes});
    }
  }
  c.data = expected_data(request, layers, pages);
  return c;
}

status checking_sink::prepare(const kv::manifest& m) {
  return tersor::cpu::guarded([&]() -> status {
    std::uint64_t total = 0;
    for (const kv::region& r : m.regions) {
      TERSOR_TRY(const std::uint64_t n, kv::region_bytes(r));
      total += n;
    }
    const std::lock_guard lock(mutex_);
    if (total > max_ - std::min(max_, held_)) return fail(errc::out_of_memory, "no room");
    if (open_.contains(m.request)) return fail(errc::already_exists, "open already");
    open_request made{.regions = {}, .n_bytes = total};
    for (const kv::region& r : m.regions) made.regions.emplace_back(kv::region_bytes(r).value());
    open_.emplace(m.request, std::move(made));
    held_ += total;
    return {};
  });
}

status checking_sink::decode(const kv::manifest& m, const kv::part& p, std::span<const std::byte> frame) {
  bytes* region = nullptr;
  {
    const std::lock_guard lock(mutex_);
    region = &open_.at(m.request).regions.at(p.region);
  }
  ++decoded_;
  return kv::decode_and_recheck(shared_context(), frame, std::span(*region).subspan(p.offset, p.n_bytes));
}

status checking_sink::publish(const kv::manifest& m) {
  {
    const std::lock_guard lock(mutex_);
    const auto at = open_.find(m.request);
    ++published_;
    const auto layers = static_cast<std::uint32_t>(m.regions.size() / 2);
    const bool known = !m.regions.empty() && m.regions.size() % 2 == 0 && m.regions[0].shape.size() == 2;
    if (at == open_.end() || !known ||
        at->second.regions != expected_data(m.request, layers, m.regions[0].shape[0])) {
      ++wrong_;
    }
    if (at != open_.end()) {
      held_ -= at->second.n_bytes;
      open_.erase(at);
    }
  }
  if (on_publish) on_publish(m.request);
  return {};
}

void checking_sink::discard(const kv::manifest& m) noexcept {
  const std::lock_guard lock(mutex_);
  if (const auto at = open_.find(m.request); at != open_.end()) {
    held_ -= at->second.n_bytes;
    open_.erase(at);
  }
}

std::size_t checking_sink::n_open() const {
  const std::lock_guard lock(mutex_);
  return open_.size();
}

status bare_receiver::serve(std::unique_ptr<kv::channel> over) {
  return tersor::cpu::guarded([&] {
    kv::connection c(std::move(over), nullptr,
                     {.options = options_, .requests = requests_, .to = to_, .counters = counters_});
    return c.run();
  });
}

attempt send_once(std::unique_ptr<kv::channel> over, const kv::sender_options& options, const kv::manifest& m,
                  kv::source& from, const kv::nonce& token, std::uint32_t epoch) {
  attempt a;
  a.done = tersor::cpu::guarded([&]() -> status {
    kv::message_link link(std::move(over), kv::role::sender, options.timeouts);
    TERSOR_TRY(const kv::accept terms, kv::shake_as_sender(link, options));
    constexpr std::uint32_t kFrames = 3;
    const std::uint64_t part_bytes = std::min(options.part_bytes, terms.max_part_bytes);
    const std::uint64_t frame_bytes = kv::frame_bound(part_bytes);
    if (terms.n_slots == 0 || terms.n_slots > 1024 || part_bytes == 0 || frame_bytes == 0 ||
        frame_bytes > terms.slot_bytes) {
      return fail(errc::malformed, "the receiver's slots do not hold a part");
    }
    TERSOR_TRY(const kv::part_plan plan, kv::part_plan::make(m, part_bytes,
                                                             {.max_request_bytes = terms.max_request_bytes,
                                                              .max_part_bytes = terms.max_part_bytes}));
    TERSOR_TRY(const auto frames, kv::aligned_bytes::allocate(frame_bytes * kFrames));
    std::vector<std::optional<std::uint64_t>> sent(plan.n_parts());
    kv::coding_choice choice(options.coding);
    kv::send_run run({.options = options,
                      .what = m,
                      .plan = plan,
                      .part_bytes = part_bytes,
                      .sent = sent,
                      .from = from,
                      .link = link,
                      .path = nullptr,
                      .terms = terms,
                      .frames = frames.all(),
                      .n_frames = kFrames,
                      .choice = choice,
                      .report = a.report},
                     token, epoch);
    kv::send_run::outcome o = run.run();
    a.may_be_published = o.may_be_published;
    a.may_resume = o.may_resume;
    link.shutdown();
    return o.done;
  });
  return a;
}

std::vector<std::byte> psk_of(std::string_view text) {
  const auto all = std::as_bytes(std::span(text));
  return {all.begin(), all.end()};
}

bool has_keys() {
  return kv::handshake_proof(psk_of("0123456789abcdef"), {}).has_value();
}

holdings process_holdings() {
  const auto entries = [](const char* dir) {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(dir), {}));
  };
  holdings h;
  // Looking at the descriptors takes one.
  h.fds = entries("/proc/self/fd") - 1;
  h.threads = entries("/proc/self/task");
  std::uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  h.rss_kib = resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 1024;
  return h;
}

bool back_to(const holdings& before) {
  constexpr int kTries = 500;
  for (int i = 0; i < kTries; ++i) {
    const holdings now = process_holdings();
    if (now.fds <= before.fds && now.threads <= before.threads) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace transfer_test
