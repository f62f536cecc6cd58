#include "gpu_bench.hpp"

#include <algorithm>
#include <new>

#include "gpu_env.hpp"

namespace tersor::bench {
namespace {

constexpr std::string_view kInput = "input";

status check_options(const gpu_bench_options& o) {
  if (o.rows == 0 || o.hidden_dim == 0 || o.rows > (std::uint64_t{1} << 40) / o.hidden_dim) {
    return fail(errc::invalid_argument,
                "rows and hidden-dim must be positive and together at most 2^40 values");
  }
  if (o.iters == 0 || o.repeats == 0)
    return fail(errc::invalid_argument, "iters and repeats must be positive");
  if (o.codecs.empty() || std::count(o.codecs.begin(), o.codecs.end(), codec::raw) != 0) {
    return fail(errc::invalid_argument, "on a GPU the codecs are rank and top16");
  }
  for (const std::string& name : o.data) {
    if (name == kInput) {
      if (!o.input) return fail(errc::invalid_argument, "data 'input' needs an input");
    } else if (!parse_synthetic(name)) {
      return fail(errc::invalid_argument,
                  "no data '" + name + "' (normal, lognormal-columns, row-scaled, input)");
    }
  }
  return {};
}

std::vector<std::string> data_of(const gpu_bench_options& o) {
  if (!o.data.empty()) return o.data;
  if (o.input) return {std::string(kInput)};
  return {"normal", "lognormal-columns", "row-scaled"};
}

status measure_workload(const gpu_env& env, const workload& work, gpu_bench_report& report) {
  for (const codec which : env.options.codecs) {
    TERSOR_TRY(gpu_row row, measure_row(env, which, work));
    report.rows.push_back(std::move(row));
  }
  return {};
}

result<workload> synthetic(const gpu_env& env, synthetic_kind kind, dtype type, std::uint64_t rows,
                           std::uint64_t columns) {
  env.step("making values");
  workload work = make_synthetic(env.pool, kind, type, rows, columns);
  const std::string names[] = {work.data};
  TERSOR_CHECK(
      calibrate_segments(env.cpu, env.options.calibration_input, type, names, work.bytes, work.segments));
  return work;
}

status measure_input(const gpu_env& env, const std::vector<bench_tensor>& tensors, gpu_bench_report& report) {
  const gpu_bench_options& o = env.options;
  TERSOR_TRY(workload work, make_from_input(*o.input, tensors, 2 * o.rows * o.hidden_dim));
  std::vector<std::string> names;
  for (const bench_tensor& tensor : tensors) names.push_back(tensor.name);
  TERSOR_CHECK(calibrate_segments(env.cpu, o.calibration_input, work.type, names, work.bytes, work.segments));
  return measure_workload(env, work, report);
}

status measure_data(const gpu_env& env, const std::vector<bench_tensor>& tensors, gpu_bench_report& report) {
  const gpu_bench_options& o = env.options;
  for (const std::string& name : data_of(o)) {
    if (name == kInput) {
      TERSOR_CHECK(measure_input(env, tensors, report));
      continue;
    }
    for (const dtype type : o.dtypes) {
      TERSOR_TRY(const workload work, synthetic(env, *parse_synthetic(name), type, o.rows, o.hidden_dim));
      TERSOR_CHECK(measure_workload(env, work, report));
    }
  }
  return {};
}

status measure_latencies(const gpu_env& env, gpu_bench_report& report) {
  constexpr std::uint64_t kColumns = 4096;
  for (const std::uint64_t mib : {2U, 8U, 32U, 128U}) {
    TERSOR_TRY(const workload work,
               synthetic(env, synthetic_kind::normal, dtype::bf16, (mib << 20) / (2 * kColumns), kColumns));
    for (const codec which : env.options.codecs) {
      env.step("latency of " + std::string(to_string(which)) + ", " + std::to_string(mib) + " MiB");
      TERSOR_TRY(gpu_latency_row row, measure_latency(env, which, work));
      report.latency.push_back(std::move(row));
    }
  }
  return {};
}

result<gpu_bench_report> run_checked(const gpu_bench_options& options) {
  TERSOR_CHECK(check_options(options));
  TERSOR_TRY(const auto devices, cuda::devices());
  const auto device = std::find_if(devices.begin(), devices.end(),
                                   [&](const cuda::device_info& d) { return d.index == options.device; });
  if (device == devices.end()) {
    return fail(errc::backend_unavailable,
                "no device cuda:" + std::to_string(options.device) + " that this build can use");
  }
  TERSOR_CHECK(cuda_ok(cudaSetDevice(options.device), "device"));
  std::vector<bench_tensor> tensors;
  std::string input_name;
  if (options.input) {
    TERSOR_TRY(tensors, load_bf16(*options.input));
    input_name = options.input->filename().string();
  }
  TERSOR_TRY(const context cpu, context::create(options.threads));
  core::thread_pool pool(cpu.threads());
  TERSOR_TRY(gpu_stream stream, gpu_stream::create());
  gpu_env env{.options = options, .cpu = cpu, .pool = pool, .device = *device, .stream = std::move(stream)};
  gpu_bench_report report;
  report.device = device->name;
  report.driver = device->driver;
  TERSOR_CHECK(measure_copy(env, report));
  TERSOR_CHECK(measure_data(env, tensors, report));
  TERSOR_CHECK(measure_latencies(env, report));
  if (options.pages) TERSOR_CHECK(measure_pages(env, tensors, input_name, report));
  return report;
}

}  // namespace

result<gpu_bench_report> run_gpu_bench(const gpu_bench_options& options) {
  try {
    return run_checked(options);
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  }
}

}  // namespace tersor::bench
