#include "bench_gpu.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "json.hpp"
#include "output.hpp"
#include "pareto_svg.hpp"
#include "progress.hpp"
#include "run_info.hpp"
#include "text_file.hpp"
#include <tersor/program.hpp>

namespace tersor::cli {
namespace {

std::string speed(std::optional<double> gb_s) {
  return gb_s ? fmt::format("{:.1f}", *gb_s) : "-";
}

std::string share(std::optional<double> part) {
  return part ? fmt::format("{:.3f}", *part) : "-";
}

std::string rows_text(const bench::gpu_bench_report& report) {
  std::vector<std::vector<std::string>> rows = {{"codec", "dtype", "data", "bytes", "ratio", "coverage",
                                                 "encode GB/s", "roofline", "canonical", "decode GB/s",
                                                 "roofline", "codebook"}};
  for (const auto& row : report.rows) {
    rows.push_back({printable(row.codec), printable(row.type), printable(row.data), human_bytes(row.n_bytes),
                    fmt::format("{:.3f}", row.ratio),
                    row.coverage ? fmt::format("{:.5f}", *row.coverage) : "-", speed(row.encode_gb_s),
                    share(row.encode_roofline), speed(row.encode_canonical_gb_s), speed(row.decode_gb_s),
                    share(row.decode_roofline), speed(row.codebook_gb_s)});
  }
  return table(rows, 3);
}

std::string latency_text(const bench::gpu_bench_report& report) {
  std::vector<std::vector<std::string>> rows = {
      {"codec", "bytes", "encode us", "in a graph", "decode us", "in a graph"}};
  const auto us = [](double value) { return fmt::format("{:.2f}", value); };
  for (const auto& row : report.latency) {
    rows.push_back({row.codec, human_bytes(row.n_bytes), us(row.encode_us), us(row.encode_graph_us),
                    us(row.decode_us), us(row.decode_graph_us)});
  }
  return table(rows, 1);
}

std::string pages_text(const bench::gpu_bench_report& report) {
  std::vector<std::vector<std::string>> rows = {{"codec", "layout", "frames", "data", "bytes", "ratio",
                                                 "encode GB/s", "of contiguous", "decode GB/s",
                                                 "of contiguous"}};
  for (const auto& row : report.pages) {
    rows.push_back({row.codec, row.layout, row.kind, printable(row.data), human_bytes(row.n_bytes),
                    fmt::format("{:.3f}", row.ratio), speed(row.encode_gb_s), share(row.encode_of_contiguous),
                    speed(row.decode_gb_s), share(row.decode_of_contiguous)});
  }
  return table(rows, 4);
}

std::string text_of(const bench::gpu_bench_report& report) {
  std::string text = fmt::format(
      "{}, driver {}; a copy moves {:.1f} GB/s, bytes read and written (engine {:.1f}, kernel {:.1f})\n\n",
      printable(report.device), printable(report.driver), report.copy_gb_s, report.copy_engine_gb_s,
      report.copy_kernel_gb_s);
  text += rows_text(report) + "\n" + latency_text(report);
  if (!report.pages.empty()) text += "\n" + pages_text(report);
  return text + "\nEvery measured call gave its input back bit for bit.\n";
}

result<bench::gpu_bench_options> options_of(const gpu_flags& flags, const common_flags& common) {
  bench::gpu_bench_options options = flags.options;
  options.threads = common.threads;
  if (!flags.codecs.empty()) options.codecs.clear();
  for (const auto& name : flags.codecs) {
    const auto which = parse_codec(name);
    if (!which || *which == codec::raw) {
      return fail(errc::invalid_argument, fmt::format("no codec '{}' on a GPU (rank, top16)", name));
    }
    options.codecs.push_back(*which);
  }
  if (!flags.dtypes.empty()) options.dtypes.clear();
  for (const auto& name : flags.dtypes) {
    const auto type = bench::parse_short_name(name);
    if (!type) {
      return fail(errc::invalid_argument, fmt::format("no dtype '{}' (bf16, f16, e4m3, e5m2)", name));
    }
    options.dtypes.push_back(*type);
  }
  return options;
}

result<bench::gpu_bench_report> measure(const gpu_flags& flags, const common_flags& common) {
  TERSOR_TRY(auto options, options_of(flags, common));
  // Before the minutes of measuring, so that a bad file costs none of them.
  std::vector<bench::gpu_row> peers;
  if (!flags.peer_json.empty()) {
    TERSOR_TRY(const std::string text, read_text(flags.peer_json));
    TERSOR_TRY(peers, peer_rows_of(text));
  }
  progress_line line("bench", common.quiet);
  options.on_step = [&](const std::string& text) { line.show("bench: " + printable(text)); };
  TERSOR_TRY(auto report, bench::run_gpu_bench(options));
  report.rows.insert(report.rows.end(), peers.begin(), peers.end());
  return report;
}

/// FILE.svg beside FILE.json.
std::filesystem::path plot_path(const gpu_flags& flags) {
  if (!flags.plot.empty()) return flags.plot;
  return std::filesystem::path(flags.output).replace_extension(".svg");
}

status write_files(const gpu_flags& flags, const bench::gpu_bench_report& report, const std::string& json) {
  if (!flags.output.empty()) TERSOR_CHECK(write_file(flags.output, json, true));
  if (flags.output.empty() && flags.plot.empty()) return {};
  const std::string machine = fmt::format("{}, driver {}, commit {}, {}", report.device, report.driver,
                                          flags.commit, now_text().substr(0, 10));
  return write_file(plot_path(flags), bench::pareto_svg(report.rows, machine), true);
}

}  // namespace

std::optional<int> parse_cuda_device(std::string_view name) {
  if (name == "cuda") return 0;
  constexpr std::string_view kPrefix = "cuda:";
  if (name.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  int index = -1;
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, index);
  if (parsed.ec != std::errc() || parsed.ptr != end || index < 0) return std::nullopt;
  return index;
}

int run_gpu_bench(const gpu_flags& flags, const common_flags& common) {
  const auto report = measure(flags, common);
  if (!report) return report_error(report.error(), common.json);
  const std::string json =
      json_of(*report, {.commit = flags.commit, .command = command_line(), .date = now_text()});
  const auto written = write_files(flags, *report, json);
  const int printed = print(common.json ? json : text_of(*report));
  // After the figures, which took minutes and should not be lost with a full disk.
  if (!written) return report_error(written.error(), false);
  return printed;
}

}  // namespace tersor::cli
