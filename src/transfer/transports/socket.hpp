// Plain sockets with deadlines: what the transports over TCP share. No call of this file blocks beyond its
// deadline, except name resolution, which has the system's own limits.
#pragma once

#include <string>
#include <utility>

#include <sys/socket.h>

#include "transfer/transports/channel.hpp"

namespace tersor::transfer {

/// Owns a file descriptor.
class socket_fd {
 public:
  socket_fd() = default;
  explicit socket_fd(int fd) noexcept : fd_(fd) {}
  socket_fd(socket_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  socket_fd& operator=(socket_fd&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~socket_fd() { close(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  void close() noexcept;

 private:
  int fd_ = -1;
};

/// `io_error`: "cannot <doing>: <reason>".
[[nodiscard]] tl::unexpected<error> fail_socket(int error_number, std::string_view doing);
[[nodiscard]] tl::unexpected<error> fail_timed_out();
[[nodiscard]] tl::unexpected<error> fail_closed();
[[nodiscard]] tl::unexpected<error> fail_shut_down();

/// Milliseconds until then, rounded up, as poll() takes them; at most a minute, so callers loop.
[[nodiscard]] int poll_timeout(deadline until) noexcept;
/// Waits for `events` of a descriptor. Errors: `io_error` ("timed out", the system's reason).
[[nodiscard]] status wait_for(int fd, short events, deadline until);

/// A connected stream socket: non-blocking, closed on exec, without Nagle's delay.
[[nodiscard]] result<socket_fd> connect_socket(const endpoint& to, deadline until);
[[nodiscard]] result<socket_fd> listen_socket(const endpoint& at);
/// Errors: `not_found` (none came in time), `io_error`.
[[nodiscard]] result<socket_fd> accept_socket(int listening, deadline until);

/// The address of an end point, for libraries that make their own sockets.
class socket_address {
 public:
  socket_address(const ::sockaddr* address, ::socklen_t size) noexcept;
  [[nodiscard]] const ::sockaddr* get() const noexcept {
    return reinterpret_cast<const ::sockaddr*>(&storage_);
  }
  [[nodiscard]] ::socklen_t size() const noexcept { return size_; }

 private:
  ::sockaddr_storage storage_ = {};
  ::socklen_t size_ = 0;
};
/// `family` is AF_INET, AF_INET6 or AF_UNSPEC.
[[nodiscard]] result<socket_address> resolve_one(const endpoint& e, int family, bool to_listen);
[[nodiscard]] endpoint endpoint_of(const ::sockaddr_storage& address, ::socklen_t length);

[[nodiscard]] endpoint local_address(int fd);
[[nodiscard]] std::string peer_address(int fd);

}  // namespace tersor::transfer
