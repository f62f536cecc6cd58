// One file, tensor by tensor: every tensor and every range of rows, damaged files, threads; files from
// memory.
#include <atomic>
#include <thread>

#include "model_fixture.hpp"
#include <tersor/tensor_file.hpp>

namespace tersor::model_test {
namespace {

using bytes = std::vector<std::byte>;

std::span<const std::byte> view_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(std::span<const std::byte> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

/// FP16 values of few exponents.
std::string half_weights(std::size_t n_values, std::uint64_t seed) {
  numbers random(seed);
  std::string data(2 * n_values, '\0');
  for (std::size_t i = 0; i < n_values; ++i) {
    const std::uint64_t r = random.next();
    const std::uint64_t value = (r & 0x83ff) | (12 + (r >> 20 & 1)) << 10;
    data[2 * i] = static_cast<char>(value);
    data[2 * i + 1] = static_cast<char>(value >> 8);
  }
  return data;
}

struct sample_tensor {
  std::string name, dtype;
  std::vector<std::uint64_t> shape;
  std::string data;
};

/// Coded, stored, packed, empty and scalar tensors.
std::vector<sample_tensor> samples() {
  return {{"matrix", "BF16", {200, 320}, weights(200 * 320, 1)},
          {"half", "F16", {157, 250}, half_weights(157 * 250, 2)},
          {"cube", "BF16", {31, 9, 101}, weights(31 * 9 * 101, 3)},
          {"long", "BF16", {40000}, weights(40000, 4)},
          {"bytes", "U8", {7, 41}, random_bytes(287, 5)},
          {"big", "I32", {1000, 700}, random_bytes(2800000, 6)},
          {"scalar", "F32", {}, random_bytes(4, 7)},
          {"empty", "F32", {0, 7}, ""},
          {"flat", "F32", {7, 0}, ""},
          {"f4", "F4", {2, 6}, random_bytes(6, 8)}};
}

std::vector<named_tensor> named(const std::vector<sample_tensor>& all) {
  std::vector<named_tensor> out;
  for (const auto& t : all)
    out.push_back({.name = t.name, .dtype = t.dtype, .shape = t.shape, .data = view_of(t.data)});
  return out;
}

class TensorFileTest : public ModelTest {
 protected:
  /// Writes the samples as a container and as a plain file.
  void write(const model_options& options = {}) {
    const auto tensors = named(samples_);
    const auto saved = save_tensors(ctx_, tensors, metadata_, dir_ / "c", options);
    ASSERT_TRUE(saved) << saved.error().describe();
    EXPECT_EQ(saved->stored_bytes, fs::file_size(dir_ / "c"));
    const auto plain = save_plain(tensors, metadata_, dir_ / "p", true);
    ASSERT_TRUE(plain) << plain.error().describe();
    EXPECT_EQ(saved->original_bytes, fs::file_size(dir_ / "p"));
  }

  result<std::string> read(const tensor_file& file, std::string_view name) const {
    bytes dst(file.find(name) != nullptr ? file.find(name)->original_bytes : 0);
    TERSOR_CHECK(file.read_into(ctx_, name, dst));
    return text_of(dst);
  }

  result<std::string> rows(const tensor_file& file, std::string_view name, std::uint64_t first,
                           std::uint64_t count, std::size_t n_bytes) const {
    bytes dst(n_bytes);
    TERSOR_CHECK(file.read_rows(ctx_, name, first, count, dst));
    return text_of(dst);
  }

  void expect_all(const tensor_file& file) const {
    ASSERT_EQ(file.tensors().size(), samples_.size());
    EXPECT_EQ(file.metadata(), *metadata_);
    EXPECT_EQ(file.original_bytes(), fs::file_size(dir_ / "p"));
    for (const auto& t : samples_) {
      SCOPED_TRACE(t.name);
      const file_tensor* found = file.find(t.name);
      ASSERT_NE(found, nullptr);
      EXPECT_EQ(found->dtype, t.dtype);
      EXPECT_EQ(found->shape, t.shape);
      EXPECT_EQ(found->original_bytes, t.data.size());
      const auto got = read(file, t.name);
      ASSERT_TRUE(got) << got.error().describe();
      EXPECT_TRUE(*got == t.data);
    }
  }

  void expect_rows(const tensor_file& file) const {
    for (const auto& t : samples_) {
      if (t.shape.empty() || t.shape[0] == 0 || t.dtype == "F4") continue;
      SCOPED_TRACE(t.name);
      const std::size_t row = t.data.size() / t.shape[0];
      numbers random(99);
      std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges = {
          {0, t.shape[0]}, {0, 0}, {t.shape[0], 0}, {0, 1}, {t.shape[0] - 1, 1}};
      for (int i = 0; i < 30; ++i) {
        const std::uint64_t first = random.next() % t.shape[0];
        ranges.emplace_back(first, 1 + random.next() % (t.shape[0] - first));
      }
      for (const auto& [first, count] : ranges) {
        const auto got = rows(file, t.name, first, count, count * row);
        ASSERT_TRUE(got) << got.error().describe();
        EXPECT_TRUE(*got == t.data.substr(first * row, count * row)) << first << " " << count;
      }
    }
  }

  std::vector<sample_tensor> samples_ = samples();
  tensor_metadata metadata_ = std::map<std::string, std::string>{{"format", "pt"}, {"a", "b\n\x01\""}};
};

TEST_F(TensorFileTest, EveryTensorAndRowOfEveryCoding) {
  const std::vector<model_options> all = {
      {},
      {.codec = codec::top16},
      {.codec = codec::raw},
      {.codec = codec::raw, .packing = pack_options{}},
      {.packing = pack_options{}},
      {.packing = pack_options{.inline_escapes = 8}},
      {.packing = pack_options{.layout = matrix_layout::tcatbe}},
      {.exclude = {"m*"}},
  };
  for (model_options options : all) {
    options.overwrite = true;
    write(options);
    for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
      for (const char* name : {"c", "p"}) {
        const auto file = tensor_file::open(dir_ / name, mode);
        ASSERT_TRUE(file) << file.error().describe();
        EXPECT_EQ(file->is_container(), *name == 'c');
        expect_all(*file);
        expect_rows(*file);
      }
    }
    ASSERT_TRUE(decompress(ctx_, dir_ / "c", dir_ / "back", {.overwrite = true}));
    EXPECT_TRUE(content(dir_ / "back") == content(dir_ / "p"));
  }
}

TEST_F(TensorFileTest, EntriesSayHowTensorsAreCoded) {
  write({.packing = pack_options{}, .overwrite = true});
  const auto file = tensor_file::open(dir_ / "c");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->find("matrix")->coding(), "packed");
  EXPECT_EQ(file->find("half")->coding(), "packed");
  EXPECT_EQ(file->find("cube")->coding(), "rank");
  EXPECT_EQ(file->find("bytes")->coding(), "stored");
  const std::string container = content(dir_ / "c");
  for (const file_tensor& t : file->tensors()) {
    bytes raw(t.stored_bytes);
    ASSERT_TRUE(file->read_raw(t.name, 0, raw));
    EXPECT_TRUE(text_of(raw) == container.substr(t.file_offset, t.stored_bytes));
    if (t.is_stored) continue;
    EXPECT_EQ(t.file_offset % 128, 0U);
    if (t.layout) {
      EXPECT_EQ(inspect_packed(raw)->digest, t.digest);
    } else {
      EXPECT_EQ(inspect(raw)->digest, t.digest);
    }
  }
  bytes part(10);
  ASSERT_TRUE(file->read_raw("bytes", 277, part));
  EXPECT_EQ(text_of(part), samples_[4].data.substr(277));
  EXPECT_EQ(file->read_raw("bytes", 278, part).error().code, errc::invalid_argument);
  EXPECT_EQ(file->read_raw("bytes", ~std::uint64_t{0}, part).error().code, errc::invalid_argument);
}

TEST_F(TensorFileTest, WrongArgumentsAreRefused) {
  write();
  for (const char* name : {"c", "p"}) {
    const auto file = tensor_file::open(dir_ / name);
    ASSERT_TRUE(file);
    bytes dst(200 * 640);
    const auto code = [](const status& s) { return s ? errc::ok : s.error().code; };
    EXPECT_EQ(file->find("nothing"), nullptr);
    EXPECT_EQ(code(file->read_into(ctx_, "nothing", dst)), errc::not_found);
    EXPECT_EQ(code(file->read_rows(ctx_, "", 0, 0, dst)), errc::not_found);
    EXPECT_EQ(code(file->read_raw("nothing", 0, dst)), errc::not_found);
    EXPECT_EQ(file->read_into(ctx_, "nothing", dst).error().tensor, "nothing");
    EXPECT_EQ(code(file->read_into(ctx_, "matrix", std::span(dst).first(200 * 640 - 1))),
              errc::destination_too_small);
    EXPECT_EQ(code(file->read_rows(ctx_, "matrix", 3, 2, std::span(dst).first(1279))),
              errc::destination_too_small);
    EXPECT_EQ(code(file->read_rows(ctx_, "matrix", 200, 1, dst)), errc::invalid_argument);
    EXPECT_EQ(code(file->read_rows(ctx_, "matrix", 201, 0, dst)), errc::invalid_argument);
    EXPECT_EQ(code(file->read_rows(ctx_, "matrix", 1, ~std::uint64_t{0}, dst)), errc::invalid_argument);
    EXPECT_EQ(code(file->read_rows(ctx_, "scalar", 0, 1, dst)), errc::invalid_argument);
    EXPECT_EQ(code(file->read_rows(ctx_, "empty", 0, 1, dst)), errc::invalid_argument);
    EXPECT_EQ(code(file->read_rows(ctx_, "empty", 0, 0, dst)), errc::ok);
    EXPECT_EQ(code(file->read_rows(ctx_, "f4", 0, 1, dst)), errc::ok);  // 3 bytes a row
  }
  EXPECT_EQ(tensor_file::open(dir_ / "none").error().code, errc::not_found);
  EXPECT_EQ(tensor_file::open(dir_).error().code, errc::io_error);
  put(dir_ / "short", "abc");
  EXPECT_EQ(tensor_file::open(dir_ / "short").error().code, errc::truncated);
}

TEST_F(TensorFileTest, RowsThatAreNoWholeBytes) {
  const std::string data = random_bytes(3, 1);
  const named_tensor f4{.name = "w", .dtype = "F4", .shape = {2, 3}, .data = view_of(data)};
  ASSERT_TRUE(save_plain(std::span(&f4, 1), {}, dir_ / "p"));
  const auto file = tensor_file::open(dir_ / "p");
  ASSERT_TRUE(file) << file.error().describe();
  bytes dst(3);
  EXPECT_EQ(file->read_rows(ctx_, "w", 0, 1, dst).error().code, errc::unsupported);
  EXPECT_TRUE(file->read_into(ctx_, "w", dst));
}

TEST_F(TensorFileTest, EveryChangedByteIsFound) {
  samples_ = {{"m", "BF16", {64, 64}, weights(4096, 1)},
              {"v", "BF16", {1500}, weights(1500, 2)},
              {"s", "U8", {3, 3}, "123456789"}};
  for (const model_options& options :
       {model_options{.overwrite = true}, model_options{.packing = pack_options{}, .overwrite = true},
        model_options{.packing = pack_options{.layout = matrix_layout::tcatbe}, .overwrite = true}}) {
    write(options);
    const std::string good = content(dir_ / "c");
    put(dir_ / "bad", good);
    std::fstream out(dir_ / "bad", std::ios::in | std::ios::out | std::ios::binary);
    std::size_t n_found_late = 0;
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (const int bit : {1, 128}) {
        out.seekp(static_cast<std::streamoff>(at));
        out.put(static_cast<char>(good[at] ^ bit));
        out.flush();
        const auto file = tensor_file::open(dir_ / "bad");
        if (!file) continue;
        ++n_found_late;
        bool found = false;
        for (const auto& t : samples_) {
          const auto got = read(*file, t.name);
          if (got) {
            ASSERT_TRUE(*got == t.data) << at;
            continue;
          }
          found = true;
          EXPECT_TRUE(is_data_error(got.error().code)) << got.error().describe();
          EXPECT_EQ(got.error().tensor, t.name);
          EXPECT_FALSE(got.error().file.empty());
        }
        ASSERT_TRUE(found) << "byte " << at << " bit " << bit;
      }
      out.seekp(static_cast<std::streamoff>(at));
      out.put(good[at]);
      out.flush();
    }
    EXPECT_GT(n_found_late, 0U);
  }
}

