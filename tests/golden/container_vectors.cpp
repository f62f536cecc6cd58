#include "container_vectors.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>

#include "matrix_vectors.hpp"
#include "sample_data.hpp"
#include <tersor/model.hpp>

namespace golden {
namespace {

using tersor::dtype;
using tersor::errc;
using bytes = std::vector<std::byte>;

/// A safetensors file in the making.
class plain_writer {
 public:
  void add(const std::string& name, dtype type, std::uint64_t n, const std::string& shape, pattern p) {
    const bytes tensor = sample(type, n, p, n + 7);
    header_ += ",\"" + name + "\":{\"dtype\":\"" + std::string(to_string(type)) + "\",\"shape\":" + shape +
               ",\"data_offsets\":[" + std::to_string(data_.size());
    data_.insert(data_.end(), tensor.begin(), tensor.end());
    header_ += "," + std::to_string(data_.size()) + "]}";
  }
  [[nodiscard]] bytes file() const {
    const std::string header = header_ + "}  ";
    bytes file;
    for (unsigned i = 0; i < 8; ++i) file.push_back(static_cast<std::byte>(header.size() >> (8 * i) & 0xff));
    for (const char c : header) file.push_back(static_cast<std::byte>(c));
    file.insert(file.end(), data_.begin(), data_.end());
    return file;
  }

 private:
  std::string header_ = R"({"__metadata__":{"format":"pt","note":"\u20ac \\ \""})";
  bytes data_;
};

bytes plain_file() {
  plain_writer to;
  to.add("model.embed.weight", dtype::bf16, 1020, "[102,10]", pattern::weights);
  to.add("positions", dtype::i64, 9, "[3,3]", pattern::uniform);
  to.add("empty", dtype::f32, 0, "[0,4]", pattern::weights);
  to.add("name with \\\"quotes\\\" and \\u00e9", dtype::f16, 2048, "[2048]", pattern::clean);
  to.add("noise", dtype::bf16, 100, "[100]", pattern::uniform);
  to.add("nine dims", dtype::f32, 1024, "[1,1,1,1,1,1,1,1,1024]", pattern::mixed);
  to.add("scalar", dtype::f64, 1, "[]", pattern::uniform);
  return to.file();
}

/// With matrices that packing pays for.
bytes matrix_file() {
  plain_writer to;
  to.add("norm", dtype::bf16, 1200, "[1200]", pattern::weights);
  to.add("w.bf16", dtype::bf16, 8192, "[64,128]", pattern::weights);
  to.add("w.f16", dtype::f16, 8192, "[64,128]", pattern::clean);
  return to.file();
}

std::size_t header_size(const bytes& file) {
  std::size_t n = 0;
  for (unsigned i = 0; i < 8; ++i) n |= static_cast<std::size_t>(file[i]) << (8 * i);
  return n;
}

std::size_t find(const bytes& file, const std::string& text) {
  const auto it = std::search(file.begin(), file.end(), text.begin(), text.end(),
                              [](std::byte a, char b) { return static_cast<char>(a) == b; });
  if (it == file.end()) std::abort();
  return static_cast<std::size_t>(it - file.begin());
}

void put(bytes& file, std::size_t at, const std::string& text) {
  for (std::size_t i = 0; i < text.size(); ++i) file.at(at + i) = static_cast<std::byte>(text[i]);
}

void fix_header(const tersor::context& ctx, bytes& file) {
  const std::string key = "tersor.header_digest\":\"";
  const std::size_t at = find(file, key) + key.size();
  put(file, at, std::string(16, '0'));
  std::uint64_t digest = tersor::digest_bytes(ctx, 3, std::span(file).subspan(8, header_size(file)));
  std::string digits(16, '0');
  for (auto it = digits.rbegin(); it != digits.rend(); ++it, digest >>= 4)
    *it = "0123456789abcdef"[digest & 0xf];
  put(file, at, digits);
}

}  // namespace

container_pair make_container(const tersor::context& ctx, const std::filesystem::path& scratch,
                              bool packing) {
  container_pair pair{.plain = packing ? matrix_file() : plain_file(), .packed = {}};
  tersor::model_options options;
  if (packing) options.packing = {.inline_escapes = kInlineEscapes};
  const auto plain_path = scratch / "original.safetensors";
  const auto packed_path = scratch / "packed.safetensors";
  std::filesystem::remove(packed_path);
  std::ofstream(plain_path, std::ios::binary)
      .write(reinterpret_cast<const char*>(pair.plain.data()),
             static_cast<std::streamsize>(pair.plain.size()));
  if (!tersor::compress(ctx, plain_path, packed_path, options)) std::abort();
  std::ifstream in(packed_path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  pair.packed.resize(text.size());
  put(pair.packed, 0, text);
  std::filesystem::remove(plain_path);
  std::filesystem::remove(packed_path);
  return pair;
}

std::vector<bad_container> bad_containers(const tersor::context& ctx, const container_pair& good) {
  std::vector<bad_container> all;
  const auto add = [&](std::string name, errc code, bool fix, const std::function<void(bytes&)>& change) {
    bytes file = good.packed;
    change(file);
    if (fix) fix_header(ctx, file);
    all.push_back({"file-" + std::move(name), code, std::move(file)});
  };
  const std::size_t data = 8 + header_size(good.packed);
  const std::string digests = "tersor.digests\":\"";
  const auto digit = [&](bytes& f) -> std::byte& { return f.at(find(f, digests) + digests.size() + 3); };
  add("not-tersor", errc::wrong_kind, false, [&](bytes& f) { f = good.plain; });
  add("version-next", errc::unsupported_version, true,
      [](bytes& f) { put(f, find(f, "tersor\":\"") + 9, "2"); });
  add("version-zero", errc::unsupported_version, true,
      [](bytes& f) { put(f, find(f, "tersor\":\"") + 9, "0"); });
  add("version-next-digest", errc::digest_mismatch, false,
      [](bytes& f) { put(f, find(f, "tersor\":\"") + 9, "2"); });
  add("header-changed", errc::digest_mismatch, false, [](bytes& f) { put(f, find(f, "\"pt\""), "\"np\""); });
  add("digest-list", errc::digest_mismatch, true,
      [&](bytes& f) { digit(f) = digit(f) == std::byte{'0'} ? std::byte{'1'} : std::byte{'0'}; });
  add("digest-list-upper-case", errc::malformed, true, [&](bytes& f) { digit(f) = std::byte{'A'}; });
  add("member-renamed", errc::malformed, true,
      [](bytes& f) { put(f, find(f, "tersor.digests"), "tersor.digestz"); });
  add("other-dtype", errc::malformed, true,
      [](bytes& f) { put(f, find(f, "\\\"BF16\\\""), "\\\"F16 \\\""); });
  add("frame-magic", errc::bad_magic, false, [&](bytes& f) { f.at(data) ^= std::byte{1}; });
  add("stored-bit", errc::digest_mismatch, false, [](bytes& f) { f.back() ^= std::byte{1}; });
  add("cut", errc::truncated, false, [](bytes& f) { f.pop_back(); });
  add("cut-in-header", errc::truncated, false, [](bytes& f) { f.resize(200); });
  add("trailing", errc::malformed, false, [](bytes& f) { f.push_back(std::byte{0}); });
  return all;
}

}  // namespace golden
