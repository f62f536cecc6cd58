// Buffers, tables, timing and the result file of the layout trial.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data.cuh"
#include "device.cuh"
#include "rank_decode.cuh"
#include "rank_encode.cuh"
#include "top16.cuh"

namespace trial {

inline void cuda_ok(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(e));
  std::exit(1);
}

struct device {
  cudaStream_t stream{};
  cudaDeviceProp properties{};
  device() {
    cuda_ok(cudaStreamCreate(&stream), "stream");
    cuda_ok(cudaGetDeviceProperties(&properties, 0), "properties");
  }
};

template <class Kernel>
u32 persistent_grid(Kernel kernel) {
  int blocks = 0, sms = 0;
  cuda_ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 256, 0), "occupancy");
  cuda_ok(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0), "attribute");
  return static_cast<u32>(blocks * sms);
}

template <class T>
class device_array {
 public:
  explicit device_array(u64 count) {
    cuda_ok(cudaMalloc(&data_, count * sizeof(T)), "allocation");
    cuda_ok(cudaMemset(data_, 0, count * sizeof(T)), "clear");
  }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;
  ~device_array() { cudaFree(data_); }
  [[nodiscard]] T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

struct codec_tables {
  const uint2* rank_symbols = nullptr;
  const u32* top16_symbols = nullptr;
  const u32* keys = nullptr;
  rank_entries rank_book{};
  top16_entries top16_book{};

  [[nodiscard]] const uint2* of(rank_encoder) const { return rank_symbols; }
  [[nodiscard]] const u32* of(top16_encoder) const { return top16_symbols; }
  [[nodiscard]] rank_entries of(rank_decoder) const { return rank_book; }
  [[nodiscard]] top16_entries of(top16_decoder) const { return top16_book; }
};

/// Everything one launch needs.
struct job {
  const uint4* in;
  uint4* out;
  frame_view view;
  u32* status;
  encode_state* state;
  u64* header;
  codec_tables tables;
  cudaStream_t stream;
};

/// One tensor, its frame, and what was decoded from it.
class workspace {
 public:
  workspace(device& d, codec_id codec, u64 values)
      : geometry_(make_geometry(codec, values)),
        device_(d),
        in(values),
        out(values),
        frame(geometry_.frame_bytes(geometry_.tail_capacity)),
        status(geometry_.chunks),
        state(1),
        rank_table(256),
        top16_table(256),
        keys(256) {
    std::vector<u32> k(256);
    for (u32 i = 0; i < 256; ++i) k[i] = key(i / 128, i % 128);
    cuda_ok(cudaMemcpy(keys.get(), k.data(), 1024, cudaMemcpyHostToDevice), "keys");
  }

  [[nodiscard]] const geometry& geometry_of() const { return geometry_; }
  [[nodiscard]] device& device_of() const { return device_; }

  /// Tail words of a full frame as an encoder needs them, or the `words` of a made one.
  [[nodiscard]] job job_of(u64 words = ~u64{0}) const {
    frame_view v;
    v.records = reinterpret_cast<u32*>(frame.get() + geometry_.index);
    v.rest = frame.get() + geometry_.rest;
    v.code = frame.get() + geometry_.code;
    v.tails = reinterpret_cast<u32*>(frame.get() + geometry_.tails);
    v.tail_words = words == ~u64{0} ? geometry_.tail_capacity : words;
    v.tiles = static_cast<u32>(geometry_.tiles);
    v.chunks = static_cast<u32>(geometry_.chunks);
    codec_tables t = host_tables;
    t.rank_symbols = rank_table.get();
    t.top16_symbols = top16_table.get();
    t.keys = keys.get();
    return {reinterpret_cast<const uint4*>(in.get()),
            reinterpret_cast<uint4*>(out.get()),
            v,
            status.get(),
            state.get(),
            reinterpret_cast<u64*>(frame.get()),
            t,
            device_.stream};
  }

 private:
  geometry geometry_;
  device& device_;

