// The member that Tersor adds to config.json (spec/container.md "Model directories").
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <tersor/codec.hpp>

namespace tersor::model_detail {

inline constexpr std::string_view kConfigName = "config.json";

/// The text with Tersor's `quantization_config`; nothing if it is not a JSON object.
[[nodiscard]] result<std::optional<std::string>> splice_config(const context& ctx, std::string_view text);

/// The inverse; nothing if the text is not a JSON object, so that splice_config left it alone. malformed or
/// digest_mismatch if the text is not what splice_config writes.
[[nodiscard]] result<std::optional<std::string>> restore_config(const context& ctx, std::string_view text);

}  // namespace tersor::model_detail
