// Counters in the text format that Prometheus scrapes.
#include <array>
#include <charconv>
#include <string>
#include <string_view>
#include <variant>

#include <tersor/transfer.hpp>

namespace tersor::transfer {
namespace {

struct metric {
  std::string_view name;
  std::variant<std::uint64_t transfer_counters::*, double transfer_counters::*> value;
  std::string_view help;
};

constexpr auto kMetrics = std::to_array<metric>({
    {"connections", &transfer_counters::connections, "Connections whose handshake succeeded."},
    {"refused_connections", &transfer_counters::refused, "Connections refused in the handshake."},
    {"failed_connections", &transfer_counters::failed_connections, "Connections that ended with an error."},
    {"requests_published", &transfer_counters::requests_published,
     "Requests complete, verified and visible."},
    {"requests_discarded", &transfer_counters::requests_discarded,
     "Requests given up, nothing of them visible."},
    {"resumptions", &transfer_counters::resumptions, "Requests taken up again on a new connection."},
    {"parts", &transfer_counters::parts, "Parts transferred and verified."},
    {"raw_parts", &transfer_counters::raw_parts, "Parts that travelled uncompressed."},
    {"rejected_parts", &transfer_counters::rejected_parts, "Parts whose verification failed."},
    {"bypassed_parts", &transfer_counters::bypassed_parts,
     "Parts sent uncompressed because that was expected to be faster."},
    {"raw_bytes", &transfer_counters::raw_bytes, "Decoded bytes of the parts."},
    {"wire_bytes", &transfer_counters::wire_bytes, "Bytes of messages."},
    {"encode_seconds", &transfer_counters::encode_seconds, "Time spent encoding."},
    {"send_seconds", &transfer_counters::send_seconds, "Time spent sending."},
    {"receive_seconds", &transfer_counters::receive_seconds, "Time spent receiving."},
    {"decode_seconds", &transfer_counters::decode_seconds, "Time spent decoding and verifying."},
});

[[nodiscard]] std::string escaped_label(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') out += '\\';
    out += c;
  }
  return out;
}

// Without the locale, which could write a comma.
template <class Number>
[[nodiscard]] std::string number_text(Number value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), end.ptr};
}

}  // namespace

std::string prometheus_text(const transfer_counters& counters, std::string_view role) {
  const std::string label = "{role=\"" + escaped_label(role) + "\"} ";
  std::string out;
  for (const metric& m : kMetrics) {
    std::string name = "tersor_transfer_";
    name.append(m.name).append("_total");
    const std::string value = std::visit([&](auto member) { return number_text(counters.*member); }, m.value);
    out.append("# HELP ").append(name).append(" ").append(m.help).append("\n");
    out.append("# TYPE ").append(name).append(" counter\n");
    out.append(name).append(label).append(value).append("\n");
  }
  return out;
}

}  // namespace tersor::transfer
