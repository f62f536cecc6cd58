#include "transfer/session/payloads.hpp"

#include "codec/digest.hpp"
#include "transfer/session/fields.hpp"

namespace tersor::transfer {
namespace {

constexpr std::size_t kMaxPathBytes = 4096;
constexpr std::size_t kMaxErrorBytes = 2048;

nonce read_nonce(field_reader& in) noexcept {
  nonce value = {};
  const auto from = in.raw(value.size());
  std::copy(from.begin(), from.end(), value.begin());
  return value;
}

bool read_flag(field_reader& in) noexcept {
  const auto flag = in.number<std::uint8_t>();
  if (flag > 1) in.reject();
  return flag == 1;
}

dtype read_dtype(field_reader& in) noexcept {
  const auto type = in.number<std::uint8_t>();
  if (type > static_cast<std::uint8_t>(dtype::f64)) in.reject();
  return static_cast<dtype>(type);
}

/// Changes with every symbol's place.
std::uint64_t digest_of(const codebook& book, std::uint64_t place) noexcept {
  return codec_detail::chain_hash(codec_detail::digest_domain::handshake, place, book.symbols.data(), 2);
}

void write_region(field_writer& out, const region& r) {
  out.text(r.name);
  out.number(r.layer);
  out.number(static_cast<std::uint8_t>(r.kind));
  out.number(static_cast<std::uint8_t>(r.type));
  out.number(static_cast<std::uint8_t>(r.shape.size()));
  for (const std::uint64_t dim : r.shape) out.number(dim);
  out.number(r.page_bytes);
  out.number(static_cast<std::uint8_t>(r.book.has_value()));
  if (r.book) out.raw(std::as_bytes(std::span(r.book->symbols)));
}

constexpr std::size_t kMinRegionBytes = 4 + 4 + 1 + 1 + 1 + 8 + 1;
constexpr std::size_t kMaxRegionBytes = kMinRegionBytes + kMaxNameBytes + 8 * kMaxDims + 16;

region read_region(field_reader& in) {
  region r;
  r.name = in.text(kMaxNameBytes);
  r.layer = in.number<std::uint32_t>();
  const auto kind = in.number<std::uint8_t>();
  if (kind > static_cast<std::uint8_t>(part_kind::other)) in.reject();
  r.kind = static_cast<part_kind>(kind);
  r.type = read_dtype(in);
  const auto dims = in.number<std::uint8_t>();
  if (dims > kMaxDims) in.reject();
  for (unsigned i = 0; i < dims && in.good(); ++i) r.shape.push_back(in.number<std::uint64_t>());
  r.page_bytes = in.number<std::uint64_t>();
  if (read_flag(in)) {
    codebook book;
    const auto from = in.raw(book.symbols.size());
    if (in.good()) memcpy(book.symbols.data(), from.data(), from.size());
    r.book = book;
  }
  return r;
}

template <class T>
status compare_field(const char* name, const T& expected, const T& offered, const T& unsaid) {
  if (expected == unsaid || expected == offered) return {};
  const auto text = [&](const T& value) -> std::string {
    if (value == unsaid) return "nothing";
    if constexpr (std::is_same_v<T, std::string>) {
      return "'" + value + "'";
    } else if constexpr (std::is_same_v<T, dtype>) {
      return std::string(to_string(value));
    } else {
      return std::to_string(value);
    }
  };
  return fail(errc::mismatch,
              std::string(name) + ": the receiver has " + text(expected) + ", the sender " + text(offered));
}

}  // namespace

std::vector<std::byte> write(const hello& h) {
  field_writer out;
  out.number(h.oldest_version);
  out.number(h.newest_version);
  out.raw(h.fresh);
  out.number(static_cast<std::uint8_t>(h.has_key));
  out.text(h.transport);
  return std::move(out).take();
}

result<hello> read_hello(std::span<const std::byte> payload) {
  field_reader in(payload);
  hello h;
  h.oldest_version = in.number<std::uint16_t>();
  h.newest_version = in.number<std::uint16_t>();
  h.fresh = read_nonce(in);
  h.has_key = read_flag(in);
  h.transport = in.text(32);
  TERSOR_CHECK(in.finish("hello"));
  return h;
}

std::vector<std::byte> write(const welcome& w) {
  field_writer out;
  out.number(w.version);
  out.raw(w.fresh);
  out.number(static_cast<std::uint8_t>(w.has_key));
  out.raw(w.proof);
  return std::move(out).take();
}

result<welcome> read_welcome(std::span<const std::byte> payload) {
  field_reader in(payload);
  welcome w;
  w.version = in.number<std::uint16_t>();
  w.fresh = read_nonce(in);
  w.has_key = read_flag(in);
  const auto proof = in.raw(w.proof.size());
  TERSOR_CHECK(in.finish("welcome"));
  std::copy(proof.begin(), proof.end(), w.proof.begin());
  return w;
}

offer make_offer(const geometry& g, std::uint64_t tenant) {
  offer o{.model = g.model,
          .revision = g.revision,
          .layout = g.layout,
          .type = g.type,
          .n_layers = g.n_layers,
          .block_size = g.block_size,
          .kv_heads = g.kv_heads,
          .head_dim = g.head_dim,
          .codebooks = {},
          .tenant = tenant};
  for (std::size_t i = 0; i < g.codebooks.size(); ++i) o.codebooks.push_back(digest_of(g.codebooks[i], i));
  return o;
}

std::vector<std::byte> write(const offer& o) {
  field_writer out;
  out.text(o.model);
  out.text(o.revision);
  out.text(o.layout);
  out.number(static_cast<std::uint8_t>(o.type));
  for (const std::uint32_t n : {o.n_layers, o.block_size, o.kv_heads, o.head_dim}) out.number(n);
  out.number(static_cast<std::uint32_t>(o.codebooks.size()));
  for (const std::uint64_t digest : o.codebooks) out.number(digest);
  out.number(o.tenant);
  return std::move(out).take();
}

result<offer> read_offer(std::span<const std::byte> payload) {
  field_reader in(payload);
  offer o;
  o.model = in.text(kMaxNameBytes);
  o.revision = in.text(kMaxNameBytes);
  o.layout = in.text(kMaxNameBytes);
  o.type = read_dtype(in);
  for (std::uint32_t* n : {&o.n_layers, &o.block_size, &o.kv_heads, &o.head_dim})
    *n = in.number<std::uint32_t>();
  const std::uint32_t n_books = in.count(kMaxCodebooks, 8);
  for (std::uint32_t i = 0; i < n_books; ++i) o.codebooks.push_back(in.number<std::uint64_t>());
  o.tenant = in.number<std::uint64_t>();
  TERSOR_CHECK(in.finish("offer"));
  return o;
}

status compare(const offer& expected, const offer& offered) {
  const std::string none;
  if (expected.tenant != offered.tenant) return fail(errc::mismatch, "tenant: the salts differ");
  TERSOR_CHECK(compare_field("model", expected.model, offered.model, none));
  TERSOR_CHECK(compare_field("revision", expected.revision, offered.revision, none));
  TERSOR_CHECK(compare_field("layout", expected.layout, offered.layout, none));
  TERSOR_CHECK(compare_field("dtype", expected.type, offered.type, dtype::bytes));
  TERSOR_CHECK(compare_field("layers", expected.n_layers, offered.n_layers, 0U));
  TERSOR_CHECK(compare_field("block size", expected.block_size, offered.block_size, 0U));
  TERSOR_CHECK(compare_field("KV heads", expected.kv_heads, offered.kv_heads, 0U));
  TERSOR_CHECK(compare_field("head dim", expected.head_dim, offered.head_dim, 0U));
  if (expected.codebooks.empty()) return {};
  if (expected.codebooks.size() != offered.codebooks.size()) {
    return fail(errc::mismatch, "codebooks: the receiver has " + std::to_string(expected.codebooks.size()) +
                                    ", the sender " + std::to_string(offered.codebooks.size()));
  }
  for (std::size_t i = 0; i < expected.codebooks.size(); ++i) {
    if (expected.codebooks[i] == offered.codebooks[i]) continue;
    return fail(errc::mismatch, std::string("codebooks: that of ") + (i % 2 == 0 ? "K" : "V") + " of layer " +
                                    std::to_string(i / 2) + " differs");
  }
  return {};
}

std::vector<std::byte> write(const accept& a) {
  field_writer out;
  out.number(a.n_slots);
  out.number(a.slot_bytes);
  out.number(a.max_part_bytes);
  out.number(a.max_request_bytes);
  out.number(a.max_regions);
  out.bytes(a.slots);
  return std::move(out).take();
}

result<accept> read_accept(std::span<const std::byte> payload) {
  field_reader in(payload);
  accept a;
  a.n_slots = in.number<std::uint32_t>();
  a.slot_bytes = in.number<std::uint64_t>();
  a.max_part_bytes = in.number<std::uint64_t>();
  a.max_request_bytes = in.number<std::uint64_t>();
  a.max_regions = in.number<std::uint32_t>();
  const auto slots = in.bytes(kMaxPathBytes);
  a.slots.assign(slots.begin(), slots.end());
  TERSOR_CHECK(in.finish("accept"));
  return a;
}

std::uint64_t begin_bound(std::uint32_t max_regions) noexcept {
  return kNonceBytes + 8 + 4 + std::uint64_t{max_regions} * kMaxRegionBytes + 4 + kMaxNoteBytes;
}

std::vector<std::byte> write(const beginning& b) {
  field_writer out;
  out.raw(b.token);
  out.number(b.part_bytes);
  out.number(static_cast<std::uint32_t>(b.manifest.regions.size()));
  for (const region& r : b.manifest.regions) write_region(out, r);
  out.bytes(b.manifest.note);
  return std::move(out).take();
}

result<beginning> read_beginning(std::span<const std::byte> payload, std::uint32_t max_regions) {
  field_reader in(payload);
  beginning b;
  b.token = read_nonce(in);
  b.part_bytes = in.number<std::uint64_t>();
  const std::uint32_t n_regions = in.count(max_regions, kMinRegionBytes);
  for (std::uint32_t i = 0; i < n_regions && in.good(); ++i) b.manifest.regions.push_back(read_region(in));
  const auto note = in.bytes(kMaxNoteBytes);
  b.manifest.note.assign(note.begin(), note.end());
  TERSOR_CHECK(in.finish("begin"));
  return b;
}

std::vector<std::byte> write_ready(const std::vector<bool>& held) {
  field_writer out;
  out.number(static_cast<std::uint64_t>(held.size()));
  for (std::size_t i = 0; i < held.size(); i += 8) {
    std::uint8_t bits = 0;
    for (std::size_t b = 0; b < 8 && i + b < held.size(); ++b) {
      bits = static_cast<std::uint8_t>(bits | static_cast<unsigned>(held[i + b]) << b);
    }
    out.number(bits);
  }
  return std::move(out).take();
}

result<std::vector<bool>> read_ready(std::span<const std::byte> payload, std::uint64_t n_parts) {
  field_reader in(payload);
  if (in.number<std::uint64_t>() != n_parts) return fail(errc::malformed, "malformed message: ready");
  const auto bits = in.raw((n_parts + 7) / 8);
  TERSOR_CHECK(in.finish("ready"));
  std::vector<bool> held(n_parts);
  for (std::size_t i = 0; i < n_parts; ++i)
    held[i] = (std::to_integer<unsigned>(bits[i / 8]) >> (i % 8) & 1U) != 0;
  return held;
}

std::vector<std::byte> write(const totals& t) {
  field_writer out;
  out.number(t.n_parts);
  out.number(t.digest);
  return std::move(out).take();
}

result<totals> read_totals(std::span<const std::byte> payload) {
  field_reader in(payload);
  totals t;
  t.n_parts = in.number<std::uint64_t>();
  t.digest = in.number<std::uint64_t>();
  TERSOR_CHECK(in.finish("totals"));
  return t;
}

std::vector<std::byte> write(const failure& f) {
  field_writer out;
  out.number(static_cast<std::uint32_t>(f.code));
  out.number(static_cast<std::uint8_t>(f.may_resume));
  out.text(std::string_view(f.message).substr(0, kMaxErrorBytes));
  return std::move(out).take();
}

result<failure> read_failure(std::span<const std::byte> payload) {
  field_reader in(payload);
  failure f;
  const auto code = in.number<std::uint32_t>();
  if (code == 0 || code > static_cast<std::uint32_t>(errc::internal)) in.reject();
  f.code = static_cast<errc>(code);
  f.may_resume = read_flag(in);
  f.message = in.text(kMaxErrorBytes);
  TERSOR_CHECK(in.finish("failure"));
  return f;
}

}  // namespace tersor::transfer
