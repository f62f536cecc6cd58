// Trial of the frame layout on a GPU: correctness against the reference encoder first, then timing, in one
// program.
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -o layout_trial layout_trial.cu frame.cpp
//   layout_trial [result.json [commit [date [driver]]]]
//   layout_trial --small      the checks alone on 19 tiles, for compute-sanitizer
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "data.cuh"
#include "harness.cuh"
#include "rank_decode.cuh"
#include "rank_encode.cuh"
#include "top16.cuh"

namespace {

using namespace trial;

struct variant {
  std::string name;
  std::function<void(const job&)> run;
};

template <class Codec, u32 kCtas, digest_kind kDigest>
variant encoder(const std::string& name) {
  return {name, [](const job& j) {
            constexpr auto kernel = encode_kernel<Codec, kCtas, kDigest>;
            const u32 grid = std::min(persistent_grid(kernel), j.view.chunks);
            kernel<<<grid, 256, 0, j.stream>>>(j.in, j.view, j.tables.of(Codec{}), j.tables.keys, j.state,
                                               j.header);
          }};
}

template <class Codec, u32 kCtas, digest_kind kDigest, decode_work kWork = decode_work::all>
variant decoder(const std::string& name) {
  return {name, [](const job& j) {
            constexpr auto kernel = decode_kernel<Codec, kCtas, kDigest, kWork>;
            const u32 grid = std::min(persistent_grid(kernel), j.view.chunks);
            kernel<<<grid, 256, 0, j.stream>>>(j.view, j.tables.of(Codec{}), j.tables.keys, j.out, j.status);
          }};
}

variant copy_variant() {
  return {"device copy", [](const job& j) { copy_four<<<j.view.chunks, 256, 0, j.stream>>>(j.in, j.out); }};
}

template <class Code>
variant encode_limit(bool persistent) {
  return {persistent ? "encode pattern, persistent" : "encode pattern, one CTA a chunk", [=](const job& j) {
            const u32 grid = persistent ? persistent_grid(encode_pattern<Code>) : j.view.chunks;
            encode_pattern<Code><<<std::min(grid, j.view.chunks), 256, 0, j.stream>>>(j.in, j.view);
          }};
}

struct codec_set {
  codec_id codec;
  variant encode, decode;  // with the digest of the specification
  std::vector<variant> encoders, decoders;
  std::vector<variant> encode_limits;  // the faster one counts
  variant decode_limit;
};

template <class Encoder, class Decoder, class Code, u32 kEncodeCtas>
codec_set make_set(codec_id codec) {
  using enum digest_kind;
  return {codec,
          encoder<Encoder, kEncodeCtas, spec>("encode, digest"),
          decoder<Decoder, 3, spec>("decode, digest"),
          {encoder<Encoder, kEncodeCtas, none>("encode, no digest"),
           encoder<Encoder, kEncodeCtas, spec>("encode, digest"),
           encoder<Encoder, kEncodeCtas, carry>("encode, digest with carries"),
           encoder<Encoder, kEncodeCtas, single>("encode, one sum only")},
          {decoder<Decoder, 3, none>("decode, no digest"), decoder<Decoder, 3, spec>("decode, digest"),
           decoder<Decoder, 3, carry>("decode, digest with carries"),
           decoder<Decoder, 3, single>("decode, one sum only")},
          {encode_limit<Code>(false), encode_limit<Code>(true)},
          decoder<Decoder, 4, none, decode_work::pattern_only>("decode pattern")};
}

/// Every data kind, byte for byte: kernels against the reference encoder, both ways. Returns the number of
/// failures.
int check(device& d, const codec_set& set, u64 values) {
  int failures = 0;
  for (data_kind kind : kAllData) {
    workspace w(d, set.codec, values);
    fill(w, kind, 1);
    const std::vector<u16> host = values_of(w);
    set.encode.run(w.job_of());
    const std::vector<u8> placed = frame_of(w), made = canonical_order(w.geometry_of(), w.codebook, placed);
    std::vector<u8> sealed = placed;
    finish_header(w.geometry_of(), read_tail_words(w), sealed.data());
    const std::vector<u8> reference = reference_encode(set.codec, w.codebook, host.data(), host.size());
    bool same = made == reference && placed == sealed;
    set.decode.run(decode_job(w));
    u64 wrong = differences(w), refused = chunks_not(w, 1);
    // The same frame from the CPU, and the same with one byte changed in every chunk.
    put_frame(w, reference);
    set.decode.run(decode_job(w));
    u64 wrong2 = differences(w), refused2 = chunks_not(w, 1);
    std::vector<u8> damaged = reference;
    const geometry g = w.geometry_of();
    for (u64 c = 0; c < g.chunks; ++c) damaged[g.rest + c * 8192 + 77 * (c % 8)] ^= 4;
    put_frame(w, damaged);
    set.decode.run(decode_job(w));
    u64 missed = chunks_not(w, 3);
    bool ok = same && wrong + wrong2 + refused + refused2 + missed == 0;
    failures += !ok;
    std::printf(
        "%-5s %-18s %9llu values: frame %s, decode %llu/%llu, reference frame %llu/%llu, damage missed %llu  "
        "%s\n",
        set.codec == codec_id::rank ? "rank" : "top16", name_of(kind), (unsigned long long)values,
        same ? "equal" : "DIFFERS", (unsigned long long)wrong, (unsigned long long)refused,
        (unsigned long long)wrong2, (unsigned long long)refused2, (unsigned long long)missed,
        ok ? "ok" : "FAIL");
    if (!same) report_difference(g, made, reference);
  }
  return failures;
}

void time_all(device& d, const codec_set& set, data_kind kind, u64 values, bool variants,
              std::vector<row>& rows) {
  workspaces all(d, set.codec, values, kind);
  const char* codec = set.codec == codec_id::rank ? "rank" : "top16";
  auto measure = [&](const variant& v, bool decode, double limit) {
    double us = time_us(
        d, [&](std::size_t i) { v.run(decode ? all[i].job_of(all.words(i)) : all[i].job_of()); }, all.size());
    double gb_s = 2.0 * static_cast<double>(values) / us / 1e3;
    row r{codec, name_of(kind), v.name, gb_s, limit > 0 ? gb_s / limit : 0, all.ratio(), us, 2 * values};
    std::printf("%-5s %-18s %4llu MiB  %-32s %8.1f GB/s  %5.3f of limit  ratio %.4f  %9.2f us\n", codec,
                name_of(kind), (unsigned long long)(values >> 19), v.name.c_str(), r.gb_s, r.of_pattern_limit,
                r.ratio, us);
    std::fflush(stdout);
    rows.push_back(r);
    return gb_s;
  };
  for (std::size_t i = 0; i < all.size(); ++i) set.encode.run(all[i].job_of());
  all.settle();
  if (variants) measure(copy_variant(), false, 0);
  double limit = measure(set.decode_limit, true, 0);
  if (variants) {
    for (const variant& v : set.decoders) measure(v, true, limit);
  } else {
    measure(set.decode, true, limit);
  }
  limit = 0;
  for (const variant& v : set.encode_limits) limit = std::max(limit, measure(v, false, 0));
  if (variants) {
    for (const variant& v : set.encoders) measure(v, false, limit);
  } else {
    measure(set.encode, false, limit);
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    set.encode.run(all[i].job_of());
    set.decode.run(decode_job(all[i]));
    if (differences(all[i]) + chunks_not(all[i], 1) != 0) std::printf("WRONG after timing\n"), std::exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool small = argc > 1 && std::strcmp(argv[1], "--small") == 0;
  device d;
  const std::vector<codec_set> sets = {make_set<rank_encoder, rank_decoder, uint2, 4>(codec_id::rank),
                                       make_set<top16_encoder, top16_decoder, uint4, 3>(codec_id::top16)};
  int failures = 0;
  for (const codec_set& set : sets) {
    failures += check(d, set, small ? 19 * 1024 : 1021 * 1024);
    if (!small) failures += check(d, set, 3 * 1024);
  }
  if (failures != 0) return std::printf("%d checks failed\n", failures), 1;
  if (small) return 0;
  std::vector<row> rows;
  for (const codec_set& set : sets) {
    time_all(d, set, data_kind::normal, u64{256} << 20, true, rows);
    time_all(d, set, data_kind::row_scaled, u64{256} << 20, true, rows);
    for (u64 mib : {2, 8, 32, 128}) time_all(d, set, data_kind::normal, mib << 19, false, rows);
  }
  time_all(d, sets[0], data_kind::lognormal_columns, u64{256} << 20, false, rows);
  time_all(d, sets[0], data_kind::uniform_exponents, u64{256} << 20, false, rows);
  const char* details[3] = {"uncommitted", "", ""};
  for (int i = 2; i < std::min(argc, 5); ++i) details[i - 2] = argv[i];
  if (argc > 1) write_json(argv[1], details, d, rows);
  return 0;
}
