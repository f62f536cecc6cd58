// Products with packed weights and with cuBLASLt, on the slots of one matrix.
#include <algorithm>

#include "gemm_env.hpp"

namespace tersor::bench {
namespace {

constexpr int kAlgorithms = 16;
constexpr unsigned kQuickRepeats = 3;
constexpr std::size_t kFinalists = 3;

cuda::library_product product_of(const gemm_env& env, const gemm_matrix& matrix, const gemm_tokens& tokens,
                                 std::uint64_t slot) {
  return {.type = env.options.type,
          .rows = matrix.size().rows,
          .cols = matrix.size().cols,
          .n = tokens.n(),
          .w_dev = matrix.plain(slot),
          .x_dev = tokens.x(slot),
          .y_dev = tokens.y(slot)};
}

struct timed_choice {
  cuda::library_choice choice;
  double us = 0;
};

}  // namespace

result<device_buffer> workspace_for(const gemm_env& env, const gemm_matrix& matrix, std::uint64_t n,
                                    const cuda::gemm_plan& plan) {
  const cuda::gemm_shape shape = {.layout = matrix.info().layout,
                                  .type = env.options.type,
                                  .rows = matrix.size().rows,
                                  .cols = matrix.size().cols,
                                  .n = n};
  return device_buffer::allocate(cuda::gemm_workspace_size(shape, plan, env.planner));
}

status enqueue_product(const gemm_env& env, const gemm_matrix& matrix, const gemm_tokens& tokens,
                       const gemm_try& how, const device_buffer& ws, std::uint64_t slot) {
  const cuda::gemm_options options = {.overlap_previous = how.pdl, .plan = how.plan};
  return cuda::gemm_async(matrix.packed(slot), tokens.x(slot), 0, tokens.y(slot), 0, tokens.n(), options,
                          {ws.data(), ws.size()}, env.get());
}

result<gemm_error> check_product(const gemm_env& env, const gemm_matrix& matrix, const gemm_tokens& tokens,
                                 const gemm_try& how, const device_buffer& ws) {
  TERSOR_CHECK(tokens.poison());
  TERSOR_CHECK(enqueue_product(env, matrix, tokens, how, ws, 0));
  return tokens.error_of_first(env);
}

timing_plan timing_for(const gemm_env& env, const gemm_matrix& matrix, std::uint64_t n, unsigned repeats) {
  // Enough calls that the start of a graph does not count; few where one call takes long.
  const double values = static_cast<double>(matrix.size().rows) * static_cast<double>(matrix.size().cols);
  const double guess_us = values * std::max(2.0 / 4e6, 2.0 * static_cast<double>(n) / 600e6);
  constexpr double kRoundUs = 3000;
  const auto rounds =
      static_cast<std::uint64_t>(kRoundUs / (guess_us * static_cast<double>(matrix.n_slots())));
  const std::uint64_t calls = matrix.n_slots() * std::clamp<std::uint64_t>(rounds, 1, 8);
  return {.warmup = static_cast<unsigned>(matrix.n_slots()),
          .iters = static_cast<unsigned>(calls),
          .repeats = repeats,
          .graph = env.options.graph};
}

result<std::optional<library_time>> measure_library(const gemm_env& env, const gemm_matrix& matrix,
                                                    const gemm_tokens& tokens) {
  if (env.library == nullptr) return std::nullopt;
  const auto call = [&](const cuda::library_choice& choice) {
    return [&env, &matrix, &tokens, &choice](std::uint64_t slot) {
      return launched(
          env.library->multiply(product_of(env, matrix, tokens, slot), choice, env.library_workspace.data(),
                                env.library_workspace.size(), env.get()),
          "cuBLASLt");
    };
  };
  const auto time = [&](const cuda::library_choice& choice, unsigned repeats) {
    return device_us(env.stream, timing_for(env, matrix, tokens.n(), repeats), matrix.n_slots(),
                     call(choice));
  };
  std::vector<timed_choice> timed;
  for (const cuda::library_choice& choice :
       env.library->choices(product_of(env, matrix, tokens, 0), env.library_workspace.size(), kAlgorithms)) {
    // An algorithm that refuses is none.
    if (const auto us = time(choice, kQuickRepeats)) timed.push_back({choice, *us});
    (void)cudaGetLastError();
  }
  if (timed.empty()) return std::nullopt;
  const auto faster = [](const timed_choice& a, const timed_choice& b) { return a.us < b.us; };
  std::sort(timed.begin(), timed.end(), faster);
  timed.resize(std::min(timed.size(), kFinalists));
  for (timed_choice& finalist : timed) {
    TERSOR_TRY(finalist.us, time(finalist.choice, env.options.repeats));
  }
  const timed_choice best = *std::min_element(timed.begin(), timed.end(), faster);
  TERSOR_CHECK(tokens.poison());
  TERSOR_CHECK(call(best.choice)(0));
  TERSOR_TRY(const gemm_error error, tokens.error_of_first(env));
  return library_time{best.us, error};
}

}  // namespace tersor::bench
