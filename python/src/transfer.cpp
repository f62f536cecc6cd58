// KV caches from one process to another: options, names and transports; the two ends have files of their own.
#include "transfer.hpp"

#include <unistd.h>

namespace tersor::python {
namespace {

using namespace transfer;

std::chrono::milliseconds milliseconds_of(const nb::handle& seconds) {
  const double given = nb::cast<double>(seconds);
  constexpr double kMostSeconds = 1e9;
  if (!(given > 0 && given < kMostSeconds))
    raise({.code = errc::invalid_argument, .message = "a time is a number of seconds above 0"});
  return std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>(given));
}

std::byte byte_at(const nb::bytes& given, std::size_t i) {
  return static_cast<std::byte>(given.c_str()[i]);
}

[[noreturn]] void refuse_option(std::string_view key) {
  raise({.code = errc::invalid_argument, .message = "unknown option '" + std::string(key) + "'"});
}

geometry geometry_of(const nb::dict& given) {
  geometry g;
  for (const auto& [key, value] : given) {
    const auto name = nb::cast<std::string_view>(key);
    if (name == "model") {
      g.model = nb::cast<std::string>(value);
    } else if (name == "revision") {
      g.revision = nb::cast<std::string>(value);
    } else if (name == "layout") {
      g.layout = nb::cast<std::string>(value);
    } else if (name == "dtype") {
      if (!value.is_none()) g.type = dtype_of(nb::cast<std::string_view>(value));
    } else if (name == "n_layers") {
      g.n_layers = nb::cast<std::uint32_t>(value);
    } else if (name == "block_size") {
      g.block_size = nb::cast<std::uint32_t>(value);
    } else if (name == "kv_heads") {
      g.kv_heads = nb::cast<std::uint32_t>(value);
    } else if (name == "head_dim") {
      g.head_dim = nb::cast<std::uint32_t>(value);
    } else if (name == "codebooks") {
      for (const auto& book : nb::cast<std::vector<nb::bytes>>(value)) g.codebooks.push_back(*book_of(book));
    } else {
      refuse_option(name);
    }
  }
  return g;
}

timeouts timeouts_of(const nb::dict& given) {
  timeouts t;
  for (const auto& [key, value] : given) {
    const auto name = nb::cast<std::string_view>(key);
    if (name == "connect") {
      t.connect = milliseconds_of(value);
    } else if (name == "handshake") {
      t.handshake = milliseconds_of(value);
    } else if (name == "message") {
      t.message = milliseconds_of(value);
    } else if (name == "idle") {
      t.idle = milliseconds_of(value);
    } else {
      refuse_option(name);
    }
  }
  return t;
}

tls_files tls_of(const nb::tuple& given) {
  if (given.size() != 3)
    raise({.code = errc::invalid_argument, .message = "tls is (certificate, key, ca), three paths"});
  return {.certificate_file = nb::cast<std::string>(given[0]),
          .key_file = nb::cast<std::string>(given[1]),
          .ca_file = nb::cast<std::string>(given[2])};
}

/// An option that both ends have; false if it is none.
template <class Options>
bool take_common(Options& o, geometry& g, std::string_view name, const nb::handle& value) {
  if (name == "geometry") {
    g = geometry_of(nb::cast<nb::dict>(value));
  } else if (name == "psk") {
    o.security.psk = bytes_from(nb::cast<nb::bytes>(value));
  } else if (name == "tenant") {
    o.security.tenant = nb::cast<std::string>(value);
  } else if (name == "tls") {
    o.security.tls = tls_of(nb::cast<nb::tuple>(value));
  } else if (name == "timeouts") {
    o.timeouts = timeouts_of(nb::cast<nb::dict>(value));
  } else if (name == "transport") {
    o.transport = nb::cast<std::string>(value);
  } else {
    return false;
  }
  return true;
}

coding coding_of(std::string_view name) {
  if (const auto found = parse_coding(name)) return *found;
  raise({.code = errc::invalid_argument,
         .message = "unknown codec '" + std::string(name) + "': auto, raw, top16 and rank are known"});
}

void take_sending(sender_options& o, std::string_view name, const nb::handle& value) {
  if (take_common(o, o.geometry, name, value)) return;
  if (name == "codec") {
    o.coding = coding_of(nb::cast<std::string_view>(value));
  } else if (name == "part_bytes") {
    o.part_bytes = nb::cast<std::uint64_t>(value);
  } else if (name == "attempts") {
    o.attempts = nb::cast<unsigned>(value);
  } else {
    refuse_option(name);
  }
}

void take_receiving(receiver_options& o, std::string_view name, const nb::handle& value) {
  if (take_common(o, o.expected, name, value)) return;
  if (name == "n_slots") {
    o.n_slots = nb::cast<std::uint32_t>(value);
  } else if (name == "max_part_bytes") {
    o.max_part_bytes = nb::cast<std::uint64_t>(value);
  } else if (name == "max_request_bytes") {
    o.max_request_bytes = nb::cast<std::uint64_t>(value);
  } else if (name == "max_regions") {
    o.max_regions = nb::cast<std::uint32_t>(value);
  } else if (name == "max_connections") {
    o.max_connections = nb::cast<std::uint32_t>(value);
  } else if (name == "max_pending") {
    o.max_pending = nb::cast<std::uint32_t>(value);
  } else if (name == "resume") {
    o.resume = milliseconds_of(value);
  } else if (name == "allow_unauthenticated_remote") {
    o.allow_unauthenticated_remote = nb::cast<bool>(value);
  } else {
    refuse_option(name);
  }
}

template <class Options>
Options options_of(const nb::dict& given, void (*take)(Options&, std::string_view, const nb::handle&)) {
  Options o;
  for (const auto& [key, value] : given) {
    const std::string name = nb::cast<std::string>(key);
    try {
      take(o, name, value);
    } catch (const nb::cast_error&) {
      throw nb::type_error(("option '" + name + "' has a value of the wrong type").c_str());
    }
  }
  return o;
}

part_kind kind_of(std::string_view name) {
  for (const part_kind k : {part_kind::key, part_kind::value, part_kind::other}) {
    if (to_string(k) == name) return k;
  }
  raise({.code = errc::invalid_argument,
         .message = "unknown kind '" + std::string(name) + "': K, V and other are known"});
}

}  // namespace

