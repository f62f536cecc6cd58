// Files as requests, without a network: regions, notes, names, and what the sink accepts.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>

#include <gtest/gtest.h>
#include <unistd.h>

#include "core/bytes.hpp"
#include "transfer/files/file_regions.hpp"
#include <tersor/transfer_file.hpp>

namespace tersor::transfer {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::uint64_t kPartBytes = 64 << 10;

std::string safetensors_text(const std::string& json, std::size_t data_bytes, unsigned seed = 1) {
  std::string out(8, '\0');
  core::store_le(out.data(), static_cast<std::uint64_t>(json.size()));
  out += json;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02F);
  for (std::size_t i = 0; i + 1 < data_bytes; i += 2) {
    const float value = normal(random);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    out += static_cast<char>(bits >> 16);
    out += static_cast<char>(bits >> 24);
  }
  out.resize(8 + json.size() + data_bytes, 'x');
  return out;
}

std::string two_layers() {
  return safetensors_text(
      R"({"__metadata__":{"format":"pt"},)"
      R"("layers.0.k":{"dtype":"BF16","shape":[300,4,64],"data_offsets":[0,153600]},)"
      R"("layers.0.v":{"dtype":"BF16","shape":[300,4,64],"data_offsets":[153600,307200]},)"
      R"("empty":{"dtype":"F32","shape":[0,7],"data_offsets":[307200,307200]},)"
      R"("odd":{"dtype":"F4","shape":[2,9],"data_offsets":[307200,307209]},)"
      R"("ids":{"dtype":"I64","shape":[3],"data_offsets":[307209,307233]}}   )",
      307233);
}

class TransferFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "tersor-transfer-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    fs::create_directory(dir_ / "out");
  }
  void TearDown() override { fs::remove_all(dir_); }

  fs::path write(const std::string& name, const std::string& content) {
    std::ofstream(dir_ / name, std::ios::binary) << content;
    return dir_ / name;
  }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::unique_ptr<file_source> open(const std::string& content, read_mode mode = read_mode::mmap) {
    auto source = file_source::open(ctx_, write("in.safetensors", content), mode);
    if (!source) throw std::runtime_error(source.error().describe());
    return std::move(*source);
  }
  /// All parts, encoded and decoded, with a say in what the sink gets.
  status move_parts(const manifest& m, file_source& from, file_sink& to, codec c = codec::rank,
                    const std::function<void(std::vector<std::byte>&)>& damage = {}) {
    for (std::uint32_t i = 0; i < from.contents().regions.size(); ++i) {
      const region& r = from.contents().regions[i];
      TERSOR_CHECK(from.wait_ready(i));
      TERSOR_TRY(const std::uint64_t total, region_bytes(r));
      const std::uint64_t step = kPartBytes / r.page_bytes * r.page_bytes;
      for (std::uint64_t at = 0; at < total; at += step) {
        const part p{.region = i,
                     .first_page = at / r.page_bytes,
                     .n_pages = (std::min(step, total - at) + r.page_bytes - 1) / r.page_bytes,
                     .offset = at,
                     .n_bytes = std::min(step, total - at)};
        std::vector<std::byte> slot(encode_bound(c, r.type, p.n_bytes / value_bytes(r.type)) + 64);
        TERSOR_TRY(const encoded_part made, from.encode(r, p, c, slot));
        slot.resize(made.n_bytes);
        if (damage) damage(slot);
        TERSOR_CHECK(to.decode(m, p, slot));
      }
    }
    return {};
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(dir_ / "out")) out.push_back(entry.path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }

  fs::path dir_;
  context ctx_ = *context::create(1);
};

TEST(TransferFileNames, PlacesOfKAndV) {
  struct row {
    std::string_view name;
    std::uint32_t layer;
    part_kind kind;
  };
  const row rows[] = {{"layers.7.k", 7, part_kind::key},
                      {"layers.7.v", 7, part_kind::value},
                      {"model.layers.31.self_attn.k", 31, part_kind::key},
                      {"model.layers.31.self_attn.v_cache", 31, part_kind::value},
                      {"key_cache.12", 12, part_kind::key},
                      {"value_cache.12", 12, part_kind::value},
                      {"past_key_values.3.key", 3, part_kind::key},
                      {"past_key_values.3.value", 3, part_kind::value},
                      {"past_key_values.3", 3, part_kind::other},
                      {"layer_4_keys", 4, part_kind::key},
                      {"model.layers.0.self_attn.k_proj.weight", 0, part_kind::other},
                      {"k", 0, part_kind::other},
                      {"layers.99999999999.k", 0, part_kind::other},
                      {"", 0, part_kind::other},
                      {"...", 0, part_kind::other}};
  for (const row& r : rows) {
    const cache_place place = place_of(r.name);
    EXPECT_EQ(place.layer, r.layer) << r.name;
    EXPECT_EQ(place.kind, r.kind) << r.name;
  }
}

