// A relay between a sender and a receiver that breaks its connections where it is told to.
#pragma once

#include <list>
#include <thread>

#include "support.hpp"

namespace transfer_test {

class tcp_proxy {
 public:
  enum class manner : std::uint8_t { close, silence };
  /// What happens after `after` bytes of one direction; nothing for ~0.
  struct cut {
    kv::role from = kv::role::sender;
    std::uint64_t after = ~std::uint64_t{0};
    manner how = manner::close;
  };
  explicit tcp_proxy(const kv::endpoint& upstream);
  ~tcp_proxy();
  tcp_proxy(const tcp_proxy&) = delete;
  tcp_proxy& operator=(const tcp_proxy&) = delete;

  [[nodiscard]] kv::endpoint address() const { return {.host = "127.0.0.1", .port = port_}; }
  /// For the next connection; later ones are whole again.
  void cut_next(const cut& where);
  /// Bytes of the newest connection that came from this side.
  [[nodiscard]] std::uint64_t passed(kv::role from) const;
  [[nodiscard]] unsigned n_connections() const { return n_connections_; }

 private:
  void accept_loop();
  void relay(int client, const cut& where);

  kv::endpoint upstream_;
  std::uint16_t port_ = 0;
  int door_ = -1, stop_read_ = -1, stop_write_ = -1;
  mutable std::mutex mutex_;
  cut next_;
  std::array<std::uint64_t, 2> passed_ = {};
  std::atomic<unsigned> n_connections_{0};
  std::atomic<bool> stopped_{false};
  std::thread acceptor_;
};

/// A connected socket on loopback, or the end of the test program.
[[nodiscard]] int connect_loopback(std::uint16_t port);

}  // namespace transfer_test
