// Proofs and tags of the pre-shared key: both ends agree, and nothing else passes.
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "transfer/security/auth.hpp"

namespace tersor::transfer {
namespace {

using section = message_keys::section;
using bytes = std::vector<std::byte>;

bytes of(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

const bytes kPsk = of("a key of thirty-two bytes for us");
const bytes kTranscript = of("hello of the sender, hello of the receiver");

bool has_openssl() {
  return handshake_proof(kPsk, kTranscript).has_value();
}

struct two_ends {
  message_keys sender;
  message_keys receiver;
};

two_ends make_ends(const bytes& sender_psk = kPsk, const bytes& receiver_psk = kPsk,
                   const bytes& receiver_transcript = kTranscript) {
  auto a = message_keys::derive(sender_psk, kTranscript, role::sender);
  auto b = message_keys::derive(receiver_psk, receiver_transcript, role::receiver);
  if (!a || !b) throw std::runtime_error("no keys");
  return {std::move(*a), std::move(*b)};
}

tag sealed(message_keys& keys, std::uint64_t sequence, section which, const std::vector<bytes>& parts) {
  const std::vector<std::span<const std::byte>> spans(parts.begin(), parts.end());
  const auto out = keys.seal(sequence, which, spans);
  if (!out) throw std::runtime_error(out.error().message);
  return *out;
}

bool passes(message_keys& keys, std::uint64_t sequence, section which, const std::vector<bytes>& parts,
            const tag& given) {
  const std::vector<std::span<const std::byte>> spans(parts.begin(), parts.end());
  return keys.check(sequence, which, spans, given);
}

TEST(TransferAuth, EqualSecret) {
  EXPECT_TRUE(equal_secret({}, {}));
  EXPECT_TRUE(equal_secret(of("same"), of("same")));
  EXPECT_FALSE(equal_secret(of("same"), of("sama")));
  EXPECT_FALSE(equal_secret(of("same"), of("same ")));
}

TEST(TransferAuth, WithoutOpensslAKeyIsRefused) {
  if (has_openssl()) GTEST_SKIP() << "this build has OpenSSL";
  EXPECT_EQ(handshake_proof(kPsk, kTranscript).error().code, errc::unsupported);
  EXPECT_EQ(message_keys::derive(kPsk, kTranscript, role::sender).error().code, errc::unsupported);
}

class TransferKeys : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_openssl()) GTEST_SKIP() << "this build has no OpenSSL";
  }
};

TEST_F(TransferKeys, ShortKeysAreRefused) {
  for (std::size_t size = 0; size < kMinPskBytes; ++size) {
    const bytes psk(size, std::byte{7});
    EXPECT_EQ(handshake_proof(psk, kTranscript).error().code, errc::invalid_argument) << size;
    EXPECT_EQ(message_keys::derive(psk, kTranscript, role::receiver).error().code, errc::invalid_argument);
  }
  EXPECT_TRUE(handshake_proof(bytes(kMinPskBytes, std::byte{7}), kTranscript).has_value());
}

TEST_F(TransferKeys, ProofsDependOnKeyAndTranscript) {
  const auto proof = *handshake_proof(kPsk, kTranscript);
  EXPECT_EQ(proof, *handshake_proof(kPsk, kTranscript));
  for (std::size_t i = 0; i < kPsk.size(); ++i) {
    bytes other = kPsk;
    other[i] ^= std::byte{1};
    EXPECT_NE(proof, *handshake_proof(other, kTranscript)) << i;
  }
  for (std::size_t i = 0; i < kTranscript.size(); ++i) {
    bytes other = kTranscript;
    other[i] ^= std::byte{0x80};
    EXPECT_NE(proof, *handshake_proof(kPsk, other)) << i;
  }
}

