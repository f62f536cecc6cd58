// Files from tensors in memory: laid out as the safetensors library does; what cannot be written.
#include <atomic>

#include "model_fixture.hpp"
#include <tersor/tensor_file.hpp>

namespace tersor::model_test {
namespace {

using TensorSaveTest = ModelTest;

std::span<const std::byte> view_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST_F(TensorSaveTest, FilesFromMemoryAreLaidOutAsTheReferenceDoes) {
  const std::string data = random_bytes(16, 1);
  const auto part = [&](std::size_t n) { return view_of(data).first(n); };
  const std::vector<named_tensor> tensors = {{"b", "F32", {2}, part(8)}, {"a", "F32", {1}, part(4)},
                                             {"z", "I64", {1}, part(8)}, {"m", "BOOL", {3}, part(3)},
                                             {"e", "F16", {0}, part(0)}, {"k", "BF16", {1}, part(2)}};
  ASSERT_TRUE(save_plain(tensors, {}, dir_ / "p"));
  const std::string file = content(dir_ / "p");
  const std::string json =
      R"({"z":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},"k":{"dtype":"BF16","shape":[1],"data_offsets":[20,22]},)"
      R"("e":{"dtype":"F16","shape":[0],"data_offsets":[22,22]},"m":{"dtype":"BOOL","shape":[3],"data_offsets":[22,25]}})";
  std::string padded = json;
  while (padded.size() % 8 != 0) padded += ' ';
  const std::string all =
      data.substr(0, 8) + data.substr(0, 4) + data.substr(0, 8) + data.substr(0, 2) + data.substr(0, 3);
  EXPECT_EQ(file, file_of(padded, all));

  ASSERT_TRUE(save_plain({}, std::map<std::string, std::string>{}, dir_ / "none"));
  EXPECT_EQ(content(dir_ / "none"), file_of(R"({"__metadata__":{}}     )", ""));
  ASSERT_TRUE(
      save_plain(std::span(tensors).first(1), std::map<std::string, std::string>{{"a", "b"}}, dir_ / "one"));
  EXPECT_TRUE(content(dir_ / "one").substr(8).starts_with(R"({"__metadata__":{"a":"b"},"b":)"));
}

TEST_F(TensorSaveTest, WhatCannotBeWrittenIsRefused) {
  const std::string data = random_bytes(8, 1);
  const auto code = [&](std::vector<named_tensor> tensors, const tensor_metadata& metadata = {}) {
    const auto saved = save_tensors(ctx_, tensors, metadata, dir_ / "x");
    const auto plain = save_plain(tensors, metadata, dir_ / "x");
    EXPECT_FALSE(fs::exists(dir_ / "x"));
    EXPECT_EQ(n_entries(), 0U);
    EXPECT_EQ(saved ? errc::ok : saved.error().code, plain ? errc::ok : plain.error().code);
    return saved ? errc::ok : saved.error().code;
  };
  const auto one = [&](const char* name, const char* dtype, std::vector<std::uint64_t> shape) {
    return named_tensor{.name = name, .dtype = dtype, .shape = std::move(shape), .data = view_of(data)};
  };
  EXPECT_EQ(code({one("a", "F32", {2}), one("a", "F32", {2})}), errc::invalid_argument);
  EXPECT_EQ(code({one("a", "F32", {3})}), errc::invalid_argument);
  EXPECT_EQ(code({one("a", "F32", {1, 1})}), errc::invalid_argument);
  EXPECT_EQ(code({one("a", "float32", {2})}), errc::unsupported);
  EXPECT_EQ(code({one("a\xff", "F32", {2})}), errc::invalid_argument);
  EXPECT_EQ(code({one("__metadata__", "F32", {2})}), errc::invalid_argument);
  EXPECT_EQ(code({one("a", "F32", {std::uint64_t{1} << 63, 4})}), errc::size_overflow);
  EXPECT_EQ(code({one("a", "F32", {2})}, std::map<std::string, std::string>{{"tersor.x", ""}}),
            errc::invalid_argument);
  EXPECT_EQ(code({one("a", "F32", {2})}, std::map<std::string, std::string>{{"k", "\xc3"}}),
            errc::invalid_argument);

  const std::vector<named_tensor> good = {one("a", "F32", {2})};
  ASSERT_TRUE(save_tensors(ctx_, good, {}, dir_ / "x"));
  const auto again = save_tensors(ctx_, good, {}, dir_ / "x");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, errc::already_exists);
  EXPECT_EQ(save_plain(good, {}, dir_ / "x").error().code, errc::already_exists);
  const std::atomic<bool> stop = true;
  const auto stopped = save_tensors(ctx_, good, {}, dir_ / "y", {.cancel = &stop});
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, errc::cancelled);
  EXPECT_EQ(n_entries(), 1U);
  ASSERT_TRUE(save_tensors(ctx_, good, {}, dir_ / "y", {.dry_run = true}));
  EXPECT_EQ(n_entries(), 1U);
}

}  // namespace
}  // namespace tersor::model_test
