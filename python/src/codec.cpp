// Contexts, frames and codebooks.
#include <nanobind/operators.h>

#include "common.hpp"

namespace tersor::python {
namespace {

void bind_context(nb::module_& m) {
  nb::class_<held_context>(m, "Context",
                           "Threads and instruction set of a series of calls; may be shared by threads.")
      .def(
          "__init__",
          [](held_context* self, unsigned threads, std::string_view backend) {
            new (self) held_context(unwrap(context::create(threads, backend)));
          },
          nb::arg("threads") = 0, nb::arg("backend") = "")
      .def_prop_ro("threads", [](const held_context& held) { return held.get().threads(); })
      .def_prop_ro("backend", [](const held_context& held) { return held.get().backend(); })
      .def("__repr__", [](const held_context& held) {
        const context& c = held.get();
        return "tersor.Context(threads=" + std::to_string(c.threads()) + ", backend='" +
               std::string(c.backend()) + "')";
      });
  m.def("backends", [] {
    nb::list all;
    for (const backend_info& b : backends()) {
      nb::dict entry;
      entry["name"] = b.name;
      entry["supported"] = b.supported;
      entry["chosen"] = b.chosen;
      entry["reason"] = b.reason;
      all.append(entry);
    }
    return all;
  });
}

void bind_codebook(nb::module_& m) {
  nb::class_<histogram>(m, "Histogram", "How often each exponent occurs.")
      .def(nb::init<>())
      .def_prop_ro(
          "counts",
          [](const histogram& h) { return std::vector<std::uint64_t>(h.counts.begin(), h.counts.end()); })
      .def("total", &histogram::total)
      .def("entropy", &histogram::entropy)
      .def("coverage", &histogram::coverage, nb::arg("k"))
      .def(nb::self += nb::self, nb::rv_policy::none)
      .def("__getstate__",
           [](const histogram& h) { return std::vector<std::uint64_t>(h.counts.begin(), h.counts.end()); })
      .def("__setstate__", [](histogram& self, const std::vector<std::uint64_t>& counts) {
        new (&self) histogram();
        if (counts.size() != self.counts.size())
          raise({.code = errc::invalid_argument, .message = "a histogram has 256 counts"});
        std::copy(counts.begin(), counts.end(), self.counts.begin());
      });
  m.def(
      "count_symbols",
      [](const held_context& held, std::string_view type, const bytes_in& data) {
        const context& ctx = held.get();
        const dtype t = dtype_of(type);
        const auto span = span_of(data);
        return unlocked([&] { return count_symbols(ctx, t, span); });
      },
      nb::arg("ctx"), nb::arg("dtype"), nb::arg("data").noconvert());
  m.def(
      "make_codebook",
      [](std::string_view type, const histogram& counts) {
        return bytes_of(unwrap(make_codebook(dtype_of(type), counts)));
      },
      nb::arg("dtype"), nb::arg("histogram"));
  m.def(
      "expected_bits",
      [](std::string_view c, std::string_view type, const histogram& counts, const nb::bytes& book) {
        return expected_bits(codec_of(c), dtype_of(type), counts, *book_of(book));
      },
      nb::arg("codec"), nb::arg("dtype"), nb::arg("histogram"), nb::arg("codebook"));
}

void bind_frame_info(nb::module_& m) {
  nb::class_<frame_info>(m, "FrameInfo", "What a frame's header and index say.")
      .def_prop_ro("codec", [](const frame_info& i) { return to_string(i.codec); })
      .def_prop_ro("dtype", [](const frame_info& i) { return to_string(i.type); })
      .def_prop_ro("shape", [](const frame_info& i) { return tuple_of(i.shape); })
      .def_ro("n_values", &frame_info::n_values)
      .def_ro("decoded_bytes", &frame_info::decoded_bytes)
      .def_ro("frame_bytes", &frame_info::frame_bytes)
      .def_ro("digest", &frame_info::digest)
      .def_prop_ro("codebook", [](const frame_info& i) { return bytes_of(i.book); })
      .def_ro("n_chunks", &frame_info::n_chunks)
      .def_ro("tail_words", &frame_info::tail_words)
      .def_ro("raw_tiles", &frame_info::raw_tiles)
      .def_ro("escape_tiles", &frame_info::escape_tiles);
}

/// The arguments of both encode calls.
struct encode_arguments {
  encode_arguments(const bytes_in& data, std::string_view type, std::vector<std::uint64_t> sizes,
                   std::string_view c, const std::optional<nb::bytes>& book, bool raw_fallback)
      : shape(std::move(sizes)),
        view{.type = dtype_of(type), .shape = shape, .data = span_of(data)},
        options{.codec = codec_of(c), .book = book_of(book), .raw_fallback = raw_fallback} {}

