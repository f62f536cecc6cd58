// The other end of a connection, made of fuzz input: its handshake is right, its messages carry right
// digests, and everything else in them is the input's.
#pragma once

#include "../transfer/support.hpp"
#include "fuzz_target.hpp"

namespace fuzz {

/// One message as the input holds it: twelve bytes of fields and payload length, then the payload.
inline constexpr std::size_t kFedHeaderBytes = 12;
inline constexpr std::uint8_t kHugePayload = 255;  ///< as `kind`: the header declares far more than comes

/// A channel to one end of the library. `own` is the role of that end.
class fed_channel final : public tersor::transfer::channel {
 public:
  fed_channel(tersor::transfer::role own, input data) : own_(own), in_(data) {}

  tersor::status send(std::span<const tersor::transfer::const_bytes> parts,
                      tersor::transfer::deadline until) override;
  tersor::status receive(std::span<std::byte> dst, tersor::transfer::deadline until) override;
  void shutdown() noexcept override;
  std::string peer() const override { return "input"; }

 private:
  /// The next message, or nothing at the end of the input.
  [[nodiscard]] bool refill();
  /// Until the library's end has sent `n` messages, gives up, or was given time enough.
  void wait_for_sent(std::unique_lock<std::mutex>& lock, std::uint64_t n);
  void append(tersor::transfer::message_header header, std::span<const std::byte> payload);

  tersor::transfer::role own_;
  input in_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::uint64_t n_sent_ = 0;
  bool given_up_ = false;
  std::vector<std::byte> said_by_peer_;  ///< the payload of its first message
  std::vector<std::byte> own_hello_;
  std::vector<std::byte> ready_;
  std::size_t taken_ = 0;
  std::uint64_t sequence_ = 0, salt_ = 0;
};

}  // namespace fuzz