TEST_F(TensorFileTest, DamageOutsideTheRowsDoesNotMatterInsideItDoes) {
  for (const model_options& options :
       {model_options{.overwrite = true}, model_options{.packing = pack_options{}, .overwrite = true}}) {
    write(options);
    std::string bad = content(dir_ / "c");
    const auto good = tensor_file::open(dir_ / "c");
    ASSERT_TRUE(good);
    // The first rest byte of the first chunk, or of the first block.
    const file_tensor& t = *good->find("matrix");
    const std::uint64_t at = t.file_offset + (t.layout ? 128 : 128 + 256);
    bad[at] = static_cast<char>(bad[at] ^ 1);
    put(dir_ / "bad", bad);
    const auto file = tensor_file::open(dir_ / "bad");
    ASSERT_TRUE(file) << file.error().describe();
    EXPECT_EQ(rows(*file, "matrix", 0, 1, 640).error().code, errc::digest_mismatch);
    EXPECT_EQ(rows(*file, "matrix", 15, 100, 64000).error().code, errc::digest_mismatch);
    EXPECT_EQ(read(*file, "matrix").error().code, errc::digest_mismatch);
    const auto last = rows(*file, "matrix", 100, 100, 64000);
    ASSERT_TRUE(last) << last.error().describe();
    EXPECT_TRUE(*last == samples_[0].data.substr(64000));
  }
}

