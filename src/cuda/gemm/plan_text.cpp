// Plans as text.
#include <algorithm>
#include <charconv>

#include <tersor/gemm.hpp>

namespace tersor::cuda {
namespace {

struct kernel_name {
  gemm_kernel kernel;
  std::string_view name;
};
constexpr kernel_name kKernels[] = {
    {gemm_kernel::automatic, "automatic"}, {gemm_kernel::warp_mma, "warp_mma"},
    {gemm_kernel::bulk_mma, "bulk_mma"},   {gemm_kernel::wgmma, "wgmma"},
    {gemm_kernel::tcatbe, "tcatbe"},       {gemm_kernel::library, "library"}};

struct plan_field {
  std::string_view name;
  std::uint32_t gemm_plan::*member;
};
constexpr plan_field kFields[] = {{"n_tile", &gemm_plan::n_tile},
                                  {"row_blocks", &gemm_plan::row_blocks},
                                  {"ctas", &gemm_plan::ctas},
                                  {"split_k", &gemm_plan::split_k}};

/// Takes the next word off the front; empty at the end.
std::string_view next_word(std::string_view& text) noexcept {
  const std::size_t begin = std::min(text.find_first_not_of(' '), text.size());
  const std::size_t end = std::min(text.find(' ', begin), text.size());
  const std::string_view word = text.substr(begin, end - begin);
  text.remove_prefix(end);
  return word;
}

std::optional<std::uint32_t> parse_number(std::string_view text) noexcept {
  std::uint32_t value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return value;
}

}  // namespace

std::string to_string(const gemm_plan& plan) {
  const auto* const kernel = std::find_if(std::begin(kKernels), std::end(kKernels),
                                          [&](const auto& k) { return k.kernel == plan.kernel; });
  std::string text(kernel == std::end(kKernels) ? "unknown" : kernel->name);
  for (const plan_field& field : kFields) {
    text += ' ';
    text += field.name;
    text += '=' + std::to_string(plan.*field.member);
  }
  return text;
}

std::optional<gemm_plan> parse_gemm_plan(std::string_view text) {
  const std::string_view name = next_word(text);
  const auto* const kernel =
      std::find_if(std::begin(kKernels), std::end(kKernels), [&](const auto& k) { return k.name == name; });
  if (kernel == std::end(kKernels)) return std::nullopt;
  gemm_plan plan{.kernel = kernel->kernel};
  bool seen[std::size(kFields)] = {};
  for (std::string_view word = next_word(text); !word.empty(); word = next_word(text)) {
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const auto* const field = std::find_if(std::begin(kFields), std::end(kFields),
                                           [&](const auto& f) { return f.name == word.substr(0, equals); });
    if (field == std::end(kFields) || std::exchange(seen[field - std::begin(kFields)], true))
      return std::nullopt;
    const auto value = parse_number(word.substr(equals + 1));
    if (!value) return std::nullopt;
    plan.*field->member = *value;
  }
  if (plan.split_k == 0) return std::nullopt;
  return plan;
}

}  // namespace tersor::cuda
