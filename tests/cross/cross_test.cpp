// Everything that a CPU of another byte order or instruction set could get wrong, in one program without a
// test framework: round trips and damaged frames on every backend against the scalar one, and the golden
// vectors.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include <tersor/codec.hpp>
#include <tersor/packed.hpp>

namespace {

using tersor::codec;
using tersor::context;
using tersor::dtype;
using bytes = std::vector<std::byte>;

unsigned long passed = 0;
unsigned long failed = 0;

void check(bool ok, const std::string& what) {
  ++(ok ? passed : failed);
  if (!ok) std::printf("FAILED %s\n", what.c_str());
}

enum class kind { weights, uniform, constant };

struct exponent_field {
  unsigned bits;
  unsigned shift;
};
exponent_field exponent_of(dtype type) {
  switch (type) {
    case dtype::bf16:
      return {8, 7};
    case dtype::f16:
      return {5, 10};
    case dtype::f32:
      return {8, 23};
    case dtype::f8_e4m3:
      return {4, 3};
    default:
      return {5, 2};
  }
}

/// Values whose exponents are spread like a trained weight's, all bit patterns alike, or all the same.
/// Written byte by byte, so that every CPU sees the same bytes.
bytes make_data(dtype type, std::size_t n_values, kind k) {
  std::mt19937 rng(static_cast<unsigned>(n_values) + static_cast<unsigned>(type));
  const std::size_t width = tersor::value_bytes(type);
  const exponent_field exponent = exponent_of(type);
  const auto mask = ((std::uint32_t{1} << exponent.bits) - 1) << exponent.shift;
  bytes data(n_values * width);
  for (std::size_t i = 0; i < n_values; ++i) {
    std::uint32_t value = k == kind::constant ? 0x3c3c3c3cu : static_cast<std::uint32_t>(rng());
    if (k == kind::weights) {
      // Each step down the exponent is half as likely as the one before; the last ones become escapes.
      const auto steps =
          static_cast<std::uint32_t>(std::countr_zero(static_cast<std::uint32_t>(rng()) | 0x100000u));
      const std::uint32_t top = (3u << exponent.bits) / 4;
      value = (value & ~mask) | ((top - std::min(steps, top)) << exponent.shift);
    }
    for (std::size_t b = 0; b < width; ++b) data[i * width + b] = static_cast<std::byte>(value >> (8 * b));
  }
  return data;
}

std::string name_of(const context& ctx, codec c, dtype type, std::size_t n) {
  return std::string(ctx.backend()) + " " + std::string(tersor::to_string(c)) + " " +
         std::string(tersor::to_string(type)) + " " + std::to_string(n);
}

/// Damaged copies of a frame must get the same verdict, and the same bytes where there is one, as from
/// `reference`.
void compare_damaged(const context& ctx, const context& reference, const bytes& frame,
                     const std::string& what) {
  std::mt19937 rng(static_cast<unsigned>(frame.size()));
  for (int i = 0; i < 24; ++i) {
    bytes damaged = frame;
    damaged[rng() % damaged.size()] ^= static_cast<std::byte>(1u << (rng() % 8));
    const auto got = tersor::decode(ctx, damaged);
    const auto expected = tersor::decode(reference, damaged);
    const bool same = got.has_value() == expected.has_value() &&
                      (got ? got->data == expected->data : got.error().code == expected.error().code);
    check(same, what + " damaged " + std::to_string(i));
  }
}

void round_trip(const context& ctx, const context& reference, codec c, dtype type, std::size_t n, kind k) {
  const std::string what = name_of(ctx, c, type, n);
  const bytes data = make_data(type, n, k);
  const std::vector<std::uint64_t> shape = {n};
  const tersor::tensor_view view{.type = type, .shape = shape, .data = data};
  const tersor::encode_options options{.codec = c, .book = {}, .raw_fallback = false};
  const auto frame = tersor::encode(ctx, view, options);
  const auto expected = tersor::encode(reference, view, options);
  check(frame.has_value() && expected.has_value() && *frame == *expected, what + " encode");
  if (!frame) return;
  const auto back = tersor::decode(ctx, *frame);
  check(back.has_value() && back->data == data && back->shape == shape, what + " decode");
  if (k == kind::weights && n >= 1000) compare_damaged(ctx, reference, *frame, what);
}

void round_trips(const context& ctx, const context& reference) {
  for (const dtype type : {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2}) {
    for (const codec c : {codec::raw, codec::top16, codec::rank}) {
      for (const std::size_t n : std::initializer_list<std::size_t>{0, 1, 7, 1023, 1024, 1025, 8192, 9217}) {
        for (const kind k : {kind::weights, kind::uniform, kind::constant})
          round_trip(ctx, reference, c, type, n, k);
      }
    }
  }
}

bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  check(in.good() || in.eof(), "read " + path.string());
  return {first, first + text.size()};
}

