#include "safetensors_corpus.hpp"

namespace tersor::corpus {
namespace {

struct dtype_row {
  std::string_view name;
  unsigned bits;
};

// Written out here again on purpose: a test that asked the reader for the widths could not find a wrong one.
constexpr dtype_row kDtypes[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
};

constexpr std::string_view kLegal =
    R"({"__metadata__":{"k":"v"},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
    R"("b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}})";
constexpr std::uint64_t kLegalData = 16;

std::string sized(const dtype_row& dtype, std::uint64_t n_values, std::uint64_t n_bytes) {
  return make_file(
      R"({"t":)" +
          tensor_json("\"" + std::string(dtype.name) + "\"", "[" + std::to_string(n_values) + "]",
                      "[0," + std::to_string(n_bytes) + "]") +
          "}",
      n_bytes);
}

void add_dtypes(std::vector<row>& rows) {
  for (const dtype_row& dtype : kDtypes) {
    const std::string name(dtype.name);
    const std::uint64_t n_bytes = dtype.bits * 8 / 8;  // of 8 values
    rows.push_back({"width_" + name, sized(dtype, 8, n_bytes), errc::ok});
    rows.push_back({"width_empty_" + name, sized(dtype, 0, 0), errc::ok});
    rows.push_back({"width_byte_more_" + name, sized(dtype, 8, n_bytes + 1), errc::malformed});
    rows.push_back({"width_byte_less_" + name, sized(dtype, 8, n_bytes - 1), errc::malformed});
    if (dtype.bits < 8) {
      rows.push_back({"width_part_byte_" + name, sized(dtype, 1, 1), errc::malformed});
      rows.push_back({"width_part_byte_down_" + name, sized(dtype, 3, 3 * dtype.bits / 8), errc::malformed});
    }
  }
}

// Every prefix of a legal header, with a length field that fits the prefix.
void add_prefixes(std::vector<row>& rows) {
  for (std::size_t n = 0; n < kLegal.size(); ++n) {
    rows.push_back(
        {"prefix_" + std::to_string(n), make_file(kLegal.substr(0, n), kLegalData), errc::malformed});
  }
  rows.push_back({"prefix_whole", make_file(kLegal, kLegalData), errc::ok});
}

// Every prefix of a legal file.
void add_cuts(std::vector<row>& rows) {
  const std::string whole = make_file(kLegal, kLegalData);
  for (std::size_t n = 8; n < whole.size(); n += 9) {
    rows.push_back({"cut_" + std::to_string(n), whole.substr(0, n), errc::truncated});
  }
  rows.push_back({"cut_last", whole.substr(0, whole.size() - 1), errc::truncated});
}

// One structural byte of the header at a time becomes 0xff, which is illegal in UTF-8 anywhere.
void add_bad_bytes(std::vector<row>& rows) {
  for (std::size_t n = 0; n < kLegal.size(); n += 3) {
    std::string json(kLegal);
    json[n] = '\xff';
    rows.push_back({"byte_ff_" + std::to_string(n), make_file(json, kLegalData), errc::malformed});
  }
}

void add_wrong_types(std::vector<row>& rows) {
  for (const std::string_view wrong :
       {"null",  "true",  "0",      "-1",    "1.0",  "\"1\"", "{}",   "[null]", "[\"1\"]", "[-1]", "[-0]",
        "[1.0]", "[1e0]", "[true]", "[[1]]", "[{}]", "[01]",  "[+1]", "[0x1]",  "[1,]",    "[,1]"}) {
    const std::string text(wrong);
    rows.push_back({"shape_is_" + text,
                    make_file(R"({"t":)" + tensor_json(R"("U8")", wrong, "[0,1]") + "}", 1),
                    errc::malformed});
    const std::string pair = wrong.front() == '[' ? "[0," + text.substr(1) : text;
    rows.push_back({"offsets_is_" + pair,
                    make_file(R"({"t":)" + tensor_json(R"("U8")", "[1]", pair) + "}", 1), errc::malformed});
  }
  for (const std::string_view wrong : {"null", "true", "8", "-1", "1.5", "[]", "{}", "[\"U8\"]"}) {
    rows.push_back({"dtype_is_" + std::string(wrong),
                    make_file(R"({"t":)" + tensor_json(wrong, "[1]", "[0,1]") + "}", 1), errc::malformed});
  }
  // A variant name with a null payload is how serde writes a unit variant as an object.
  rows.push_back({"dtype_is_variant_object",
                  make_file(R"({"t":)" + tensor_json(R"({"U8":null})", "[1]", "[0,1]") + "}", 1),
                  errc::malformed, "dtype-as-object"});
}

void add_missing_and_doubled(std::vector<row>& rows) {
  const std::string fields[] = {R"("dtype":"U8")", R"("shape":[1])", R"("data_offsets":[0,1])"};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string& a = fields[(i + 1) % 3];
    const std::string& b = fields[(i + 2) % 3];
    rows.push_back(
        {"missing_" + std::to_string(i), make_file(R"({"t":{)" + a + "," + b + "}}", 1), errc::malformed});
    rows.push_back(
        {"only_" + std::to_string(i), make_file(R"({"t":{)" + fields[i] + "}}", 1), errc::malformed});
    rows.push_back({"doubled_" + std::to_string(i),
                    make_file(R"({"t":{)" + fields[i] + "," + a + "," + b + "," + fields[i] + "}}", 1),
                    errc::malformed});
  }
}

// Each of the four offsets of two tensors moves by one in each direction.
void add_shifts(std::vector<row>& rows) {
  for (std::size_t which = 0; which < 4; ++which) {
    for (const int step : {-1, 1}) {
      std::uint64_t offsets[4] = {2, 4, 4, 6};
      if (step < 0)
        --offsets[which];
      else
        ++offsets[which];
      const auto pair = [&](std::size_t at) {
        return "[" + std::to_string(offsets[at]) + "," + std::to_string(offsets[at + 1]) + "]";
      };
      const std::string json = R"({"x":)" + tensor_json(R"("U8")", "[2]", "[0,2]") + R"(,"y":)" +
                               tensor_json(R"("U8")", "[2]", pair(0)) + R"(,"z":)" +
                               tensor_json(R"("U8")", "[2]", pair(2)) + "}";
      rows.push_back({"shift_" + std::to_string(which) + (step < 0 ? "_down" : "_up"), make_file(json, 6),
                      errc::malformed});
    }
  }
}

}  // namespace

std::vector<row> mutated_rows() {
  std::vector<row> rows;
  add_dtypes(rows);
  add_prefixes(rows);
  add_cuts(rows);
  add_bad_bytes(rows);
  add_wrong_types(rows);
  add_missing_and_doubled(rows);
  add_shifts(rows);
  return rows;
}

}  // namespace tersor::corpus
