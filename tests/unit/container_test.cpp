// The container: byte-for-byte round trips of every legal header, and a clear error for every change.
#include <functional>

#include "format/container_header.hpp"
#include "model_fixture.hpp"

namespace tersor::model_test {
namespace {

using ContainerTest = ModelTest;

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  std::size_t begin, std::size_t end) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

/// Two coded tensors, a stored one between them, a scalar and an empty one.
std::string sample_file() {
  const std::string a = weights(3000, 1);
  const std::string b = random_bytes(101, 2);
  const std::string c = weights(20000, 3);
  const std::string d = random_bytes(2, 4);
  std::string json = R"({"__metadata__":{"format":"pt"})";
  std::size_t at = 0;
  const auto add = [&](const char* name, const char* dtype, const char* shape, std::size_t n) {
    json += "," + entry(name, dtype, shape, at, at + n);
    at += n;
  };
  add("a", "BF16", "[30,100]", a.size());
  add("b", "U8", "[101]", b.size());
  add("c", "BF16", "[20000]", c.size());
  add("e", "BF16", "[0,7]", 0);
  add("d", "F16", "[]", d.size());
  return file_of(json + "}", a + b + c + d);
}

std::uint64_t header_length(const std::string& file) {
  std::uint64_t n = 0;
  for (std::size_t i = 8; i > 0; --i) n = n << 8 | static_cast<unsigned char>(file[i - 1]);
  return n;
}

/// Applies a change to a container's header and makes its digest right again.
std::string with_header(const context& ctx, const std::string& file,
                        const std::function<void(std::string&)>& edit) {
  const std::uint64_t n = header_length(file);
  std::string json = file.substr(8, n);
  edit(json);
  const auto head = format::read_container_head(json);
  if (head) {
    const std::string blank = format::blank_header_digest(json, *head);
    json.replace(
        head->digest_at, format::kHexDigits,
        format::to_hex(digest_bytes(ctx, format::kHeaderDigestDomain, std::as_bytes(std::span(blank)))));
  }
  return file_of(json, std::string_view(file).substr(8 + n));
}

void replace(std::string& text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
}

TEST_F(ContainerTest, SampleIsLaidOutAsSpecified) {
  const std::string file = sample_file();
  const std::string packed = round_trip(file);
  const std::uint64_t n = header_length(packed);
  EXPECT_EQ((8 + n) % 128, 0U);
  const std::string json = packed.substr(8, n);
  EXPECT_TRUE(json.starts_with(R"({"__metadata__":{"tersor":"1","tersor.header_digest":")"));
  EXPECT_NE(json.find(R"(","tersor.header":"{\"__metadata__\":{\"format\":\"pt\"},\"a\":)"),
            std::string::npos);
  EXPECT_NE(json.find(R"(","format":"pt"})"), std::string::npos);
  // Both frames begin at a multiple of 128, the stored tensors follow.
  EXPECT_EQ(packed.compare(8 + n, 8, "\x89TERSOR\n"), 0);
  const auto report = inspect_model(dir_ / "packed");
  ASSERT_TRUE(report) << report.error().describe();
  const auto& tensors = report->files.at(0).tensors;
  ASSERT_EQ(tensors.size(), 5U);
  EXPECT_EQ(tensors[0].codec, codec::rank);
  EXPECT_EQ(tensors[1].codec, codec::raw);
  EXPECT_EQ(tensors[2].codec, codec::rank);
  EXPECT_EQ(packed.compare(8 + n + tensors[0].stored_bytes, 8, "\x89TERSOR\n"), 0);
  const std::string stored_b = file.substr(file.size() - 2 - 40000 - 101, 101);
  EXPECT_EQ(packed.substr(packed.size() - 103), stored_b + file.substr(file.size() - 2));
  EXPECT_EQ(report->original_bytes, file.size());
  EXPECT_LT(packed.size(), file.size());
}

TEST_F(ContainerTest, HeadersInEveryFormComeBack) {
  const std::string data = weights(4096, 5);
  const std::string tensor = entry("w", "BF16", "[4096]", 0, data.size());
  for (const std::string& json : {"{" + tensor + "}", "{" + tensor + "}   ", "{" + tensor + "}\n\n\t\r\n",
                                  "{ \n" + tensor + "\r\n}", R"({"__metadata__":{},)" + tensor + "}",
                                  "{" + tensor + R"(,"__metadata__":{"b":"\u0001\n\"","a":"é"}})",
                                  R"({"__metadata__":{"Tersor":"0","tersorx":"1"},)" + tensor + "}"}) {
    SCOPED_TRACE(json);
    round_trip(file_of(json, data));
  }
  round_trip(file_of("{}", ""));
  round_trip(file_of(R"({"__metadata__":{"a":"b"}})", ""));
}

