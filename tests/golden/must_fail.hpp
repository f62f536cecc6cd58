// Frames that every decoder must refuse, each with the code it must give.
#pragma once

#include <string>
#include <vector>

#include "frame_edit.hpp"

namespace golden {

struct bad_frame {
  std::string name;
  tersor::errc code = tersor::errc::ok;
  bytes data;
};

std::vector<bad_frame> must_fail(const tersor::context& ctx);

}  // namespace golden
