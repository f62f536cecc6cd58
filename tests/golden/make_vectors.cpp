// Writes the golden files: `make_vectors DIR` fills DIR (spec/vectors) with frames, their decoded bytes,
// frames that must fail and the manifest. `make_vectors --random N SEED DIR` writes N fresh frames with their
// bytes instead.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "container_vectors.hpp"
#include "matrix_vectors.hpp"
#include "must_fail.hpp"
#include "sample_data.hpp"
#include "sha256.hpp"
#include <tersor/model.hpp>
#include <tersor/packed.hpp>
#include <tersor/version.hpp>

namespace {

namespace fs = std::filesystem;
using golden::bytes;
using golden::pattern;
using tersor::codec;
using tersor::dtype;

struct vector_case {
  codec asked = codec::rank;
  dtype type = dtype::bf16;
  std::vector<std::uint64_t> shape = {};
  pattern data = pattern::weights;
  bool raw_fallback = false;
  bool calibrated = false;  ///< the codebook comes from other data than the tensor
  std::string label = {};   ///< instead of the number of values
};

std::uint64_t product(const std::vector<std::uint64_t>& shape) {
  std::uint64_t n = 1;
  for (const std::uint64_t d : shape) n *= d;
  return n;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

void write(const fs::path& path, const bytes& data) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  out.close();
  if (!out) {
    std::fprintf(stderr, "make_vectors: cannot write %s\n", path.c_str());
    std::exit(2);
  }
}

std::string json_list(const std::vector<std::uint64_t>& values) {
  std::string out = "[";
  for (std::size_t i = 0; i < values.size(); ++i) out += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  return out + "]";
}

std::vector<vector_case> good_cases() {
  std::vector<vector_case> all;
  for (const dtype type : {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2}) {
    for (const codec c : {codec::top16, codec::rank}) {
      for (const std::uint64_t n : {0U, 1U, 1023U, 1025U})
        all.push_back({.asked = c, .type = type, .shape = {n}});
      const std::uint64_t longest = type == dtype::f32 ? 4000 : 9001;
      all.push_back({.asked = c, .type = type, .shape = {longest}, .data = pattern::mixed});
    }
    all.push_back({.asked = codec::raw, .type = type, .shape = {7}});
  }
  for (const dtype type : {dtype::f8_e4m3, dtype::f8_e5m2}) {
    for (const codec c : {codec::top16, codec::rank}) {
      all.push_back({.asked = c, .type = type, .shape = {256}, .data = pattern::counting});
    }
  }
  const auto add = [&all](const vector_case& c) { all.push_back(c); };
  add({.type = dtype::bf16, .shape = {256, 256}, .data = pattern::counting, .label = "every"});
  add({.type = dtype::bf16, .shape = {}, .label = "scalar"});
  add({.type = dtype::f16, .shape = {1, 2, 3, 1, 2, 1, 2, 2}, .label = "8dims"});
  add({.type = dtype::f32, .shape = {1, 2, 1, 2, 1, 2, 1, 2, 3}, .label = "9dims"});
  add({.type = dtype::bf16, .shape = {0, 5}, .label = "zero-dim"});
  add({.type = dtype::bf16, .shape = {1024}, .data = pattern::constant});
  add({.type = dtype::bf16, .shape = {1000}, .data = pattern::uniform, .raw_fallback = true});
  add({.type = dtype::bf16, .shape = {1500}, .calibrated = true});
  add({.asked = codec::top16, .type = dtype::bf16, .shape = {1500}, .calibrated = true});
  add({.type = dtype::bf16, .shape = {23}, .calibrated = true});
  add({.asked = codec::raw, .type = dtype::i64, .shape = {3, 43}});
  add({.asked = codec::raw, .type = dtype::boolean, .shape = {1000}});
  add({.asked = codec::raw, .type = dtype::bytes, .shape = {16385}});
  add({.asked = codec::raw, .type = dtype::u8, .shape = {0}});
  add({.asked = codec::raw, .type = dtype::f64, .shape = {}, .label = "scalar"});
  return all;
}

class writer {
 public:
  explicit writer(fs::path dir) : dir_(std::move(dir)), ctx_(tersor::context::create(1, "scalar").value()) {
    fs::create_directories(dir_ / "must-fail");
    manifest_ << "{\n  \"format\": \"Tersor golden vectors\",\n  \"frame_version\": "
              << tersor::kFrameFormatVersion << ",\n  \"vectors\": [";
  }

