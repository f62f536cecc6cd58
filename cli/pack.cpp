#include <charconv>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "json.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "transform.hpp"

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor pack llama-8b/ -o llama-8b-packed/      matrices that a GPU multiplies from as they are\n"
    "  tersor pack model.safetensors --others rank    the other tensors coded, and not only copied\n"
    "  tersor pack model.safetensors --exclude '*embed*' --exclude lm_head.weight\n"
    "  tersor decompress llama-8b-packed/ -o back/    the original files again";

struct pack_flags {
  transform_flags transform;
  std::string layout = "packed";
  std::string inline_escapes = "auto";
  std::string others = "raw";
};

std::string check_layout(const std::string& name) {
  return parse_matrix_layout(name) ? ""
                                   : fmt::format("unknown layout '{}'; packed and tcatbe are known", name);
}

std::string check_others(const std::string& name) {
  return parse_codec(name) ? "" : fmt::format("unknown codec '{}'; rank, top16 and raw are known", name);
}

/// 0, the library's choice, for "auto"; nothing if it is not allowed.
std::optional<std::uint32_t> parse_inline_escapes(const std::string& text) {
  if (text == "auto") return 0;
  std::uint32_t n = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (n == 0 || pack_bound(dtype::bf16, 1, 1, {.inline_escapes = n}) == 0) return std::nullopt;
  return n;
}

std::string check_inline_escapes(const std::string& text) {
  return parse_inline_escapes(text) ? ""
                                    : fmt::format("'{}' is not auto or a multiple of 8 up to 1024", text);
}

std::string summary(const job& what, const model_report& report) {
  std::uint64_t packed = 0;
  for (const auto& file : report.files) {
    for (const auto& t : file.tensors) packed += t.layout ? 1U : 0U;
  }
  const double share = report.original_bytes == 0 ? 100.0
                                                  : 100.0 * static_cast<double>(report.stored_bytes) /
                                                        static_cast<double>(report.original_bytes);
  return fmt::format("{}: {:.2f}% ({} -> {}, {} of {} tensors packed, {:.2f} s){} {} {}\n",
                     printable(what.source), share, human_bytes(report.original_bytes),
                     human_bytes(report.stored_bytes), packed, report.n_tensors, report.seconds,
                     what.verified ? ", verified," : "", what.dry_run ? "would write" : "->",
                     printable(*what.destination));
}

result<model_report> pack_now(const pack_flags& flags, job& what) {
  const transform_flags& t = flags.transform;
  const auto destination = destination_of(t, default_compressed_path);
  model_options options = transform_options(t);
  options.packing = pack_options{.layout = *parse_matrix_layout(flags.layout),
                                 .inline_escapes = *parse_inline_escapes(flags.inline_escapes)};
  options.codec = *parse_codec(flags.others);
  TERSOR_TRY(const context ctx, context::create(t.common.threads));
  what = {.command = "pack",
          .source = t.source,
          .destination = destination.string(),
          .codec = flags.others,
          .layout = flags.layout,
          .threads = ctx.threads(),
          .backend = std::string(ctx.backend()),
          .dry_run = t.dry_run,
          .verified = options.verify};
  progress_line line("pack", t.common.quiet);
  options.on_progress = line.callback();
  return compress(ctx, t.source, destination, options);
}

int run(const pack_flags& flags) {
  const common_flags& common = flags.transform.common;
  job what;
  const auto report = pack_now(flags, what);
  if (!report) return report_error(report.error(), common.json);
  warn_unmatched(common, tensor_names(*report));
  if (common.json) return print(json_of(what, *report));
  if (common.quiet) return kExitOk;
  return print((common.verbose ? file_table(*report, true) : "") + summary(what, *report));
}

}  // namespace

void add_pack(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<pack_flags>();
  CLI::App* verb = program.add_subcommand(
      "pack", "put weight matrices in the layout that a GPU multiplies from, without loss");
  add_transform_flags(*verb, flags->transform);
  verb->add_option("--layout", flags->layout, "packed (BF16, FP16) or tcatbe (BF16); default: packed")
      ->type_name("NAME")
      ->check(check_layout);
  verb->add_option("--inline-escapes", flags->inline_escapes,
                   "layout packed: places for rare exponents in a block of 2,048 values, a multiple of 8; "
                   "default: auto")
      ->type_name("N")
      ->check(check_inline_escapes);
  verb->add_option("--others", flags->others,
                   "codec of the tensors that are not packed: raw (kept as they are), rank or top16; "
                   "default: raw")
      ->type_name("NAME")
      ->check(check_others);
  add_filter_flags(*verb, flags->transform.common);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
