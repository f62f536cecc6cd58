// The primitives behind the pre-shared key against published vectors: RFC 4231, RFC 5869, NIST's for GCM.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "transfer/security/primitives.hpp"

namespace tersor::transfer {
namespace {

std::vector<std::byte> unhex(std::string_view text) {
  std::vector<std::byte> out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    const std::string pair(text.substr(i, 2));
    out.push_back(static_cast<std::byte>(std::strtoul(pair.c_str(), nullptr, 16)));
  }
  return out;
}

template <class Bytes>
std::string hex(const Bytes& data) {
  std::string out;
  for (const std::byte b : data) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    out += kDigits[std::to_integer<unsigned>(b) >> 4];
    out += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return out;
}

std::vector<std::byte> text_bytes(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

std::vector<std::byte> counting(unsigned first, unsigned last) {
  std::vector<std::byte> out;
  for (unsigned i = first; i <= last; ++i) out.push_back(static_cast<std::byte>(i));
  return out;
}

std::string hkdf_hex(const std::vector<std::byte>& key, const std::vector<std::byte>& salt,
                     const std::vector<std::byte>& info, std::size_t n_bytes) {
  std::vector<std::byte> out(n_bytes);
  const auto done = hkdf_sha256(key, salt, info, out);
  return done ? hex(out) : done.error().message;
}

std::string gmac_hex(std::string_view key_hex, std::string_view nonce_hex,
                     const std::vector<std::vector<std::byte>>& parts) {
  const auto key = unhex(key_hex);
  const auto nonce = unhex(nonce_hex);
  auto made = gmac::create(std::span<const std::byte, kMacKeyBytes>(key));
  if (!made) return made.error().message;
  const std::vector<std::span<const std::byte>> spans(parts.begin(), parts.end());
  const auto out = made->compute(std::span<const std::byte, kMacNonceBytes>(nonce), spans);
  return out ? hex(*out) : out.error().message;
}

TEST(TransferPrimitives, HmacOfRfc4231) {
  const auto first = hmac_sha256(std::vector<std::byte>(20, std::byte{0x0b}), text_bytes("Hi There"));
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(hex(*first), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  const auto second = hmac_sha256(text_bytes("Jefe"), text_bytes("what do ya want for nothing?"));
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(hex(*second), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(TransferPrimitives, Sha256OfNothing) {
  const auto hash = sha256({});
  ASSERT_TRUE(hash.has_value());
  EXPECT_EQ(hex(*hash), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(TransferPrimitives, HkdfOfRfc5869) {
  const std::vector<std::byte> key(22, std::byte{0x0b});
  EXPECT_EQ(hkdf_hex(key, counting(0x00, 0x0c), counting(0xf0, 0xf9), 42),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
  EXPECT_EQ(hkdf_hex(counting(0x00, 0x4f), counting(0x60, 0xaf), counting(0xb0, 0xff), 82),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
            "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
            "cc30c58179ec3e87c14c01d5c1f3434f1d87");
  EXPECT_EQ(hkdf_hex(key, {}, {}, 42),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

TEST(TransferPrimitives, GmacOfNist) {
  EXPECT_EQ(gmac_hex(std::string(64, '0'), std::string(24, '0'), {}), "530f8afbc74536b9a963b4f1c4cb738b");
  constexpr std::string_view kKey = "78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223";
  constexpr std::string_view kNonce = "d79cf22d504cc793c3fb6c8a";
  const auto data = unhex("b96baa8c1c75a671bfb2d08d06be5f36");
  EXPECT_EQ(gmac_hex(kKey, kNonce, {data}), "3e5d486aa2e30b22e040b85723a06e76");
  for (std::size_t cut = 0; cut <= data.size(); ++cut) {
    const auto at = data.begin() + static_cast<std::ptrdiff_t>(cut);
    EXPECT_EQ(gmac_hex(kKey, kNonce, {{data.begin(), at}, {at, data.end()}}),
              "3e5d486aa2e30b22e040b85723a06e76")
        << "cut at " << cut;
  }
}

TEST(TransferPrimitives, OneKeyManyTags) {
  const auto key = counting(0, 31);
  auto mac = gmac::create(std::span<const std::byte, kMacKeyBytes>(key));
  ASSERT_TRUE(mac.has_value());
  const auto data = counting(1, 200);
  const std::vector<std::span<const std::byte>> parts = {data};
  const auto a = counting(0, 11);
  const auto b = counting(1, 12);
  const auto first = mac->compute(std::span<const std::byte, kMacNonceBytes>(a), parts);
  const auto other = mac->compute(std::span<const std::byte, kMacNonceBytes>(b), parts);
  const auto again = mac->compute(std::span<const std::byte, kMacNonceBytes>(a), parts);
  ASSERT_TRUE(first && other && again);
  EXPECT_EQ(*first, *again);
  EXPECT_NE(*first, *other);
}

// Not a limit: a machine may be slow. Prints what tags of parts cost here.
TEST(TransferPrimitives, SpeedOfTags) {
  const auto key = counting(0, 31);
  auto mac = gmac::create(std::span<const std::byte, kMacKeyBytes>(key));
  ASSERT_TRUE(mac.has_value());
  const std::vector<std::byte> data(std::size_t{4} << 20, std::byte{0x5a});
  const std::vector<std::span<const std::byte>> parts = {data};
  const auto nonce = counting(0, 11);
  double best = 0;
  for (int round = 0; round < 20; ++round) {
    const auto start = std::chrono::steady_clock::now();
    ASSERT_TRUE(mac->compute(std::span<const std::byte, kMacNonceBytes>(nonce), parts).has_value());
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(data.size()) / seconds.count() / 1e9);
  }
  std::printf("AES-256-GMAC of 4 MiB: %.2f GB/s\n", best);
  EXPECT_GT(best, 0);
}

}  // namespace
}  // namespace tersor::transfer