 public:
  device_array<u16> in, out;
  device_array<u8> frame;
  device_array<u32> status;
  device_array<encode_state> state;
  device_array<uint2> rank_table;
  device_array<u32> top16_table;
  device_array<u32> keys;
  codec_tables host_tables;
  u8 codebook[16] = {};
};

inline u64 read_tail_words(const workspace& w) {
  u64 words = 0;
  cuda_ok(cudaStreamSynchronize(w.device_of().stream), "kernel");
  cuda_ok(cudaMemcpy(&words, w.frame.get() + 24, 8, cudaMemcpyDeviceToHost), "size");
  return words;
}

inline u32 rotated(u32 e) {
  return (e >> 1 & 0x7f) | (e << 7 & 0x80);
}

inline void set_codebook(workspace& w, const u64 counts[256]) {
  make_codebook(w.geometry_of().codec, counts, w.codebook);
  u32 r[16];
  for (int i = 0; i < 16; ++i) r[i] = rotated(w.codebook[i]);
  auto four = [&](int a, int n) {
    u32 out = 0;
    for (int i = 0; i < n; ++i) out |= r[a + i] << (8 * i);
    return out;
  };
  // Byte 3 of a level's word is never selected; byte 7 of level 4 is zero so that an escape can be OR-ed in.
  w.host_tables.rank_book = {four(0, 3), four(3, 3), four(6, 3), four(9, 4), four(13, 3)};
  w.host_tables.top16_book = {four(0, 4), four(4, 4), four(8, 4), four(12, 3)};
  uint2 rank_table[256];
  rank_encode_table(w.codebook, rank_table);
  u32 top16_table[256];
  top16_encode_table(w.codebook, top16_table);
  cuda_ok(cudaMemcpy(w.rank_table.get(), rank_table, sizeof rank_table, cudaMemcpyHostToDevice), "table");
  cuda_ok(cudaMemcpy(w.top16_table.get(), top16_table, sizeof top16_table, cudaMemcpyHostToDevice), "table");
}

/// Makes the values and their codebook, and poisons everything that a kernel has to write.
inline void fill(workspace& w, data_kind kind, u32 salt) {
  const u64 values = w.geometry_of().tiles * kTileValues;
  device_array<unsigned long long> counts(256);
  generate<<<1056, 256, 0, w.device_of().stream>>>(w.in.get(), values, kind, salt);
  count_symbols<<<528, 256, 0, w.device_of().stream>>>(w.in.get(), values, counts.get());
  u64 host[256];
  cuda_ok(cudaStreamSynchronize(w.device_of().stream), "generate");
  cuda_ok(cudaMemcpy(host, counts.get(), sizeof host, cudaMemcpyDeviceToHost), "counts");
  set_codebook(w, host);
  cuda_ok(cudaMemset(w.frame.get(), 0xa5, w.geometry_of().frame_bytes(w.geometry_of().tail_capacity)),
          "poison");
  u8 header[kHeaderBytes];
  start_header(w.geometry_of(), w.codebook, header);
  cuda_ok(cudaMemcpy(w.frame.get(), header, sizeof header, cudaMemcpyHostToDevice), "header");
}

inline std::vector<u16> values_of(const workspace& w) {
  std::vector<u16> host(w.geometry_of().tiles * kTileValues);
  cuda_ok(cudaMemcpy(host.data(), w.in.get(), host.size() * 2, cudaMemcpyDeviceToHost), "values");
  return host;
}

/// The frame as the encoder left it, with the planes' alignment bytes cleared: the kernels do not own them.
inline std::vector<u8> frame_of(const workspace& w) {
  const geometry& g = w.geometry_of();
  const u64 words = read_tail_words(w);
  std::vector<u8> host(g.frame_bytes(words));
  cuda_ok(cudaMemcpy(host.data(), w.frame.get(), host.size(), cudaMemcpyDeviceToHost), "frame");
  auto clear = [&](u64 from, u64 to) {
    std::fill(host.begin() + static_cast<std::ptrdiff_t>(from),
              host.begin() + static_cast<std::ptrdiff_t>(to), u8{0});
  };
  clear(g.index + kRecordBytes * g.chunks, g.rest);
  clear(g.rest + kTileValues * g.tiles, g.code);
  clear(g.code + g.code_bytes * g.tiles, g.tails);
  return host;
}

inline void put_frame(workspace& w, const std::vector<u8>& host) {
  cuda_ok(cudaMemcpy(w.frame.get(), host.data(), host.size(), cudaMemcpyHostToDevice), "frame");
}

/// A decode of the frame in `w`, with poisoned output.
inline job decode_job(const workspace& w) {
  const u64 words = read_tail_words(w);
  cuda_ok(cudaMemset(w.out.get(), 0xee, w.geometry_of().tiles * 2048), "poison");
  cuda_ok(cudaMemset(w.status.get(), 0, w.geometry_of().chunks * 4), "poison");
  return w.job_of(words);
}

inline u64 differences(const workspace& w) {
  device_array<unsigned long long> bad(1);
  count_differences<<<1056, 256, 0, w.device_of().stream>>>(reinterpret_cast<const u32*>(w.in.get()),
                                                            reinterpret_cast<const u32*>(w.out.get()),
                                                            w.geometry_of().tiles * 512, bad.get());
  u64 host = 0;
  cuda_ok(cudaStreamSynchronize(w.device_of().stream), "compare");
  cuda_ok(cudaMemcpy(&host, bad.get(), 8, cudaMemcpyDeviceToHost), "compare");
  return host;
}

inline u64 chunks_not(const workspace& w, u32 want) {
  device_array<unsigned long long> bad(1);
  count_not<<<64, 256, 0, w.device_of().stream>>>(w.status.get(), w.geometry_of().chunks, want, bad.get());
  u64 host = 0;
  cuda_ok(cudaStreamSynchronize(w.device_of().stream), "status");
  cuda_ok(cudaMemcpy(&host, bad.get(), 8, cudaMemcpyDeviceToHost), "status");
  return host;
}

inline void report_difference(const geometry& g, const std::vector<u8>& a, const std::vector<u8>& b) {
  std::size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  std::printf("  sizes %zu %zu, first difference at %zu (index %zu rest %zu code %zu tails %zu): %02x %02x\n",
              a.size(), b.size(), i, (std::size_t)g.index, (std::size_t)g.rest, (std::size_t)g.code,
              (std::size_t)g.tails, i < a.size() ? a[i] : 0, i < b.size() ? b[i] : 0);
}

/// Enough tensors of one kind that a round over them does not stay in the L2 cache.
class workspaces {
 public:
  workspaces(device& d, codec_id codec, u64 values, data_kind kind) {
    const u64 bytes = values * 2, count = std::clamp<u64>((u64{768} << 20) / bytes, 2, 96);
    for (u64 i = 0; i < count; ++i) {
      items_.push_back(std::make_unique<workspace>(d, codec, values));
      fill(*items_.back(), kind, static_cast<u32>(16 * i + 1));
    }
  }
  workspace& operator[](std::size_t i) { return *items_[i]; }
  [[nodiscard]] std::size_t size() const { return items_.size(); }
  /// Reads the sizes of the frames after their first encode.
  void settle() {
    for (auto& w : items_) words_.push_back(read_tail_words(*w));
  }
  [[nodiscard]] u64 words(std::size_t i) const { return words_[i]; }
  [[nodiscard]] double ratio() const {
    const geometry& g = items_[0]->geometry_of();
    return 2.0 * static_cast<double>(g.tiles) * kTileValues / static_cast<double>(g.frame_bytes(words_[0]));
  }

