#include "tamper.hpp"

#include "codec/digest.hpp"
#include "core/bytes.hpp"

namespace transfer_test {
namespace {

using tersor::core::load_le;
using tersor::core::store_le;

constexpr std::size_t kDigestAt = kv::kHeaderBytes - 8;
constexpr std::size_t kPayloadDigestAt = 64;

}  // namespace

std::uint64_t salt_of(const bytes& hello, const bytes& welcome, std::uint64_t number) {
  using namespace tersor::codec_detail;
  bytes said(hello.begin() + kv::kHeaderBytes, hello.end());
  said.insert(said.end(), welcome.begin() + kv::kHeaderBytes, welcome.end());
  std::fill_n(said.end() - kv::kProofBytes, kv::kProofBytes, std::byte{0});
  return chain_next(chain_start(digest_domain::handshake, number),
                    kv::payload_digest(said, {.salt = number, .direction = 2}));
}

void tamperer::reseal(bytes& m) {
  const std::span<std::byte> head = std::span(m).first(kv::kHeaderBytes);
  const auto n_payload = load_le<std::uint64_t>(&head[56]);
  const bool in_the_clear = seen_.size() == 1;
  const std::size_t payload_at = in_the_clear ? kv::kHeaderBytes : kv::kHeaderBytes + kv::kTagBytes;
  const kv::digest_key key{.salt = in_the_clear ? 0 : salt_, .direction = plan_.direction};
  const bool has_payload = n_payload > 0 && payload_at + n_payload <= m.size();
  if (has_payload && (in_the_clear || random_.below(2) == 0)) {
    m[payload_at + random_.below(n_payload)] ^= static_cast<std::byte>(1U << random_.below(8));
    if (static_cast<kv::message_type>(m[4]) != kv::message_type::part) {
      store_le(&head[kPayloadDigestAt], kv::payload_digest(std::span(m).subspan(payload_at, n_payload), key));
    }
  } else {
    // A field behind type and reserved byte; the length last, so that most messages keep theirs.
    head[8 + random_.below(48)] ^= static_cast<std::byte>(1U << random_.below(8));
  }
  using namespace tersor::codec_detail;
  std::uint64_t hash = chain_next(chain_start(digest_domain::message_header, key.direction), key.salt);
  for (std::size_t at = 0; at < kDigestAt; at += 8)
    hash = chain_next(hash, load_le<std::uint64_t>(&head[at]));
  store_le(&head[kDigestAt], hash);
}

bytes tamperer::change(bytes m) {
  switch (plan_.kind) {
    case fault::flips:
      for (std::uint64_t n = 2 + random_.below(6); n > 0; --n) {
        m[random_.below(m.size())] ^= static_cast<std::byte>(1U << random_.below(8));
      }
      return m;
    case fault::byte:
      m[random_.below(m.size())] = static_cast<std::byte>(random_.next());
      return m;
    case fault::zeros: {
      const std::size_t at = random_.below(m.size());
      const std::size_t n = std::min<std::size_t>(m.size() - at, 1 + random_.below(32));
      std::fill_n(m.begin() + static_cast<std::ptrdiff_t>(at), n, std::byte{0});
      return m;
    }
    case fault::inserted:
      for (std::uint64_t n = 1 + random_.below(8); n > 0; --n) {
        m.insert(m.begin() + static_cast<std::ptrdiff_t>(random_.below(m.size())),
                 static_cast<std::byte>(random_.next()));
      }
      return m;
    case fault::cut:
      m.resize(1 + random_.below(m.size() - 1));
      return m;
    case fault::replayed:
      return seen_.size() > 1 ? seen_[random_.below(seen_.size() - 1)] : m;
    case fault::recorded:
      return plan_.earlier != nullptr && !plan_.earlier->empty()
                 ? (*plan_.earlier)[random_.below(4) == 0 ? random_.below(plan_.earlier->size())
                                                          : std::min(seen_.size(), plan_.earlier->size()) - 1]
                 : m;
    case fault::spliced: {
      const bytes& other = seen_[random_.below(seen_.size())];
      if (other.size() != m.size()) return other;
      const std::size_t from = random_.below(2) == 0 ? kv::kHeaderBytes : random_.below(m.size());
      std::copy(other.begin() + static_cast<std::ptrdiff_t>(from), other.end(),
                m.begin() + static_cast<std::ptrdiff_t>(from));
      return m;
    }
    case fault::resealed:
      reseal(m);
      return m;
    default:
      m[random_.below(m.size())] ^= static_cast<std::byte>(1U << random_.below(8));
      return m;
  }
}

std::vector<bytes> tamperer::deliver(const bytes& message) {
  const std::size_t index = seen_.size() - 1;
  if (held_back_) {
    std::vector<bytes> both = {message, std::move(*held_back_)};
    held_back_.reset();
    return both;
  }
  if (index != plan_.target) return {message};
  // Where the sending end waits for an answer, the stream ends: it would never come.
  const bool waits = index < plan_.lockstep;
  if (plan_.kind == fault::dropped || (waits && plan_.kind == fault::swapped)) {
    changed_ = true;
    return waits ? std::vector<bytes>{bytes{}} : std::vector<bytes>{};
  }
  if (plan_.kind == fault::swapped) {
    changed_ = true;
    held_back_ = message;
    return {};
  }
  if (plan_.kind == fault::duplicated) {
    changed_ = true;
    return {message, message};
  }
  bytes other = change(message);
  changed_ = other != message;
  std::vector<bytes> delivered = {std::move(other)};
  if (changed_ && waits && plan_.kind == fault::cut) delivered.emplace_back();
  return delivered;
}

std::vector<bytes> tamperer::pass(bytes message) {
  seen_.push_back(message);
  return deliver(message);
}

}  // namespace transfer_test
