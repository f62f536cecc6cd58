// Whole files and directories through the public calls.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/config_splice.hpp"
#include "model_fixture.hpp"

namespace tersor::model_test {
namespace {

const fs::path kTinylm = fs::path(TERSOR_TEST_DATA) / "tinylm-2m";

std::string small_file(std::uint64_t seed) {
  return file_of(R"({"w":{"dtype":"BF16","shape":[4000],"data_offsets":[0,8000]}})", weights(4000, seed));
}

/// Files below a directory with their contents.
std::map<std::string, std::string> tree_of(const fs::path& root) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    files[entry.path().lexically_relative(root).string()] =
        entry.is_directory() ? "/" : content(entry.path());
  }
  return files;
}

TEST_F(ModelTest, RealModelComesBackAndShrinks) {
  const auto packed = compress(ctx_, kTinylm, dir_ / "packed");
  ASSERT_TRUE(packed) << packed.error().describe();
  EXPECT_EQ(packed->n_tensors, 39U);
  EXPECT_GT(static_cast<double>(packed->original_bytes) / static_cast<double>(packed->stored_bytes), 1.48);
  ASSERT_TRUE(verify(ctx_, dir_ / "packed", kTinylm));
  ASSERT_TRUE(decompress(ctx_, dir_ / "packed", dir_ / "out"));
  EXPECT_TRUE(tree_of(dir_ / "out") == tree_of(kTinylm));
  const auto top16 = compress(ctx_, kTinylm / "model.safetensors", dir_ / "top16", {.codec = codec::top16});
  ASSERT_TRUE(top16);
  EXPECT_GT(static_cast<double>(top16->original_bytes) / static_cast<double>(top16->stored_bytes), 1.32);
}

TEST_F(ModelTest, DirectoriesComeBackWhole) {
  fs::create_directories(dir_ / "m/unet/empty");
  fs::create_directories(dir_ / "blobs");
  put(dir_ / "m/model-00001-of-00002.safetensors", small_file(1));
  put(dir_ / "blobs/abc", small_file(2));
  fs::create_symlink("../blobs/abc", dir_ / "m/model-00002-of-00002.safetensors");
  put(dir_ / "m/model.safetensors.index.json", R"({"weight_map":{"w":"model-00001-of-00002.safetensors"}})");
  put(dir_ / "m/.hidden", "h");
  put(dir_ / "m/empty.txt", "");
  put(dir_ / "m/config.json", "{\r\n  \"a\": 1\r\n}\r\n");
  put(dir_ / "m/unet/x.safetensors", small_file(3));
  put(dir_ / "m/unet/config.json", "{}");
  fs::permissions(dir_ / "m/.hidden", fs::perms::owner_read | fs::perms::owner_exec);
  const auto packed = compress(ctx_, dir_ / "m/", dir_ / "packed", {.verify = true});
  ASSERT_TRUE(packed) << packed.error().describe();
  EXPECT_EQ(packed->files.size(), 8U);
  EXPECT_NE(content(dir_ / "packed/config.json").find("{\r\n  \"quantization_config\": {"),
            std::string::npos);
  EXPECT_NE(content(dir_ / "packed/unet/config.json").find("quant_method"), std::string::npos);
  EXPECT_TRUE(fs::is_directory(dir_ / "packed/unet/empty"));
  EXPECT_EQ(fs::status(dir_ / "packed/.hidden").permissions(), fs::perms::owner_read | fs::perms::owner_exec);
  ASSERT_TRUE(verify(ctx_, dir_ / "packed", dir_ / "m"));
  const auto restored = decompress(ctx_, dir_ / "packed", dir_ / "out", {.verify = true});
  ASSERT_TRUE(restored) << restored.error().describe();
  EXPECT_TRUE(tree_of(dir_ / "out") == tree_of(dir_ / "m"));
  EXPECT_EQ(n_entries(), 4U);
}

