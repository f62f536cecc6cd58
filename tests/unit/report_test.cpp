// The HTML report: escaping, number formats, and a page whose tags all close.
#include <algorithm>
#include <cmath>

#include "model/analysis_stats.hpp"
#include "model/report_text.hpp"
#include "model/svg_canvas.hpp"
#include "model_fixture.hpp"

namespace tersor::model_test {
namespace {

using model_detail::escape_html;
using model_detail::format_bytes;
using model_detail::format_count;
using model_detail::format_fixed;
using model_detail::format_percent;
using model_detail::shorten;

/// Opening tags without their closing ones, or a tag that closes another; empty if the markup nests well.
std::string nesting_error(const std::string& html) {
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const std::size_t end = html.find('>', at);
    if (end == std::string::npos) return "unfinished tag";
    const std::string tag = html.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(tag.starts_with('/') ? 1 : 0,
                                        tag.find_first_of(" \n/", 1) - (tag.starts_with('/') ? 1 : 0));
    const bool is_void = tag.starts_with('!') || tag.ends_with('/') || name == "meta" || name == "link";
    if (is_void) continue;
    if (!tag.starts_with('/')) {
      open.push_back(name);
      continue;
    }
    if (open.empty() || open.back() != tag.substr(1))
      return "</" + tag.substr(1) + "> at " + std::to_string(at);
    open.pop_back();
  }
  return open.empty() ? "" : "open: " + open.back();
}

std::size_t count_of(const std::string& text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

tensor_analysis tensor_of(std::string name, dtype type, std::uint64_t seed) {
  tensor_analysis t{.file = "f.safetensors", .name = std::move(name), .type = type, .shape = {64, 64}};
  numbers random(seed);
  for (int i = 0; i < 4096; ++i) {
    unsigned symbol = 12;
    while (symbol > 1 && random.next() % 2 == 0) --symbol;
    ++t.counts.counts[symbol];
  }
  model_detail::fill_statistics(t);
  return t;
}

analysis analysis_of(std::vector<tensor_analysis> tensors) {
  analysis a{.tensors = std::move(tensors), .n_files = 1, .overall = {}};
  for (const tensor_analysis& t : a.tensors) {
    tensor_analysis& all = a.overall[t.type];
    all.type = t.type;
    all.counts += t.counts;
  }
  for (auto& [type, all] : a.overall) model_detail::fill_statistics(all);
  return a;
}

TEST(ReportText, Escapes) {
  EXPECT_EQ(escape_html("<script>&\"'"), "&lt;script&gt;&amp;&quot;&#39;");
  EXPECT_EQ(escape_html(std::string_view("a\0b\n", 4)), "a\\u{0}b\\u{a}");
  EXPECT_EQ(escape_html("\xE2\x80\xAE"
                        "gpj"),
            "\\u{202e}gpj");
  EXPECT_EQ(escape_html("\xE9\x87\x8D"), "\xE9\x87\x8D");
  const std::string replaced = "\xEF\xBF\xBD";
  EXPECT_EQ(escape_html("\xff"), replaced);
  EXPECT_EQ(escape_html("\xc0\xaf"), replaced + replaced);                 // overlong
  EXPECT_EQ(escape_html("\xed\xa0\x80"), replaced + replaced + replaced);  // surrogate
  EXPECT_EQ(escape_html("\xe9\x87"), replaced + replaced);                 // cut off
}

TEST(ReportText, Shortens) {
  EXPECT_EQ(shorten("short", 5), "short");
  EXPECT_EQ(shorten("abcdefghij", 5), "ab\xE2\x80\xA6ij");
  EXPECT_EQ(shorten("\xE9\x87\x8D\xE9\x87\x8D\xE9\x87\x8D\xE9\x87\x8D", 5),
            "\xE9\x87\x8D\xE2\x80\xA6\xE9\x87\x8D");
}

TEST(ReportText, Numbers) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(UINT64_MAX), "18,446,744,073,709,551,615");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1000), "1.00 kB");
  EXPECT_EQ(format_bytes(999999), "1.00 MB");
  EXPECT_EQ(format_bytes(23931520), "23.9 MB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "18.4 EB");
  EXPECT_EQ(format_percent(1), "100%");
  EXPECT_EQ(format_percent(0), "0%");
  EXPECT_EQ(format_percent(0.5), "50.0%");
  EXPECT_EQ(format_percent(0.99999), "99.999%");
  EXPECT_EQ(format_percent(0.0000123), "0.001%");
  EXPECT_EQ(format_fixed(-0.0001, 2), "0.00");
  EXPECT_EQ(format_fixed(1.005, 1), "1.0");
}

