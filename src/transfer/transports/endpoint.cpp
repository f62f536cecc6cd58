#include <algorithm>
#include <charconv>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <tersor/transfer.hpp>

namespace tersor::transfer {
namespace {

constexpr std::size_t kMaxHost = 255;

tl::unexpected<error> fail_endpoint(std::string_view text, std::string_view why) {
  return fail(errc::invalid_argument, "'" + std::string(text.substr(0, kMaxHost)) +
                                          "' is not HOST:PORT or [IPv6]:PORT: " + std::string(why));
}

bool is_plain(char c) noexcept {
  return c > ' ' && c < 0x7f && c != '[' && c != ']';
}

}  // namespace

result<endpoint> parse_endpoint(std::string_view text) {
  const bool bracketed = text.starts_with('[');
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.substr(colon).find(']') != std::string_view::npos)
    return fail_endpoint(text, "no port");
  std::string_view host = text.substr(0, colon);
  if (bracketed) {
    if (!host.ends_with(']')) return fail_endpoint(text, "no ']' before the port");
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return fail_endpoint(text, "an IPv6 address needs brackets");
  }
  if (host.empty()) return fail_endpoint(text, "no host");
  if (host.size() > kMaxHost || !std::ranges::all_of(host, is_plain)) return fail_endpoint(text, "bad host");

  const std::string_view digits = text.substr(colon + 1);
  std::uint16_t port = 0;
  const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (digits.empty() || fault != std::errc() || end != digits.data() + digits.size())
    return fail_endpoint(text, "a port is a number from 0 to 65535");
  return endpoint{.host = std::string(host), .port = port};
}

std::string to_string(const endpoint& e) {
  const bool brackets = e.host.find(':') != std::string::npos;
  return (brackets ? "[" + e.host + "]" : e.host) + ":" + std::to_string(e.port);
}

bool is_loopback(const endpoint& e) noexcept {
  if (e.host == "localhost") return true;
  ::in_addr v4 = {};
  if (::inet_pton(AF_INET, e.host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  ::in6_addr v6 = {};
  return ::inet_pton(AF_INET6, e.host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace tersor::transfer
