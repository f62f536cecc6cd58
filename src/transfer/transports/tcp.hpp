// Channels over TCP, and what transports that keep their control stream on TCP need of them.
#pragma once

#include <atomic>

#include "transfer/transports/socket.hpp"

namespace tersor::transfer {

/// A stream over a connected, non-blocking socket, by poll().
class tcp_channel : public channel {
 public:
  explicit tcp_channel(socket_fd fd);
  [[nodiscard]] status send(std::span<const const_bytes> parts, deadline until) override;
  [[nodiscard]] status receive(std::span<std::byte> dst, deadline until) override;
  void shutdown() noexcept override;
  [[nodiscard]] std::string peer() const override { return peer_; }

 protected:
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] bool is_down() const noexcept { return down_.load(std::memory_order_acquire); }

 private:
  socket_fd fd_;
  std::string peer_;
  std::atomic<bool> down_ = false;
};

class tcp_listener : public listener {
 public:
  explicit tcp_listener(socket_fd fd);
  [[nodiscard]] result<std::unique_ptr<channel>> accept(deadline until) override;
  [[nodiscard]] endpoint address() const override { return address_; }
  void close() noexcept override;

 protected:
  [[nodiscard]] result<socket_fd> accept_one(deadline until);

 private:
  socket_fd fd_;
  endpoint address_;
  std::atomic<bool> closed_ = false;
};

}  // namespace tersor::transfer