std::vector<std::byte> bytes_from(const nb::bytes& given) {
  std::vector<std::byte> out(given.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = byte_at(given, i);
  return out;
}

sender_options sender_options_of(const nb::dict& given) {
  return options_of<sender_options>(given, &take_sending);
}

receiver_options receiver_options_of(const nb::dict& given) {
  return options_of<receiver_options>(given, &take_receiving);
}

region region_of(const nb::tuple& given) {
  if (given.size() != 7) throw nb::type_error("a region is a tuple of 7");
  try {
    return {.name = nb::cast<std::string>(given[0]),
            .layer = nb::cast<std::uint32_t>(given[1]),
            .kind = kind_of(nb::cast<std::string_view>(given[2])),
            .type = dtype_of(nb::cast<std::string_view>(given[3])),
            .shape = nb::cast<std::vector<std::uint64_t>>(given[4]),
            .page_bytes = nb::cast<std::uint64_t>(given[5]),
            .book = book_of(nb::cast<std::optional<nb::bytes>>(given[6]))};
  } catch (const nb::cast_error&) {
    throw nb::type_error("a region is (name, layer, kind, dtype, shape, page_bytes, codebook)");
  }
}

nb::tuple tuple_of(const region& r) {
  const nb::object book = r.book ? nb::object(bytes_of(*r.book)) : nb::none();
  return nb::make_tuple(text_of(r.name), r.layer, text_of(to_string(r.kind)), text_of(to_string(r.type)),
                        tuple_of(r.shape), r.page_bytes, book);
}

nb::tuple tuple_of(const endpoint& e) {
  return nb::make_tuple(text_of(e.host), e.port);
}

home_process::home_process() : process_(getpid()) {}
bool home_process::is_here() const noexcept {
  return getpid() == process_;
}
void home_process::check(const char* what) const {
  if (is_here()) return;
  raise({.code = errc::invalid_argument,
         .message = std::string("the ") + what + " was made before a fork, and is not in this process"});
}

void bind_transfer(nb::module_& m) {
  m.attr("PROTOCOL_VERSION") = kProtocolVersion;
  m.def("transports", [] {
    nb::list all;
    for (const transport_info& t : transports()) {
      nb::dict entry;
      entry["name"] = t.name;
      entry["available"] = t.available;
      entry["detail"] = t.detail;
      all.append(entry);
    }
    return all;
  });
  m.def(
      "parse_endpoint", [](std::string_view text) { return tuple_of(unwrap(parse_endpoint(text))); },
      nb::arg("text"));
  m.def(
      "is_loopback", [](const std::string& host) { return is_loopback({.host = host}); }, nb::arg("host"));
  bind_transfer_send(m);
  bind_transfer_receive(m);
}

}  // namespace tersor::python
