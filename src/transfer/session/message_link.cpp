#include "transfer/session/message_link.hpp"

namespace tersor::transfer {

void message_link::secure(std::uint64_t salt, std::optional<message_keys> keys) {
  const std::lock_guard lock(sending_);
  salt_ = salt;
  keys_ = std::move(keys);
}

status message_link::send(message_header header, const_bytes payload, bool beside) {
  const std::lock_guard lock(sending_);
  header.sequence = next_sent_++;
  header.payload_bytes = payload.size();
  if (header.type != message_type::part) header.payload_digest = payload_digest(payload, key_of(own_));
  const header_bytes head = write_header(header, key_of(own_));
  tag head_tag, payload_tag;
  std::array<const_bytes, 4> parts = {head, {}, {}, {}};
  if (keys_) {
    const std::array<const_bytes, 1> head_parts = {head};
    TERSOR_TRY(head_tag, keys_->seal(header.sequence, message_keys::section::header, head_parts));
    parts[1] = head_tag;
    if (!payload.empty()) {
      const std::array<const_bytes, 2> all_parts = {head, payload};
      TERSOR_TRY(payload_tag, keys_->seal(header.sequence, message_keys::section::payload, all_parts));
      parts[3] = payload_tag;
    }
  }
  if (!beside) parts[2] = payload;
  std::uint64_t n_bytes = 0;
  for (const const_bytes p : parts) n_bytes += p.size();
  TERSOR_CHECK(channel_->send(parts, message_deadline()));
  sent_bytes_.fetch_add(n_bytes + (beside ? payload.size() : 0), std::memory_order_relaxed);
  return {};
}

result<message_header> message_link::receive_header(deadline first_byte) {
  TERSOR_CHECK(channel_->receive(std::span(last_header_).first(1), first_byte));
  // A peer that has begun a message owes the rest of it.
  message_until_ = message_deadline();
  TERSOR_CHECK(channel_->receive(std::span(last_header_).subspan(1), message_until_));
  received_bytes_.fetch_add(last_header_.size(), std::memory_order_relaxed);
  if (keys_) {
    tag given;
    TERSOR_CHECK(channel_->receive(given, message_until_));
    received_bytes_.fetch_add(given.size(), std::memory_order_relaxed);
    const std::array<const_bytes, 1> parts = {last_header_};
    TERSOR_CHECK(check_tag(message_keys::section::header, parts, given));
  }
  TERSOR_TRY(const message_header header, read_header(last_header_, key_of(peer_role())));
  if (header.sequence != next_received_) {
    return fail(errc::malformed, "message " + std::to_string(header.sequence) + " came where message " +
                                     std::to_string(next_received_) + " was due");
  }
  return header;
}

result<std::vector<std::byte>> message_link::receive_payload(const message_header& header,
                                                             std::uint64_t limit) {
  if (header.payload_bytes > limit) {
    return fail(errc::malformed, "a message declares " + std::to_string(header.payload_bytes) +
                                     " bytes, at most " + std::to_string(limit) + " are allowed");
  }
  std::vector<std::byte> payload(header.payload_bytes);
  TERSOR_CHECK(receive_part(header, payload, false));
  if (payload_digest(payload, key_of(peer_role())) != header.payload_digest) {
    return fail(errc::digest_mismatch, "the digest of a message differs");
  }
  return payload;
}

status message_link::receive_part(const message_header& header, std::span<std::byte> dst, bool beside) {
  if (dst.size() != header.payload_bytes) return fail(errc::internal, "a payload's buffer has another size");
  ++next_received_;
  if (dst.empty()) return {};
  if (!beside) TERSOR_CHECK(channel_->receive(dst, message_until_));
  received_bytes_.fetch_add(dst.size(), std::memory_order_relaxed);
  if (!keys_) return {};
  tag given;
  TERSOR_CHECK(channel_->receive(given, message_until_));
  received_bytes_.fetch_add(given.size(), std::memory_order_relaxed);
  const std::array<const_bytes, 2> parts = {last_header_, dst};
  return check_tag(message_keys::section::payload, parts, given);
}

void message_link::discard(deadline until) {
  std::array<std::byte, 16384> ignored;
  while (channel_->receive(ignored, until)) continue;
}

status message_link::check_tag(message_keys::section which, std::span<const const_bytes> parts,
                               const tag& given) {
  if (keys_->check(next_received_ - (which == message_keys::section::payload ? 1 : 0), which, parts, given))
    return {};
  return fail(errc::digest_mismatch, "a message is not authentic: another key, or it was changed on the way");
}

}  // namespace tersor::transfer