TEST(TransferFileNames, HarmlessWhateverIsOffered) {
  EXPECT_EQ(harmless_name("kv-1.safetensors"), "kv-1.safetensors");
  EXPECT_EQ(harmless_name("kv"), "kv.safetensors");
  EXPECT_EQ(harmless_name(""), "received.safetensors");
  EXPECT_EQ(harmless_name("../../etc/passwd"), "_._.._etc_passwd.safetensors");
  EXPECT_EQ(harmless_name(".bashrc"), "_bashrc.safetensors");
  EXPECT_EQ(harmless_name("-rf"), "_rf.safetensors");
  EXPECT_EQ(harmless_name(".safetensors"), "_safetensors.safetensors");
  EXPECT_EQ(harmless_name(std::string("a\0b\n\x1b[31m", 9)), "a_b___31m.safetensors");
  for (unsigned seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    std::string offered(random() % 300, '\0');
    for (char& c : offered) c = static_cast<char>(random());
    const std::string name = harmless_name(offered);
    EXPECT_EQ(fs::path(name).filename(), name);
    EXPECT_LE(name.size(), 200U);
    EXPECT_NE(name.front(), '.');
    EXPECT_TRUE(name.ends_with(".safetensors"));
  }
}

TEST(TransferFileNames, NotesAreStrict) {
  const file_note note{.file_bytes = 123456789, .name = "kv.safetensors"};
  const auto bytes = write_note(note);
  const auto back = read_note(bytes);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->file_bytes, note.file_bytes);
  EXPECT_EQ(back->name, note.name);
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(read_note(std::span(bytes).first(n)).has_value()) << n;
  }
  auto longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(read_note(longer).has_value());
  auto newer = bytes;
  newer[4] = std::byte{2};
  EXPECT_EQ(read_note(newer).error().code, errc::unsupported_version);
}

TEST_F(TransferFile, ManyTensorsStillFit) {
  std::string json = "{";
  for (int i = 0; i < 5000; ++i) {
    json += (i == 0 ? "\"" : ",\"") +
            ("layers." + std::to_string(i) + ".k\":{\"dtype\":\"BF16\",\"shape\":[4],") +
            "\"data_offsets\":[" + std::to_string(8 * i) + "," + std::to_string(8 * i + 8) + "]}";
  }
  const auto joined = open(safetensors_text(json + "}", 40000));
  ASSERT_EQ(joined->contents().regions.size(), 2U);
  EXPECT_EQ(joined->contents().regions[1].type, dtype::bf16);
  EXPECT_EQ(joined->contents().regions[1].shape, (std::vector<std::uint64_t>{20000}));
  // Neighbours that cannot be joined: all of it as bytes.
  for (std::size_t at = 0, n = 0; (at = json.find("BF16\",\"shape\":[4]", at)) != std::string::npos;
       ++at, ++n) {
    if (n % 2 == 0) json.replace(at, 17, "U8\",\"shape\":[8]");
  }
  const std::string mixed = safetensors_text(json + "}", 40000);
  const auto source = open(mixed);
  ASSERT_EQ(source->contents().regions.size(), 2U);
  EXPECT_EQ(source->contents().regions[1].type, dtype::bytes);
  file_sink sink(ctx_, {.destination = dir_ / "out" / "x"});
  ASSERT_TRUE(sink.prepare(source->contents()));
  ASSERT_TRUE(move_parts(source->contents(), *source, sink));
  ASSERT_TRUE(sink.publish(source->contents()));
  EXPECT_EQ(read(dir_ / "out" / "x"), mixed);
}

TEST_F(TransferFile, EveryByteComesBack) {
  const std::string content = two_layers();
  for (const codec c : {codec::rank, codec::top16, codec::raw}) {
    for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
      const auto source = open(content, mode);
      EXPECT_EQ(source->file_bytes(), content.size());
      ASSERT_EQ(source->contents().regions.size(), 5U);
      EXPECT_EQ(source->contents().regions[2].kind, part_kind::value);
      const auto to =
          dir_ / "out" / ("f" + std::string(to_string(c)) + (mode == read_mode::mmap ? "m" : "p"));
      file_sink sink(ctx_, {.destination = to});
      ASSERT_TRUE(sink.prepare(source->contents()));
      EXPECT_FALSE(fs::exists(to));
      ASSERT_TRUE(move_parts(source->contents(), *source, sink, c));
      EXPECT_FALSE(fs::exists(to));
      ASSERT_TRUE(sink.publish(source->contents()));
      EXPECT_EQ(read(to), content);
      const auto got = sink.take(0ms);
      ASSERT_TRUE(got.has_value());
      EXPECT_EQ(got->path, to);
      EXPECT_EQ(got->file_bytes, content.size());
      EXPECT_EQ(got->parts, got->raw_parts + got->rank_parts + got->top16_parts);
      EXPECT_EQ(c == codec::rank, got->rank_parts > 0);
      EXPECT_EQ(sink.decoded_bytes(), content.size());
      EXPECT_EQ(sink.take(1ms).error().code, errc::not_found);
    }
  }
}