TEST(ReportText, Steps) {
  EXPECT_DOUBLE_EQ(model_detail::nice_step(1, 4), 0.25);
  EXPECT_DOUBLE_EQ(model_detail::nice_step(16, 8), 2);
  EXPECT_DOUBLE_EQ(model_detail::nice_step(0, 4), 1);
}

TEST(ReportHtml, WellFormedWithEveryFigure) {
  const std::string html = to_html(
      analysis_of({tensor_of("layers.0.k", dtype::bf16, 1), tensor_of("layers.0.v", dtype::bf16, 2),
                   tensor_of("layers.1.k", dtype::bf16, 3), tensor_of("layers.1.v", dtype::f8_e4m3, 4)}),
      "title");
  EXPECT_EQ(nesting_error(html), "");
  // Four figures a dtype, two of the KV cache, one of the types.
  EXPECT_EQ(count_of(html, "<svg "), 2 * 4U + 2 + 1);
  EXPECT_EQ(count_of(html, "<desc "), count_of(html, "<svg "));
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("=\"-"), std::string::npos);  // no negative size or place
}

TEST(ReportHtml, NamesAreEscapedEverywhere) {
  const std::string evil = "<script>alert(1)</script>\"'&";
  tensor_analysis t = tensor_of(evil, dtype::bf16, 1);
  t.file = evil;
  tensor_analysis other = tensor_of("b", dtype::bf16, 2);
  const std::string html = to_html(analysis_of({t, other}), evil);
  EXPECT_EQ(nesting_error(html), "");
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_NE(html.find("&lt;script&gt;alert(1)"), std::string::npos);
}

TEST(ReportHtml, NoRequestsAndNoScripts) {
  const std::string html = to_html(analysis_of({tensor_of("a", dtype::f16, 1)}), "t");
  for (const char* part : {"<script", "src=", "@import", "url("})
    EXPECT_EQ(html.find(part), std::string::npos) << part;
  // The only addresses are the name space of SVG and the empty icon.
  EXPECT_EQ(count_of(html, "http"), count_of(html, "xmlns=\"http://www.w3.org/2000/svg\""));
}

TEST(ReportHtml, NothingToCode) {
  analysis a{.tensors = {}, .other_bytes = 8000, .n_other_tensors = 2, .n_files = 1, .overall = {}};
  EXPECT_EQ(nesting_error(to_html(a, "t")), "");
  EXPECT_EQ(count_of(to_html(a, "t"), "<svg "), 0U);
  EXPECT_NE(to_html(a, "t").find("8.00 kB"), std::string::npos);
  tensor_analysis empty{.name = "empty", .type = dtype::bf16};
  EXPECT_EQ(nesting_error(to_html(analysis_of({empty}), "t")), "");
}

TEST(ReportHtml, OneValueAndUniformBits) {
  tensor_analysis one{.name = "layers.0.k", .type = dtype::bf16};
  one.counts.counts[127] = 1;
  model_detail::fill_statistics(one);
  tensor_analysis uniform{.name = "layers.0.v", .type = dtype::bf16};
  uniform.counts.counts.fill(7);
  model_detail::fill_statistics(uniform);
  const std::string html = to_html(analysis_of({one, uniform}), "t");
  EXPECT_EQ(nesting_error(html), "");
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("inf<"), std::string::npos);
}

TEST(ReportHtml, ManyTensorsAreFoldedAndCut) {
  std::vector<tensor_analysis> tensors(6000, tensor_of("t", dtype::bf16, 1));
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].name = "part" + std::to_string(i);
  const std::string html = to_html(analysis_of(std::move(tensors)), "t");
  EXPECT_EQ(nesting_error(html), "");
  EXPECT_NE(html.find("4,960 more tensors"), std::string::npos);
  EXPECT_NE(html.find("1,000 further tensors"), std::string::npos);
}

}  // namespace
}  // namespace tersor::model_test
