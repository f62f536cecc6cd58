#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "json.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "text_file.hpp"
#include "transform.hpp"

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor compress model.safetensors                write model.tersor.safetensors\n"
    "  tersor compress llama-8b/ -o small/ -T 8         a model directory, 8 threads\n"
    "  tersor compress model.safetensors --rm           keep only the compressed file, once it was verified\n"
    "  tersor compress kv.safetensors --codec top16     faster, and a little larger";

struct compress_flags {
  transform_flags transform;
  std::string codec = "rank";
  std::string codebook;
};

std::string check_codec(const std::string& name) {
  return parse_codec(name) ? "" : fmt::format("unknown codec '{}'; rank, top16 and raw are known", name);
}

std::string summary(const job& what, const model_report& report) {
  const double share = report.original_bytes == 0 ? 100.0
                                                  : 100.0 * static_cast<double>(report.stored_bytes) /
                                                        static_cast<double>(report.original_bytes);
  const double rate =
      report.seconds > 0 ? static_cast<double>(report.original_bytes) / report.seconds / 1e9 : 0;
  return fmt::format("{}: {:.2f}% ({} -> {}, ratio {:.3f}, {} tensors, {:.2f} s, {:.2f} GB/s){} {} {}\n",
                     printable(what.source), share, human_bytes(report.original_bytes),
                     human_bytes(report.stored_bytes), ratio_of(report.original_bytes, report.stored_bytes),
                     report.n_tensors, report.seconds, rate, what.verified ? ", verified," : "",
                     what.dry_run ? "would write" : "->", printable(*what.destination));
}

result<model_report> compress_now(const compress_flags& flags, job& what) {
  const transform_flags& t = flags.transform;
  const auto destination = destination_of(t, default_compressed_path);
  model_options options = transform_options(t);
  options.codec = *parse_codec(flags.codec);
  if (!flags.codebook.empty()) {
    TERSOR_TRY(options.books, read_codebooks(flags.codebook));
  }
  TERSOR_TRY(const context ctx, context::create(t.common.threads));
  what = {.command = "compress",
          .source = t.source,
          .destination = destination.string(),
          .codec = flags.codec,
          .threads = ctx.threads(),
          .backend = std::string(ctx.backend()),
          .dry_run = t.dry_run,
          .verified = options.verify};
  progress_line line("compress", t.common.quiet);
  options.on_progress = line.callback();
  return compress(ctx, t.source, destination, options);
}

int run(const compress_flags& flags) {
  const common_flags& common = flags.transform.common;
  job what;
  const auto report = compress_now(flags, what);
  if (!report) return report_error(report.error(), common.json);
  warn_unmatched(common, tensor_names(*report));
  if (common.json) return print(json_of(what, *report));
  if (common.quiet) return kExitOk;
  return print((common.verbose ? file_table(*report, true) : "") + summary(what, *report));
}

}  // namespace

void add_compress(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<compress_flags>();
  CLI::App* verb = program.add_subcommand("compress", "make a file or model directory smaller, without loss");
  add_transform_flags(*verb, flags->transform);
  verb->add_option("--codec", flags->codec, "rank (smallest), top16 (fastest) or raw; default: rank")
      ->type_name("NAME")
      ->check(check_codec);
  verb->add_option("--codebook", flags->codebook,
                   "codebooks made by 'tersor calibrate'; default: one per tensor")
      ->type_name("FILE");
  add_filter_flags(*verb, flags->transform.common);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
