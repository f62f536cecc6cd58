// The public receiver: a thread that accepts, and one connection object a sender.
#include <algorithm>
#include <list>
#include <thread>

#include "cpu/context_impl.hpp"
#include "transfer/session/connection.hpp"

namespace tersor::transfer {
namespace {

constexpr std::chrono::milliseconds kTick{200};
constexpr std::uint32_t kMaxSlots = 1024;

status check_options(const endpoint& at, const receiver_options& options) {
  if (!is_loopback(at) && options.security.psk.empty() && options.transport != "tls" &&
      !options.allow_unauthenticated_remote) {
    return fail(errc::invalid_argument, "listening beyond loopback (" + at.host + ") needs a pre-shared key");
  }
  // A key that is too short, or that this build cannot use, is known before anybody connects.
  if (!options.security.psk.empty()) {
    if (const auto usable = handshake_proof(options.security.psk, {}); !usable) {
      return tl::unexpected<error>(usable.error());
    }
  }
  if (options.n_slots == 0 || options.n_slots > kMaxSlots || options.max_part_bytes == 0) {
    return fail(errc::invalid_argument, "slots: 1 to 1024 of at least one byte");
  }
  return {};
}

}  // namespace

std::uint64_t frame_bound(std::uint64_t part_bytes) noexcept {
  std::uint64_t largest = 0;
  for (const dtype type :
       {dtype::bytes, dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2}) {
    for (const codec c : {codec::raw, codec::top16, codec::rank}) {
      const std::uint64_t bound = encode_bound(c, type, core::ceil_div(part_bytes, value_bytes(type)));
      if (bound == 0) return 0;
      largest = std::max(largest, bound);
    }
  }
  constexpr std::uint64_t kPage = 4096;
  return core::align_up(largest, kPage);
}

struct receiver::impl {
  impl(const receiver_options& with, sink& s) : options(with), to(s), requests(options, to) {}
  ~impl() { stop(); }

  /// A connection and its thread.
  struct guest {
    std::unique_ptr<connection> serves;
    std::thread thread;
    std::atomic<bool> gone{false};
  };

  void accept_loop();
  void admit(std::unique_ptr<channel> over);
  void note(error e);
  [[nodiscard]] status accept_one();
  void join_gone();
  void stop();

  receiver_options options;
  sink& to;
  shared_counters counters;
  pending_requests requests;
  std::unique_ptr<listener> door;
  const transport* by = nullptr;
  std::thread acceptor;
  std::mutex mutex;
  std::list<guest> guests;
  std::optional<error> newest_error;
  bool stopped = false;
};

void receiver::impl::note(error e) {
  const std::lock_guard lock(mutex);
  newest_error = std::move(e);
}

void receiver::impl::join_gone() {
  std::list<guest> gone;
  {
    const std::lock_guard lock(mutex);
    for (auto g = guests.begin(); g != guests.end();) {
      const auto next = std::next(g);
      if (g->gone) gone.splice(gone.end(), guests, g);
      g = next;
    }
  }
  for (guest& g : gone) g.thread.join();
}

void receiver::impl::admit(std::unique_ptr<channel> over) {
  auto path = by->make_path();
  if (!path) return note(path.error());
  const std::lock_guard lock(mutex);
  // One more closes at once: the sender sees that and tries again later.
  if (stopped || guests.size() >= options.max_connections) {
    ++counters.refused;
    return;
  }
  // Among the guests only once it runs.
  std::list<guest> one(1);
  guest& g = one.front();
  g.serves = std::make_unique<connection>(
      std::move(over), std::move(*path),
      connection::shared{.options = options, .requests = requests, .to = to, .counters = counters});
  g.thread = std::thread([this, &g] {
    if (status served = g.serves->run(); !served) {
      ++counters.failed_connections;
      note(std::move(served).error());
    }
    g.gone = true;
  });
  ++counters.connections;
  guests.splice(guests.end(), one);
}

status receiver::impl::accept_one() {
  auto over = door->accept(clock::now() + kTick);
  if (!over && over.error().code == errc::cancelled) return tl::unexpected<error>(std::move(over).error());
  // First: a sender that comes back must not be refused because of the connection that it lost.
  join_gone();
  if (over) {
    admit(std::move(*over));
  } else if (over.error().code != errc::not_found) {
    note(std::move(over).error());
    // Out of descriptors, say: others must end first.
    std::this_thread::sleep_for(kTick);
  }
  counters.requests_discarded += requests.sweep(clock::now());
  return {};
}

void receiver::impl::accept_loop() {
  while (true) {
    status accepted = cpu::guarded([&] { return accept_one(); });
    if (accepted) continue;
    if (accepted.error().code == errc::cancelled) return;
    note(std::move(accepted).error());
    // A listener that cannot even say why it fails must not keep a core busy, nor outlive its end.
    std::this_thread::sleep_for(kTick / 10);
  }
}

void receiver::impl::stop() {
  {
    const std::lock_guard lock(mutex);
    if (std::exchange(stopped, true)) return;
    for (guest& g : guests) g.serves->shutdown();
  }
  if (door != nullptr) door->close();
  if (acceptor.joinable()) acceptor.join();
  for (guest& g : guests) g.thread.join();
  guests.clear();
  (void)cpu::guarded([&]() -> status {
    counters.requests_discarded += requests.discard_all();
    return {};
  });
}

receiver::receiver(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
receiver::receiver(receiver&&) noexcept = default;
receiver& receiver::operator=(receiver&&) noexcept = default;
receiver::~receiver() = default;

result<receiver> receiver::listen(const endpoint& at, const receiver_options& options, sink& to) {
  return cpu::guarded([&]() -> result<receiver> {
    TERSOR_CHECK(check_options(at, options));
    auto p = std::make_unique<impl>(options, to);
    TERSOR_TRY(p->by, find_transport(options.transport));
    TERSOR_TRY(p->door, p->by->listen(at, options.security.tls));
    p->acceptor = std::thread([raw = p.get()] { raw->accept_loop(); });
    return receiver(std::move(p));
  });
}

endpoint receiver::address() const {
  return impl_->door->address();
}
transfer_counters receiver::counters() const {
  return impl_->counters.read();
}
std::optional<error> receiver::last_error() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->newest_error;
}
bool receiver::wait_idle(std::chrono::milliseconds timeout) const {
  constexpr std::chrono::milliseconds kStep{5};
  for (const deadline until = clock::now() + timeout;;) {
    {
      const std::lock_guard lock(impl_->mutex);
      const auto gone = [](const impl::guest& g) { return g.gone.load(); };
      if (std::all_of(impl_->guests.begin(), impl_->guests.end(), gone)) return true;
    }
    if (clock::now() >= until) return false;
    std::this_thread::sleep_for(kStep);
  }
}
void receiver::stop() {
  impl_->stop();
}

}  // namespace tersor::transfer
