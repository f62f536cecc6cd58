#include "transfer/http_request.hpp"

#include <exception>
#include <optional>

namespace tersor::transfer {
namespace {

constexpr std::string_view kEndOfHead = "\r\n\r\n";
constexpr std::string_view kPlain = "text/plain; charset=utf-8";
constexpr std::string_view kPrometheus = "text/plain; version=0.0.4; charset=utf-8";

[[nodiscard]] std::string answer(std::string_view reason, std::string_view type, std::string_view body,
                                 std::string_view more = {}) {
  std::string out = "HTTP/1.1 ";
  out.append(reason).append("\r\nContent-Type: ").append(type);
  out.append("\r\nContent-Length: ").append(std::to_string(body.size()));
  out.append("\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n");
  out.append(more).append("\r\n").append(body);
  return out;
}

[[nodiscard]] std::string refusal(std::string_view reason, std::string_view more = {}) {
  return answer(reason, kPlain, std::string(reason.substr(4)) + "\n", more);
}

struct request_line {
  std::string_view method;
  std::string_view path;
};

// "METHOD SP TARGET SP HTTP/1.x", nothing else.
[[nodiscard]] std::optional<request_line> parse_line(std::string_view head) {
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == 0 || last <= first + 1) return std::nullopt;
  const std::string_view version = line.substr(last + 1);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return std::nullopt;
  for (const char c : line) {
    if (c < ' ' || c > '~') return std::nullopt;
  }
  if (target.find(' ') != std::string_view::npos) return std::nullopt;
  return request_line{.method = line.substr(0, first), .path = target.substr(0, target.find('?'))};
}

}  // namespace

bool request_complete(std::string_view received) noexcept {
  return received.find(kEndOfHead) != std::string_view::npos || received.size() > kMaxRequestBytes;
}

std::string answer_to(std::string_view received, const std::function<std::string()>& page) {
  const auto end = received.find(kEndOfHead);
  if (end == std::string_view::npos || end + kEndOfHead.size() > kMaxRequestBytes) {
    return refusal("431 Request Header Fields Too Large");
  }
  const auto line = parse_line(received.substr(0, end));
  if (!line) return refusal("400 Bad Request");
  if (line->method != "GET") return refusal("405 Method Not Allowed", "Allow: GET\r\n");
  if (line->path != "/metrics") return refusal("404 Not Found");
  try {
    return answer("200 OK", kPrometheus, page());
  } catch (const std::exception&) {
    return refusal("500 Internal Server Error");
  }
}

}  // namespace tersor::transfer