/// A scalar field of one flat object of the vectors' index; empty if it has none.
std::string field(const std::string& object, const std::string& key) {
  const std::size_t at = object.find("\"" + key + "\": ");
  if (at == std::string::npos) return {};
  const std::size_t begin = at + key.size() + 4;
  if (object[begin] != '"') return object.substr(begin, object.find_first_of(",}", begin) - begin);
  return object.substr(begin + 1, object.find('"', begin + 1) - begin - 1);
}

void golden(const context& ctx, const std::filesystem::path& dir, const std::string& object) {
  const std::string what = std::string(ctx.backend()) + " golden " + field(object, "name");
  const bytes frame = read_file(dir / field(object, "frame"));
  const bytes data = read_file(dir / field(object, "bin"));
  const auto back = tersor::decode(ctx, frame);
  check(back.has_value() && back->data == data, what + " decode");
  const auto info = tersor::inspect(frame);
  const auto asked = tersor::parse_codec(field(object, "asked"));
  if (!info || !asked) return check(false, what + " inspect");
  tersor::encode_options options{
      .codec = *asked, .book = {}, .raw_fallback = field(object, "raw_fallback") == "true"};
  if (field(object, "calibrated") == "true") options.book = info->book;
  const auto again = tersor::encode(ctx, {.type = info->type, .shape = info->shape, .data = data}, options);
  check(again.has_value() && *again == frame, what + " encode");
}

void must_fail(const context& ctx, const std::filesystem::path& dir, const std::string& object) {
  const auto back = tersor::decode(ctx, read_file(dir / field(object, "frame")));
  check(!back && tersor::to_string(back.error().code) == field(object, "error"),
        std::string(ctx.backend()) + " must fail " + field(object, "name"));
}

void golden_matrix(const context& ctx, const std::filesystem::path& dir, const std::string& object) {
  const std::string what = std::string(ctx.backend()) + " golden " + field(object, "name");
  const bytes packed = read_file(dir / field(object, "frame"));
  const bytes data = read_file(dir / field(object, "bin"));
  const auto info = tersor::inspect_packed(packed);
  if (!info) return check(false, what + " inspect");
  bytes back(data.size());
  check(tersor::unpack_into(ctx, packed, back).has_value() && back == data, what + " unpack");
  const std::string places = field(object, "inline_escapes");
  const auto again = tersor::pack(
      ctx, {.type = info->type, .rows = info->rows, .cols = info->cols, .data = data},
      {.layout = info->layout, .inline_escapes = static_cast<std::uint32_t>(std::stoul(places))});
  check(again.has_value() && *again == packed, what + " pack");
}

void matrix_must_fail(const context& ctx, const std::filesystem::path& dir, const std::string& object) {
  bytes out(std::size_t{16} * 128 * 2);
  const auto unpacked = tersor::unpack_into(ctx, read_file(dir / field(object, "frame")), out);
  check(!unpacked && tersor::to_string(unpacked.error().code) == field(object, "error"),
        std::string(ctx.backend()) + " must fail " + field(object, "name"));
}

void vectors(const context& ctx, const std::filesystem::path& dir) {
  const bytes raw = read_file(dir / "vectors.json");
  const std::string index(reinterpret_cast<const char*>(raw.data()), raw.size());
  // The lists of packed matrices are the last ones.
  const std::size_t matrices = index.find("\"matrices\": [");
  check(matrices != std::string::npos, "the matrices are there");
  unsigned n_golden = 0;
  unsigned n_must_fail = 0;
  for (std::size_t at = index.find("{\"name\""); at != std::string::npos;
       at = index.find("{\"name\"", at + 1)) {
    const std::string object = index.substr(at, index.find('}', at) + 1 - at);
    if (field(object, "frame").empty()) continue;  // whole files are not this program's business
    if (field(object, "error").empty()) {
      (at < matrices ? golden : golden_matrix)(ctx, dir, object);
      ++n_golden;
    } else {
      (at < matrices ? must_fail : matrix_must_fail)(ctx, dir, object);
      ++n_must_fail;
    }
  }
  check(n_golden != 0 && n_must_fail != 0, "the vectors are there");
  std::printf("%s: %u golden vectors, %u that must fail\n", std::string(ctx.backend()).c_str(), n_golden,
              n_must_fail);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: cross_test <directory of the golden vectors>\n");
    return 2;
  }
  const auto reference = context::create(1, "scalar");
  check(reference.has_value(), "scalar backend");
  for (const tersor::backend_info& backend : tersor::backends()) {
    if (!backend.supported) continue;
    const auto ctx = context::create(2, backend.name);
    check(ctx.has_value(), std::string(backend.name));
    if (!ctx || !reference) continue;
    round_trips(*ctx, *reference);
    vectors(*ctx, argv[1]);
  }
  std::printf("%lu passed, %lu failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