  void good(const vector_case& c) {
    const std::uint64_t n = product(c.shape);
    const std::string stem = lower(to_string(c.type)) + "-" +
                             (c.label.empty() ? std::to_string(n) : c.label) + "-" +
                             golden::to_string(c.data);
    const bytes data = golden::sample(c.type, n, c.data, n + 1);
    tersor::encode_options options{.codec = c.asked, .raw_fallback = c.raw_fallback};
    if (c.calibrated) options.book = other_book(c.type);
    const bytes frame =
        tersor::encode(ctx_, {.type = c.type, .shape = c.shape, .data = data}, options).value();
    const auto info = tersor::inspect(frame).value();
    const std::string name = std::string(to_string(c.asked)) + "-" + stem +
                             (c.raw_fallback ? "-fallback" : "") + (c.calibrated ? "-calibrated" : "");
    if (bins_.insert(stem).second) write(dir_ / (stem + ".bin"), data);
    write(dir_ / (name + ".tersor"), frame);
    manifest_ << (first_ ? "" : ",") << "\n    {\"name\": \"" << name << "\", \"codec\": \""
              << to_string(info.codec) << "\", \"asked\": \"" << to_string(c.asked)
              << "\", \"raw_fallback\": " << c.raw_fallback << ", \"calibrated\": " << c.calibrated
              << ",\n     \"dtype\": \"" << to_string(c.type) << "\", \"shape\": " << json_list(c.shape)
              << ", \"frame_shape\": " << json_list(info.shape) << ", \"raw_tiles\": " << info.raw_tiles
              << ", \"escape_tiles\": " << info.escape_tiles << ",\n     \"frame\": \"" << name
              << ".tersor\", \"frame_bytes\": " << frame.size() << ", \"frame_sha256\": \""
              << golden::sha256::hex(frame) << "\",\n     \"bin\": \"" << stem
              << ".bin\", \"bin_bytes\": " << data.size() << ", \"bin_sha256\": \""
              << golden::sha256::hex(data) << "\"}";
    first_ = false;
  }

  /// The library must give the code that the case states.
  bool bad(const golden::bad_frame& b) {
    const auto decoded = tersor::decode(ctx_, b.data);
    const tersor::errc got = decoded ? tersor::errc::ok : decoded.error().code;
    if (got != b.code) {
      std::fprintf(stderr, "%s: expected %s, got %s\n", b.name.c_str(), to_string(b.code).data(),
                   to_string(got).data());
      return false;
    }
    write(dir_ / "must-fail" / (b.name + ".tersor"), b.data);
    manifest_ << (first_ ? "" : ",") << "\n    {\"name\": \"" << b.name << "\", \"error\": \""
              << to_string(b.code) << "\", \"frame\": \"must-fail/" << b.name
              << ".tersor\", \"frame_bytes\": " << b.data.size() << ",\n     \"frame_sha256\": \""
              << golden::sha256::hex(b.data) << "\"}";
    first_ = false;
    return true;
  }

  void begin_bad() {
    manifest_ << "\n  ],\n  \"must_fail\": [";
    first_ = true;
  }

  bool containers() {
    const golden::container_pair good = golden::make_container(ctx_, dir_);
    write(dir_ / "file.safetensors", good.plain);
    write(dir_ / "file.tersor.safetensors", good.packed);
    const golden::container_pair matrices = golden::make_container(ctx_, dir_, true);
    write(dir_ / "matrices.safetensors", matrices.plain);
    write(dir_ / "matrices.tersor.safetensors", matrices.packed);
    manifest_
        << "\n  ],\n  \"files\": [\n    {\"name\": \"file\", \"plain\": \"file.safetensors\", "
           "\"plain_sha256\": \""
        << golden::sha256::hex(good.plain)
        << "\",\n     \"packed\": \"file.tersor.safetensors\", \"packed_sha256\": \""
        << golden::sha256::hex(good.packed)
        << "\"},\n    {\"name\": \"matrices\", \"inline_escapes\": 56, \"plain\": \"matrices.safetensors\", "
           "\"plain_sha256\": \""
        << golden::sha256::hex(matrices.plain)
        << "\",\n     \"packed\": \"matrices.tersor.safetensors\", \"packed_sha256\": \""
        << golden::sha256::hex(matrices.packed) << "\"}\n  ],\n  \"files_must_fail\": [";
    first_ = true;
    bool right = true;
    for (const auto& b : golden::bad_containers(ctx_, good)) right = bad_file(b) && right;
    return right;
  }

  void matrices() {
    manifest_ << "\n  ],\n  \"matrices\": [";
    first_ = true;
    for (const auto& c : golden::matrix_cases()) {
      const bytes data = golden::matrix_data(c);
      const bytes matrix = golden::make_matrix(ctx_, c);
      write(dir_ / (c.name + ".bin"), data);
      write(dir_ / (c.name + ".tersor"), matrix);
      manifest_ << (first_ ? "" : ",") << "\n    {\"name\": \"" << c.name << "\", \"layout\": \""
                << to_string(c.layout) << "\", \"dtype\": \"" << to_string(c.type)
                << "\", \"rows\": " << c.rows << ", \"cols\": " << c.cols
                << ", \"inline_escapes\": " << c.inline_escapes << ",\n     \"frame\": \"" << c.name
                << ".tersor\", \"frame_bytes\": " << matrix.size() << ", \"frame_sha256\": \""
                << golden::sha256::hex(matrix) << "\",\n     \"bin\": \"" << c.name
                << ".bin\", \"bin_bytes\": " << data.size() << ", \"bin_sha256\": \""
                << golden::sha256::hex(data) << "\"}";
      first_ = false;
    }
  }

