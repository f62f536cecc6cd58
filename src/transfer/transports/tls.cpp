#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>

#include <openssl/err.h>
#include <poll.h>

#include "transfer/transports/table.hpp"
#include "transfer/transports/tcp.hpp"
#include "transfer/transports/tls_context.hpp"

namespace tersor::transfer {
namespace {

/// Shakes hands with its first byte, so that a peer that is slow to do so holds up nobody else.
class tls_channel final : public tcp_channel {
 public:
  tls_channel(socket_fd fd, tls_context context, tls_session session)
      : tcp_channel(std::move(fd)), context_(std::move(context)), session_(std::move(session)) {}
  ~tls_channel() override { shutdown(); }

  [[nodiscard]] status send(std::span<const const_bytes> parts, deadline until) override;
  [[nodiscard]] status receive(std::span<std::byte> dst, deadline until) override;
  void shutdown() noexcept override;

 private:
  static constexpr std::size_t kRecord = std::size_t{16} << 10;  // the largest of TLS

  /// One step of the session and what it says: under the lock, as a session takes one thread at a time.
  struct step {
    bool done = false;
    int why = SSL_ERROR_NONE;
    int system = 0;
  };
  template <class Call>
  [[nodiscard]] step attempt(Call call);
  /// Waits as the step demands, or says why there is nothing to wait for.
  [[nodiscard]] status wait_after(const step& s, std::string_view doing, deadline until);
  /// One thread leads the handshake, the other waits for it: both would wait for the same bytes.
  [[nodiscard]] status shake_hands(deadline until);
  [[nodiscard]] status lead_handshake(deadline until);
  [[nodiscard]] status write(const_bytes part, deadline until);

  tls_context context_;
  tls_session session_;
  std::mutex mutex_;

