"""tersor.plot: what is drawn is what the documents say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

import tersor
from tersor import _plot_bench, _plot_style, plot
from tersor._report import Counted, analysis_document

ROOT = Path(__file__).resolve().parents[2]
THROUGHPUT = {
    "batch": [1, 4, 16, 64],
    "bf16_tokens_s": [100, 400, 1500, 5000],
    "tersor_tokens_s": [130, 510, 1800, 4800],
}


def histogram(center: int, spread: int) -> list[int]:
    """Counts that fall by half a step away from `center`, and a few zeros."""
    counts = [0] * 256
    for distance in range(spread + 1):
        for symbol in {center - distance, center + distance}:
            counts[symbol] = 1 << (20 - distance)
    counts[0] = 7
    return counts


@pytest.fixture(scope="module")
def weights() -> dict:
    names = [f"model.layers.{i}.mlp.{kind}_proj.weight" for i in range(3) for kind in ("up", "down")]
    tensors = [Counted(name, "BF16", (64, 64), histogram(120 + i % 2, 12)) for i, name in enumerate(names)]
    return analysis_document([*tensors, Counted("norm.weight", "F16", (64,), histogram(14, 3))])


@pytest.fixture(scope="module")
def kv() -> dict:
    spreads = {"k": (4, 6, 3), "v": (8, 5, 7)}
    return analysis_document(
        [Counted(f"layers.{i}.{c}", "BF16", (9, 2, 8), histogram(126, spreads[c][i])) for i in range(3) for c in "kv"]
    )


def labels(ax) -> str:
    texts = [*ax.texts, ax.title, *(ax.get_legend().get_texts() if ax.get_legend() else ())]
    texts += [ax.get_legend().get_title()] if ax.get_legend() else []
    return "\n".join(text.get_text() for text in texts)


def drawn(ax):
    ax.figure.canvas.draw()
    return ax


@pytest.mark.parametrize("log", [False, True])
def test_exponent_histogram(weights, log):
    ax = drawn(plot.exponent_histogram(weights, log=log))
    shared = weights["dtypes"]["BF16"]["shared_codebook"]
    heights = sorted(bar.get_height() for bars in ax.containers for bar in bars)
    assert heights == pytest.approx(sorted(count / shared["values"] for _, count in shared["counts"]))
    assert sum(heights) == pytest.approx(1)
    sizes = [len(bars) for bars in ax.containers]
    assert sizes[:4] == [3, 3, 3, 7] and sum(sizes) == len(shared["counts"])
    assert f"entropy {shared['entropy']:.2f} of 8 bits" in labels(ax)
    assert f"top 3, {_plot_style.percent(shared['coverage'][3])}" in labels(ax)
    assert (ax.get_yscale() == "log") is log
    assert "zero" in [text.get_text() for text in ax.get_xticklabels()] and "⋯" in labels(ax)


def test_coverage(weights):
    ax = drawn(plot.coverage(weights))
    x, y = ax.lines[0].get_data()
    assert list(x) == list(range(17)) and list(y) == weights["dtypes"]["BF16"]["shared_codebook"]["coverage"]
    band = ax.collections[0].get_paths()[0].vertices
    single = [row["coverage"][3] for row in weights["tensors"] if row["dtype"] == "BF16"]
    at_3 = sorted({round(float(y), 12) for x, y in band if x == 3})
    assert at_3 == sorted({round(value, 12) for value in (min(single), max(single))})


def test_bits_per_value(weights):
    summary = weights["dtypes"]["BF16"]
    ax = drawn(plot.bits_per_value(weights))
    ends = {round(bar.get_y() + 0.26): bar.get_x() + bar.get_width() for bars in ax.containers for bar in bars}
    entropy = summary["own_codebooks"]["entropy"]
    wanted = [16, summary["top16_parts"]["total"], summary["rank_parts"]["total"], 8 + entropy]
    assert [ends[i] for i in range(4)] == pytest.approx(wanted)
    assert f"{16 / summary['rank_parts']['total']:.3f}×" in labels(ax)


@pytest.mark.parametrize("codec", ["rank", "top16"])
def test_tensor_types(weights, codec):
    ax = drawn(plot.tensor_types(weights, codec))
    ratios = [1 + bar.get_width() for bar in ax.containers[0]]
    assert ratios == pytest.approx([row[f"{codec}_ratio"] for row in weights["tensor_types"]])
    assert "model.layers.*.mlp.up_proj.weight" in labels(ax)
    assert len(plot.tensor_types(weights, codec, most=1).containers[0]) == 1


def test_kv_layers(kv):
    rows = {row["name"]: row for row in kv["tensors"]}
    for measure, member in (("entropy", "entropy"), ("ratio", "rank_ratio")):
        ax = drawn(plot.kv_layers(kv, measure))
        assert [line.get_label() for line in ax.lines] == ["keys", "values"]
        for line, letter in zip(ax.lines, "kv", strict=True):
            assert list(line.get_xdata()) == [0, 1, 2]
            assert list(line.get_ydata()) == pytest.approx([rows[f"layers.{i}.{letter}"][member] for i in range(3)])


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("layers.3.k", (True, 3)), ("past.12.value", (False, 12)), ("key_cache.0", (True, 0)),
        ("a.b.5.v_cache", (False, 5)),
        ("layers.3.kv", None), ("k", None), ("layers.x.k", None), ("model.layers.3.self_attn.k_proj.weight", None),
    ],
)  # fmt: skip
def test_kv_names(name, parsed):
    assert _plot_style.kv_name(name) == parsed


def test_pareto_of_a_cpu():
    bench = json.loads((ROOT / "bench/results/codec-cpu.json").read_text())["runs"][0]["result"]
    ax = drawn(plot.pareto(bench))
    points = {tuple(c.get_offsets()[0]) for c in ax.collections}
    assert points == {(row["decode_gb_s"], row["ratio"]) for row in bench["codecs"]}
    best = max(bench["codecs"], key=lambda row: row["decode_gb_s"])
    frontier = list(zip(*ax.lines[0].get_data(), strict=True))
    assert frontier[-1] == (best["decode_gb_s"], best["ratio"])
    assert ax.lines[1].get_xdata()[0] == bench["memcpy_gb_s"] and ax.get_xscale() == "log"
    assert "rank" in labels(ax) and "1 thread" in ax.get_title(loc="right")


@pytest.mark.parametrize("speed", ["decode", "encode"])
def test_pareto_of_a_gpu(speed):
    path = ROOT / "bench/results/codec-h200.json"
    bench = json.loads(path.read_text())
    ax = drawn(plot.pareto(path, speed=speed))
    rows = [row for row in bench["rows"] if (row["dtype"], row["data"]) == ("bf16", bench["rows"][0]["data"])]
    assert {tuple(c.get_offsets()[0]) for c in ax.collections} == {(row[f"{speed}_gb_s"], row["ratio"]) for row in rows}
    assert ax.lines[1].get_xdata()[0] == bench["copy_gb_s"] / 2 and "H200" in ax.get_title(loc="right")


def test_frontier():
    points = [(1, 1.5), (2, 1.4), (2, 1.2), (0.5, 1.45), (3, 1.1)]
    assert _plot_bench._frontier(points) == [(1, 1.5), (2, 1.4), (3, 1.1)]


def test_batch_throughput():
    shuffled = {key: [values[i] for i in (2, 0, 3, 1)] for key, values in THROUGHPUT.items()}
    ax = drawn(plot.batch_throughput(shuffled | {"model": "a model"}))
    plain, ours, crossing = ax.lines
    assert list(plain.get_ydata()) == THROUGHPUT["bf16_tokens_s"]
    assert list(ours.get_ydata()) == THROUGHPUT["tersor_tokens_s"]
    assert 16 < crossing.get_xdata()[0] < 64 and "crossover at" in labels(ax) and "1.30×" in labels(ax)
    never = plot.batch_throughput(THROUGHPUT | {"tersor_tokens_s": [130, 510, 1800, 5100]})
    assert len(never.lines) == 2


def test_crossovers():
    assert _plot_bench.crossovers([1, 4], [100, 400], [200, 200]) == pytest.approx([2])
    assert _plot_bench.crossovers([1, 2], [100, 400], [200, 500]) == []


def test_figures_and_files(kv, weights, tmp_path):
    (tmp_path / "kv.json").write_text(json.dumps(kv))
    figures = plot.figures(tmp_path / "kv.json")
    assert set(figures) == {"exponents", "exponents-log", "coverage", "bits", "types", "entropy", "ratio"}
    assert set(plot.figures(weights)) == {"exponents", "exponents-log", "coverage", "bits", "types"}
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_axes_of_the_caller(kv):
    from matplotlib.figure import Figure

    axes = Figure().subplots(2, 2).ravel()
    assert plot.exponent_histogram(kv, ax=axes[0]) is axes[0]
    assert plot.coverage(kv, ax=axes[1]) is axes[1]
    assert plot.kv_layers(kv, ax=axes[2]) is axes[2]
    assert plot.batch_throughput(THROUGHPUT, ax=axes[3]) is axes[3]
    axes[0].figure.canvas.draw()


def test_other_dtypes(weights):
    ax = drawn(plot.exponent_histogram(weights, "F16"))
    assert "of 5 bits" in labels(ax)
    drawn(plot.bits_per_value(weights, "F16"))


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda d: plot.coverage({}), tersor.InvalidArgumentError, "no member 'dtypes'"),
        (lambda d: plot.coverage(d, "F64"), tersor.InvalidArgumentError, "no F64, only BF16, F16"),
        (lambda d: plot.coverage(analysis_document([])), tersor.InvalidArgumentError, "no tensor with"),
        (plot.kv_layers, tersor.InvalidArgumentError, "no KV cache"),
        (lambda d: plot.kv_layers(d, "speed"), tersor.InvalidArgumentError, "speed"),
        (lambda d: plot.tensor_types(d, "zstd"), tersor.InvalidArgumentError, "zstd"),
        (plot.pareto, tersor.InvalidArgumentError, "tersor bench codec"),
        (lambda d: plot.pareto({"codecs": []}), tersor.InvalidArgumentError, "no decode speeds"),
        (lambda d: plot.pareto({"runs": []}), tersor.InvalidArgumentError, "several runs"),
        (lambda d: plot.pareto({"rows": []}), tersor.InvalidArgumentError, "no rows of dtype"),
        (lambda d: plot.batch_throughput(THROUGHPUT | {"batch": [1]}), tersor.InvalidArgumentError, "equally long"),
        (lambda d: plot.batch_throughput({"batch": []}), tersor.InvalidArgumentError, "bf16_tokens_s"),
        (lambda d: plot.batch_throughput(THROUGHPUT | {"batch": [0, 1, 2, 3]}), tersor.InvalidArgumentError, "above 0"),
        (lambda d: plot.coverage("no-such.json"), tersor.NotFoundError, "no-such.json"),
        (lambda d: plot.coverage(Path(__file__)), tersor.MalformedError, "not JSON"),
    ],
)
def test_documents_that_do_not_fit(weights, draw, error, message):
    with pytest.raises(error, match=message):
        draw(weights)


def test_no_global_state():
    """Importing and drawing touch neither pyplot nor rcParams, and importing does not load matplotlib."""
    script = (
        "import sys, tersor.plot as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import matplotlib\n"
        "before = dict(matplotlib.rcParams)\n"
        f"p.batch_throughput({THROUGHPUT}).figure.canvas.draw()\n"
        "assert 'matplotlib.pyplot' not in sys.modules and before == dict(matplotlib.rcParams)\n"
    )
    # With a backend given, reading rcParams does not choose one, which would load pyplot.
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "MPLBACKEND": "agg"})


def test_batch_throughput_takes_what_the_benchmark_writes():
    import matplotlib

    matplotlib.use("Agg")
    results = Path(__file__).resolve().parents[2] / "bench" / "results"
    ax = tersor.plot.batch_throughput(results / "python-decode-h100-llama-3.1-8b.json")
    plain, ours = (line.get_ydata() for line in ax.lines[:2])
    assert len(plain) == len(ours) == 6 and all(o > p for o, p in zip(ours, plain, strict=True))
    with pytest.raises(tersor.Error):
        tersor.plot.batch_throughput({"decode": [{"batch": 1}]})