TEST_F(ModelTest, VerifyComparesDirectoriesBothWays) {
  fs::create_directories(dir_ / "m");
  put(dir_ / "m/a.safetensors", small_file(1));
  put(dir_ / "m/config.json", "{\"a\":1}");
  put(dir_ / "m/notes", "n");
  ASSERT_TRUE(compress(ctx_, dir_ / "m", dir_ / "p"));
  const auto code = [&] {
    const auto checked = verify(ctx_, dir_ / "p", dir_ / "m");
    return checked ? errc::ok : checked.error().code;
  };
  EXPECT_EQ(code(), errc::ok);
  put(dir_ / "m/more", "");
  EXPECT_EQ(code(), errc::mismatch);
  fs::remove(dir_ / "m/more");
  put(dir_ / "p/more", "");
  EXPECT_EQ(code(), errc::mismatch);
  fs::remove(dir_ / "p/more");
  for (const char* name : {"notes", "config.json", "a.safetensors"}) {
    const std::string before = content(dir_ / "m" / name);
    std::string changed = before;
    changed.back() = static_cast<char>(changed.back() ^ 1);
    put(dir_ / "m" / name, changed);
    EXPECT_EQ(code(), errc::mismatch) << name;
    put(dir_ / "m" / name, before + "x");
    EXPECT_EQ(code(), errc::mismatch) << name;
    put(dir_ / "m" / name, before);
  }
  EXPECT_EQ(code(), errc::ok);
  put(dir_ / "p/config.json", content(dir_ / "p/config.json") + " ");
  EXPECT_EQ(code(), errc::digest_mismatch);
  put(dir_ / "p/config.json", "{\"a\":1}");
  EXPECT_EQ(code(), errc::malformed);
}

TEST_F(ModelTest, ConfigSpliceIsUndone) {
  const std::string texts[] = {"{}",
                               " { } ",
                               "{\"a\":1}",
                               "{\n  \"a\": {\"quantization_config\": [1, \"}\"]},\n  \"b\": \"\\\"}\"\n}\n",
                               "{\r\n\t\"a\": [],\r\n\t\"b\": null\r\n}",
                               R"({"quantization_config":{"bits":4,"s":"\u00e9\"\\"},"z":1})",
                               "{ \"a\" : true , \"quantization_config\" : null }",
                               R"({"quantization\u005fconfig": "x" , "quantization_config":-1.5e3})",
                               R"({"quantization_config":[{}]})"};
  for (const std::string& text : texts) {
    const auto packed = model_detail::splice_config(ctx_, text);
    ASSERT_TRUE(packed && *packed) << text;
    EXPECT_NE((*packed)->find(R"({"quant_method": "tersor", "version": 1, "splice": "0)"), std::string::npos);
    const auto restored = model_detail::restore_config(ctx_, **packed);
    ASSERT_TRUE(restored && *restored) << **packed;
    EXPECT_EQ(**restored, text);
    // A member added by hand is noticed.
    const auto edited =
        model_detail::restore_config(ctx_, std::string(**packed).insert((*packed)->rfind('}'), " "));
    ASSERT_FALSE(edited);
    EXPECT_EQ(edited.error().code, errc::digest_mismatch);
  }
  for (const std::string& text :
       {std::string(), std::string("[1]"), std::string("{"), std::string("\xef\xbb\xbf{}"),
        std::string("{\"a\":1}\0", 8), std::string("{\"a\":1,}"), std::string("text")}) {
    const auto packed = model_detail::splice_config(ctx_, text);
    ASSERT_TRUE(packed);
    EXPECT_FALSE(*packed) << text;
    const auto restored = model_detail::restore_config(ctx_, text);
    ASSERT_TRUE(restored);
    EXPECT_FALSE(*restored) << text;
  }
}

TEST_F(ModelTest, ConfigSpliceOfAnotherVersionIsRefused) {
  const auto packed = model_detail::splice_config(ctx_, "{\"a\":1}");
  ASSERT_TRUE(packed && *packed);
  for (const char* other : {"0", "2", "18446744073709551615"}) {
    std::string text = **packed;
    const std::string_view ours = R"("version": 1)";
    text.replace(text.find(ours), ours.size(), std::string(R"("version": )") + other);
    const auto restored = model_detail::restore_config(ctx_, text);
    ASSERT_FALSE(restored) << other;
    EXPECT_EQ(restored.error().code, errc::unsupported_version) << other;
  }
}

