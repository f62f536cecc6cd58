#include "format/container_header.hpp"

#include <algorithm>

namespace tersor::format {
namespace {

constexpr std::string_view kBeforeVersion = R"({"__metadata__":{"tersor":")";
constexpr std::string_view kBeforeDigest = R"(","tersor.header_digest":")";
constexpr std::string_view kBeforeDigests = R"(","tersor.digests":")";
constexpr std::string_view kBeforeOriginal = R"(","tersor.header":")";
constexpr std::size_t kMaxVersionDigits = 9;

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

bool has_at(std::string_view text, std::uint64_t at, std::string_view part) noexcept {
  return at <= text.size() && text.substr(static_cast<std::size_t>(at)).starts_with(part);
}

}  // namespace

bool is_container_key(std::string_view key) noexcept {
  return key.starts_with(kContainerKey) &&
         (key.size() == kContainerKey.size() || key[kContainerKey.size()] == '.');
}

void append_hex(std::string& out, std::uint64_t digest) {
  constexpr std::string_view kHex = "0123456789abcdef";
  for (unsigned shift = 64; shift > 0; shift -= 4) out += kHex[(digest >> (shift - 4)) & 0xf];
}

std::string to_hex(std::uint64_t digest) {
  std::string digits;
  append_hex(digits, digest);
  return digits;
}

std::optional<std::uint64_t> parse_hex(std::string_view digits) noexcept {
  if (digits.size() != kHexDigits) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : digits) {
    if (!is_digit(c) && (c < 'a' || c > 'f')) return std::nullopt;
    value = value << 4 | static_cast<std::uint64_t>(is_digit(c) ? c - '0' : c - 'a' + 10);
  }
  return value;
}

std::optional<container_head> read_container_head(std::string_view json) noexcept {
  if (!json.starts_with(kBeforeVersion)) return std::nullopt;
  const std::string_view rest = json.substr(kBeforeVersion.size());
  const auto end = static_cast<std::size_t>(std::ranges::find_if_not(rest, is_digit) - rest.begin());
  if (end == 0 || end > kMaxVersionDigits || !has_at(rest, end, kBeforeDigest)) return std::nullopt;
  container_head head{.version = rest.substr(0, end)};
  head.digest_at = kBeforeVersion.size() + end + kBeforeDigest.size();
  const auto digest = parse_hex(json.substr(head.digest_at, kHexDigits));
  if (!digest) return std::nullopt;
  head.digest = *digest;
  return head;
}

bool has_container_layout(std::string_view json, std::uint64_t n_tensors) noexcept {
  const auto head = read_container_head(json);
  if (!head || head->version != kContainerVersion || n_tensors > json.size()) return false;
  const std::uint64_t digests_key = head->digest_at + kHexDigits;
  const std::uint64_t original_key = digests_key + kBeforeDigests.size() + n_tensors * kHexDigits;
  return has_at(json, digests_key, kBeforeDigests) && has_at(json, original_key, kBeforeOriginal);
}

std::string blank_header_digest(std::string_view json, const container_head& head) {
  std::string blank(json);
  blank.replace(head.digest_at, kHexDigits, kHexDigits, '0');
  return blank;
}

result<std::vector<std::uint64_t>> parse_digests(std::string_view list, std::uint64_t n_tensors) {
  if (list.size() % kHexDigits != 0 || list.size() / kHexDigits != n_tensors) {
    return fail(errc::malformed, "the digest list does not have one entry for each tensor");
  }
  std::vector<std::uint64_t> digests;
  digests.reserve(list.size() / kHexDigits);
  for (std::size_t at = 0; at < list.size(); at += kHexDigits) {
    const auto digest = parse_hex(list.substr(at, kHexDigits));
    if (!digest)
      return fail(errc::malformed, "the digest list holds something else than lower-case hex digits");
    digests.push_back(*digest);
  }
  return digests;
}

}  // namespace tersor::format