TEST_F(TransferFile, DamageNeverAppears) {
  const auto source = open(two_layers());
  const auto to = dir_ / "out" / "x";
  file_sink sink(ctx_, {.destination = to});
  ASSERT_TRUE(sink.prepare(source->contents()));
  EXPECT_EQ(names().size(), 1U);
  const auto moved = move_parts(source->contents(), *source, sink, codec::rank,
                                [](auto& frame) { frame[frame.size() / 2] ^= std::byte{4}; });
  ASSERT_FALSE(moved.has_value());
  EXPECT_TRUE(is_data_error(moved.error().code));
  sink.discard(source->contents());
  EXPECT_TRUE(names().empty());
}

TEST_F(TransferFile, UnfinishedRequestsLeaveNothing) {
  {
    const auto source = open(two_layers());
    file_sink sink(ctx_, {.destination = dir_ / "out" / "x"});
    ASSERT_TRUE(sink.prepare(source->contents()));
    ASSERT_TRUE(move_parts(source->contents(), *source, sink));
    EXPECT_EQ(names().size(), 1U);
  }
  EXPECT_TRUE(names().empty());
}

TEST_F(TransferFile, HeaderMustSayWhatWasAnnounced) {
  const auto source = open(two_layers());
  const auto good = source->contents();
  const std::vector<std::function<void(manifest&)>> lies = {
      [](manifest& m) { m.regions[1].name = "layers.1.k"; },
      [](manifest& m) { m.regions[1].layer = 1; },
      [](manifest& m) { m.regions[1].kind = part_kind::value; },
      [](manifest& m) {
        m.regions[1].shape = {600, 2, 64};
      },
      [](manifest& m) { m.regions[1].page_bytes *= 2; },
  };
  for (std::size_t i = 0; i < lies.size(); ++i) {
    manifest m = good;
    lies[i](m);
    file_sink sink(ctx_, {.destination = dir_ / "out" / "x"});
    ASSERT_TRUE(sink.prepare(m)) << i;
    ASSERT_TRUE(move_parts(m, *source, sink)) << i;
    const auto published = sink.publish(m);
    ASSERT_FALSE(published.has_value()) << i;
    EXPECT_EQ(published.error().code, errc::malformed) << i;
    sink.discard(m);
    EXPECT_TRUE(names().empty()) << i;
  }
}

TEST_F(TransferFile, ManifestsThatAreNoFile) {
  const auto source = open(two_layers());
  const auto good = source->contents();
  const std::vector<std::function<void(manifest&)>> faults = {
      [](manifest& m) { m.note.clear(); },
      [](manifest& m) { m.note[8] ^= std::byte{1}; },
      [](manifest& m) { m.regions.clear(); },
      [](manifest& m) { m.regions.pop_back(); },
      [](manifest& m) { m.regions.erase(m.regions.begin()); },
      [](manifest& m) {
        m.regions[1].shape = {~0ULL, ~0ULL};
      },
      [](manifest& m) {
        m.regions[1].shape = {~0ULL / 2};
        m.regions[2].shape = {~0ULL / 2};
      },
      [](manifest& m) {
        m.regions = {{.name = "header", .shape = {8}, .page_bytes = 8}};
        m.note = write_note({.file_bytes = 8, .name = "x"});
      },
      [](manifest& m) {
        m.regions = {{.name = "header", .shape = {1ULL << 40}, .page_bytes = 8}};
        m.note = write_note({.file_bytes = 1ULL << 40, .name = "x"});
      },
  };
  for (std::size_t i = 0; i < faults.size(); ++i) {
    manifest m = good;
    faults[i](m);
    file_sink sink(ctx_, {.destination = dir_ / "out" / "x"});
    const auto prepared = sink.prepare(m);
    ASSERT_FALSE(prepared.has_value()) << i;
    EXPECT_TRUE(is_data_error(prepared.error().code)) << i << prepared.error().message;
    EXPECT_TRUE(names().empty()) << i;
  }
}

