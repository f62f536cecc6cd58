// The public sender: connections, and attempts at a request until one succeeds or none may.
#include <thread>

#include "cpu/context_impl.hpp"
#include "transfer/session/handshake.hpp"
#include "transfer/session/send_run.hpp"

namespace tersor::transfer {
namespace {

constexpr std::uint32_t kMaxSlots = 1024;
/// Frames of the sender's own between encoder and transport.
constexpr std::uint32_t kOwnFrames = 6;
constexpr std::chrono::milliseconds kFirstPause{100};

}  // namespace

struct sender::impl {
  impl(const endpoint& at, const sender_options& with) : to(at), options(with), choice(with.coding) {}

  [[nodiscard]] status connect();
  /// `may_be_published` tells of every attempt, also when an exception leaves.
  [[nodiscard]] result<transfer_report> send(const manifest& m, source& from, bool& may_be_published);
  void disconnect() noexcept;
  [[nodiscard]] status check_terms();
  [[nodiscard]] status pause(std::chrono::milliseconds how_long) const;
  [[nodiscard]] bool is_cancelled() const noexcept {
    return options.cancel != nullptr && options.cancel->load();
  }

  endpoint to;
  sender_options options;
  coding_choice choice;
  std::unique_ptr<message_link> link;
  std::unique_ptr<payload_path> path;
  accept terms;
  std::uint64_t part_bytes = 0;
  aligned_bytes frames;
  std::uint64_t frame_bytes = 0;
};

status sender::impl::check_terms() {
  if (terms.n_slots == 0 || terms.n_slots > kMaxSlots)
    return fail(errc::malformed, "the receiver offers no slots");
  part_bytes = std::min(options.part_bytes, terms.max_part_bytes);
  const std::uint64_t needed = frame_bound(part_bytes);
  if (part_bytes == 0 || needed == 0 || needed > terms.slot_bytes) {
    return fail(errc::malformed, "the receiver's slots do not hold a part");
  }
  frame_bytes = needed;
  if (frames.all().size() != frame_bytes * kOwnFrames) {
    TERSOR_TRY(frames, aligned_bytes::allocate(frame_bytes * kOwnFrames, options.pinned_slots));
  }
  return {};
}

status sender::impl::connect() {
  TERSOR_TRY(const transport* by, find_transport(options.transport));
  TERSOR_TRY(auto over, by->connect(to, clock::now() + options.timeouts.connect, options.security.tls));
  TERSOR_TRY(path, by->make_path());
  link = std::make_unique<message_link>(std::move(over), role::sender, options.timeouts);
  auto agreed = shake_as_sender(*link, options);
  if (!agreed) {
    disconnect();
    error why = std::move(agreed).error();
    // Closed without a word: the receiver has as many connections as it takes, for now.
    if (why.code == errc::not_found) why.code = errc::io_error;
    return tl::unexpected<error>(std::move(why));
  }
  terms = std::move(*agreed);
  status ready = check_terms();
  if (ready && path != nullptr) ready = path->attach(terms.slots, frames.all());
  if (!ready) disconnect();
  return ready;
}

void sender::impl::disconnect() noexcept {
  if (link != nullptr) link->shutdown();
  if (path != nullptr) path->shutdown();
  link.reset();
  path.reset();
}

status sender::impl::pause(std::chrono::milliseconds how_long) const {
  constexpr std::chrono::milliseconds kTick{20};
  for (const deadline until = clock::now() + how_long; clock::now() < until;) {
    if (is_cancelled()) return fail(errc::cancelled, "cancelled");
    std::this_thread::sleep_for(kTick);
  }
  return {};
}

sender::sender(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
sender::sender(sender&&) noexcept = default;
sender& sender::operator=(sender&&) noexcept = default;
sender::~sender() {
  if (impl_ != nullptr) impl_->disconnect();
}

result<sender> sender::connect(const endpoint& to, const sender_options& options) {
  return cpu::guarded([&]() -> result<sender> {
    // A key that is too short, or that this build cannot use, is known before anybody connects.
    if (!options.security.psk.empty()) {
      if (const auto usable = handshake_proof(options.security.psk, {}); !usable) {
        return tl::unexpected<error>(usable.error());
      }
    }
    auto p = std::make_unique<impl>(to, options);
    TERSOR_CHECK(p->connect());
    return sender(std::move(p));
  });
}

result<transfer_report> sender::impl::send(const manifest& m, source& from, bool& may_be_published) {
  transfer_report report;
  const stopwatch watch;
  TERSOR_TRY(const nonce token, fresh_nonce());
  if (link == nullptr) TERSOR_CHECK(connect());
  TERSOR_TRY(const part_plan plan,
             part_plan::make(m, part_bytes,
                             {.max_request_bytes = terms.max_request_bytes, .max_part_bytes = part_bytes}));
  report.raw_bytes = plan.total_bytes();
  std::vector<std::optional<std::uint64_t>> sent(plan.n_parts());
  const std::uint64_t first_part_bytes = part_bytes;
  std::chrono::milliseconds wait_ms = kFirstPause;
  for (std::uint32_t epoch = 1;; ++epoch) {
    status connected = link == nullptr ? connect() : status{};
    const bool is_connected = connected.has_value();
    if (is_connected && (part_bytes < first_part_bytes || frame_bytes < frame_bound(plan.largest_part()))) {
      return fail(errc::mismatch, "the receiver came back with smaller slots");
    }
    send_run::outcome o{.done = std::move(connected)};
    o.may_resume = !is_connected && o.done.error().code == errc::io_error;
    if (is_connected) {
      const std::uint64_t before = link->sent_bytes();
      send_run run({.options = options,
                    .what = m,
                    .plan = plan,
                    .part_bytes = first_part_bytes,
                    .sent = sent,
                    .from = from,
                    .link = *link,
                    .path = path.get(),
                    .terms = terms,
                    .frames = frames.all(),
                    .n_frames = kOwnFrames,
                    .choice = choice,
                    .report = report},
                   token, epoch);
      o = run.run();
      report.sent_bytes += link->sent_bytes() - before;
    }
    if (o.done) break;
    disconnect();
    // A later attempt that fails earlier says nothing about what the first one left behind.
    may_be_published = may_be_published || o.may_be_published;
    if (!o.may_resume || epoch >= options.attempts || is_cancelled()) {
      error why = std::move(o.done).error();
      if (why.code == errc::not_found) why.code = errc::io_error;
      return tl::unexpected<error>(std::move(why));
    }
    ++report.resumptions;
    TERSOR_CHECK(pause(wait_ms));
    wait_ms *= 2;
  }
  report.seconds = watch.seconds();
  return report;
}

result<transfer_report> sender::send(const manifest& m, source& from) {
  return cpu::guarded([&]() -> result<transfer_report> {
    // Made before anything can fail: the doubt must be told even when there is no memory left.
    std::string doubt = "; the request may be published";
    bool may_be_published = false;
    auto sent = cpu::guarded([&] { return impl_->send(m, from, may_be_published); });
    if (sent || !may_be_published) return sent;
    error why = std::move(sent).error();
    why.code = errc::io_error;
    const status told = cpu::guarded([&]() -> status {
      why.message += doubt;
      return {};
    });
    if (!told) why.message = std::move(doubt);
    return tl::unexpected<error>(std::move(why));
  });
}

}  // namespace tersor::transfer
