#include "safetensors_corpus.hpp"

namespace tersor::corpus {
namespace {

using std::string_literals::operator""s;

constexpr std::string_view kGood = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";

std::string one(std::string_view value) {
  return R"({"a":)" + std::string(value) + "}";
}

std::string two(std::string_view first_offsets, std::string_view second_offsets, std::string_view first_shape,
                std::string_view second_shape) {
  return R"({"a":)" + tensor_json(R"("U8")", first_shape, first_offsets) + R"(,"b":)" +
         tensor_json(R"("U8")", second_shape, second_offsets) + "}";
}

std::string length_field(std::uint64_t length) {
  std::string field;
  for (unsigned i = 0; i < 8; ++i) field += static_cast<char>((length >> (8 * i)) & 0xff);
  return field;
}

std::string nested(unsigned depth) {
  // The root and the tensor's object are two levels, so this opens `depth` levels in all.
  const std::string open(depth - 2, '[');
  const std::string close(depth - 2, ']');
  return R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":)" + open + close + "}}";
}

void add_envelope(std::vector<row>& rows) {
  rows.push_back({"file_empty", "", errc::truncated});
  rows.push_back({"file_one_byte", "\x02", errc::truncated});
  rows.push_back({"file_seven_bytes", length_field(2).substr(0, 7), errc::truncated});
  rows.push_back({"file_only_length", length_field(2), errc::truncated});
  rows.push_back({"file_zero_header", length_field(0), errc::malformed});
  rows.push_back({"file_zero_header_data", length_field(0) + "{}", errc::malformed});
  rows.push_back({"length_one_too_long", length_field(3) + "{}", errc::truncated});
  rows.push_back({"length_one_too_short", length_field(1) + "{}", errc::malformed});
  rows.push_back({"length_limit_absent", length_field(100'000'000) + "{}", errc::truncated});
  rows.push_back({"length_over_limit", length_field(100'000'001) + "{}", errc::malformed});
  rows.push_back({"length_2_63", length_field(std::uint64_t{1} << 63U) + "{}", errc::malformed});
  rows.push_back({"length_max", length_field(~std::uint64_t{0}) + "{}", errc::malformed});
  rows.push_back({"length_max_minus_7", length_field(~std::uint64_t{0} - 7) + "{}", errc::malformed});
  rows.push_back({"length_big_endian", "\0\0\0\0\0\0\0\2{}"s, errc::malformed});
}

void add_json(std::vector<row>& rows) {
  rows.push_back({"json_empty_object", make_file("{}", 0), errc::ok});
  rows.push_back({"json_inner_space", make_file("{ \t\r\n}", 0), errc::ok});
  rows.push_back({"json_padded_spaces", make_file("{}      ", 0), errc::ok});
  rows.push_back({"json_padded_newlines", make_file("{}\n\r\t ", 0), errc::ok});
  rows.push_back({"json_leading_space", make_file(" {}", 0), errc::malformed, "leading-whitespace"});
  rows.push_back({"json_leading_newline", make_file("\n{}", 0), errc::malformed, "leading-whitespace"});
  rows.push_back({"json_bom", make_file("\xef\xbb\xbf{}", 0), errc::malformed});
  rows.push_back({"json_array", make_file("[]", 0), errc::malformed});
  rows.push_back({"json_null", make_file("null", 0), errc::malformed});
  rows.push_back({"json_string", make_file("\"a\"", 0), errc::malformed});
  rows.push_back({"json_number", make_file("1", 0), errc::malformed});
  rows.push_back({"json_spaces_only", make_file("    ", 0), errc::malformed});
  rows.push_back({"json_unclosed", make_file("{", 0), errc::malformed});
  rows.push_back({"json_two_values", make_file("{}{}", 0), errc::malformed});
  rows.push_back({"json_trailing_letter", make_file("{}x", 0), errc::malformed});
  rows.push_back({"json_trailing_zero_byte", make_file("{}\0"s, 0), errc::malformed});
  rows.push_back({"json_zero_byte_then_text", make_file("{}\0{\"a\":1}"s, 0), errc::malformed});
  rows.push_back({"json_zero_byte_inside", make_file("{\0}"s, 0), errc::malformed});
  rows.push_back(
      {"json_trailing_comma", make_file(R"({"a":)" + std::string(kGood) + ",}", 1), errc::malformed});
  rows.push_back({"json_comment", make_file("{/* */}", 0), errc::malformed});
  rows.push_back({"json_line_comment", make_file("{}//x", 0), errc::malformed});
  rows.push_back({"json_single_quotes", make_file("{'a':" + std::string(kGood) + "}", 1), errc::malformed});
  rows.push_back({"json_bare_key", make_file("{a:" + std::string(kGood) + "}", 1), errc::malformed});
  rows.push_back({"json_nan", make_file(one("NaN"), 0), errc::malformed});
  rows.push_back({"json_form_feed", make_file("{\f}", 0), errc::malformed});
  rows.push_back({"json_invalid_utf8_outside", make_file("{\xff}", 0), errc::malformed});
}

void add_names(std::vector<row>& rows) {
  const auto named = [](std::string_view name) {
    return make_file("{\"" + std::string(name) + "\":" + std::string(kGood) + "}", 1);
  };
  rows.push_back({"name_empty", named(""), errc::ok});
  rows.push_back({"name_path", named("../../etc/passwd"), errc::ok});
  rows.push_back({"name_absolute_path", named("/dev/null"), errc::ok});
  rows.push_back({"name_two_byte", named("\xc3\xa9"), errc::ok});
  rows.push_back({"name_four_byte", named("\xf0\x9f\x98\x80"), errc::ok});
  rows.push_back({"name_escapes", named(R"(\"\\\/\b\f\n\r\t)"), errc::ok});
  rows.push_back({"name_escaped_zero", named(R"(\u0000)"), errc::ok});
  rows.push_back({"name_surrogate_pair", named(R"(\ud83d\ude00)"), errc::ok});
  rows.push_back({"name_noncharacter", named("\xef\xbf\xbf"), errc::ok});
  rows.push_back({"name_delete_char", named("\x7f"), errc::ok});
  rows.push_back({"name_long", named(std::string(70000, 'n')), errc::ok});
  rows.push_back({"name_metadata_like", named("__metadata"), errc::ok});
  rows.push_back({"name_lone_high_surrogate", named(R"(\ud800)"), errc::malformed});
  rows.push_back({"name_lone_low_surrogate", named(R"(\udc00)"), errc::malformed});
  rows.push_back({"name_swapped_surrogates", named(R"(\ude00\ud83d)"), errc::malformed});
  rows.push_back({"name_bad_escape", named(R"(\x41)"), errc::malformed});
  rows.push_back({"name_short_escape", named(R"(\u12)"), errc::malformed});
  rows.push_back({"name_raw_newline", named("\n"), errc::malformed});
  rows.push_back({"name_raw_control", named("\x1f"), errc::malformed});
  rows.push_back({"name_raw_zero", named("\0"s), errc::malformed});
  rows.push_back({"name_utf8_lone_continuation", named("\x80"), errc::malformed});
  rows.push_back({"name_utf8_cut", named("\xe2\x82"), errc::malformed});
  rows.push_back({"name_utf8_overlong", named("\xc0\xaf"), errc::malformed});
  rows.push_back({"name_utf8_overlong_three", named("\xe0\x80\xaf"), errc::malformed});
  rows.push_back({"name_utf8_surrogate", named("\xed\xa0\x80"), errc::malformed});
  rows.push_back({"name_utf8_beyond", named("\xf4\x90\x80\x80"), errc::malformed});
  rows.push_back({"name_utf8_fe", named("\xfe"), errc::malformed});
  rows.push_back({"name_utf8_five_byte", named("\xf8\x88\x80\x80\x80"), errc::malformed});
  const std::string good(kGood);
  rows.push_back({"name_twice_same", make_file(R"({"a":)" + good + R"(,"a":)" + good + "}", 1),
                  errc::malformed, "duplicate-key"});
  rows.push_back({"name_twice_by_escape", make_file(R"({"a":)" + good + R"(,"\u0061":)" + good + "}", 1),
                  errc::malformed, "duplicate-key"});
  rows.push_back({"name_twice_other_shape",
                  make_file(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"a":)" + good + "}", 1),
                  errc::malformed, "duplicate-key"});
  rows.push_back({"name_twice_empty", make_file(R"({"":)" + good + R"(,"":)" + good + "}", 1),
                  errc::malformed, "duplicate-key"});
  rows.push_back({"name_nfc_nfd_differ",
                  make_file("{\"\xc3\xa9\":" + tensor_json(R"("U8")", "[1]", "[0,1]") +
                                ",\"e\xcc\x81\":" + tensor_json(R"("U8")", "[1]", "[1,2]") + "}",
                            2),
                  errc::ok});
}

void add_metadata(std::vector<row>& rows) {
  const auto with = [](std::string_view value) {
    return make_file(R"({"__metadata__":)" + std::string(value) + "}", 0);
  };
  rows.push_back({"metadata_empty", with("{}"), errc::ok});
  rows.push_back({"metadata_one", with(R"({"format":"pt"})"), errc::ok});
  rows.push_back({"metadata_empty_strings", with(R"({"":""})"), errc::ok});
  rows.push_back({"metadata_nested_text", with(R"({"a":"{\"b\":1}"})"), errc::ok});
  rows.push_back({"metadata_own_name", with(R"({"__metadata__":"x"})"), errc::ok});
  rows.push_back({"metadata_null", with("null"), errc::malformed, "metadata-null"});
  rows.push_back({"metadata_array", with("[]"), errc::malformed});
  rows.push_back({"metadata_string", with("\"a\""), errc::malformed});
  rows.push_back({"metadata_number", with("1"), errc::malformed});
  rows.push_back({"metadata_bool", with("false"), errc::malformed});
  for (const std::string_view value : {"1", "-1", "1.5", "true", "null", "[]", "{}", "[\"a\"]"}) {
    rows.push_back({"metadata_value_" + std::string(value), with(R"({"a":)" + std::string(value) + "}"),
                    errc::malformed});
  }
  rows.push_back({"metadata_key_twice", with(R"({"a":"b","a":"c"})"), errc::malformed, "duplicate-key"});
  rows.push_back(
      {"metadata_key_twice_equal", with(R"({"a":"b","a":"b"})"), errc::malformed, "duplicate-key"});
  rows.push_back({"metadata_twice", make_file(R"({"__metadata__":{"a":"b"},"__metadata__":{"a":"b"}})", 0),
                  errc::malformed});
  rows.push_back({"metadata_twice_by_escape", make_file(R"({"__metadata__":{},"\u005f_metadata__":{}})", 0),
                  errc::malformed});
  rows.push_back({"metadata_as_tensor", with(kGood), errc::malformed});
  rows.push_back({"metadata_last",
                  make_file(R"({"a":)" + std::string(kGood) + R"(,"__metadata__":{"k":"v"}})", 1), errc::ok});
  rows.push_back({"metadata_only_with_data", make_file(R"({"__metadata__":{}})", 1), errc::malformed});
  rows.push_back({"metadata_invalid_utf8", with("{\"a\":\"\xff\"}"), errc::malformed});
}

void add_layout(std::vector<row>& rows) {
  rows.push_back({"layout_two", make_file(two("[0,1]", "[1,3]", "[1]", "[2]"), 3), errc::ok});
  rows.push_back({"layout_reversed", make_file(two("[2,3]", "[0,2]", "[1]", "[2]"), 3), errc::ok});
  rows.push_back({"layout_hole", make_file(two("[0,1]", "[2,3]", "[1]", "[1]"), 3), errc::malformed});
  rows.push_back(
      {"layout_hole_at_start", make_file(one(tensor_json(R"("U8")", "[1]", "[1,2]")), 2), errc::malformed});
  rows.push_back({"layout_overlap", make_file(two("[0,2]", "[1,3]", "[2]", "[2]"), 3), errc::malformed});
  rows.push_back({"layout_same_bytes", make_file(two("[0,2]", "[0,2]", "[2]", "[2]"), 2), errc::malformed});
  rows.push_back({"layout_contained", make_file(two("[0,3]", "[1,2]", "[3]", "[1]"), 3), errc::malformed});
  rows.push_back({"layout_data_too_long", make_file(one(kGood), 2), errc::malformed});
  rows.push_back({"layout_data_too_short", make_file(one(kGood), 0), errc::truncated});
  rows.push_back({"layout_data_without_tensors", make_file("{}", 1), errc::malformed});
  rows.push_back({"layout_reversed_offsets", make_file(one(tensor_json(R"("U8")", "[1]", "[1,0]")), 1),
                  errc::malformed});
  rows.push_back({"layout_reversed_zero_sum",
                  make_file(one(tensor_json(R"("U8")", "[18446744073709551615]", "[1,0]")), 1),
                  errc::malformed});
  rows.push_back({"layout_empty_first", make_file(two("[0,0]", "[0,1]", "[0]", "[1]"), 1), errc::ok});
  rows.push_back({"layout_empty_last", make_file(two("[0,1]", "[1,1]", "[1]", "[0]"), 1), errc::ok});
  rows.push_back({"layout_two_empty", make_file(two("[0,0]", "[0,0]", "[0]", "[3,0]"), 0), errc::ok});
  rows.push_back({"layout_empty_inside", make_file(two("[0,4]", "[2,2]", "[4]", "[0]"), 4), errc::malformed});
  rows.push_back({"layout_empty_beyond", make_file(two("[0,1]", "[2,2]", "[1]", "[0]"), 1), errc::malformed});
  rows.push_back({"layout_rank_0", make_file(one(tensor_json(R"("F32")", "[]", "[0,4]")), 4), errc::ok});
  rows.push_back(
      {"layout_rank_0_empty", make_file(one(tensor_json(R"("F32")", "[]", "[0,0]")), 0), errc::malformed});
  rows.push_back(
      {"layout_unaligned",
       make_file(R"({"a":)" + std::string(kGood) + R"(,"b":)" + tensor_json(R"("F64")", "[1]", "[1,9]") + "}",
                 9),
       errc::ok});
  rows.push_back({"layout_rank_64",
                  make_file(one(tensor_json(R"("U8")",
                                            "[1" +
                                                [] {
                                                  std::string s;
                                                  for (int i = 0; i < 63; ++i) s += ",1";
                                                  return s;
                                                }() +
                                                "]",
                                            "[0,1]")),
                            1),
                  errc::ok});
}

void add_overflow(std::vector<row>& rows) {
  const auto shaped = [](std::string_view dtype, std::string_view shape, std::uint64_t n) {
    return make_file(one(tensor_json(dtype, shape, "[0," + std::to_string(n) + "]")), n);
  };
  rows.push_back({"overflow_wraps_to_4", shaped(R"("U8")", "[4194305,4194305,211106198978564]", 4),
                  errc::size_overflow});
  rows.push_back(
      {"overflow_wraps_to_0", shaped(R"("U8")", "[4294967296,4294967296]", 0), errc::size_overflow});
  rows.push_back({"overflow_wraps_to_1", shaped(R"("U8")", "[18446744073709551615,18446744073709551615]", 1),
                  errc::size_overflow});
  rows.push_back({"overflow_bits", shaped(R"("F64")", "[288230376151711744]", 0), errc::size_overflow});
  rows.push_back(
      {"overflow_bits_bytes_fit", shaped(R"("U8")", "[2305843009213693952]", 0), errc::size_overflow});
  rows.push_back({"overflow_max_u8", shaped(R"("U8")", "[18446744073709551615]", 0), errc::size_overflow});
  rows.push_back({"overflow_zero_first",
                  shaped(R"("U8")", "[0,18446744073709551615,18446744073709551615]", 0), errc::ok});
  rows.push_back({"overflow_zero_last", shaped(R"("U8")", "[18446744073709551615,18446744073709551615,0]", 0),
                  errc::size_overflow});
  rows.push_back({"overflow_just_fits", shaped(R"("U8")", "[2305843009213693951]", 0), errc::malformed});
  rows.push_back(
      {"overflow_offset_max",
       make_file(one(tensor_json(R"("U8")", "[2305843009213693951]", "[0,2305843009213693951]")), 1),
       errc::truncated});
  rows.push_back({"overflow_offset_2_64",
                  make_file(one(tensor_json(R"("U8")", "[1]", "[0,18446744073709551616]")), 1),
                  errc::malformed});
  rows.push_back(
      {"overflow_dimension_2_64", shaped(R"("U8")", "[18446744073709551616]", 0), errc::malformed});
  rows.push_back(
      {"overflow_dimension_wraps", shaped(R"("U8")", "[18446744073709551617]", 1), errc::malformed});
}

void add_fields(std::vector<row>& rows) {
  const auto extra = [](std::string_view value) {
    return make_file(
        R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":)" + std::string(value) + "}}", 1);
  };
  for (const std::string_view value :
       {"1", "-1", "1.5", "\"s\"", "null", "true", "[]", "{}", "[1,[2,{\"k\":3}]]", "{\"k\":{\"k\":0}}",
        "{\"dtype\":\"F32\"}", "[{\"k\":1},{\"k\":2}]"}) {
    rows.push_back({"field_unknown_" + std::string(value), extra(value), errc::ok});
  }
  rows.push_back({"field_unknown_twice",
                  make_file(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1,"x":1}})", 1),
                  errc::malformed, "duplicate-key"});
  rows.push_back({"field_unknown_inner_twice", extra(R"({"k":1,"k":1})"), errc::malformed, "duplicate-key"});
  rows.push_back(
      {"field_unknown_array_inner_twice", extra(R"([[{"k":1,"k":1}]])"), errc::malformed, "duplicate-key"});
  rows.push_back({"field_unknown_huge_number", extra("1e999"), errc::malformed});
  rows.push_back({"field_unknown_first",
                  make_file(R"({"a":{"x":[0],"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
                  errc::ok});
  rows.push_back({"field_other_order",
                  make_file(R"({"a":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}})", 1), errc::ok});
  rows.push_back({"field_case_differs",
                  make_file(R"({"a":{"Dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), errc::malformed});
  rows.push_back({"field_old_offsets_name",
                  make_file(R"({"a":{"dtype":"U8","shape":[1],"offsets":[0,1]}})", 1), errc::malformed});
  rows.push_back({"field_none", make_file(one("{}"), 0), errc::malformed});
  rows.push_back(
      {"tensor_as_sequence", make_file(one(R"(["U8",[1],[0,1]])"), 1), errc::malformed, "tensor-as-array"});
  for (const std::string_view value : {"1", "null", "true", "\"s\"", "[]", "1.5"}) {
    rows.push_back({"tensor_is_" + std::string(value), make_file(one(value), 0), errc::malformed});
  }
  rows.push_back({"nesting_limit", make_file(nested(127), 1), errc::ok});
  rows.push_back({"nesting_over_limit", make_file(nested(128), 1), errc::malformed});
  rows.push_back({"nesting_100000", make_file(nested(100000), 1), errc::malformed});
  rows.push_back({"nesting_unclosed", make_file(std::string(R"({"a":)") + std::string(100000, '['), 0),
                  errc::malformed});
  rows.push_back({"offsets_one", make_file(one(tensor_json(R"("U8")", "[1]", "[0]")), 1), errc::malformed});
  rows.push_back({"offsets_none", make_file(one(tensor_json(R"("U8")", "[0]", "[]")), 0), errc::malformed});
  rows.push_back(
      {"offsets_three", make_file(one(tensor_json(R"("U8")", "[1]", "[0,1,1]")), 1), errc::malformed});
  for (const std::string_view dtype : {"XX", "", "f32", "F32 ", "F128", "BFLOAT16"}) {
    rows.push_back({"dtype_unknown_" + std::string(dtype),
                    make_file(one(tensor_json("\"" + std::string(dtype) + "\"", "[3]", "[0,5]")), 5),
                    errc::ok, "unknown-dtype"});
  }
  rows.push_back(
      {"dtype_unknown_hole", make_file(one(tensor_json(R"("XX")", "[1]", "[1,2]")), 2), errc::malformed});
  rows.push_back(
      {"dtype_unknown_short", make_file(one(tensor_json(R"("XX")", "[1]", "[0,2]")), 1), errc::truncated});
  rows.push_back(
      {"dtype_by_escape", make_file(one(tensor_json(R"("\u00558")", "[1]", "[0,1]")), 1), errc::ok});
}

}  // namespace

std::vector<row> written_rows() {
  std::vector<row> rows;
  add_envelope(rows);
  add_json(rows);
  add_names(rows);
  add_metadata(rows);
  add_layout(rows);
  add_overflow(rows);
  add_fields(rows);
  return rows;
}

}  // namespace tersor::corpus
