#include <algorithm>
#include <string_view>

#include <gtest/gtest.h>

#include "safetensors/header.hpp"
#include "safetensors/writer.hpp"

namespace tersor::safetensors {
namespace {

result<header> parse(std::string_view json, std::uint64_t data_bytes) {
  return parse_header(std::as_bytes(std::span(json)), data_bytes);
}

errc code_of(std::string_view json, std::uint64_t data_bytes) {
  const auto parsed = parse(json, data_bytes);
  return parsed ? errc::ok : parsed.error().code;
}

TEST(SafetensorsHeader, FieldsOrderAndVerbatimText) {
  const std::string json =
      R"({"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},"__metadata__":{"z":"1","a":"2"},)"
      R"("e2":{"dtype":"U8","shape":[0],"data_offsets":[12,12]},"e1":{"dtype":"I64","shape":[4,0],"data_offsets":[12,12]},)"
      R"("w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}   )";
  const auto parsed = parse(json, 16);
  ASSERT_TRUE(parsed) << parsed.error().message;
  const std::vector<tensor_entry> expected = {{"w", "BF16", {2, 3}, 0, 12},
                                              {"e1", "I64", {4, 0}, 12, 12},
                                              {"e2", "U8", {0}, 12, 12},
                                              {"b", "F32", {}, 12, 16}};
  EXPECT_EQ(parsed->tensors, expected);
  EXPECT_EQ(parsed->metadata, (metadata_list{{"z", "1"}, {"a", "2"}}));
  EXPECT_EQ(parsed->json, json);
  EXPECT_EQ(parsed->data_bytes, 16U);
  EXPECT_EQ(parsed->data_offset(), 8 + json.size());
}

TEST(SafetensorsHeader, ErrorNamesTensorAndPlace) {
  const std::string json =
      R"({"good":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"bad":{"dtype":"U8","shape":[-1])";
  const auto parsed = parse(json, 1);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().tensor, "bad");
  const std::uint64_t at = 8 + json.find("-1");
  ASSERT_TRUE(parsed.error().byte_offset.has_value());
  EXPECT_GE(*parsed.error().byte_offset, at);
  EXPECT_LE(*parsed.error().byte_offset, at + 3);
}

TEST(SafetensorsHeader, LayoutErrorPointsAtTheTensorsKey) {
  const std::string json =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"hole":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})";
  const auto parsed = parse(json, 3);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, errc::malformed);
  EXPECT_EQ(parsed.error().tensor, "hole");
  EXPECT_EQ(parsed.error().byte_offset, 8 + json.find("hole") + 5);
}

TEST(SafetensorsHeader, MetadataErrorNamesNoTensor) {
  const auto parsed =
      parse(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"k":1}})", 1);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().tensor, "");
}

TEST(SafetensorsHeader, DuplicateNamesTheTensor) {
  const auto parsed = parse(
      R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
      0);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().tensor, "a");
}

TEST(SafetensorsHeader, SyntaxErrorPlace) {
  const auto parsed = parse("{\"a\" 1}", 0);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().byte_offset, 8U + 5);
}

TEST(SafetensorsHeader, EmptyTextIsRefused) {
  EXPECT_EQ(code_of("", 0), errc::malformed);
}

TEST(SafetensorsHeader, DtypeWidths) {
  EXPECT_EQ(dtype_bits("BF16"), 16U);
  EXPECT_EQ(dtype_bits("F4"), 4U);
  EXPECT_EQ(dtype_bits("F6_E3M2"), 6U);
  EXPECT_EQ(dtype_bits("C64"), 64U);
  EXPECT_EQ(dtype_bits("bf16"), std::nullopt);
  EXPECT_EQ(dtype_bits(""), std::nullopt);
}

TEST(SafetensorsHeader, ManyTensors) {
  std::vector<tensor_entry> tensors;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    std::string name = std::to_string(i);
    name += " weight";
    tensors.push_back({std::move(name), "U8", {2}, 2 * i, 2 * i + 2});
  }
  const auto parsed = parse(build_header_json(tensors, {}, 1), 40000);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->tensors, tensors);
}

TEST(SafetensorsWriter, TextOfAHeader) {
  EXPECT_EQ(build_header_json({}, {}, 8), "{}      ");
  EXPECT_EQ(build_header_json({}, {}, 0), "{}");
  EXPECT_EQ(build_header_json({{"a", "U8", {1, 2}, 0, 2}}, {{"k", "v"}}, 1),
            R"({"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[1,2],"data_offsets":[0,2]}})");
}

TEST(SafetensorsWriter, AnyNameComesBack) {
  std::string controls;
  for (char c = 0; c < 0x20; ++c) controls += c;
  const std::vector<tensor_entry> tensors = {{"", "U8", {1}, 0, 1},
                                             {"quote\" back\\ slash/", "U8", {1}, 1, 2},
                                             {controls, "U8", {1}, 2, 3},
                                             {"\xc3\xa9 \xf0\x9f\x98\x80 \x7f", "U8", {1}, 3, 4},
                                             {"scalar", "F64", {}, 4, 12}};
  const metadata_list metadata = {{controls, "\xe2\x82\xac"}, {"k", ""}};
  for (const std::uint64_t alignment : {0ULL, 1ULL, 8ULL, 64ULL, 4096ULL, 7ULL}) {
    const std::string json = build_header_json(tensors, metadata, alignment);
    EXPECT_EQ((8 + json.size()) % std::max<std::uint64_t>(alignment, 1), 0U);
    const auto parsed = parse(json, 12);
    ASSERT_TRUE(parsed) << parsed.error().message;
    EXPECT_EQ(parsed->tensors, tensors);
    EXPECT_EQ(parsed->metadata, metadata);
  }
}

}  // namespace
}  // namespace tersor::safetensors
