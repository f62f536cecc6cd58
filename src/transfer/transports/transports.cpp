#include <array>

#include "transfer/transports/channel.hpp"
#include "transfer/transports/table.hpp"

namespace tersor::transfer {
namespace {

using getter = const transport& (*)();
constexpr std::array kTransports =
    std::to_array<getter>({tcp_transport, tls_transport, ucx_transport, nccl_transport, mooncake_transport});

}  // namespace

result<std::unique_ptr<payload_path>> transport::make_path() const {
  return std::unique_ptr<payload_path>();
}

result<const transport*> find_transport(std::string_view name) {
  std::string known;
  for (const getter get : kTransports) {
    const transport& t = get();
    known += (known.empty() ? "" : ", ") + std::string(t.name());
    if (t.name() != name) continue;
    const transport_info info = t.probe();
    if (!info.available) {
      return fail(errc::backend_unavailable,
                  "transport '" + info.name + "' is not available: " + info.detail);
    }
    return &t;
  }
  return fail(errc::invalid_argument,
              "unknown transport '" + std::string(name.substr(0, 64)) + "'; there are " + known);
}

std::vector<transport_info> transports() {
  std::vector<transport_info> all;
  all.reserve(std::size(kTransports));
  for (const getter get : kTransports) all.push_back(get().probe());
  return all;
}

}  // namespace tersor::transfer