  bool matrices_must_fail() {
    manifest_ << "\n  ],\n  \"matrices_must_fail\": [";
    first_ = true;
    bool right = true;
    for (const auto& b : golden::bad_matrices(ctx_)) right = bad_matrix(b) && right;
    return right;
  }

  void finish() {
    manifest_ << "\n  ]\n}\n";
    const std::string text = manifest_.str();
    const auto* p = reinterpret_cast<const std::byte*>(text.data());
    write(dir_ / "vectors.json", bytes(p, p + text.size()));
  }

  [[nodiscard]] const tersor::context& ctx() const { return ctx_; }

 private:
  bool bad_file(const golden::bad_container& b) {
    const fs::path name = fs::path("must-fail") / (b.name + ".safetensors");
    write(dir_ / name, b.data);
    const fs::path out = dir_ / "restored.safetensors";
    const auto restored = tersor::decompress(ctx_, dir_ / name, out);
    fs::remove(out);
    const tersor::errc got = restored ? tersor::errc::ok : restored.error().code;
    manifest_ << (first_ ? "" : ",") << "\n    {\"name\": \"" << b.name << "\", \"error\": \""
              << to_string(b.code) << "\", \"packed\": \"" << name.string()
              << "\",\n     \"packed_sha256\": \"" << golden::sha256::hex(b.data) << "\"}";
    first_ = false;
    if (got != b.code) {
      std::fprintf(stderr, "%s: expected %s, got %s\n", b.name.c_str(), to_string(b.code).data(),
                   to_string(got).data());
    }
    return got == b.code;
  }

  bool bad_matrix(const golden::bad_matrix& b) {
    bytes out(std::size_t{16} * 128 * 2);
    const auto unpacked = tersor::unpack_into(ctx_, b.data, out);
    const tersor::errc got = unpacked ? tersor::errc::ok : unpacked.error().code;
    if (got != b.code) {
      std::fprintf(stderr, "%s: expected %s, got %s\n", b.name.c_str(), to_string(b.code).data(),
                   to_string(got).data());
    }
    write(dir_ / "must-fail" / (b.name + ".tersor"), b.data);
    manifest_ << (first_ ? "" : ",") << "\n    {\"name\": \"" << b.name << "\", \"error\": \""
              << to_string(b.code) << "\", \"frame\": \"must-fail/" << b.name
              << ".tersor\", \"frame_bytes\": " << b.data.size() << ",\n     \"frame_sha256\": \""
              << golden::sha256::hex(b.data) << "\"}";
    first_ = false;
    return got == b.code;
  }

  static tersor::codebook other_book(dtype type) {
    const auto data = golden::sample(type, 500, pattern::clean, 99);
    return tersor::make_codebook(type, tersor::count_symbols(type, data).value()).value();
  }

  fs::path dir_;
  tersor::context ctx_;
  std::ostringstream manifest_ = [] {
    std::ostringstream s;
    s << std::boolalpha;
    return s;
  }();
  std::set<std::string> bins_;
  bool first_ = true;
};

int random_frames(std::uint64_t count, std::uint64_t seed, const fs::path& dir) {
  golden::prng random(seed);
  const auto ctx = tersor::context::create(1).value();
  fs::create_directories(dir);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto type = static_cast<dtype>(1 + random.next() % 5);
    const auto how = static_cast<pattern>(random.next() % 5);
    const std::uint64_t n = random.next() % (random.next() % 2 == 0 ? 2100 : 20000);
    const auto asked = static_cast<codec>(random.next() % 3);
    const bytes data = golden::sample(type, n, how, random.next());
    const auto frame = tersor::encode(ctx, {.type = type, .shape = {&n, 1}, .data = data},
                                      {.codec = asked, .raw_fallback = random.next() % 2 == 0});
    write(dir / (std::to_string(i) + ".bin"), data);
    write(dir / (std::to_string(i) + ".tersor"), frame.value());
  }
  return 0;
}

int golden_files(const fs::path& dir) {
  writer out(dir);
  for (const vector_case& c : good_cases()) out.good(c);
  out.begin_bad();
  bool right = true;
  for (const golden::bad_frame& b : golden::must_fail(out.ctx())) right = out.bad(b) && right;
  right = out.containers() && right;
  out.matrices();
  right = out.matrices_must_fail() && right;
  out.finish();
  return right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() == 4 && args[0] == "--random")
    return random_frames(std::stoull(args[1]), std::stoull(args[2]), args[3]);
  if (args.size() == 1) return golden_files(args[0]);
  std::fprintf(stderr, "usage: make_vectors DIR | make_vectors --random N SEED DIR\n");
  return 2;
}