TEST_F(TransferFile, TooLargeForTheDisk) {
  manifest m;
  m.request = 1;
  m.regions = {{.name = "header", .shape = {1000}, .page_bytes = 16384},
               {.name = "a", .shape = {1ULL << 61}, .page_bytes = 16384}};
  m.note = write_note({.file_bytes = (1ULL << 61) + 1000, .name = "x"});
  file_sink sink(ctx_, {.destination = dir_ / "out" / "x"});
  const auto prepared = sink.prepare(m);
  ASSERT_FALSE(prepared.has_value());
  EXPECT_EQ(prepared.error().code, errc::io_error);
  EXPECT_NE(prepared.error().message.find("no space"), std::string::npos);
  EXPECT_TRUE(names().empty());
}

TEST_F(TransferFile, WhatIsThereStaysUnlessForced) {
  const auto source = open(two_layers());
  std::ofstream(dir_ / "out" / "x") << "old";
  file_sink sink(ctx_, {.destination = dir_ / "out" / "x"});
  EXPECT_EQ(sink.prepare(source->contents()).error().code, errc::already_exists);
  EXPECT_EQ(read(dir_ / "out" / "x"), "old");
  file_sink forced(ctx_, {.destination = dir_ / "out" / "x", .overwrite = true});
  ASSERT_TRUE(forced.prepare(source->contents()));
  ASSERT_TRUE(move_parts(source->contents(), *source, forced));
  EXPECT_EQ(read(dir_ / "out" / "x"), "old");
  ASSERT_TRUE(forced.publish(source->contents()));
  EXPECT_EQ(read(dir_ / "out" / "x"), two_layers());
  // A file is written once, whatever else is allowed.
  const auto second = open(two_layers());
  EXPECT_EQ(forced.prepare(second->contents()).error().code, errc::already_exists);
  EXPECT_EQ(names().size(), 1U);
}

TEST_F(TransferFile, TwoSendersOfOneFileTheFirstHasIt) {
  const auto a = open(two_layers());
  const auto b = std::move(*file_source::open(ctx_, dir_ / "in.safetensors"));
  file_sink sink(ctx_, {.destination = dir_ / "out" / "x", .overwrite = true});
  ASSERT_TRUE(sink.prepare(a->contents()));
  ASSERT_TRUE(sink.prepare(b->contents()));
  EXPECT_EQ(sink.prepare(b->contents()).error().code, errc::already_exists);
  ASSERT_TRUE(move_parts(a->contents(), *a, sink));
  ASSERT_TRUE(move_parts(b->contents(), *b, sink));
  ASSERT_TRUE(sink.publish(b->contents()));
  EXPECT_EQ(sink.publish(a->contents()).error().code, errc::already_exists);
  sink.discard(a->contents());
  EXPECT_EQ(names().size(), 1U);
}

TEST_F(TransferFile, DirectoriesTakeOfferedNames) {
  const auto source = open(two_layers());
  file_sink sink(ctx_, {.destination = dir_ / "out", .into_directory = true});
  ASSERT_TRUE(sink.prepare(source->contents()));
  ASSERT_TRUE(move_parts(source->contents(), *source, sink));
  ASSERT_TRUE(sink.publish(source->contents()));
  EXPECT_EQ(names(), std::vector<std::string>{"in.safetensors"});
  const auto again = open(two_layers());
  EXPECT_EQ(sink.prepare(again->contents()).error().code, errc::already_exists);
  manifest hostile = again->contents();
  hostile.note = write_note({.file_bytes = again->file_bytes(), .name = "../../evil"});
  ASSERT_TRUE(sink.prepare(hostile));
  ASSERT_TRUE(move_parts(hostile, *again, sink));
  ASSERT_TRUE(sink.publish(hostile));
  EXPECT_EQ(names(), (std::vector<std::string>{"_._.._evil.safetensors", "in.safetensors"}));
}

TEST_F(TransferFile, ChangedWhileItWasSent) {
  const auto source = open(two_layers());
  std::ofstream(dir_ / "in.safetensors", std::ios::binary | std::ios::in) << "\x01";
  fs::last_write_time(dir_ / "in.safetensors", fs::file_time_type::clock::now() + 5s);
  file_sink sink(ctx_, {.destination = dir_ / "out" / "x"});
  ASSERT_TRUE(sink.prepare(source->contents()));
  const auto moved = move_parts(source->contents(), *source, sink);
  ASSERT_FALSE(moved.has_value());
  EXPECT_NE(moved.error().message.find("changed"), std::string::npos);
}

TEST_F(TransferFile, OnlySafetensorsFilesAreSent) {
  const auto path = write("in.safetensors", "no such thing");
  EXPECT_FALSE(file_source::open(ctx_, path).has_value());
  EXPECT_EQ(file_source::open(ctx_, dir_ / "absent").error().code, errc::not_found);
  EXPECT_FALSE(file_source::open(ctx_, dir_).has_value());
}

}  // namespace
}  // namespace tersor::transfer