TEST_F(TensorFileTest, PartsOfAStoredTensorAddUpToItsDigest) {
  write();
  const auto file = tensor_file::open(dir_ / "c");
  ASSERT_TRUE(file);
  for (const file_tensor& t : file->tensors()) {
    bytes dst(t.original_bytes);
    if (!t.is_stored) {
      EXPECT_EQ(file->read_stored(ctx_, t.name, 0, dst).error().code, errc::invalid_argument);
      continue;
    }
    std::uint64_t digest = 0;
    constexpr std::uint64_t kStep = 3 * tensor_file::kStoredStep;
    for (std::uint64_t at = 0; at < dst.size(); at += kStep) {
      const auto share =
          file->read_stored(ctx_, t.name, at, std::span(dst).subspan(at, std::min(kStep, dst.size() - at)));
      ASSERT_TRUE(share);
      digest += *share;
    }
    EXPECT_EQ(digest, t.digest) << t.name;
    EXPECT_EQ(file->read_stored(ctx_, t.name, 1, {}).error().code, errc::invalid_argument);
    EXPECT_EQ(file->read_stored(ctx_, t.name, 1 << 30, {}).error().code, errc::invalid_argument);
  }
  EXPECT_EQ(file->read_stored(ctx_, "nothing", 0, {}).error().code, errc::not_found);
}

