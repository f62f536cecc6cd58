// A man in the middle of one direction: it changes one message.
#pragma once

#include "support.hpp"

namespace transfer_test {

enum class fault : std::uint8_t {
  flip,        ///< one bit
  flips,       ///< several bits
  byte,        ///< another value
  zeros,       ///< a run of zeros
  inserted,    ///< bytes that nobody sent
  cut,         ///< the rest of the message is missing
  swapped,     ///< with the next message
  duplicated,  ///< sent twice
  dropped,     ///< not sent
  replayed,    ///< an earlier message of this session instead
  recorded,    ///< a message of another session instead
  spliced,     ///< with the payload of an earlier message
  resealed,    ///< a field is changed and every digest made right again: needs a key to be noticed
};
inline constexpr unsigned kFaultsWithoutKey = 12;
inline constexpr unsigned kFaults = 13;

/// The messages of one direction of a session.
using recording = std::vector<bytes>;

/// What both ends take from their hellos, as anybody can who listens: the salt, and with 1 the digest of an
/// empty tenant.
[[nodiscard]] std::uint64_t salt_of(const bytes& hello, const bytes& welcome, std::uint64_t number = 0);

class tamperer {
 public:
  /// `earlier`: a whole recorded session. `lockstep`: messages at the beginning after each of which the
  /// sending end waits for an answer. `direction`: 0 from the sender.
  struct plan {
    fault kind = fault::flip;
    std::size_t target = 0;
    std::size_t lockstep = 0;
    std::uint64_t direction = 0;
    const recording* earlier = nullptr;
  };
  tamperer(const plan& what, dice& random) : plan_(what), random_(random) {}

  [[nodiscard]] std::vector<bytes> pass(bytes message);
  /// True if what was delivered is not what was sent.
  [[nodiscard]] bool changed() const { return changed_; }
  [[nodiscard]] const recording& seen() const { return seen_; }
  /// For `resealed`, before the target comes.
  void set_salt(std::uint64_t salt) { salt_ = salt; }

 private:
  [[nodiscard]] bytes change(bytes message);
  void reseal(bytes& message);
  [[nodiscard]] std::vector<bytes> deliver(const bytes& message);

  plan plan_;
  dice& random_;
  recording seen_;
  std::optional<bytes> held_back_;
  std::uint64_t salt_ = 0;
  bool changed_ = false;
};

}  // namespace transfer_test
