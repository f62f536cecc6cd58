// Messages over a channel: sequence numbers, digests, tags and deadlines.
#pragma once

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "transfer/security/auth.hpp"
#include "transfer/session/wire.hpp"
#include "transfer/transports/channel.hpp"

namespace tersor::transfer {

/// One end of a connection. `send` may be called by several threads, `receive*` by one.
class message_link {
 public:
  message_link(std::unique_ptr<channel> over, role own, const timeouts& limits)
      : channel_(std::move(over)), own_(own), limits_(limits) {}

  /// From now on headers are bound to this session and, with keys, every message carries tags.
  void secure(std::uint64_t salt, std::optional<message_keys> keys);

  /// Fills in sequence, payload size and, unless it is a part, the payload's digest. With `beside`, the
  /// payload goes by another path and is only counted and tagged here.
  [[nodiscard]] status send(message_header header, const_bytes payload, bool beside = false);
  /// The next header, waited for until `first_byte`. Its payload must be taken next. Errors: `not_found`
  /// (closed between messages), `io_error`, `bad_magic`, `digest_mismatch`, `malformed`.
  [[nodiscard]] result<message_header> receive_header(deadline first_byte);
  /// The payload of a message that is no part; refuses more than `limit` bytes before it reads one.
  [[nodiscard]] result<std::vector<std::byte>> receive_payload(const message_header& header,
                                                               std::uint64_t limit);
  /// A part's payload, into `dst`, which is exactly as long. With `beside`, the bytes are there already.
  [[nodiscard]] status receive_part(const message_header& header, std::span<std::byte> dst, bool beside);

  /// Nothing waits longer than this until the cap is lifted: the handshake as a whole has a limit.
  void cap(deadline until) noexcept { cap_ = until; }
  void lift_cap() noexcept { cap_ = deadline::max(); }
  /// Takes in what still comes, whatever it is, until the peer closes.
  void discard(deadline until);

  [[nodiscard]] deadline message_deadline() const noexcept {
    return std::min(clock::now() + limits_.message, cap_);
  }
  [[nodiscard]] deadline idle_deadline() const noexcept { return clock::now() + limits_.idle; }
  void shutdown() noexcept { channel_->shutdown(); }
  [[nodiscard]] std::string peer() const { return channel_->peer(); }
  [[nodiscard]] std::uint64_t sent_bytes() const noexcept {
    return sent_bytes_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t received_bytes() const noexcept {
    return received_bytes_.load(std::memory_order_relaxed);
  }

 private:
  [[nodiscard]] digest_key key_of(role from) const noexcept {
    return {.salt = salt_, .direction = static_cast<std::uint64_t>(from)};
  }
  [[nodiscard]] role peer_role() const noexcept {
    return own_ == role::sender ? role::receiver : role::sender;
  }
  [[nodiscard]] status check_tag(message_keys::section which, std::span<const const_bytes> parts,
                                 const tag& given);

  std::unique_ptr<channel> channel_;
  role own_;
  timeouts limits_;
  std::uint64_t salt_ = 0;
  std::optional<message_keys> keys_;
  std::mutex sending_;
  std::uint64_t next_sent_ = 0, next_received_ = 0;
  header_bytes last_header_ = {};
  deadline message_until_ = {};
  deadline cap_ = deadline::max();
  std::atomic<std::uint64_t> sent_bytes_{0}, received_bytes_{0};
};

}  // namespace tersor::transfer
