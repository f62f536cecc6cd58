#include <algorithm>
#include <new>

#include "model/analysis_source.hpp"
#include "model/analysis_stats.hpp"
#include "model/container.hpp"
#include <tersor/model.hpp>

namespace tersor {
namespace {

using model_detail::source_file;
using model_detail::source_tensor;

bool is_selected(const source_tensor& tensor, const model_options& options) {
  const auto matches = [&](const std::string& pattern) { return glob_match(pattern, tensor.name); };
  if (std::ranges::any_of(options.exclude, matches)) return false;
  return options.include.empty() || std::ranges::any_of(options.include, matches);
}

/// One run of analyze.
class analysis_run {
 public:
  analysis_run(const context& ctx, const model_options& options) : ctx_(ctx), options_(options) {}

  [[nodiscard]] result<analysis> over(const std::vector<std::filesystem::path>& sources) {
    TERSOR_TRY(const auto files, model_detail::read_sources(ctx_, sources, options_));
    for (const source_file& file : files) {
      for (const source_tensor& tensor : file.tensors) at_.total += tensor.n_bytes;
    }
    out_.n_files = files.size();
    for (const source_file& file : files) TERSOR_CHECK(add_file(file));
    add_overall();
    return std::move(out_);
  }

 private:
  [[nodiscard]] status add_file(const source_file& file) {
    at_.file = file.label;
    TERSOR_TRY(const auto input, model_detail::open_input(file.path, options_.read));
    for (const source_tensor& tensor : file.tensors) {
      if (auto done = add_tensor(file, input, tensor); !done) {
        error e = std::move(done).error();
        if (e.file.empty()) e.file = file.path.string();
        if (e.tensor.empty()) e.tensor = tensor.name;
        return tl::unexpected<error>(std::move(e));
      }
    }
    return {};
  }

  [[nodiscard]] status add_tensor(const source_file& file, const safetensors::input_file& input,
                                  const source_tensor& tensor) {
    TERSOR_CHECK(advance(0));
    if (!tensor.type || !is_codable(*tensor.type) || !is_selected(tensor, options_)) {
      out_.other_bytes += tensor.n_bytes;
      ++out_.n_other_tensors;
      return advance(tensor.n_bytes);
    }
    tensor_analysis t{.file = file.label, .name = tensor.name, .type = *tensor.type, .shape = tensor.shape};
    TERSOR_CHECK(
        model_detail::read_pieces(ctx_, input, tensor, [&](std::span<const std::byte> piece) -> status {
          TERSOR_TRY(const histogram counts, count_symbols(ctx_, t.type, piece));
          t.counts += counts;
          return advance(piece.size());
        }));
    model_detail::fill_statistics(t);
    out_.tensors.push_back(std::move(t));
    return {};
  }

  [[nodiscard]] status advance(std::uint64_t n_bytes) {
    if (options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed)) {
      return fail(errc::cancelled, "cancelled");
    }
    at_.done += n_bytes;
    if (n_bytes != 0 && options_.on_progress) options_.on_progress(at_);
    return {};
  }

  void add_overall() {
    for (const tensor_analysis& t : out_.tensors) {
      tensor_analysis& all = out_.overall[t.type];
      all.type = t.type;
      all.counts += t.counts;
    }
    for (auto& [type, all] : out_.overall) {
      model_detail::fill_statistics(all);
      all.rank_bytes = 0;
      all.top16_bytes = 0;
      const codebook book = model_detail::book_of(type, all.counts);
      for (const tensor_analysis& t : out_.tensors) {
        if (t.type != type) continue;
        all.rank_bytes += model_detail::predict_bytes(codec::rank, type, t.counts, book);
        all.top16_bytes += model_detail::predict_bytes(codec::top16, type, t.counts, book);
      }
    }
  }

  const context& ctx_;
  const model_options& options_;
  progress at_;
  analysis out_;
};

}  // namespace

result<analysis> analyze(const context& ctx, const std::vector<std::filesystem::path>& sources,
                         const model_options& options) {
  try {
    return analysis_run(ctx, options).over(sources);
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  } catch (const std::exception& e) {
    return fail(errc::internal, e.what());
  }
}

}  // namespace tersor
