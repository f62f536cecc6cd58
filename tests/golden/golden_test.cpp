// Every golden file against every backend of this build that this CPU runs.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "sample_data.hpp"
#include "sha256.hpp"
#include <tersor/codec.hpp>
#include <tersor/model.hpp>
#include <tersor/packed.hpp>

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using bytes = std::vector<std::byte>;

const fs::path kVectors = TERSOR_GOLDEN_VECTORS;

bytes read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  EXPECT_TRUE(in.good()) << path;
  if (!in) return {};
  bytes data(static_cast<std::size_t>(in.tellg()));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
  EXPECT_TRUE(in.good()) << path;
  return data;
}

json manifest() {
  std::ifstream in(kVectors / "vectors.json");
  json m = json::parse(in);
  EXPECT_GT(m.at("vectors").size(), 50U);
  EXPECT_GE(m.at("must_fail").size(), 40U);
  return m;
}

std::vector<std::string> supported_backends() {
  std::vector<std::string> names;
  for (const auto& backend : tersor::backends()) {
    if (backend.supported) names.emplace_back(backend.name);
  }
  return names;
}

class Golden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto made = tersor::context::create(2, GetParam());
    ASSERT_TRUE(made) << made.error().describe();
    ctx_.emplace(std::move(*made));
  }

  std::optional<tersor::context> ctx_;
};

TEST_P(Golden, DecodesEveryVector) {
  const json m = manifest();
  for (const json& v : m.at("vectors")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    const bytes frame = read(kVectors / v.at("frame").get<std::string>());
    const auto decoded = tersor::decode(*ctx_, frame);
    ASSERT_TRUE(decoded) << decoded.error().describe();
    EXPECT_EQ(decoded->data, read(kVectors / v.at("bin").get<std::string>()));
    EXPECT_EQ(decoded->shape, v.at("frame_shape").get<std::vector<std::uint64_t>>());
    EXPECT_EQ(to_string(decoded->type), v.at("dtype").get<std::string>());
  }
}

TEST_P(Golden, EncodesEveryVectorToTheSameBytes) {
  const json m = manifest();
  for (const json& v : m.at("vectors")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    const bytes frame = read(kVectors / v.at("frame").get<std::string>());
    const bytes data = read(kVectors / v.at("bin").get<std::string>());
    const auto shape = v.at("shape").get<std::vector<std::uint64_t>>();
    const auto type = v.at("dtype") == "BYTES" ? std::optional(tersor::dtype::bytes)
                                               : tersor::parse_dtype(v.at("dtype").get<std::string>());
    ASSERT_TRUE(type);
    tersor::encode_options options{.codec = tersor::parse_codec(v.at("asked").get<std::string>()).value(),
                                   .raw_fallback = v.at("raw_fallback").get<bool>()};
    if (v.at("calibrated").get<bool>()) options.book = tersor::inspect(frame).value().book;
    const auto encoded = tersor::encode(*ctx_, {.type = *type, .shape = shape, .data = data}, options);
    ASSERT_TRUE(encoded) << encoded.error().describe();
    EXPECT_EQ(*encoded, frame);
  }
}

TEST_P(Golden, RefusesEveryBadFrameWithItsCode) {
  const json m = manifest();
  for (const json& v : m.at("must_fail")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    const auto decoded = tersor::decode(*ctx_, read(kVectors / v.at("frame").get<std::string>()));
    EXPECT_EQ(to_string(decoded ? tersor::errc::ok : decoded.error().code), v.at("error").get<std::string>());
  }
}

/// Neither version 0, which was never released, nor version 2 is called newer or older.
TEST_P(Golden, NamesTheVersionThatItDoesNotRead) {
  const auto says = [](const auto& made, const std::string& message) {
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().message, message);
  };
  const fs::path bad = kVectors / "must-fail";
  says(tersor::decode(*ctx_, read(bad / "header-version-next.tersor")),
       "frame version 2 is not one that this Tersor reads (1)");
  says(tersor::decode(*ctx_, read(bad / "header-version-zero.tersor")),
       "frame version 0 is not one that this Tersor reads (1)");
  says(tersor::verify(*ctx_, bad / "file-version-next.safetensors", std::nullopt),
       "container version 2 is not one that this Tersor reads (1)");
  says(tersor::verify(*ctx_, bad / "file-version-zero.safetensors", std::nullopt),
       "container version 0 is not one that this Tersor reads (1)");
}

TEST_P(Golden, DecodesEveryChunkAlone) {
  const json m = manifest();
  for (const json& v : m.at("vectors")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    const bytes frame = read(kVectors / v.at("frame").get<std::string>());
    const bytes data = read(kVectors / v.at("bin").get<std::string>());
    bytes out(data.size());
    const std::span<std::byte> all(out);
    std::uint64_t at = 0;
    for (std::uint64_t chunk = 0; chunk < tersor::inspect(frame).value().n_chunks; ++chunk) {
      const auto n = tersor::decode_chunks(*ctx_, frame, chunk, 1, all.subspan(at));
      ASSERT_TRUE(n) << n.error().describe();
      at += *n;
    }
    EXPECT_EQ(out, data);
  }
}

