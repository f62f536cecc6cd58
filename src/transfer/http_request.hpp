// One request of HTTP/1.x and its answer, as far as a metrics page needs them.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace tersor::transfer {

inline constexpr std::size_t kMaxRequestBytes = 8192;

/// True when the head of the request has arrived, or more than a request may have.
[[nodiscard]] bool request_complete(std::string_view received) noexcept;

/// The whole answer, head and body. `page` makes the body of GET /metrics; if it throws, the answer says
/// that, and no more.
[[nodiscard]] std::string answer_to(std::string_view received, const std::function<std::string()>& page);

}  // namespace tersor::transfer