TEST_F(ContainerTest, NamesAreOnlyNames) {
  const std::string data = weights(2048, 6);
  for (const std::string name :
       {"", "../../x", "/etc/passwd", R"(a\"b)", R"(a\\b)", R"(\n\r\t\b\f)", R"(\u0000)", R"(\u001f\u007f)",
        "ключ", R"(\ud83d\ude00)", "😀", "tersor", R"(a\/b)"}) {
    SCOPED_TRACE(name);
    round_trip(file_of("{" + entry(name, "BF16", "[2048]", 0, data.size()) + "}", data));
  }
}

TEST_F(ContainerTest, EveryDtypeComesBack) {
  const char* names[] = {"BOOL", "U8",  "I8",  "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ",
                         "I16",  "U16", "F16", "BF16",    "I32",     "U32",     "F32",
                         "C64",  "F64", "I64", "U64",     "X9"};
  const std::size_t bytes[] = {1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 3};
  for (const codec c : {codec::rank, codec::top16, codec::raw}) {
    std::string json = "{";
    std::string data;
    for (std::size_t i = 0; i < std::size(names); ++i) {
      const std::size_t begin = data.size();
      data += i % 2 == 0 ? weights(2500 * bytes[i], i).substr(0, 2500 * bytes[i])
                         : random_bytes(2500 * bytes[i], i);
      json += (i > 0 ? "," : "") + entry(names[i], names[i], "[50,50]", begin, data.size());
    }
    const std::size_t begin = data.size();
    data += random_bytes(6, 99);
    json += "," + entry("f4", "F4", "[2,6]", begin, data.size()) + "}";
    round_trip(file_of(json, data), {.codec = c});
  }
}

TEST_F(ContainerTest, ShapesAndOrderComeBack) {
  const std::string w = weights(4096, 8);
  const std::string json =
      "{" + entry("z", "BF16", "[2,2,2,2,2,2,2,2,16]", 0, 8192) + "," +
      entry("late", "BF16", "[64,64]", 8195, 16387) + "," + entry("odd", "U8", "[3]", 8192, 8195) + "," +
      entry("e2", "F32", "[0]", 8192, 8192) + "," + entry("e1", "F32", "[0,0]", 8192, 8192) + "," +
      entry("s", "F32", "[]", 16387, 16391) + "}";
  const std::string packed = round_trip(file_of(json, w + "abc" + w + "1234"));
  const auto report = inspect_model(dir_ / "packed");
  ASSERT_TRUE(report);
  EXPECT_EQ(report->files[0].tensors[0].name, "z");
  EXPECT_EQ(report->files[0].tensors[0].shape.size(), 9U);
  EXPECT_EQ(report->files[0].tensors[0].codec, codec::rank);
}

TEST_F(ContainerTest, GrowthIsBounded) {
  // The worst header: all quotes and line ends, many tiny tensors, nothing to gain.
  std::string json = R"({"__metadata__":{"q":")";
  for (int i = 0; i < 500; ++i) json += R"(\")";
  json += "\"},";
  constexpr std::size_t kTensors = 300;
  for (std::size_t i = 0; i < kTensors; ++i)
    json += entry(std::to_string(i), "BF16", "[ 1]", 2 * i, 2 * i + 2) + ",\n";
  json.resize(json.size() - 2);
  json += std::string(400, '\n') + "}" + std::string(333, '\n');
  for (const codec c : {codec::rank, codec::raw}) {
    const std::string file = file_of(json, random_bytes(2 * kTensors, 3));
    const std::string packed = round_trip(file, {.codec = c});
    EXPECT_LE(packed.size(), file.size() + 3 * json.size() + 128 * kTensors + 1024);
  }
}

