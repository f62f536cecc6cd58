#include "transfer/transports/tcp_uring.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <liburing.h>
#include <sys/socket.h>

#include "transfer/transports/gather.hpp"

namespace tersor::transfer {
namespace {

/// One operation at a time with a deadline that the kernel keeps: one system call a message.
class ring {
 public:
  ring() = default;
  ring(const ring&) = delete;
  ring& operator=(const ring&) = delete;
  ~ring() {
    if (open_) ::io_uring_queue_exit(&ring_);
  }

  /// 0 or a negative errno.
  [[nodiscard]] int open() noexcept {
    constexpr unsigned kEntries = 4;
    int rc = ::io_uring_queue_init(kEntries, &ring_, IORING_SETUP_COOP_TASKRUN);
    if (rc == -EINVAL) rc = ::io_uring_queue_init(kEntries, &ring_, 0);  // before Linux 5.19
    open_ = rc == 0;
    return rc;
  }

  /// Runs the operation that `prepare` describes: its result, -ETIME at the deadline.
  template <class Prepare>
  [[nodiscard]] int run(Prepare prepare, deadline until) noexcept {
    ::io_uring_sqe* const operation = ::io_uring_get_sqe(&ring_);
    prepare(operation);
    operation->flags |= IOSQE_IO_LINK;
    operation->user_data = kOperation;
    // steady_clock counts CLOCK_MONOTONIC, as the kernel's absolute timeouts do.
    const auto since = until.time_since_epoch();
    const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
    ::__kernel_timespec limit = {
        .tv_sec = seconds.count(),
        .tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(since - seconds).count()};
    ::io_uring_sqe* const timeout = ::io_uring_get_sqe(&ring_);
    ::io_uring_prep_link_timeout(timeout, &limit, IORING_TIMEOUT_ABS);
    timeout->user_data = kTimeout;
    return finish();
  }

 private:
  static constexpr std::uint64_t kOperation = 1, kTimeout = 2;

  /// The kernel uses the caller's buffers until both entries have completed, so nothing ends the wait early.
  int finish() noexcept {
    int outcome = 0;
    bool expired = false;
    for (unsigned n_done = 0; n_done < 2;) {
      (void)::io_uring_submit_and_wait(&ring_, 1);
      ::io_uring_cqe* done = nullptr;
      while (::io_uring_peek_cqe(&ring_, &done) == 0) {
        if (done->user_data == kOperation) outcome = done->res;
        if (done->user_data == kTimeout) expired = done->res == -ETIME;
        ::io_uring_cqe_seen(&ring_, done);
        ++n_done;
      }
    }
    // A cancelled wait ends with -ECANCELED, or with -EINTR where a worker of the kernel held it.
    return expired && outcome < 0 ? -ETIME : outcome;
  }

  ::io_uring ring_ = {};
  bool open_ = false;
};

/// One for each direction, so that the two threads of a channel share nothing but the socket.
struct ring_pair {
  ring sending, receiving;
};

class uring_channel final : public tcp_channel {
 public:
  uring_channel(socket_fd fd, std::unique_ptr<ring_pair> rings)
      : tcp_channel(std::move(fd)), rings_(std::move(rings)) {}

  [[nodiscard]] status send(std::span<const const_bytes> parts, deadline until) override;
  [[nodiscard]] status receive(std::span<std::byte> dst, deadline until) override;

 private:
  static constexpr std::size_t kMost = std::size_t{1} << 30;  // results are 32-bit

  [[nodiscard]] status judge(int outcome, std::string_view doing) const;

  std::unique_ptr<ring_pair> rings_;
};

status uring_channel::send(std::span<const const_bytes> parts, deadline until) {
  gather_list list(parts);
  while (!list.done()) {
    if (is_down()) return fail_shut_down();
    const std::span<::iovec> vectors = list.next();
    ::msghdr message = {};
    message.msg_iov = vectors.data();
    message.msg_iovlen = vectors.size();
    const int n = rings_->sending.run(
        [&](::io_uring_sqe* entry) {
          ::io_uring_prep_sendmsg(entry, fd(), &message, MSG_NOSIGNAL | MSG_WAITALL);
        },
        until);
    if (n < 0) {
      TERSOR_CHECK(judge(n, "send"));
      continue;
    }
    list.advance(static_cast<std::size_t>(n));
    if (!list.done() && clock::now() >= until) return fail_timed_out();
  }
  return {};
}

status uring_channel::receive(std::span<std::byte> dst, deadline until) {
  const std::size_t size = dst.size();
  while (!dst.empty()) {
    if (is_down()) return fail_shut_down();
    const auto here = dst.first(std::min(dst.size(), kMost));
    const int n = rings_->receiving.run(
        [&](::io_uring_sqe* entry) {
          ::io_uring_prep_recv(entry, fd(), here.data(), here.size(), MSG_WAITALL);
        },
        until);
    if (n < 0) {
      TERSOR_CHECK(judge(n, "receive"));
      continue;
    }
    if (n == 0 && is_down()) return fail_shut_down();
    if (n == 0) return dst.size() == size ? fail(errc::not_found, "closed by the peer") : fail_closed();
    dst = dst.subspan(static_cast<std::size_t>(n));
    if (!dst.empty() && clock::now() >= until) return fail_timed_out();
  }
  return {};
}

status uring_channel::judge(int outcome, std::string_view doing) const {
  if (is_down()) return fail_shut_down();
  if (outcome == -ETIME) return fail_timed_out();
  if (outcome == -EPIPE || outcome == -ECONNRESET) return fail_closed();
  if (outcome == -EINTR || outcome == -EAGAIN) return {};
  return fail_socket(-outcome, doing);
}

uring_state probe_uring() {
#ifdef __SANITIZE_THREAD__
  // liburing maps and unmaps rings by system calls that the sanitizer does not see: it takes a new ring at
  // the address of an old one for a race.
  return {false, "poll (ThreadSanitizer)"};
#else
  const char* const wish = std::getenv("TERSOR_IO_URING");
  if (wish != nullptr && std::string_view(wish) == "0") return {false, "poll (TERSOR_IO_URING=0)"};
  ring probe;
  if (const int rc = probe.open(); rc != 0)
    return {false, "poll (the kernel refuses io_uring: " + std::generic_category().message(-rc) + ")"};
  return {true, "io_uring"};
#endif
}

}  // namespace

const uring_state& find_uring() {
  static const uring_state kState = probe_uring();
  return kState;
}

std::unique_ptr<channel> make_uring_channel(socket_fd& fd) {
  if (!find_uring().used) return nullptr;
  auto rings = std::make_unique<ring_pair>();
  if (rings->sending.open() != 0 || rings->receiving.open() != 0) return nullptr;
  // A ring waits by itself, but only on sockets that may block.
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) return nullptr;
  return std::make_unique<uring_channel>(std::move(fd), std::move(rings));
}

}  // namespace tersor::transfer