TEST_F(ModelTest, RefusesWhatItCannotDoWholly) {
  const auto code = [&](const fs::path& src, const fs::path& dst) {
    const auto done = compress(ctx_, src, dst);
    return done ? errc::ok : done.error().code;
  };
  fs::create_directories(dir_ / "m/sub");
  EXPECT_EQ(code(dir_ / "m", dir_ / "p"), errc::not_found);
  EXPECT_EQ(code(dir_ / "absent", dir_ / "p"), errc::not_found);
  put(dir_ / "m/a.safetensors", small_file(1));
  EXPECT_EQ(code(dir_ / "m", dir_ / "m"), errc::invalid_argument);
  EXPECT_EQ(code(dir_ / "m", dir_ / "m/p"), errc::invalid_argument);
  EXPECT_EQ(code(dir_ / "m", dir_ / "m/../m/p"), errc::invalid_argument);
  EXPECT_EQ(code(dir_ / "m", dir_), errc::invalid_argument);
  EXPECT_EQ(code(dir_ / "m/a.safetensors", dir_ / "m/a.safetensors"), errc::invalid_argument);
  fs::create_hard_link(dir_ / "m/a.safetensors", dir_ / "link");
  EXPECT_EQ(code(dir_ / "m/a.safetensors", dir_ / "link"), errc::invalid_argument);
  put(dir_ / "p", "old");
  EXPECT_EQ(code(dir_ / "m", dir_ / "p"), errc::already_exists);
  EXPECT_EQ(code(dir_ / "m/a.safetensors", dir_ / "p"), errc::already_exists);
  fs::remove(dir_ / "p");
  ASSERT_EQ(::mkfifo((dir_ / "m/pipe").c_str(), 0600), 0);
  EXPECT_EQ(code(dir_ / "m", dir_ / "p"), errc::io_error);
  fs::remove(dir_ / "m/pipe");
  fs::create_symlink("sub", dir_ / "m/dirlink");
  EXPECT_EQ(code(dir_ / "m", dir_ / "p"), errc::io_error);
  fs::remove(dir_ / "m/dirlink");
  fs::create_symlink("nowhere", dir_ / "m/dangling");
  EXPECT_EQ(code(dir_ / "m", dir_ / "p"), errc::not_found);
  fs::remove(dir_ / "m/dangling");
  put(dir_ / "m/bad.safetensors", "junk");
  EXPECT_EQ(code(dir_ / "m", dir_ / "p"), errc::truncated);
  EXPECT_EQ(n_entries(), 2U);
  const auto kinds = verify(ctx_, dir_ / "m", dir_ / "link");
  ASSERT_FALSE(kinds);
  EXPECT_EQ(kinds.error().code, errc::invalid_argument);
}

TEST_F(ModelTest, OptionsChooseTensors) {
  const std::string w = weights(4000, 1);
  put(dir_ / "in", file_of(R"({"a.1":{"dtype":"BF16","shape":[4000],"data_offsets":[0,8000]},)"
                           R"("a.2":{"dtype":"BF16","shape":[4000],"data_offsets":[8000,16000]}})",
                           w + w));
  const auto codecs = [&](const model_options& options) {
    std::string out;
    const auto packed = compress(ctx_, dir_ / "in", dir_ / "p", options);
    EXPECT_TRUE(packed) << packed.error().describe();
    if (!packed) return out;
    for (const auto& tensor : packed->files[0].tensors) out += to_string(tensor.codec).substr(0, 1);
    return out;
  };
  EXPECT_EQ(codecs({.overwrite = true}), "rr");
  EXPECT_EQ(codecs({.codec = codec::top16, .include = {"*.2"}, .overwrite = true}), "rt");
  EXPECT_EQ(codecs({.codec = codec::top16, .exclude = {"*.2"}, .overwrite = true}), "tr");
  EXPECT_EQ(codecs({.codec = codec::top16, .include = {"a.*"}, .exclude = {"a.1"}, .overwrite = true}), "rt");
  EXPECT_EQ(codecs({.codec = codec::top16, .include = {"b"}, .overwrite = true}), "rr");
}