TEST_F(TransferKeys, BothDirectionsAgree) {
  two_ends ends = make_ends();
  const std::vector<bytes> message = {of("header"), of(""), of("payload")};
  for (const section which : {section::header, section::payload}) {
    for (const std::uint64_t sequence : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
      EXPECT_TRUE(
          passes(ends.receiver, sequence, which, message, sealed(ends.sender, sequence, which, message)));
      EXPECT_TRUE(
          passes(ends.sender, sequence, which, message, sealed(ends.receiver, sequence, which, message)));
    }
  }
}

TEST_F(TransferKeys, AnyChangeFails) {
  two_ends ends = make_ends();
  const bytes message = of("layer 7, pages 0 to 15");
  const tag good = sealed(ends.sender, 5, section::header, {message});
  ASSERT_TRUE(passes(ends.receiver, 5, section::header, {message}, good));
  for (std::size_t bit = 0; bit < 8 * message.size(); ++bit) {
    bytes changed = message;
    changed[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_FALSE(passes(ends.receiver, 5, section::header, {changed}, good)) << bit;
  }
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    tag changed = good;
    changed[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_FALSE(passes(ends.receiver, 5, section::header, {message}, changed)) << bit;
  }
  EXPECT_FALSE(passes(ends.receiver, 4, section::header, {message}, good));
  EXPECT_FALSE(passes(ends.receiver, 5, section::payload, {message}, good));
  EXPECT_FALSE(passes(ends.receiver, 5, section::header, {}, good));
  EXPECT_FALSE(passes(ends.receiver, 5, section::header, {message, of("more")}, good));
}

TEST_F(TransferKeys, ReflectedMessagesFail) {
  two_ends ends = make_ends();
  const std::vector<bytes> message = {of("credit")};
  const tag own = sealed(ends.sender, 0, section::header, message);
  EXPECT_FALSE(passes(ends.sender, 0, section::header, message, own));
}

TEST_F(TransferKeys, OtherSessionsAndKeysFail) {
  const std::vector<bytes> message = {of("part")};
  two_ends other_key = make_ends(kPsk, of("another key of thirty-two bytes!"));
  EXPECT_FALSE(passes(other_key.receiver, 0, section::header, message,
                      sealed(other_key.sender, 0, section::header, message)));
  two_ends other_session = make_ends(kPsk, kPsk, of("hello of an older session"));
  EXPECT_FALSE(passes(other_session.receiver, 0, section::header, message,
                      sealed(other_session.sender, 0, section::header, message)));
}

TEST_F(TransferKeys, ANonceIsNeverUsedTwice) {
  two_ends ends = make_ends();
  const bytes message = of("message");
  const std::vector<std::span<const std::byte>> parts = {message};
  ASSERT_TRUE(ends.sender.seal(3, section::header, parts).has_value());
  EXPECT_EQ(ends.sender.seal(3, section::header, parts).error().code, errc::internal);
  EXPECT_EQ(ends.sender.seal(2, section::header, parts).error().code, errc::internal);
  EXPECT_TRUE(ends.sender.seal(3, section::payload, parts).has_value());
  EXPECT_TRUE(ends.sender.seal(4, section::header, parts).has_value());
}

TEST_F(TransferKeys, CheckRunsBesideSeal) {
  two_ends ends = make_ends();
  const std::vector<bytes> message = {bytes(100'000, std::byte{3})};
  std::vector<tag> tags;
  for (std::uint64_t i = 0; i < 50; ++i) tags.push_back(sealed(ends.receiver, i, section::header, message));
  std::vector<tag> sent;
  std::thread sealing([&] {
    for (std::uint64_t i = 0; i < 50; ++i) sent.push_back(sealed(ends.sender, i, section::header, message));
  });
  for (std::uint64_t i = 0; i < 50; ++i)
    EXPECT_TRUE(passes(ends.sender, i, section::header, message, tags[i]));
  sealing.join();
  for (std::uint64_t i = 0; i < 50; ++i)
    EXPECT_TRUE(passes(ends.receiver, i, section::header, message, sent[i]));
}

}  // namespace
}  // namespace tersor::transfer