TEST_F(TensorFileTest, AFileThatShrinksIsAnError) {
  write();
  for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
    put(dir_ / "cut", content(dir_ / "c"));
    const auto file = tensor_file::open(dir_ / "cut", mode);
    ASSERT_TRUE(file);
    fs::resize_file(dir_ / "cut", file->find("matrix")->file_offset + 5000);
    EXPECT_EQ(read(*file, "matrix").error().code, errc::truncated);
    EXPECT_EQ(read(*file, "bytes").error().code, errc::truncated);
    bytes dst(1);
    EXPECT_EQ(file->read_raw("big", 0, dst).error().code, errc::truncated);
  }
}

TEST_F(TensorFileTest, ThreadsReadAtTheSameTime) {
  write({.packing = pack_options{}, .overwrite = true});
  const auto file = tensor_file::open(dir_ / "c");
  ASSERT_TRUE(file);
  std::atomic<int> n_wrong{0};
  std::vector<std::thread> threads;
  for (unsigned n = 0; n < 4; ++n) {
    threads.emplace_back([&, n] {
      numbers random(n);
      for (int i = 0; i < 40; ++i) {
        const auto& t = samples_[random.next() % samples_.size()];
        const auto got = read(*file, t.name);
        if (!got || *got != t.data) ++n_wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(n_wrong, 0);
}

}  // namespace
}  // namespace tersor::model_test