TEST_F(ModelTest, CodebooksAreUsed) {
  put(dir_ / "in", small_file(1));
  model_options options{.overwrite = true};
  const auto own = compress(ctx_, dir_ / "in", dir_ / "p", options);
  ASSERT_TRUE(own);
  codebook odd;
  for (std::size_t i = 0; i < 16; ++i) odd.symbols[i] = static_cast<std::uint8_t>(121 - i * 3);
  options.books.by_type["w"] = {.type = dtype::bf16, .book = odd};
  const auto worse = compress(ctx_, dir_ / "in", dir_ / "p", options);
  ASSERT_TRUE(worse) << worse.error().describe();
  EXPECT_GT(worse->stored_bytes, own->stored_bytes);
  ASSERT_TRUE(verify(ctx_, dir_ / "p", dir_ / "in"));
  options.books.by_type["w"].book.symbols[1] = odd.symbols[0];
  const auto broken = compress(ctx_, dir_ / "in", dir_ / "p", options);
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, errc::invalid_argument);
  EXPECT_EQ(broken.error().tensor, "w");
  ASSERT_TRUE(verify(ctx_, dir_ / "p", dir_ / "in"));
}

TEST_F(ModelTest, CodebookSetsSurviveJson) {
  codebook_set set;
  codebook book;
  for (std::size_t i = 0; i < 16; ++i) book.symbols[i] = static_cast<std::uint8_t>(130 - i);
  set.by_name["a\"\n.0"] = {.type = dtype::bf16, .book = book};
  set.by_type["a.*.w"] = {.type = dtype::f32, .book = book};
  set.by_dtype[dtype::bf16] = book;
  const auto back = codebook_set::from_json(set.to_json());
  ASSERT_TRUE(back) << back.error().describe();
  EXPECT_EQ(back->to_json(), set.to_json());
  EXPECT_TRUE(back->find("a\"\n.0", dtype::bf16));
  EXPECT_TRUE(back->find("a.17.w", dtype::f32));
  EXPECT_FALSE(back->find("a.17.w", dtype::f16));
  EXPECT_TRUE(back->find("a.17.w", dtype::bf16));
  EXPECT_FALSE(back->find("b", dtype::f32));
  for (const char* bad :
       {"", "[]", "{}", R"({"tersor_codebooks":"0"})", R"({"tersor_codebooks":0,"by_dtype":{"U8":[]}})",
        R"({"tersor_codebooks":0,"by_dtype":{"BF16":[1,2,3]}})",
        R"({"tersor_codebooks":0,"by_dtype":{"BF16":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,256]}})",
        R"({"tersor_codebooks":0,"by_dtype":{"BF16":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,14]}})",
        R"({"tersor_codebooks":0,"by_dtype":{"F16":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,99]}})",
        R"({"tersor_codebooks":0,"by_name":{"a":{"dtype":"BF16"}}})"}) {
    const auto parsed = codebook_set::from_json(bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().code, errc::malformed) << bad;
  }
  const auto newer = codebook_set::from_json(R"({"tersor_codebooks":9})");
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code, errc::unsupported_version);
}

