// analyze, calibrate and their JSON against counts known by hand.
#include <cmath>

#include <nlohmann/json.hpp>

#include "model/analysis_stats.hpp"
#include "model/report_data.hpp"
#include "model_fixture.hpp"

namespace tersor::model_test {
namespace {

/// BF16 values with sign and mantissa zero: `counts` pairs of exponent and number of values.
std::string bf16_of(const std::vector<std::pair<unsigned, std::size_t>>& counts) {
  std::string bytes;
  for (const auto& [exponent, n] : counts) {
    for (std::size_t i = 0; i < n; ++i) {
      bytes += static_cast<char>(exponent << 7 & 0xff);
      bytes += static_cast<char>(exponent >> 1);
    }
  }
  return bytes;
}

std::string entry(const std::string& name, const std::string& dtype, std::size_t n_values, std::size_t from,
                  std::size_t n_bytes) {
  return nlohmann::json(name).dump() + ":{\"dtype\":\"" + dtype + "\",\"shape\":[" +
         std::to_string(n_values) + "],\"data_offsets\":[" + std::to_string(from) + "," +
         std::to_string(from + n_bytes) + "]}";
}

tensor_analysis statistics_of(const std::vector<std::pair<unsigned, std::uint64_t>>& counts) {
  tensor_analysis t{.type = dtype::bf16};
  for (const auto& [symbol, n] : counts) t.counts.counts[symbol] = n;
  model_detail::fill_statistics(t);
  return t;
}

class AnalysisTest : public ModelTest {
 protected:
  [[nodiscard]] analysis analyzed(const fs::path& source, const model_options& options = {}) const {
    auto a = analyze(ctx_, {source}, options);
    EXPECT_TRUE(a) << a.error().describe();
    return a.value_or(analysis{});
  }

  [[nodiscard]] errc error_of(const std::vector<fs::path>& sources, const model_options& options = {}) const {
    const auto a = analyze(ctx_, sources, options);
    return a ? errc::ok : a.error().code;
  }