TEST_F(ContainerTest, ThreadsAndReadModeDoNotChangeTheBytes) {
  put(dir_ / "in", sample_file());
  std::string first;
  for (unsigned threads = 1; threads <= 8; ++threads) {
    for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
      const context ctx = *context::create(threads);
      ASSERT_TRUE(compress(ctx, dir_ / "in", dir_ / "out", {.overwrite = true, .read = mode}));
      const std::string bytes = content(dir_ / "out");
      if (first.empty()) first = bytes;
      EXPECT_TRUE(bytes == first) << threads;
      ASSERT_TRUE(decompress(ctx, dir_ / "out", dir_ / "back", {.overwrite = true, .read = mode}));
      EXPECT_TRUE(content(dir_ / "back") == content(dir_ / "in"));
    }
  }
}

TEST_F(ContainerTest, EveryChangedByteIsFound) {
  const std::string w = weights(1500, 9);
  const std::string packed = round_trip(
      file_of("{" + entry("w", "BF16", "[1500]", 0, 3000) + "," + entry("b", "U8", "[9]", 3000, 3009) + "}",
              w + "123456789"));
  const std::string original = content(dir_ / "in");
  // Changed in place: writing the file anew each time would wait for the disk.
  put(dir_ / "bad", packed);
  std::fstream file(dir_ / "bad", std::ios::in | std::ios::out | std::ios::binary);
  const auto set = [&](std::size_t at, int flip) {
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(packed[at] ^ flip));
    file.flush();
  };
  for (std::size_t at = 0; at < packed.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      set(at, 1 << bit);
      const auto checked = verify(ctx_, dir_ / "bad", std::nullopt);
      ASSERT_FALSE(checked) << at << " bit " << bit;
      const errc code = checked.error().code;
      EXPECT_TRUE(is_data_error(code) || code == errc::wrong_kind || code == errc::unsupported)
          << at << " " << to_string(code);
      EXPECT_EQ(checked.error().file, (dir_ / "bad").string());
    }
    set(at, 0);
  }
  EXPECT_TRUE(verify(ctx_, dir_ / "bad", dir_ / "in"));
}

TEST_F(ContainerTest, EveryCutIsFound) {
  const std::string packed = round_trip(sample_file());
  put(dir_ / "bad", packed);
  for (std::size_t n = packed.size(); n > 0;) {
    n -= n > 3000 ? 97 : 1;
    fs::resize_file(dir_ / "bad", n);
    const auto restored = decompress(ctx_, dir_ / "bad", dir_ / "never");
    ASSERT_FALSE(restored) << n;
    EXPECT_TRUE(is_data_error(restored.error().code)) << n << restored.error().describe();
    EXPECT_FALSE(fs::exists(dir_ / "never"));
  }
  put(dir_ / "bad", packed + "x");
  EXPECT_FALSE(decompress(ctx_, dir_ / "bad", dir_ / "never"));
  EXPECT_EQ(n_entries(), 4U);
}

struct tampering {
  const char* what;
  std::function<void(std::string&)> edit;
  errc code;
};