TEST_F(ModelTest, ProgressAndCancel) {
  fs::create_directories(dir_ / "m");
  put(dir_ / "m/a.safetensors", small_file(1));
  put(dir_ / "m/b.safetensors", small_file(2));
  put(dir_ / "m/notes", "n");
  progress last;
  std::uint64_t before = 0;
  std::atomic<bool> cancel{false};
  model_options options{.on_progress =
                            [&](const progress& p) {
                              EXPECT_GE(p.done, before);
                              EXPECT_LE(p.done, p.total);
                              before = p.done;
                              last = p;
                            },
                        .cancel = &cancel};
  ASSERT_TRUE(compress(ctx_, dir_ / "m", dir_ / "p", options));
  EXPECT_EQ(last.done, last.total);
  before = 0;
  options.verify = true;
  options.overwrite = true;
  ASSERT_TRUE(compress(ctx_, dir_ / "m", dir_ / "p", options));
  EXPECT_EQ(last.done, last.total);
  options.verify = false;
  options.overwrite = false;
  before = 0;
  ASSERT_TRUE(decompress(ctx_, dir_ / "p", dir_ / "o", options));
  const std::size_t n = n_entries();
  int steps = 0;
  options.on_progress = [&](const progress&) { cancel = ++steps > 3; };
  for (const auto& call : {compress, decompress}) {
    steps = 0;
    const auto stopped = call(ctx_, dir_ / (call == compress ? "m" : "p"), dir_ / "x", options);
    ASSERT_FALSE(stopped);
    EXPECT_EQ(stopped.error().code, errc::cancelled);
    EXPECT_EQ(n_entries(), n);
  }
  options.on_progress = [](const progress&) { throw std::runtime_error("callback"); };
  cancel = false;
  const auto thrown = compress(ctx_, dir_ / "m", dir_ / "x", options);
  ASSERT_FALSE(thrown);
  EXPECT_EQ(thrown.error().code, errc::internal);
  EXPECT_EQ(n_entries(), n);
}

TEST_F(ModelTest, DryRunWritesNothingAndRemoveSourceRemovesIt) {
  put(dir_ / "in", small_file(1));
  const auto dry = compress(ctx_, dir_ / "in", dir_ / "p", {.dry_run = true});
  ASSERT_TRUE(dry);
  EXPECT_EQ(n_entries(), 1U);
  const std::string original = content(dir_ / "in");
  const auto packed = compress(ctx_, dir_ / "in", dir_ / "p", {.remove_source = true});
  ASSERT_TRUE(packed) << packed.error().describe();
  EXPECT_EQ(packed->stored_bytes, dry->stored_bytes);
  EXPECT_FALSE(fs::exists(dir_ / "in"));
  const auto dry_back = decompress(ctx_, dir_ / "p", dir_ / "in", {.dry_run = true});
  ASSERT_TRUE(dry_back);
  EXPECT_FALSE(fs::exists(dir_ / "in"));
  ASSERT_TRUE(decompress(ctx_, dir_ / "p", dir_ / "in", {.remove_source = true}));
  EXPECT_FALSE(fs::exists(dir_ / "p"));
  EXPECT_TRUE(content(dir_ / "in") == original);
  fs::create_directories(dir_ / "m");
  fs::rename(dir_ / "in", dir_ / "m/in.safetensors");
  ASSERT_TRUE(compress(ctx_, dir_ / "m", dir_ / "p", {.remove_source = true}));
  EXPECT_FALSE(fs::exists(dir_ / "m"));
}

TEST_F(ModelTest, Names) {
  EXPECT_EQ(tensor_type("model.layers.12.mlp.w3.weight"), "model.layers.*.mlp.w3.weight");
  EXPECT_EQ(tensor_type("0"), "*");
  EXPECT_EQ(tensor_type("a..1."), "a..*.");
  EXPECT_EQ(tensor_type(""), "");
  EXPECT_TRUE(glob_match("*", ""));
  EXPECT_TRUE(glob_match("*.weight", "a.b.weight"));
  EXPECT_TRUE(glob_match("a*b*c", "a-b-b-c"));
  EXPECT_FALSE(glob_match("a*b*c", "a-b-b-d"));
  EXPECT_TRUE(glob_match("layers.[0-3].?", "layers.2.k"));
  EXPECT_FALSE(glob_match("layers.[!0-3].?", "layers.2.k"));
  EXPECT_TRUE(glob_match("[]a]", "]"));
  EXPECT_TRUE(glob_match("[x", "[x"));
  EXPECT_FALSE(glob_match("", "a"));
  EXPECT_FALSE(glob_match("a?", "a"));
  EXPECT_FALSE(glob_match("*a*a*a*a*a*a*a*a*b", std::string(200, 'a')));
  EXPECT_EQ(default_compressed_path("d/model.safetensors"), "d/model.tersor.safetensors");
  EXPECT_EQ(default_decompressed_path("d/model.tersor.safetensors"), "d/model.safetensors");
  EXPECT_EQ(default_decompressed_path("d/model.safetensors"), "d/model-restored.safetensors");
  EXPECT_EQ(default_compressed_path("d/m/"), "d/m-tersor");
  EXPECT_EQ(default_decompressed_path("d/m-tersor"), "d/m");
  EXPECT_EQ(default_decompressed_path("m"), "m-restored");
}

