#include "link_rig.hpp"

#include <algorithm>

namespace gpu_test {

link_case link_case::make(tersor::codec c, tersor::dtype type, std::uint64_t seed, std::uint64_t n_regions,
                          std::uint64_t largest, int source_device, int target_device) {
  link_case one;
  one.codec = c;
  one.type = type;
  one.target_device_ = target_device;
  prng random(seed);
  const std::uint64_t width = tersor::value_bytes(type);
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t i = 0; i < n_regions; ++i) {
    const std::uint64_t n = i == 0 ? largest : random.below(7) == 0 ? 0 : 1 + random.below(largest);
    sizes.push_back(n);
    // Any multiple of the value's width is a place; every other one is aligned.
    one.at_.push_back(one.n_bytes_ + (i % 2 == 0 ? 0 : width * random.below(16)));
    one.n_bytes_ = (one.at_.back() + n * width + kGuardBytes + 255) / 256 * 256;
    one.n_values += n;
    one.data.push_back(make_data(type, n, kKinds[(seed + i) % kKinds.size()], seed + i));
  }
  {
    const current_device there(target_device);
    one.target.grow(one.n_bytes_);
  }
  const current_device here(source_device);
  one.source.grow(one.n_bytes_);
  for (std::uint64_t i = 0; i < n_regions; ++i) {
    one.source.put(one.at_[i], one.data[i]);
    one.regions.push_back({.src = one.source.get() + one.at_[i],
                           .dst = one.target.get() + one.at_[i],
                           .n_values = sizes[i],
                           .book = cpu_book(type, one.data[i])});
  }
  return one;
}

void link_case::poison() const {
  const current_device there(target_device_);
  must(cudaMemset(target.get(), kGuard, n_bytes_), "cudaMemset");
  for (std::size_t i = 0; i < data.size(); ++i) {
    if (!data[i].empty()) must(cudaMemset(target.get() + at_[i], kPoison, data[i].size()), "cudaMemset");
  }
  must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

bool link_case::expect_arrived(section& s, std::string_view where) const {
  const current_device there(target_device_);
  bytes want(n_bytes_, std::byte{kGuard});
  for (std::size_t i = 0; i < data.size(); ++i)
    std::ranges::copy(data[i], want.begin() + static_cast<std::ptrdiff_t>(at_[i]));
  s.add_values(n_values);
  return s.check(target.take(0, n_bytes_) == want, "other bytes than were sent", where);
}

std::string link_case::label() const {
  return gpu_test::label(codec, type, n_values, std::to_string(regions.size()) + " regions");
}

}  // namespace gpu_test
