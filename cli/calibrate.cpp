#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "json.hpp"
#include "output.hpp"
#include "progress.hpp"
#include <tersor/program.hpp>

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor calibrate kv-1.safetensors kv-2.safetensors -o codebook.json  from two samples\n"
    "  tersor compress kv-3.safetensors --codebook codebook.json            use it\n"
    "\n"
    "A calibrated codebook saves the pass that counts exponents; data that it does not fit only costs space.";

struct calibrate_flags {
  common_flags common;
  std::vector<std::string> sources;
  std::string destination;
  bool force = false;
};

result<calibration_summary> calibrate_now(const calibrate_flags& flags) {
  TERSOR_TRY(const context ctx, context::create(flags.common.threads));
  model_options options = options_from(flags.common);
  progress_line line("calibrate", flags.common.quiet);
  options.on_progress = line.callback();
  const std::vector<std::filesystem::path> sources(flags.sources.begin(), flags.sources.end());
  TERSOR_TRY(const analysis a, analyze(ctx, sources, options));
  if (a.tensors.empty()) return fail(errc::not_found, "no tensor with an exponent to code in the sources");
  const codebook_set books = calibrate(a);
  TERSOR_CHECK(write_file(flags.destination, books.to_json(), flags.force));
  return calibration_summary{.destination = flags.destination,
                             .n_tensors = books.by_name.size(),
                             .n_types = books.by_type.size(),
                             .n_dtypes = books.by_dtype.size()};
}

int run(const calibrate_flags& flags) {
  const auto summary = calibrate_now(flags);
  if (!summary) return report_error(summary.error(), flags.common.json);
  if (flags.common.json) return print(json_of(*summary));
  if (flags.common.quiet) return kExitOk;
  return print(fmt::format("{}: codebooks for {} tensors, {} tensor types, {} dtypes\n",
                           printable(summary->destination), summary->n_tensors, summary->n_types,
                           summary->n_dtypes));
}

}  // namespace

void add_calibrate(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<calibrate_flags>();
  CLI::App* verb = program.add_subcommand("calibrate", "make shared codebooks from sample files");
  verb->add_option("SRC", flags->sources, "files or model directories, compressed or not")
      ->required()
      ->type_name("");
  verb->add_option("-o,--output", flags->destination, "the codebook file")->required()->type_name("FILE");
  verb->add_flag("-f,--force", flags->force, "replace an existing codebook file");
  add_filter_flags(*verb, flags->common);
  add_threads_flag(*verb, flags->common);
  add_read_flags(*verb, flags->common);
  add_output_flags(*verb, flags->common);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