TEST_F(ContainerTest, FieldsThatContradictAreFound) {
  const std::string packed = round_trip(sample_file());
  const auto report = inspect_model(dir_ / "packed");
  ASSERT_TRUE(report);
  const std::string digest_a = format::to_hex(report->files[0].tensors[0].digest);
  const std::string digest_b = format::to_hex(report->files[0].tensors[1].digest);
  const std::string flipped = std::string(digest_a).replace(0, 1, digest_a[0] == '0' ? "1" : "0");
  const tampering cases[] = {
      {"version", [](auto& j) { replace(j, R"("tersor":"1")", R"("tersor":"7")"); },
       errc::unsupported_version},
      {"version text", [](auto& j) { replace(j, R"("tersor":"1")", R"("tersor":"x")"); }, errc::malformed},
      {"space",
       [](auto& j) {
         replace(j, R"({"__meta)", R"({ "__meta)");
         j.pop_back();
       },
       errc::malformed},
      {"alignment", [](auto& j) { j += " "; }, errc::malformed},
      {"frame digest", [&](auto& j) { replace(j, digest_a, flipped); }, errc::digest_mismatch},
      {"stored digest", [&](auto& j) { replace(j, digest_b, digest_a); }, errc::digest_mismatch},
      {"digest case", [&](auto& j) { replace(j, digest_a, "ABCDEF0123456789"); }, errc::malformed},
      {"fewer digests",
       [&](auto& j) {
         replace(j, digest_a, "");
         j += std::string(16, ' ');
       },
       errc::malformed},
      {"original dtype",
       [](auto& j) {
         replace(j, R"(\"dtype\":\"BF16\",\"shape\":[30,100])", R"(\"dtype\":\"F16\",\"shape\":[30,100] )");
       },
       errc::malformed},
      {"original shape",
       [](auto& j) {
         replace(j, R"([30,100],\"data)", R"([3000], \"data)");
         j.pop_back();
         j += " ";
       },
       errc::malformed},
      {"original name", [](auto& j) { replace(j, R"(\"a\")", R"(\"A\")"); }, errc::malformed},
      {"original unknown dtype",
       [](auto& j) {
         replace(j, R"(\"dtype\":\"BF16\",\"shape\":[30,100])", R"(\"dtype\":\"XYZW\",\"shape\":[30,100])");
       },
       errc::malformed},
      {"original syntax", [](auto& j) { replace(j, R"(\"b\":{)", R"(\"b\":[)"); }, errc::malformed},
      {"stored dtype",
       [](auto& j) {
         const auto at = j.find(R"("b":{"dtype":"U8")");
         ASSERT_NE(at, std::string::npos);
         j.replace(at + 14, 2, "I8");
       },
       errc::malformed},
      {"nested",
       [](auto& j) {
         replace(j, R"(\"format\":\"pt\")", R"(\"tersor\":\"0x\")");
         j.resize(j.size() - 2);
       },
       errc::malformed},
  };
  for (const tampering& c : cases) {
    put(dir_ / "bad", with_header(ctx_, packed, c.edit));
    const auto checked = verify(ctx_, dir_ / "bad", std::nullopt);
    ASSERT_FALSE(checked) << c.what;
    EXPECT_EQ(checked.error().code, c.code) << c.what << ": " << checked.error().describe();
  }
  // The helper itself leaves a container good.
  put(dir_ / "good", with_header(ctx_, packed, [](std::string&) {}));
  EXPECT_TRUE(verify(ctx_, dir_ / "good", std::nullopt));
}

TEST_F(ContainerTest, DamageIsReportedWithItsPlace) {
  std::string packed = round_trip(sample_file());
  const std::uint64_t data_at = 8 + header_length(packed);
  const auto report = inspect_model(dir_ / "packed");
  ASSERT_TRUE(report);
  // The last byte of the second frame that is not padding belongs to its last chunk.
  std::size_t at = data_at + report->files[0].tensors[0].stored_bytes + 128 + 128 + 5000;
  packed[at] = static_cast<char>(packed[at] ^ 1);
  put(dir_ / "bad", packed);
  const auto checked = verify(ctx_, dir_ / "bad", std::nullopt);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, errc::digest_mismatch);
  EXPECT_EQ(checked.error().tensor, "c");
  EXPECT_EQ(checked.error().chunk, 0U);
  EXPECT_EQ(checked.error().byte_offset, data_at + report->files[0].tensors[0].stored_bytes);
}

TEST_F(ContainerTest, KindsAreToldApart) {
  round_trip(sample_file());
  const auto twice = compress(ctx_, dir_ / "packed", dir_ / "x");
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code, errc::wrong_kind);
  const auto plain = decompress(ctx_, dir_ / "in", dir_ / "x");
  ASSERT_FALSE(plain);
  EXPECT_EQ(plain.error().code, errc::wrong_kind);
  for (const char* key : {"tersor", "tersor.x"}) {
    put(dir_ / "marked", file_of(std::string(R"({"__metadata__":{")") + key + R"(":""}})", ""));
    const auto marked = compress(ctx_, dir_ / "marked", dir_ / "x");
    ASSERT_FALSE(marked);
    EXPECT_EQ(marked.error().code, errc::wrong_kind);
  }
  put(dir_ / "junk", "not a safetensors file");
  EXPECT_FALSE(compress(ctx_, dir_ / "junk", dir_ / "x"));
  EXPECT_FALSE(decompress(ctx_, dir_ / "junk", dir_ / "x"));
  EXPECT_FALSE(fs::exists(dir_ / "x"));
}

}  // namespace
}  // namespace tersor::model_test
