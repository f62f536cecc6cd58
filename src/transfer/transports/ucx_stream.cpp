#include <algorithm>
#include <cstring>

#include "transfer/transports/socket.hpp"
#include "transfer/transports/ucx_channel.hpp"

namespace tersor::transfer {
namespace {

constexpr std::size_t kLarge = std::size_t{32} << 10;  // from here on by rendezvous
constexpr std::size_t kMostPieces = 8;                 // rendezvous under way

bool is_disconnect(::ucs_status_t code) noexcept {
  return code == UCS_ERR_CONNECTION_RESET || code == UCS_ERR_NOT_CONNECTED ||
         code == UCS_ERR_ENDPOINT_TIMEOUT;
}

}  // namespace

// ---- Waiting ----

status ucx_channel::why_not() const {
  if (down_) return fail_shut_down();
  if (broken_ == UCS_OK || is_disconnect(broken_)) return fail_closed();
  return fail_ucx(broken_, "go on");
}

template <class Predicate>
status ucx_channel::wait(guard& lock, deadline until, Predicate done) {
  for (;;) {
    if (done()) return {};
    if (down_ || broken_ != UCS_OK) return why_not();
    if (changed_.wait_until(lock, until) == std::cv_status::timeout && !done() && !down_ && broken_ == UCS_OK)
      return fail_timed_out();
  }
}

status ucx_channel::wait_for_greeting(deadline until) {
  guard lock(mutex_);
  return wait(lock, until, [&] { return greeted_; });
}

/// UCX uses the memory of an operation until it is done, whatever the deadline says.
void ucx_channel::abandon(guard& lock, const operation& op) {
  if (op.done) return;
  close_endpoint();
  changed_.wait(lock, [&] { return op.done; });
}

// ---- Sending ----

void ucx_channel::post(unsigned id, operation& op, const_bytes data, unsigned flags) {
  ::ucp_request_param_t params = {};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  params.cb.send = &ucx_channel::on_sent;
  params.user_data = &op;
  params.flags = flags;
  if (endpoint_ == nullptr) {
    op.outcome = UCS_ERR_NOT_CONNECTED;
    op.done = true;
    return;
  }
  settle(op, find_ucx().am_send_nbx(endpoint_, id, &op.header, sizeof op.header, data.data(), data.size(),
                                    &params));
}

void ucx_channel::post_notice(unsigned id, std::uint64_t value) {
  std::erase_if(notices_, [](const operation& op) { return op.done; });
  operation& op = notices_.emplace_back();
  op.header = value;
  post(id, op, {}, UCP_AM_SEND_FLAG_EAGER);
}

/// Waits until at most `n_left` of the operations are under way; on an error until none is.
status ucx_channel::collect(guard& lock, std::list<operation>& posted, std::size_t n_left, deadline until) {
  while (posted.size() > n_left) {
    const operation& first = posted.front();
    if (auto waited = wait(lock, until, [&] { return first.done; }); !waited) {
      for (const operation& op : posted) abandon(lock, op);
      return waited;
    }
    if (first.outcome != UCS_OK) {
      const ::ucs_status_t code = first.outcome;
      for (const operation& op : posted) abandon(lock, op);
      if (down_ || broken_ != UCS_OK || is_disconnect(code)) return why_not();
      return fail_ucx(code, "send");
    }
    posted.pop_front();
  }
  return {};
}

status ucx_channel::send_copied(guard& lock, std::list<operation>& posted, std::vector<std::byte> bytes,
                                deadline until) {
  if (bytes.empty()) return {};
  const std::size_t size = bytes.size();
  if (auto free = wait(lock, until, [&] { return copied_out_ - consumed_out_ + size <= kWindow; }); !free) {
    for (const operation& op : posted) abandon(lock, op);
    return free;
  }
  operation& op = posted.emplace_back();
  op.header = next_out_++;
  op.copied = std::move(bytes);
  copied_out_ += size;
  post(kData, op, op.copied, UCP_AM_SEND_FLAG_EAGER);
  return collect(lock, posted, kMostPieces, until);
}

status ucx_channel::send_large(guard& lock, std::list<operation>& posted, const_bytes part, deadline until) {
  while (!part.empty()) {
    const const_bytes piece = part.first(std::min(part.size(), kPiece));
    operation& op = posted.emplace_back();
    op.header = next_out_++;
    post(kData, op, piece, UCP_AM_SEND_FLAG_RNDV);
    part = part.subspan(piece.size());
    TERSOR_CHECK(collect(lock, posted, kMostPieces, until));
  }
  return {};
}

status ucx_channel::send(std::span<const const_bytes> parts, deadline until) {
  guard lock(mutex_);
  if (down_ || broken_ != UCS_OK || end_ != kNoEnd) return why_not();
  std::list<operation> posted;
  std::vector<std::byte> small;
  for (const const_bytes part : parts) {
    if (part.size() < kLarge && small.size() + part.size() < kLarge) {
      small.insert(small.end(), part.begin(), part.end());
      continue;
    }
    TERSOR_CHECK(send_copied(lock, posted, std::exchange(small, {}), until));
    if (part.size() < kLarge) {
      small.assign(part.begin(), part.end());
    } else {
      TERSOR_CHECK(send_large(lock, posted, part, until));
    }
  }
  TERSOR_CHECK(send_copied(lock, posted, std::move(small), until));
  return collect(lock, posted, 0, until);
}

// ---- Receiving ----

/// Copied bytes were read: the peer may send as many more.
void ucx_channel::consume(std::size_t n_bytes) {
  copied_in_ += n_bytes;
  inbox_bytes_ -= n_bytes;
  if (copied_in_ - reported_in_ < kWindow / 4) return;
  reported_in_ = copied_in_;
  post_notice(kConsumed, reported_in_);
}

status ucx_channel::fetch(guard& lock, message& from, std::span<std::byte> dst, deadline until) {
  operation op;
  ::ucp_request_param_t params = {};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.recv_am = &ucx_channel::on_received;
  params.user_data = &op;
  void* const described = std::exchange(from.rendezvous, nullptr);
  settle(op, find_ucx().am_recv_data_nbx(worker_.get(), described, dst.data(), dst.size(), &params));
  if (auto waited = wait(lock, until, [&] { return op.done; }); !waited) {
    abandon(lock, op);
    return waited;
  }
  if (op.outcome == UCS_OK) return {};
  if (down_ || broken_ != UCS_OK || is_disconnect(op.outcome)) return why_not();
  return fail_ucx(op.outcome, "receive");
}

status ucx_channel::next_message(guard& lock, bool at_start, deadline until) {
  const auto has_next = [&] { return !inbox_.empty() && inbox_.begin()->first == next_in_; };
  const auto has_ended = [&] { return end_ <= next_in_; };
  if (down_) return fail_shut_down();
  if (!has_next()) {
    // What arrived before the end of the connection is still to be read.
    const auto waited = wait(lock, until, [&] { return has_next() || has_ended(); });
    if (down_) return fail_shut_down();
    if (has_ended() || (!waited && is_disconnect(broken_)))
      return at_start ? fail(errc::not_found, "closed by the peer") : fail_closed();
    TERSOR_CHECK(waited);
  }
  current_ = std::move(inbox_.begin()->second);
  current_offset_ = 0;
  inbox_.erase(inbox_.begin());
  ++next_in_;
  return {};
}

status ucx_channel::receive(std::span<std::byte> dst, deadline until) {
  guard lock(mutex_);
  const std::size_t size = dst.size();
  while (!dst.empty()) {
    if (current_offset_ < current_.bytes.size()) {
      if (down_) return fail_shut_down();
      const std::size_t n = std::min(dst.size(), current_.bytes.size() - current_offset_);
      std::memcpy(dst.data(), current_.bytes.data() + current_offset_, n);
      current_offset_ += n;
      dst = dst.subspan(n);
      if (current_.copied) consume(n);
      continue;
    }
    TERSOR_CHECK(next_message(lock, dst.size() == size, until));
    if (current_.rendezvous == nullptr) continue;
    if (current_.size <= dst.size()) {
      TERSOR_CHECK(fetch(lock, current_, dst.first(current_.size), until));
      dst = dst.subspan(current_.size);
      continue;
    }
    std::vector<std::byte> staged(current_.size);
    TERSOR_CHECK(fetch(lock, current_, staged, until));
    current_.bytes = std::move(staged);
  }
  return {};
}

}  // namespace tersor::transfer
