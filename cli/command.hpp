// What every verb shares: how it is added to the program, its exit codes and its common flags.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <tersor/model.hpp>

namespace CLI {
class App;
}

namespace tersor::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitDataWrong = 1;
inline constexpr int kExitCouldNot = 2;

/// Set by the verb that the command line names; main runs it after the whole line was understood.
using action = std::function<int()>;

void add_compress(CLI::App& program, action& chosen);
void add_decompress(CLI::App& program, action& chosen);
void add_pack(CLI::App& program, action& chosen);
void add_verify(CLI::App& program, action& chosen);
void add_inspect(CLI::App& program, action& chosen);
void add_analyze(CLI::App& program, action& chosen);
void add_calibrate(CLI::App& program, action& chosen);
void add_bench(CLI::App& program, action& chosen);
void add_bench_gemm(CLI::App& bench, action& chosen);
void add_kv_send(CLI::App& program, action& chosen);
void add_kv_recv(CLI::App& program, action& chosen);
void add_tune(CLI::App& program, action& chosen);
void add_doctor(CLI::App& program, action& chosen);

struct common_flags {
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  bool no_mmap = false;
  unsigned threads = 0;
  std::vector<std::string> include = {};
  std::vector<std::string> exclude = {};
};

void add_output_flags(CLI::App& verb, common_flags& flags);  ///< --json -q -v
void add_threads_flag(CLI::App& verb, common_flags& flags);  ///< -T
void add_read_flags(CLI::App& verb, common_flags& flags);    ///< --no-mmap
void add_filter_flags(CLI::App& verb, common_flags& flags);  ///< --include --exclude

/// The options that the common flags stand for, without progress.
[[nodiscard]] model_options options_from(const common_flags& flags);

/// Warns of patterns that match none of `names`, unless quiet.
void warn_unmatched(const common_flags& flags, const std::vector<std::string>& names);
[[nodiscard]] std::vector<std::string> tensor_names(const model_report& report);

}  // namespace tersor::cli
