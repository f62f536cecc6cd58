#include <algorithm>
#include <map>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "json.hpp"
#include "output.hpp"

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor inspect model.tersor.safetensors      every tensor, every tensor type, the total\n"
    "  tersor inspect small/ --include '*.mlp.*'    only tensors of this name\n"
    "  tersor inspect small/ --json | jq .tensor_types    as JSON";

struct inspect_flags {
  common_flags common;
  std::string source;
};

bool is_asked(const common_flags& flags, const std::string& name) {
  const auto matches = [&](const std::string& pattern) { return glob_match(pattern, name); };
  if (std::any_of(flags.exclude.begin(), flags.exclude.end(), matches)) return false;
  return flags.include.empty() || std::any_of(flags.include.begin(), flags.include.end(), matches);
}

template <class T>
void add_once(std::vector<T>& list, const T& item) {
  if (std::find(list.begin(), list.end(), item) == list.end()) list.push_back(item);
}

std::vector<type_summary> summarize(const model_report& report) {
  std::map<std::pair<std::string, std::string>, type_summary> types;
  for (const auto& file : report.files) {
    for (const auto& t : file.tensors) {
      type_summary& sum = types[{tensor_type(t.name), t.dtype}];
      sum.type = tensor_type(t.name);
      sum.dtype = t.dtype;
      add_once(sum.shapes, t.shape);
      add_once(sum.codecs, std::string(t.coding()));
      ++sum.n_tensors;
      sum.n_values += t.n_values;
      sum.original_bytes += t.original_bytes;
      sum.stored_bytes += t.stored_bytes;
      sum.n_escape_tiles += t.n_escape_tiles;
      sum.n_raw_tiles += t.n_raw_tiles;
    }
  }
  std::vector<type_summary> list;
  list.reserve(types.size());
  for (auto& [key, sum] : types) list.push_back(std::move(sum));
  return list;
}

std::string bits_text(std::uint64_t bytes, std::uint64_t n_values) {
  return n_values == 0
             ? "-"
             : fmt::format("{:.3f}", static_cast<double>(bytes) * 8 / static_cast<double>(n_values));
}

std::vector<std::string> numbers(std::uint64_t n_values, std::uint64_t original, std::uint64_t stored,
                                 std::uint64_t escapes, std::uint64_t raw) {
  return {human_bytes(original),       human_bytes(stored),
          bits_text(stored, n_values), fmt::format("{:.3f}", ratio_of(original, stored)),
          std::to_string(escapes),     std::to_string(raw)};
}

std::vector<std::string> joined(std::vector<std::string> left, const std::vector<std::string>& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

std::string tensor_table(const model_report& report) {
  std::vector<std::vector<std::string>> rows = {{"tensor", "dtype", "shape", "codec", "original", "stored",
                                                 "bits/value", "ratio", "escape tiles", "raw tiles"}};
  type_summary all;
  for (const auto& file : report.files) {
    for (const auto& t : file.tensors) {
      rows.push_back(
          joined({printable(t.name), printable(t.dtype), shape_text(t.shape), std::string(t.coding())},
                 numbers(t.n_values, t.original_bytes, t.stored_bytes, t.n_escape_tiles, t.n_raw_tiles)));
      all.n_values += t.n_values;
      all.original_bytes += t.original_bytes;
      all.stored_bytes += t.stored_bytes;
      all.n_escape_tiles += t.n_escape_tiles;
      all.n_raw_tiles += t.n_raw_tiles;
    }
  }
  rows.push_back(joined(
      {"all tensors", "", "", ""},
      numbers(all.n_values, all.original_bytes, all.stored_bytes, all.n_escape_tiles, all.n_raw_tiles)));
  return table(rows, 4);
}

std::string type_table(const std::vector<type_summary>& types) {
  std::vector<std::vector<std::string>> rows = {{"tensor type", "dtype", "shape", "codec", "tensors",
                                                 "original", "stored", "bits/value", "ratio", "escape tiles",
                                                 "raw tiles"}};
  for (const auto& t : types) {
    rows.push_back(joined(
        {printable(t.type), printable(t.dtype), t.shapes.size() == 1 ? shape_text(t.shapes[0]) : "various",
         fmt::format("{}", fmt::join(t.codecs, "+")), std::to_string(t.n_tensors)},
        numbers(t.n_values, t.original_bytes, t.stored_bytes, t.n_escape_tiles, t.n_raw_tiles)));
  }
  return table(rows, 4);
}

int run(const inspect_flags& flags) {
  auto report = inspect_model(flags.source, {.read = options_from(flags.common).read});
  if (!report) return report_error(report.error(), flags.common.json);
  warn_unmatched(flags.common, tensor_names(*report));
  for (auto& file : report->files) {
    std::erase_if(file.tensors, [&](const tensor_report& t) { return !is_asked(flags.common, t.name); });
  }
  const auto types = summarize(*report);
  if (flags.common.json)
    return print(json_of({.command = "inspect", .source = flags.source}, *report, types));
  std::string text = tensor_table(*report) + "\n" + type_table(types) + "\n";
  for (const auto& file : report->files) {
    text += fmt::format("{}: {}, {} -> {}, ratio {:.3f}\n", printable(file.name),
                        !file.is_safetensors ? "copied"
                        : file.is_compressed ? "compressed"
                                             : "not compressed",
                        human_bytes(file.original_bytes), human_bytes(file.stored_bytes),
                        ratio_of(file.original_bytes, file.stored_bytes));
  }
  text +=
      fmt::format("total: {} -> {}, ratio {:.3f}\n", human_bytes(report->original_bytes),
                  human_bytes(report->stored_bytes), ratio_of(report->original_bytes, report->stored_bytes));
  return print(text);
}

}  // namespace

void add_inspect(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<inspect_flags>();
  CLI::App* verb =
      program.add_subcommand("inspect", "list tensors: dtype, shape, codec, bits per value, ratio, escapes");
  verb->add_option("SRC", flags->source, "a file or model directory, compressed or not")
      ->required()
      ->type_name("");
  add_filter_flags(*verb, flags->common);
  add_read_flags(*verb, flags->common);
  add_output_flags(*verb, flags->common);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
