// Runs the corpus through the reader in both read modes. With `--dump DIR` it writes the corpus and the
// reader's verdicts for safetensors_reference.py instead.
#include "safetensors_corpus.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

#include <gtest/gtest.h>
#include <unistd.h>

#include "safetensors/header.hpp"

namespace tersor::corpus {

std::string make_file(std::string_view json, std::uint64_t n_data) {
  std::string bytes;
  for (unsigned i = 0; i < 8; ++i) bytes += static_cast<char>((json.size() >> (8 * i)) & 0xff);
  bytes += json;
  bytes.append(n_data, 'd');
  return bytes;
}

std::string tensor_json(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  std::string json = R"({"dtype":)";
  json.append(dtype).append(R"(,"shape":)").append(shape).append(R"(,"data_offsets":)").append(offsets);
  return json + "}";
}

namespace {

std::vector<row> all_rows() {
  std::vector<row> rows = written_rows();
  for (row& mutated : mutated_rows()) rows.push_back(std::move(mutated));
  return rows;
}

bool write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  return out.good();
}

result<safetensors::header> read_path(const std::filesystem::path& path, safetensors::read_mode mode) {
  TERSOR_TRY(const safetensors::input_file file, safetensors::input_file::open(path, mode));
  return safetensors::read_header(file);
}

errc verdict_of(const std::filesystem::path& path, safetensors::read_mode mode) {
  const auto header = read_path(path, mode);
  return header ? errc::ok : header.error().code;
}

TEST(SafetensorsCorpus, EveryVerdictInBothReadModes) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("tersor-corpus-" + std::to_string(::getpid()) + ".safetensors");
  for (const row& r : all_rows()) {
    ASSERT_TRUE(write_bytes(path, r.bytes));
    for (const auto mode : {safetensors::read_mode::mmap, safetensors::read_mode::pread}) {
      EXPECT_EQ(verdict_of(path, mode), r.verdict) << r.name;
    }
  }
  std::filesystem::remove(path);
}

TEST(SafetensorsCorpus, IsLargeAndItsNamesAreDistinct) {
  std::set<std::string> names;
  std::size_t n_legal = 0;
  for (const row& r : all_rows()) {
    EXPECT_TRUE(names.insert(r.name).second) << r.name;
    if (r.verdict == errc::ok) ++n_legal;
  }
  EXPECT_GE(names.size(), 200U);
  EXPECT_GE(n_legal, 50U);
}

TEST(SafetensorsCorpus, ErrorsSayWhere) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("tersor-where-" + std::to_string(::getpid()) + ".safetensors");
  for (const row& r : all_rows()) {
    if (r.verdict == errc::ok) continue;
    ASSERT_TRUE(write_bytes(path, r.bytes));
    const auto header = read_path(path, safetensors::read_mode::pread);
    ASSERT_FALSE(header) << r.name;
    ASSERT_TRUE(header.error().byte_offset.has_value()) << r.name;
    EXPECT_LE(*header.error().byte_offset, r.bytes.size()) << r.name;
    EXPECT_EQ(header.error().file, path.string()) << r.name;
    EXPECT_FALSE(header.error().message.empty()) << r.name;
  }
  std::filesystem::remove(path);
}

// One file per row, and verdicts.tsv: file name, row name, "ok" or the error, the expected difference.
int dump(const std::filesystem::path& directory) {
  std::error_code ec;
  std::filesystem::create_directories(directory, ec);
  std::ofstream table(directory / "verdicts.tsv", std::ios::binary | std::ios::trunc);
  std::size_t index = 0;
  for (const row& r : all_rows()) {
    const std::string file = std::to_string(index++) + ".safetensors";
    if (!write_bytes(directory / file, r.bytes)) return 1;
    const errc verdict = verdict_of(directory / file, safetensors::read_mode::pread);
    table << file << '\t' << r.name << '\t' << to_string(verdict) << '\t' << r.differs << '\n';
  }
  table.close();
  std::cout << index << " files written\n";
  return table.good() ? 0 : 1;
}

}  // namespace
}  // namespace tersor::corpus

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--dump") return tersor::corpus::dump(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