  /// Weights of two layers, a norm of one exponent, integers, an empty tensor.
  void put_model(const fs::path& path) const {
    const std::string first = weights(30000, 1);
    const std::string second = weights(20000, 2);
    const std::string norm = bf16_of({{127, 500}});
    const std::string ids(80, '\1');
    std::size_t at = 0;
    std::string json = "{";
    const auto add = [&](const std::string& name, const std::string& dtype, std::size_t n,
                         std::size_t n_bytes) {
      json += (at == 0 ? "" : ",") + entry(name, dtype, n, at, n_bytes);
      at += n_bytes;
    };
    add("layers.0.w", "BF16", 30000, first.size());
    add("layers.1.w", "BF16", 20000, second.size());
    add("norm", "BF16", 500, norm.size());
    add("ids", "I64", 10, ids.size());
    add("none", "F16", 0, 0);
    put(path, file_of(json + "}", first + second + norm + ids));
  }
};

TEST_F(AnalysisTest, KnownHistogram) {
  // Shares 1/2, 1/4, 1/8, 1/16, 1/16: entropy 1/2 + 2/4 + 3/8 + 4/16 + 4/16 = 1.875 bits.
  const tensor_analysis t = statistics_of({{120, 8000}, {121, 4000}, {119, 2000}, {122, 1000}, {118, 1000}});
  EXPECT_EQ(t.n_values, 16000U);
  EXPECT_EQ(t.n_bytes, 32000U);
  EXPECT_DOUBLE_EQ(t.entropy, 1.875);
  EXPECT_DOUBLE_EQ(t.coverage[0], 0);
  EXPECT_DOUBLE_EQ(t.coverage[1], 0.5);
  EXPECT_DOUBLE_EQ(t.coverage[2], 0.75);
  EXPECT_DOUBLE_EQ(t.coverage[3], 0.875);
  EXPECT_DOUBLE_EQ(t.coverage[5], 1);
  EXPECT_DOUBLE_EQ(t.coverage[16], 1);
  EXPECT_DOUBLE_EQ(t.ideal_ratio, 16 / 9.875);
  // rank: 2 bits for all, 2 more for the 1/8 outside the first three; 24 record bytes in 8,192 values.
  EXPECT_NEAR(t.rank_bits, 8 + 2 + 2.0 / 8 + 192.0 / 8192, 1e-12);
  EXPECT_NEAR(t.top16_bits, 8 + 4 + 192.0 / 8192, 1e-12);
}

TEST_F(AnalysisTest, PartsOfARankCodedValue) {
  // 16 exponents of 1/32 each after one of 1/2: 17 in all, so one is an escape.
  std::vector<std::pair<unsigned, std::uint64_t>> counts = {{100, 16}};
  for (unsigned i = 0; i < 16; ++i) counts.push_back({101 + i, 1});
  const tensor_analysis t = statistics_of(counts);
  const auto book = model_detail::book_of(dtype::bf16, t.counts);
  const auto parts = model_detail::split_bits(codec::rank, dtype::bf16, t.counts, book);
  EXPECT_DOUBLE_EQ(parts.rest, 8);
  EXPECT_DOUBLE_EQ(parts.levels[0], 2);
  EXPECT_DOUBLE_EQ(parts.levels[1], 2 * 14.0 / 32);
  EXPECT_DOUBLE_EQ(parts.levels[2], 2 * 11.0 / 32);
  EXPECT_DOUBLE_EQ(parts.levels[3], 3 * 8.0 / 32);
  EXPECT_DOUBLE_EQ(parts.escapes, 8 * 1.0 / 32);
  EXPECT_DOUBLE_EQ(parts.raw_symbols, 0);
  EXPECT_NEAR(parts.total(), expected_bits(codec::rank, dtype::bf16, t.counts, book), 1e-12);
}

TEST_F(AnalysisTest, UniformExponentsAreKeptRaw) {
  tensor_analysis t{.type = dtype::bf16};
  t.counts.counts.fill(1000);
  model_detail::fill_statistics(t);
  EXPECT_DOUBLE_EQ(t.entropy, 8);
  EXPECT_DOUBLE_EQ(t.ideal_ratio, 1);
  EXPECT_EQ(t.rank_bytes, t.n_bytes);
  EXPECT_EQ(t.top16_bytes, t.n_bytes);
}

TEST_F(AnalysisTest, ContextThreadsCountTheSame) {
  const std::string data = weights(300001, 3);
  const auto bytes = std::as_bytes(std::span(data));
  const auto alone = count_symbols(dtype::bf16, bytes);
  const auto together = count_symbols(ctx_, dtype::bf16, bytes);
  ASSERT_TRUE(alone && together);
  EXPECT_EQ(alone->counts, together->counts);
  EXPECT_EQ(alone->total(), 300001U);
  EXPECT_EQ(count_symbols(ctx_, dtype::i32, bytes).error().code, errc::unsupported);
  EXPECT_EQ(count_symbols(ctx_, dtype::bf16, bytes.first(3)).error().code, errc::invalid_argument);
}

TEST_F(AnalysisTest, FileWithAllKindsOfTensors) {
  put_model(dir_ / "m.safetensors");
  const analysis a = analyzed(dir_ / "m.safetensors");
  EXPECT_EQ(a.n_files, 1U);
  EXPECT_EQ(a.n_other_tensors, 1U);
  EXPECT_EQ(a.other_bytes, 80U);
  ASSERT_EQ(a.tensors.size(), 4U);
  EXPECT_EQ(a.tensors[0].file, "m.safetensors");
  EXPECT_EQ(a.tensors[0].name, "layers.0.w");
  EXPECT_EQ(a.tensors[0].shape, std::vector<std::uint64_t>{30000});
  EXPECT_EQ(a.tensors[2].counts.counts[127], 500U);
  EXPECT_DOUBLE_EQ(a.tensors[2].entropy, 0);
  EXPECT_EQ(a.tensors[3].n_values, 0U);
  EXPECT_DOUBLE_EQ(a.tensors[3].ideal_ratio, 1);
  const tensor_analysis& all = a.overall.at(dtype::bf16);
  EXPECT_EQ(all.n_values, 50500U);
  EXPECT_EQ(all.counts.total(), 50500U);
  EXPECT_EQ(all.counts.counts[121], a.tensors[0].counts.counts[121] + a.tensors[1].counts.counts[121]);
  // A shared codebook is never better than one for each tensor.
  const auto data = model_detail::summarize(a);
  EXPECT_EQ(data.dtypes.front().type, dtype::bf16);
  EXPECT_LE(data.dtypes.front().own.entropy(), all.entropy);
  EXPECT_LE(data.dtypes.front().own.rank_bytes, all.rank_bytes);
}

TEST_F(AnalysisTest, PredictedSizesAreThoseOfFrames) {
  put_model(dir_ / "m.safetensors");
  const analysis a = analyzed(dir_ / "m.safetensors");
  for (const codec c : {codec::rank, codec::top16}) {
    const std::string data = weights(30000, 1);
    const std::vector<std::uint64_t> shape = {30000};
    const auto frame = encode(
        ctx_, {.type = dtype::bf16, .shape = shape, .data = std::as_bytes(std::span(data))}, {.codec = c});
    ASSERT_TRUE(frame);
    const auto predicted =
        static_cast<double>(c == codec::rank ? a.tensors[0].rank_bytes : a.tensors[0].top16_bytes);
    EXPECT_NEAR(predicted / static_cast<double>(frame->size()), 1, 0.003) << to_string(c);
  }
}

TEST_F(AnalysisTest, CompressedSourceGivesTheSameAnalysis) {
  put_model(dir_ / "m.safetensors");
  for (const codec c : {codec::rank, codec::top16, codec::raw}) {
    fs::create_directories(dir_ / "packed");
    const fs::path packed = dir_ / "packed" / "m.safetensors";
    ASSERT_TRUE(compress(ctx_, dir_ / "m.safetensors", packed, {.codec = c, .overwrite = true}));
    for (const read_mode mode : {read_mode::mmap, read_mode::pread}) {
      EXPECT_EQ(to_json(analyzed(packed, {.read = mode})), to_json(analyzed(dir_ / "m.safetensors")))
          << to_string(c);
    }
  }
}

TEST_F(AnalysisTest, DamagedContainerIsADataError) {
  put_model(dir_ / "m.safetensors");
  ASSERT_TRUE(compress(ctx_, dir_ / "m.safetensors", dir_ / "c.safetensors"));
  std::string bytes = content(dir_ / "c.safetensors");
  const std::size_t in_a_frame = bytes.find("\x89TERSOR\n") + 9000;
  ASSERT_LT(in_a_frame, bytes.size());
  bytes[in_a_frame] = static_cast<char>(bytes[in_a_frame] ^ 4);
  put(dir_ / "c.safetensors", bytes);
  const auto a = analyze(ctx_, {dir_ / "c.safetensors"});
  ASSERT_FALSE(a);
  EXPECT_TRUE(is_data_error(a.error().code));
  EXPECT_EQ(a.error().tensor, "layers.0.w");
  EXPECT_EQ(a.error().file, (dir_ / "c.safetensors").string());
}

TEST_F(AnalysisTest, DirectoriesFiltersAndSeveralSources) {
  fs::create_directories(dir_ / "model" / "sub");
  put_model(dir_ / "model" / "a.safetensors");
  put_model(dir_ / "model" / "sub" / "b.safetensors");
  put(dir_ / "model" / "config.json", "{}");
  const analysis a = analyzed(dir_ / "model");
  EXPECT_EQ(a.n_files, 2U);
  EXPECT_EQ(a.tensors.size(), 8U);
  EXPECT_EQ(a.tensors.back().file, "sub/b.safetensors");
  const analysis some = analyzed(dir_ / "model", {.include = {"layers.*"}, .exclude = {"*.1.w"}});
  ASSERT_EQ(some.tensors.size(), 2U);
  EXPECT_EQ(some.tensors[0].name, "layers.0.w");
  EXPECT_EQ(some.other_bytes, 2 * (40000U + 1000U + 80U));
  const auto both = analyze(ctx_, {dir_ / "model", dir_ / "model" / "a.safetensors"});
  ASSERT_TRUE(both);
  EXPECT_EQ(both->n_files, 3U);
  EXPECT_EQ(both->overall.at(dtype::bf16).n_values, 3 * 50500U);
}

TEST_F(AnalysisTest, SourcesThatCannotBeRead) {
  fs::create_directories(dir_ / "empty");
  put(dir_ / "bad.safetensors", "no");
  EXPECT_EQ(error_of({}), errc::not_found);
  EXPECT_EQ(error_of({dir_ / "missing"}), errc::not_found);
  EXPECT_EQ(error_of({dir_ / "empty"}), errc::not_found);
  EXPECT_TRUE(is_data_error(error_of({dir_ / "bad.safetensors"})));
}

TEST_F(AnalysisTest, ProgressAndCancel) {
  put_model(dir_ / "m.safetensors");
  progress last;
  const auto note = [&](const progress& p) { last = {.done = p.done, .total = p.total, .file = {}}; };
  (void)analyzed(dir_ / "m.safetensors", {.on_progress = note});
  EXPECT_EQ(last.done, last.total);
  EXPECT_EQ(last.total, 101080U);
  const std::atomic<bool> raised = true;
  EXPECT_EQ(error_of({dir_ / "m.safetensors"}, {.cancel = &raised}), errc::cancelled);
}

TEST_F(AnalysisTest, CalibratedBooksByNameTypeAndDtype) {
  put_model(dir_ / "m.safetensors");
  const analysis a = analyzed(dir_ / "m.safetensors");
  const codebook_set books = calibrate(a);
  EXPECT_EQ(books.by_name.size(), 3U);  // the empty tensor has nothing to say
  EXPECT_EQ(books.by_type.size(), 2U);
  EXPECT_EQ(books.by_dtype.size(), 1U);
  histogram layers = a.tensors[0].counts;
  layers += a.tensors[1].counts;
  const auto by_hand = make_codebook(dtype::bf16, layers);
  ASSERT_TRUE(by_hand);
  EXPECT_EQ(books.find("layers.7.w", dtype::bf16)->symbols[0], by_hand->symbols[0]);
  EXPECT_EQ(books.find("layers.0.w", dtype::bf16)->symbols[0], 121);
  // The norm knows one exponent; the places that it leaves go to those of the other tensors, most frequent
  // first.
  const codebook norm = books.by_name.at("norm").book;
  EXPECT_EQ(norm.symbols[0], 127);
  EXPECT_EQ(norm.symbols[1], 121);
  EXPECT_EQ(norm.symbols[2], 120);
}

TEST_F(AnalysisTest, BooksSurviveJsonAndServeTheEncoder) {
  put_model(dir_ / "m.safetensors");
  const codebook_set books = calibrate(analyzed(dir_ / "m.safetensors"));
  const auto back = codebook_set::from_json(books.to_json());
  ASSERT_TRUE(back) << back.error().describe();
  EXPECT_EQ(back->to_json(), books.to_json());
  for (const char* name : {"layers.0.w", "layers.9.w", "norm", "anything"}) {
    EXPECT_EQ(back->find(name, dtype::bf16), books.find(name, dtype::bf16)) << name;
  }
  const std::string data = weights(5000, 9);
  const std::vector<std::uint64_t> shape = {5000};
  const tensor_view view{.type = dtype::bf16, .shape = shape, .data = std::as_bytes(std::span(data))};
  const auto frame = encode(ctx_, view, {.book = back->find("layers.9.w", dtype::bf16)});
  ASSERT_TRUE(frame);
  EXPECT_EQ(inspect(*frame)->book, books.by_type.at("layers.*.w").book);
  const auto decoded = decode(ctx_, *frame);
  ASSERT_TRUE(decoded);
  EXPECT_TRUE(std::ranges::equal(decoded->data, view.data));
}

TEST_F(AnalysisTest, JsonHasTheNumbers) {
  put_model(dir_ / "m.safetensors");
  const analysis a = analyzed(dir_ / "m.safetensors");
  const auto json = nlohmann::json::parse(to_json(a));
  EXPECT_EQ(json["total"]["bytes"], 101080);
  EXPECT_EQ(json["total"]["tensors"], 5);
  ASSERT_EQ(json["tensors"].size(), 4U);
  const auto& norm = json["tensors"][2];
  EXPECT_EQ(norm["tensor_type"], "norm");
  EXPECT_EQ(norm["counts"], nlohmann::json::parse("[[127,500]]"));
  EXPECT_EQ(norm["coverage"].size(), 17U);
  EXPECT_DOUBLE_EQ(json["tensors"][0]["entropy"], a.tensors[0].entropy);
  const auto& dtype_entry = json["dtypes"]["BF16"];
  EXPECT_EQ(dtype_entry["own_codebooks"]["values"], 50500);
  EXPECT_DOUBLE_EQ(dtype_entry["shared_codebook"]["ideal_ratio"], a.overall.at(dtype::bf16).ideal_ratio);
  EXPECT_EQ(json["tensor_types"].size(), 3U);
}

TEST_F(AnalysisTest, KvNames) {
  using model_detail::parse_kv_name;
  EXPECT_TRUE(parse_kv_name("layers.3.k")->is_key);
  EXPECT_EQ(parse_kv_name("layers.3.k")->layer, 3U);
  EXPECT_FALSE(parse_kv_name("past_key_values.12.value")->is_key);
  EXPECT_EQ(parse_kv_name("key_cache.7")->layer, 7U);
  EXPECT_TRUE(parse_kv_name("key_cache.7")->is_key);
  for (const char* name :
       {"model.layers.3.self_attn.k_proj.weight", "k", "layers.x.k", "layers.99999999.k", ""}) {
    EXPECT_FALSE(parse_kv_name(name)) << name;
  }
}

}  // namespace
}  // namespace tersor::model_test