  enum class handshake : std::uint8_t { none, running, done };
  std::mutex handshake_mutex_;
  std::condition_variable handshake_over_;
  handshake handshake_ = handshake::none;
};

template <class Call>
tls_channel::step tls_channel::attempt(Call call) {
  const std::lock_guard lock(mutex_);
  ::ERR_clear_error();
  errno = 0;
  const int rc = call(session_.get());
  if (rc > 0) return {.done = true};
  const int system = errno;
  return {.done = false, .why = ::SSL_get_error(session_.get(), rc), .system = system};
}

status tls_channel::wait_after(const step& s, std::string_view doing, deadline until) {
  if (is_down()) return fail_shut_down();
  switch (s.why) {
    case SSL_ERROR_WANT_READ:
      return wait_for(fd(), POLLIN, until);
    case SSL_ERROR_WANT_WRITE:
      return wait_for(fd(), POLLOUT, until);
    case SSL_ERROR_ZERO_RETURN:
      return fail_closed();
    case SSL_ERROR_SYSCALL:
      if (s.system == 0 || s.system == EPIPE || s.system == ECONNRESET) return fail_closed();
      return fail_socket(s.system, doing);
    default:
      if (ERR_GET_REASON(::ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return fail_closed();
      return fail_tls(doing);
  }
}

status tls_channel::shake_hands(deadline until) {
  {
    std::unique_lock lock(handshake_mutex_);
    if (!handshake_over_.wait_until(lock, until, [this] { return handshake_ != handshake::running; }))
      return fail_timed_out();
    if (handshake_ == handshake::done) return {};
    handshake_ = handshake::running;
  }
  status shaken = lead_handshake(until);
  const std::lock_guard lock(handshake_mutex_);
  handshake_ = shaken ? handshake::done : handshake::none;
  handshake_over_.notify_all();
  return shaken;
}

status tls_channel::lead_handshake(deadline until) {
  for (;;) {
    if (is_down()) return fail_shut_down();
    const step s = attempt(::SSL_do_handshake);
    if (s.done) return {};
    TERSOR_CHECK(wait_after(s, "shake hands", until));
  }
}

status tls_channel::write(const_bytes part, deadline until) {
  while (!part.empty()) {
    if (is_down()) return fail_shut_down();
    std::size_t n = 0;
    const step s = attempt([&](::SSL* session) {
      return ::SSL_write_ex(session, part.data(), std::min(part.size(), kRecord), &n);
    });
    if (!s.done) {
      TERSOR_CHECK(wait_after(s, "send", until));
      continue;
    }
    part = part.subspan(n);
    if (!part.empty() && clock::now() >= until) return fail_timed_out();
  }
  return {};
}

status tls_channel::send(std::span<const const_bytes> parts, deadline until) {
  TERSOR_CHECK(shake_hands(until));
  // Small parts share a record.
  std::vector<std::byte> small;
  for (const const_bytes part : parts) {
    if (small.size() + part.size() <= kRecord) {
      small.insert(small.end(), part.begin(), part.end());
      continue;
    }
    TERSOR_CHECK(write(small, until));
    small.clear();
    TERSOR_CHECK(write(part, until));
  }
  return write(small, until);
}

status tls_channel::receive(std::span<std::byte> dst, deadline until) {
  if (dst.empty()) return {};
  TERSOR_CHECK(shake_hands(until));
  const std::size_t size = dst.size();
  while (!dst.empty()) {
    if (is_down()) return fail_shut_down();
    std::size_t n = 0;
    const step s =
        attempt([&](::SSL* session) { return ::SSL_read_ex(session, dst.data(), dst.size(), &n); });
    if (s.done) {
      dst = dst.subspan(n);
      if (!dst.empty() && clock::now() >= until) return fail_timed_out();
    } else if (s.why == SSL_ERROR_ZERO_RETURN && dst.size() == size && !is_down()) {
      return fail(errc::not_found, "closed by the peer");
    } else {
      TERSOR_CHECK(wait_after(s, "receive", until));
    }
  }
  return {};
}

void tls_channel::shutdown() noexcept {
  if (is_down()) return;
  {
    // Tells the peer that the end is meant. Never waits: the operations under the lock do not block.
    const std::lock_guard lock(mutex_);
    ::ERR_clear_error();
    if (::SSL_is_init_finished(session_.get()) != 0) (void)::SSL_shutdown(session_.get());
    ::ERR_clear_error();
  }
  tcp_channel::shutdown();
}

class tls_listener final : public tcp_listener {
 public:
  tls_listener(socket_fd fd, tls_context context)
      : tcp_listener(std::move(fd)), context_(std::move(context)) {}
  [[nodiscard]] result<std::unique_ptr<channel>> accept(deadline until) override {
    TERSOR_TRY(socket_fd fd, accept_one(until));
    TERSOR_TRY(tls_session session, make_tls_session(context_, fd.get(), {}));
    return std::make_unique<tls_channel>(std::move(fd), context_, std::move(session));
  }

 private:
  tls_context context_;
};

class tls final : public transport {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "tls"; }
  [[nodiscard]] bool is_authenticated() const noexcept override { return true; }
  [[nodiscard]] transport_info probe() const override {
    return {"tls", true, "TLS 1.3 over tcp, " + std::string(::OpenSSL_version(OPENSSL_VERSION))};
  }
  [[nodiscard]] result<std::unique_ptr<listener>> listen(const endpoint& at,
                                                         const tls_files& files) const override {
    TERSOR_TRY(tls_context context, make_tls_context(files));
    TERSOR_TRY(socket_fd fd, listen_socket(at));
    return std::make_unique<tls_listener>(std::move(fd), std::move(context));
  }
  [[nodiscard]] result<std::unique_ptr<channel>> connect(const endpoint& to, deadline until,
                                                         const tls_files& files) const override {
    TERSOR_TRY(tls_context context, make_tls_context(files));
    TERSOR_TRY(socket_fd fd, connect_socket(to, until));
    TERSOR_TRY(tls_session session, make_tls_session(context, fd.get(), to.host));
    return std::make_unique<tls_channel>(std::move(fd), std::move(context), std::move(session));
  }
};

}  // namespace

const transport& tls_transport() {
  static const tls kTransport;
  return kTransport;
}

}  // namespace tersor::transfer
