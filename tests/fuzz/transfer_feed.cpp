#include "transfer_feed.hpp"

#include "../transfer/tamper.hpp"
#include "core/bytes.hpp"
#include "transfer/session/payloads.hpp"

namespace fuzz {

namespace kv = tersor::transfer;
using tersor::errc;
using tersor::status;

void fed_channel::append(kv::message_header header, std::span<const std::byte> payload) {
  const kv::digest_key key{.salt = salt_, .direction = own_ == kv::role::receiver ? 0U : 1U};
  header.sequence = sequence_++;
  const bool huge = header.kind == kHugePayload;
  header.payload_bytes = huge ? std::uint64_t{1} << 62 : payload.size();
  if (header.type != kv::message_type::part) {
    header.payload_digest = kv::payload_digest(payload, key);
  } else if (const auto info = tersor::inspect(payload)) {
    header.payload_digest = info->digest;
  }
  const auto head = kv::write_header(header, key);
  ready_.insert(ready_.end(), head.begin(), head.end());
  ready_.insert(ready_.end(), payload.begin(), payload.end());
}

status fed_channel::send(std::span<const kv::const_bytes> parts, kv::deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (said_by_peer_.empty()) {
      for (const kv::const_bytes p : parts) said_by_peer_.insert(said_by_peer_.end(), p.begin(), p.end());
    }
    ++n_sent_;
    given_up_ = given_up_ || static_cast<kv::message_type>(parts[0][4]) == kv::message_type::fail;
  }
  wake_.notify_all();
  return {};
}

void fed_channel::shutdown() noexcept {
  {
    const std::lock_guard lock(mutex_);
    given_up_ = true;
  }
  wake_.notify_all();
}

void fed_channel::wait_for_sent(std::unique_lock<std::mutex>& lock, std::uint64_t n) {
  constexpr std::chrono::milliseconds kLongEnough{5};
  (void)wake_.wait_for(lock, kLongEnough, [&] { return given_up_ || n_sent_ >= n; });
}

bool fed_channel::refill() {
  ready_.clear();
  taken_ = 0;
  const bool as_sender = own_ == kv::role::receiver;
  if (sequence_ == 0) {
    const auto hello = as_sender ? write(kv::hello{.transport = "tcp"}) : write(kv::welcome{});
    append({.type = as_sender ? kv::message_type::hello : kv::message_type::welcome}, hello);
    own_hello_ = ready_;
    return true;
  }
  if (sequence_ == 1) {
    salt_ = as_sender ? transfer_test::salt_of(own_hello_, said_by_peer_)
                      : transfer_test::salt_of(said_by_peer_, own_hello_);
  }
  if (in_.size() < kFedHeaderBytes) return false;
  const auto at = [this](std::size_t i) { return in_[i]; };
  const kv::message_header header{.type = static_cast<kv::message_type>(at(0)),
                                  .kind = at(1),
                                  .codec = at(2),
                                  .request = at(3),
                                  .epoch = at(4),
                                  .region = at(5),
                                  .layer = at(6),
                                  .slot = at(7),
                                  .first_page = at(8),
                                  .n_pages = at(9)};
  const std::size_t n = std::min<std::size_t>(at(10) + 256U * at(11), in_.size() - kFedHeaderBytes);
  const auto payload = as_bytes(in_.subspan(kFedHeaderBytes, n));
  if (header.type == kv::message_type::offer && n >= 8) {
    // It ends with a digest over this handshake, which no input can know.
    std::vector<std::byte> offer(payload.begin(), payload.end());
    tersor::core::store_le(&offer[n - 8], transfer_test::salt_of(own_hello_, said_by_peer_, 1));
    append(header, offer);
  } else {
    append(header, payload);
  }
  in_ = in_.subspan(kFedHeaderBytes + n);
  return true;
}

status fed_channel::receive(std::span<std::byte> dst, kv::deadline) {
  std::unique_lock lock(mutex_);
  std::size_t filled = 0;
  while (filled < dst.size()) {
    const bool wanting = taken_ == ready_.size();
    // An answer comes after what it answers.
    if (wanting && own_ == kv::role::sender) wait_for_sent(lock, sequence_ + 1);
    if (wanting && !refill()) {
      // What came is still being decoded.
      if (own_ == kv::role::receiver) wait_for_sent(lock, sequence_);
      return tersor::fail(filled == 0 ? errc::not_found : errc::io_error, "closed by the peer");
    }
    const std::size_t n = std::min(dst.size() - filled, ready_.size() - taken_);
    std::copy_n(ready_.begin() + static_cast<std::ptrdiff_t>(taken_), n,
                dst.begin() + static_cast<std::ptrdiff_t>(filled));
    taken_ += n;
    filled += n;
  }
  return {};
}

}  // namespace fuzz
