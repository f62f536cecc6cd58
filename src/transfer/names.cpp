// Names of the transfer room's enumerations.
#include <tersor/transfer.hpp>

namespace tersor::transfer {

std::string_view to_string(part_kind kind) noexcept {
  switch (kind) {
    case part_kind::key:
      return "K";
    case part_kind::value:
      return "V";
    case part_kind::other:
      break;
  }
  return "other";
}

std::string_view to_string(coding c) noexcept {
  switch (c) {
    case coding::raw:
      return "raw";
    case coding::top16:
      return "top16";
    case coding::rank:
      return "rank";
    case coding::automatic:
      break;
  }
  return "auto";
}

std::optional<coding> parse_coding(std::string_view name) noexcept {
  for (const coding c : {coding::automatic, coding::raw, coding::top16, coding::rank}) {
    if (to_string(c) == name) return c;
  }
  return std::nullopt;
}

}  // namespace tersor::transfer