TEST_P(Golden, PacksAndUnpacksEveryMatrix) {
  const json m = manifest();
  ASSERT_GE(m.at("matrices").size(), 10U);
  for (const json& v : m.at("matrices")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    const bytes matrix = read(kVectors / v.at("frame").get<std::string>());
    const bytes data = read(kVectors / v.at("bin").get<std::string>());
    const tersor::matrix_view view{.type = tersor::parse_dtype(v.at("dtype").get<std::string>()).value(),
                                   .rows = v.at("rows").get<std::uint64_t>(),
                                   .cols = v.at("cols").get<std::uint64_t>(),
                                   .data = data};
    const auto packed =
        tersor::pack(*ctx_, view,
                     {.layout = tersor::parse_matrix_layout(v.at("layout").get<std::string>()).value(),
                      .inline_escapes = v.at("inline_escapes").get<std::uint32_t>()});
    ASSERT_TRUE(packed) << packed.error().describe();
    EXPECT_EQ(*packed, matrix);
    bytes back(data.size());
    ASSERT_TRUE(tersor::unpack_into(*ctx_, matrix, back));
    EXPECT_EQ(back, data);
  }
}

TEST_P(Golden, RefusesEveryBadMatrixWithItsCode) {
  const json m = manifest();
  ASSERT_GE(m.at("matrices_must_fail").size(), 30U);
  for (const json& v : m.at("matrices_must_fail")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    bytes out(std::size_t{16} * 128 * 2);
    const auto unpacked = tersor::unpack_into(*ctx_, read(kVectors / v.at("frame").get<std::string>()), out);
    EXPECT_EQ(to_string(unpacked ? tersor::errc::ok : unpacked.error().code),
              v.at("error").get<std::string>());
  }
}

/// A path of this test alone, and nothing there.
fs::path fresh_path() {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  std::string name = std::string("golden-") + test->test_suite_name() + "-" + test->name() + ".safetensors";
  std::ranges::replace(name, '/', '-');
  fs::remove(fs::path(testing::TempDir()) / name);
  return fs::path(testing::TempDir()) / name;
}

TEST_P(Golden, CompressesAndRestoresEveryFile) {
  const json m = manifest();
  ASSERT_FALSE(m.at("files").empty());
  for (const json& v : m.at("files")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    const fs::path plain = kVectors / v.at("plain").get<std::string>();
    const fs::path packed = kVectors / v.at("packed").get<std::string>();
    const fs::path out = fresh_path();
    tersor::model_options options;
    if (v.contains("inline_escapes"))
      options.packing = {.inline_escapes = v.at("inline_escapes").get<std::uint32_t>()};
    const auto compressed = tersor::compress(*ctx_, plain, out, options);
    ASSERT_TRUE(compressed) << compressed.error().describe();
    EXPECT_EQ(read(out), read(packed));
    fs::remove(out);
    const auto restored = tersor::decompress(*ctx_, packed, out);
    ASSERT_TRUE(restored) << restored.error().describe();
    EXPECT_EQ(read(out), read(plain));
    fs::remove(out);
  }
}

TEST_P(Golden, RefusesEveryBadFileWithItsCodeAndLeavesNothing) {
  const json m = manifest();
  ASSERT_GE(m.at("files_must_fail").size(), 10U);
  for (const json& v : m.at("files_must_fail")) {
    SCOPED_TRACE(v.at("name").get<std::string>());
    const fs::path out = fresh_path();
    const auto restored = tersor::decompress(*ctx_, kVectors / v.at("packed").get<std::string>(), out);
    EXPECT_EQ(to_string(restored ? tersor::errc::ok : restored.error().code),
              v.at("error").get<std::string>());
    EXPECT_FALSE(fs::exists(out));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Golden, testing::ValuesIn(supported_backends()),
                         [](const auto& test) { return test.param; });

TEST(GoldenFiles, HaveTheSha256OfTheManifest) {
  const json m = manifest();
  const auto check = [](const json& v, const std::string& what) {
    const bytes data = read(kVectors / v.at(what).get<std::string>());
    EXPECT_EQ(golden::sha256::hex(data), v.at(what + "_sha256").get<std::string>()) << v.at(what);
  };
  for (const json& v : m.at("vectors")) {
    check(v, "frame");
    check(v, "bin");
  }
  for (const char* list : {"must_fail", "matrices_must_fail"}) {
    for (const json& v : m.at(list)) check(v, "frame");
  }
  for (const json& v : m.at("matrices")) {
    check(v, "frame");
    check(v, "bin");
  }
  for (const json& v : m.at("files")) {
    check(v, "plain");
    check(v, "packed");
  }
  for (const json& v : m.at("files_must_fail")) check(v, "packed");
}

TEST(GoldenFiles, Sha256KnowsItsTestVectors) {
  const std::string abc = "abc";
  EXPECT_EQ(golden::sha256::hex(std::as_bytes(std::span(abc))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(golden::sha256::hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/// The data of the vectors covers what the codecs distinguish.
TEST(GoldenFiles, CoverRawTilesAndEscapes) {
  std::map<std::string, std::uint64_t> raw, escapes;
  const json m = manifest();
  for (const json& v : m.at("vectors")) {
    const std::string key = v.at("codec").get<std::string>() + " " + v.at("dtype").get<std::string>();
    raw[key] += v.at("raw_tiles").get<std::uint64_t>();
    escapes[key] += v.at("escape_tiles").get<std::uint64_t>();
  }
  for (const char* codec : {"top16", "rank"}) {
    for (const char* type : {"BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"}) {
      EXPECT_GT(raw[std::string(codec) + " " + type], 0U) << codec << " " << type;
      // F8_E4M3 has no more symbols than a codebook has entries (rank), or no tail that could be shorter than
      // none (top16).
      if (std::string(type) == "F8_E4M3") continue;
      EXPECT_GT(escapes[std::string(codec) + " " + type], 0U) << codec << " " << type;
    }
  }
}

}  // namespace