/// Runs `work` in a process of its own and returns how far its memory went above what it had before, in MiB.
long peak_growth(const std::function<bool()>& work) {
  int ends[2] = {};
  if (::pipe(ends) != 0) return -1;
  const ::pid_t child = ::fork();
  if (child == 0) {
    const auto peak = [] {
      struct ::rusage usage {};
      ::getrusage(RUSAGE_SELF, &usage);
      return usage.ru_maxrss / 1024;
    };
    const long before = peak();
    const long growth = work() ? peak() - before : -1;
    (void)!::write(ends[1], &growth, sizeof growth);
    ::_exit(0);
  }
  long growth = -1;
  (void)!::read(ends[0], &growth, sizeof growth);
  ::close(ends[0]);
  ::close(ends[1]);
  ::waitpid(child, nullptr, 0);
  return growth;
}

/// A directory in memory where there is one with room, because the test would otherwise wait for the disk.
fs::path fast_directory(const fs::path& fallback) {
  std::error_code ec;
  const fs::path memory = "/dev/shm";
  if (fs::space(memory, ec).available < std::uintmax_t{3} << 30 || ec) return fallback;
  std::string pattern = (memory / "tersor-model-XXXXXX").string();
  return ::mkdtemp(pattern.data()) == nullptr ? fallback : fs::path(pattern);
}

TEST_F(ModelTest, MemoryStaysBounded) {
  const fs::path own = std::exchange(dir_, fast_directory(dir_));
  constexpr std::size_t kTensors = 24;
  constexpr std::size_t kValues = std::size_t{12} << 20;
  constexpr std::size_t kBytes = 2 * kValues;
  {
    std::string json = "{";
    for (std::size_t i = 0; i < kTensors; ++i) {
      json += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"BF16","shape":[)" +
              std::to_string(kValues) + R"(],"data_offsets":[)" + std::to_string(i * kBytes) + "," +
              std::to_string((i + 1) * kBytes) + "]}";
    }
    std::ofstream out(dir_ / "in", std::ios::binary);
    out << file_of(json + "}", "");
    const std::string part = weights(kValues / 16, 1);
    for (std::size_t i = 0; i < 16 * kTensors; ++i) out << part;
  }
  EXPECT_GT(fs::file_size(dir_ / "in"), std::uintmax_t{570} << 20);
  for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
    // Source tensor and two frames of 24 MiB each; blocks of 16 MiB and a frame when decoding.
    const long packing = peak_growth([&] {
      const context ctx = *context::create(2);
      return compress(ctx, dir_ / "in", dir_ / "p", {.overwrite = true, .read = mode}).has_value();
    });
    EXPECT_GT(packing, 0);
    EXPECT_LT(packing, 100);
    const long unpacking = peak_growth([&] {
      const context ctx = *context::create(2);
      return decompress(ctx, dir_ / "p", dir_ / "o", {.overwrite = true, .read = mode}).has_value();
    });
    EXPECT_GT(unpacking, 0);
    EXPECT_LT(unpacking, 100);
  }
  EXPECT_TRUE(verify(ctx_, dir_ / "p", dir_ / "in"));
  if (dir_ != own) fs::remove_all(std::exchange(dir_, own));
}

}  // namespace
}  // namespace tersor::model_test
