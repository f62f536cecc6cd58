// Writes the seeds of the corpus: `fuzz_make_corpus DIR`. Small, and the same on every machine.
#include <array>
#include <filesystem>
#include <iostream>
#include <string>

#include "../faults/support.hpp"
#include "../golden/sample_data.hpp"
#include "transfer_corpus.hpp"
#include <tersor/model.hpp>
#include <tersor/packed.hpp>

namespace {

namespace fs = std::filesystem;
using faults::bytes;
using golden::pattern;
using tersor::codec;
using tersor::dtype;

void add(bytes& out, std::string_view text) {
  for (const char c : text) out.push_back(static_cast<std::byte>(c));
}

/// Byte by byte: GCC 12 warns of vector::insert on a vector of known size.
void append(bytes& out, std::span<const std::byte> data) {
  for (const std::byte b : data) out.push_back(b);
}

void save(const fs::path& dir, const std::string& name, const bytes& data) {
  fs::create_directories(dir);
  faults::write_file(dir / name, data);
}

void frames(const fs::path& root) {
  const tersor::context ctx = faults::make_context(1, "scalar");
  for (const dtype type : {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2}) {
    for (const codec c : {codec::raw, codec::top16, codec::rank}) {
      const std::uint64_t n = type == dtype::bf16 ? 2100 : type == dtype::f32 ? 300 : 1030;
      bytes seed = {std::byte{1}};
      const bytes frame = faults::encode_data(ctx, c, type, golden::sample(type, n, pattern::mixed, 3));
      append(seed, frame);
      const std::string name = std::string(to_string(type)) + "-" + std::string(to_string(c));
      save(root / ("decode_" + std::string(to_string(c))), name, seed);
      if (type == dtype::bf16) save(root / "differential", name, seed);
      if (type == dtype::f8_e5m2) {
        save(root / "differential", name, seed);
        save(root / "inspect", name, seed);
        bytes part = {std::byte{0}, std::byte{1}};
        append(part, seed);
        save(root / "decode_chunks", name, part);
      }
    }
  }
}

void values(const fs::path& root) {
  for (const pattern p : {pattern::weights, pattern::mixed, pattern::uniform}) {
    const bytes data = golden::sample(dtype::bf16, 1100, p, 4);
    for (unsigned char flags : std::array<unsigned char, 3>{0, 3, 37}) {
      bytes seed = {std::byte{2}, std::byte{1}, std::byte{flags}};
      append(seed, std::span(data).first(flags == 0 ? 2200 : 300));
      save(root / "round_trip", std::string(golden::to_string(p)) + std::to_string(flags), seed);
    }
    bytes small = {std::byte{2}, std::byte{1}, std::byte{0}};
    append(small, std::span(data).first(500));
    save(root / "small_destination", golden::to_string(p), small);
    bytes call = {std::byte{2}, std::byte{1}, std::byte{1}, std::byte{250}};
    call.resize(28);
    append(call, std::span(data).first(500));
    save(root / "c_abi", golden::to_string(p), call);
  }
}

void matrices(const fs::path& root) {
  const tersor::context ctx = faults::make_context(1, "scalar");
  for (const dtype type : {dtype::bf16, dtype::f16}) {
    for (const auto layout : {tersor::matrix_layout::packed, tersor::matrix_layout::tcatbe}) {
      if (type == dtype::f16 && layout == tersor::matrix_layout::tcatbe) continue;
      const bytes data = golden::sample(type, 17 * 100, pattern::weights, 6);
      bytes seed = {std::byte{1}};
      append(seed, tersor::pack(ctx, {.type = type, .rows = 17, .cols = 100, .data = data},
                                {.layout = layout, .inline_escapes = 8})
                       .value());
      save(root / "unpack_matrix", std::string(to_string(type)) + "-" + std::string(to_string(layout)), seed);
    }
  }
  for (const pattern p : {pattern::weights, pattern::uniform}) {
    for (unsigned char flags : std::array<unsigned char, 4>{0, 1, 54, 99}) {
      bytes seed = {std::byte{flags}, std::byte{1}, std::byte{40}};
      append(seed, golden::sample(dtype::bf16, 700, p, 8));
      save(root / "pack_matrix", std::string(golden::to_string(p)) + std::to_string(flags), seed);
    }
  }
}

void texts(const fs::path& root) {
  const auto text = [&](const char* target, const char* name, std::string_view content,
                        std::size_t lead = 0) {
    bytes seed(lead);
    add(seed, content);
    save(root / target, name, seed);
  };
  text("safetensors_header", "empty", "{}", 2);
  text("safetensors_header", "scalar",
       R"({"__metadata__":{"a":"b"},"x":{"dtype":"I8","shape":[0,3],"data_offsets":[0,0]}})", 2);
  text("config_splice", "empty", "{}");
  text("config_splice", "nested",
       "{\r\n  \"a\": [1, {\"quantization_config\": 1}],\r\n  \"b\": \"}\\\"\"\r\n}\r\n");
  text("config_splice", "replaced", R"({"quantization_config": {"bits": 4}, "x": 1e5})");
  text(
      "config_splice", "hostile",
      R"({"quantization_config": {"quant_method": "tersor", "version": 1, "splice": "000000000001+999999999999", "replaced": "", "digest": "0000000000000000"}})");
  text(
      "codebook_json", "set",
      R"({"tersor_codebooks":0,"by_dtype":{"BF16":[120,121,119,118,117,122,116,115,114,113,112,111,110,109,108,107]},"by_type":{},"by_name":{}})");
  text("glob", "stars", "model.*.[a-c]*?\nmodel.layers.0.a_x");
}

/// Two tensors, one of which a container codes.
bytes plain_model() {
  const bytes weights = golden::sample(dtype::bf16, 3000, pattern::weights, 9);
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[3000],"data_offsets":[0,6000]},"i":{"dtype":"I8","shape":[3],"data_offsets":[6000,6003]}})";
  bytes file(8);
  for (unsigned i = 0; i < 8; ++i) file[i] = static_cast<std::byte>(json.size() >> (8 * i) & 0xff);
  add(file, json);
  append(file, weights);
  file.resize(file.size() + 3);
  return file;
}

void containers(const fs::path& root) {
  const faults::temp_dir scratch;
  const fs::path src = scratch.path() / "model.safetensors";
  const fs::path dst = scratch.path() / "packed.safetensors";
  faults::write_file(src, plain_model());
  const tersor::context ctx = faults::make_context(1, "scalar");
  for (const codec c : {codec::rank, codec::raw}) {
    if (!tersor::compress(ctx, src, dst, {.codec = c, .overwrite = true})) std::abort();
    bytes seed = {std::byte{1}};
    const bytes file = faults::read_file(dst);
    append(seed, file);
    save(root / "container", std::string(to_string(c)), seed);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: fuzz_make_corpus DIR\n";
    return 2;
  }
  const fs::path root = argv[1];
  frames(root);
  values(root);
  matrices(root);
  texts(root);
  containers(root);
  write_transfer_seeds(root);
  return 0;
}
