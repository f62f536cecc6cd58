// Runs every target on its corpus, and on changed copies of it: `fuzz_replay CORPUS [CHANGES PER FILE]
// [TARGET]`. The fuzzing itself needs clang (scripts/fuzz.sh); this keeps the targets alive in every build.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "../faults/support.hpp"
#include "fuzz_target.hpp"

namespace fuzz {
namespace {

using targets = std::map<std::string, target_fn, std::less<>>;

targets& all_targets() {
  static targets all;
  return all;
}

std::vector<std::uint8_t> read(const std::filesystem::path& path) {
  const auto data = faults::read_file(path);
  const auto* p = reinterpret_cast<const std::uint8_t*>(data.data());
  return {p, p + data.size()};
}

class changer {
 public:
  std::vector<std::uint8_t> change(std::vector<std::uint8_t> data) {
    for (std::uint64_t n = next() % 6 + 1; n > 0; --n) {
      if (data.empty()) data.push_back(0);
      const std::size_t at =
          next() % 2 == 0 ? next() % data.size() : next() % std::min<std::size_t>(data.size(), 160);
      const auto place = data.begin() + static_cast<std::ptrdiff_t>(at);
      switch (next() % 6) {
        case 0:
          data.erase(place);
          break;
        case 1:
          data.insert(place, static_cast<std::uint8_t>(next()));
          break;
        case 2:
          data.resize(at);
          break;
        case 3:
          *place = static_cast<std::uint8_t>(next());
          break;
        default:
          *place = static_cast<std::uint8_t>(*place ^ (1U << next() % 8));
          break;
      }
    }
    return data;
  }

 private:
  std::uint64_t next() { return state_ = state_ * 6364136223846793005U + 1442695040888963407U, state_ >> 33; }
  std::uint64_t state_ = 7;
};

std::uint64_t replay(target_fn run, const std::filesystem::path& corpus, unsigned changes) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(corpus)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::uint64_t executions = 1;
  run({});
  changer random;
  for (const auto& file : files) {
    const auto good = read(file);
    run(good);
    for (unsigned i = 0; i < changes; ++i) run(random.change(good));
    executions += changes + 1;
  }
  return executions;
}

}  // namespace

bool add_target(std::string_view name, target_fn run) {
  return all_targets().emplace(name, run).second;
}

}  // namespace fuzz

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: fuzz_replay CORPUS [CHANGES PER FILE] [TARGET]\n";
    return 2;
  }
  const unsigned changes = argc > 2 ? static_cast<unsigned>(std::stoul(argv[2])) : 0;
  for (const auto& [name, run] : fuzz::all_targets()) {
    if (argc > 3 && name != argv[3]) continue;
    const auto corpus = std::filesystem::path(argv[1]) / name;
    if (!std::filesystem::is_directory(corpus)) {
      std::cerr << "no corpus for " << name << '\n';
      return 1;
    }
    std::cout << name << ": " << fuzz::replay(run, corpus, changes) << " executions" << std::endl;
  }
  return 0;
}