  std::vector<std::uint64_t> shape;
  tensor_view view;
  encode_options options;
};

void bind_encode(nb::module_& m) {
  m.def(
      "encode_bound",
      [](std::string_view c, std::string_view type, std::uint64_t n_values) {
        return encode_bound(codec_of(c), dtype_of(type), n_values);
      },
      nb::arg("codec"), nb::arg("dtype"), nb::arg("n_values"));
  m.def(
      "encode",
      [](const held_context& held, const bytes_in& data, std::string_view type,
         std::vector<std::uint64_t> shape, std::string_view c, const std::optional<nb::bytes>& book,
         bool raw_fallback) {
        const context& ctx = held.get();
        const encode_arguments a(data, type, std::move(shape), c, book, raw_fallback);
        return buffer(unlocked([&] { return encode(ctx, a.view, a.options); }));
      },
      nb::arg("ctx"), nb::arg("data").noconvert(), nb::arg("dtype"), nb::arg("shape"),
      nb::arg("codec") = "rank", nb::arg("codebook") = nb::none(), nb::arg("raw_fallback") = true);
  m.def(
      "encode_into",
      [](const held_context& held, const bytes_in& data, std::string_view type,
         std::vector<std::uint64_t> shape, const bytes_out& dst, std::string_view c,
         const std::optional<nb::bytes>& book, bool raw_fallback) {
        const context& ctx = held.get();
        const encode_arguments a(data, type, std::move(shape), c, book, raw_fallback);
        const auto to = span_of(dst);
        return unlocked([&] { return encode_into(ctx, a.view, to, a.options); });
      },
      nb::arg("ctx"), nb::arg("data").noconvert(), nb::arg("dtype"), nb::arg("shape"),
      nb::arg("dst").noconvert(), nb::arg("codec") = "rank", nb::arg("codebook") = nb::none(),
      nb::arg("raw_fallback") = true);
}

void bind_decode(nb::module_& m) {
  m.def(
      "inspect",
      [](const bytes_in& frame) {
        const auto span = span_of(frame);
        return unlocked([&] { return inspect(span); });
      },
      nb::arg("frame").noconvert());
  m.def(
      "decode",
      [](const held_context& held, const bytes_in& frame) {
        const context& ctx = held.get();
        const auto span = span_of(frame);
        tensor t = unlocked([&] { return decode(ctx, span); });
        return nb::make_tuple(buffer(std::move(t.data)), to_string(t.type), tuple_of(t.shape));
      },
      nb::arg("ctx"), nb::arg("frame").noconvert());
  m.def(
      "decode_into",
      [](const held_context& held, const bytes_in& frame, const bytes_out& dst) {
        const context& ctx = held.get();
        const auto from = span_of(frame);
        const auto to = span_of(dst);
        return unlocked([&] { return decode_into(ctx, from, to); });
      },
      nb::arg("ctx"), nb::arg("frame").noconvert(), nb::arg("dst").noconvert());
  m.def(
      "decode_chunks",
      [](const held_context& held, const bytes_in& frame, std::uint64_t first, std::uint64_t count,
         const bytes_out& dst) {
        const context& ctx = held.get();
        const auto from = span_of(frame);
        const auto to = span_of(dst);
        return unlocked([&] { return decode_chunks(ctx, from, first, count, to); });
      },
      nb::arg("ctx"), nb::arg("frame").noconvert(), nb::arg("first"), nb::arg("count"),
      nb::arg("dst").noconvert());
  m.def(
      "digest_bytes",
      [](const held_context& held, std::uint8_t domain, const bytes_in& data) {
        const context& ctx = held.get();
        const auto span = span_of(data);
        const nb::gil_scoped_release release;
        return digest_bytes(ctx, domain, span);
      },
      nb::arg("ctx"), nb::arg("domain"), nb::arg("data").noconvert());
}

}  // namespace

void bind_codec(nb::module_& m) {
  bind_context(m);
  bind_codebook(m);
  bind_frame_info(m);
  bind_encode(m);
  bind_decode(m);
}

}  // namespace tersor::python