 private:
  std::vector<std::unique_ptr<workspace>> items_;
  std::vector<u64> words_;
};

/// Median microseconds of one call, from replays of a graph of at least `tensors` calls over different
/// buffers.
inline double time_us(device& d, const std::function<void(std::size_t)>& call, std::size_t tensors) {
  const std::size_t calls = std::max<std::size_t>(tensors, 8);
  call(0);
  cuda_ok(cudaStreamSynchronize(d.stream), "warm-up");
  cudaGraph_t graph{};
  cudaGraphExec_t exec{};
  cuda_ok(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (std::size_t i = 0; i < calls; ++i) call(i % tensors);
  cuda_ok(cudaStreamEndCapture(d.stream, &graph), "capture");
  cuda_ok(cudaGraphInstantiate(&exec, graph, 0), "graph");
  cudaEvent_t begin{}, end{};
  cuda_ok(cudaEventCreate(&begin), "event");
  cuda_ok(cudaEventCreate(&end), "event");
  for (int i = 0; i < 2; ++i) cuda_ok(cudaGraphLaunch(exec, d.stream), "launch");
  std::vector<float> times;
  for (int i = 0; i < 11; ++i) {
    float ms = 0;
    cuda_ok(cudaEventRecord(begin, d.stream), "event");
    cuda_ok(cudaGraphLaunch(exec, d.stream), "launch");
    cuda_ok(cudaEventRecord(end, d.stream), "event");
    cuda_ok(cudaEventSynchronize(end), "timing");
    cuda_ok(cudaEventElapsedTime(&ms, begin, end), "timing");
    times.push_back(ms);
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return 1e3 * times[times.size() / 2] / static_cast<double>(calls);
}

struct row {
  std::string codec, data, what;
  double gb_s, of_pattern_limit, ratio, us;
  u64 bytes;
};

/// `details`: commit, date, driver; the driver's version is not to be had from the runtime.
inline void write_json(const char* path, const char* const details[3], const device& d,
                       const std::vector<row>& rows) {
  std::FILE* out = std::fopen(path, "w");
  if (!out) std::exit(1);
  std::fprintf(out,
               "{\"device\": \"%s\", \"driver\": \"%s\", \"commit\": \"%s\", \"command\": "
               "\"layout_trial result.json\", \"date\": \"%s\",\n \"rows\": [\n",
               d.properties.name, details[2], details[0], details[1]);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const row& r = rows[i];
    std::fprintf(
        out,
        "  {\"codec\": \"%s\", \"data\": \"%s\", \"what\": \"%s\", \"gb_s\": %.1f, \"of_pattern_limit\": ",
        r.codec.c_str(), r.data.c_str(), r.what.c_str(), r.gb_s);
    if (r.of_pattern_limit > 0) {
      std::fprintf(out, "%.3f", r.of_pattern_limit);
    } else {
      std::fprintf(out, "null");
    }
    std::fprintf(out, ", \"ratio\": %.4f, \"us\": %.2f, \"bytes\": %llu}%s\n", r.ratio, r.us,
                 (unsigned long long)r.bytes, i + 1 < rows.size() ? "," : "");
  }
  std::fprintf(out, " ]}\n");
  std::fclose(out);
}

}  // namespace trial
