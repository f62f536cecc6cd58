#include "words.hpp"

#include <cstdio>
#include <cstring>

namespace simt {
namespace {

std::string name_of(const warp& w) {
  return "cta " + std::to_string(w.group->index) + " warp " + std::to_string(w.index);
}

}  // namespace

std::string hex(std::uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string place(const char* call, site where) {
  std::string out = call;
  if (where.line != 0) {
    out += (out.empty() ? "at " : " at ") + std::string(where.file) + ":" + std::to_string(where.line);
  }
  return out;
}

std::string name_of(const lane& l) {
  return name_of(*l.group) + " lane " + std::to_string(l.index);
}

std::string standing_of(const warp& w) {
  std::string out;
  for (std::uint32_t todo = ~w.ended; todo != 0;) {
    const lane* first = nullptr;
    std::uint32_t together = 0;
    for (const lane& l : w.lanes) {
      const bool is_open = (todo & l.bit()) != 0;
      if (is_open && first == nullptr) {
        first = &l;
      }
      if (is_open && std::strcmp(l.call, first->call) == 0 && l.where == first->where) {
        together |= l.bit();
      }
    }
    todo &= ~together;
    out += "\n  " + name_of(w) + " lanes " + hex(together) + " in " + place(first->call, first->where);
  }
  return out;
}

}  // namespace simt
