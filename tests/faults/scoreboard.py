"""The reliability scoreboard: runs rows, keeps their figures in bench/results/scoreboard.json, writes docs/reliability.md."""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "scoreboard.json"
PAGE = ROOT / "docs" / "reliability.md"
BUILD = os.environ.get("TERSOR_BUILD", "build/release")
ELSEWHERE = "not yet built"
GPU_ROWS = (5, 21, 22, 23, 24, 25)  # tests/gpu/run.sh on a machine with a GPU; its reports are committed


def gtest(program, pattern):
    return f"{BUILD}/bin/{program} --gtest_filter='{pattern}'"


# row: (what, target, commands); no command: another issue's row.
ROWS = {
    1: ("all 65,536 BF16 bit patterns at every lane position, every tail length 0-256, every codec and backend, memcmp",
        ">= 1e9 values, 0 wrong", [gtest("codec_conformance_test", "*bit_patterns*")]),
    2: ("same encoded bytes on every backend of this machine, any thread count", "identical",
        [gtest("codec_conformance_test", "backend_identity*")]),
    3: ("differential: every backend gives the same bytes or the same error code", "0 differences",
        [gtest("fault_test", "differential*")]),
    4: ("coverage-guided fuzz targets under ASan and UBSan", ">= 12 targets, 0 crash", ["scripts/fuzz.sh --seconds {fuzz}"]),
    5: ("malformed frames through the CUDA decoder", "0 out-of-bounds, 0 hang", []),
    6: ("every bit flip and all 255 other values of every byte of a 64 KiB compressed file", "0 silent",
        [gtest("fault_test", "*every_changed_byte*"), gtest("file_fault_test", "*every_changed_byte*")]),
    7: ("chunks swapped, duplicated, spliced between files", "100% detected",
        [gtest("fault_test", "frame_faults.*chunks*"), gtest("file_fault_test", "*parts_of_another*")]),
    8: ("file cut at every byte, 0 included", "100% error",
        [gtest("fault_test", "*cut_anywhere*"), gtest("file_fault_test", "*cut_anywhere*")]),
    9: ("destination too small by 1..n", "exact code, guard page untouched", [gtest("fault_test", "*too_small*")]),
    10: ("PROT_NONE page before and after input and output, sizes 0-4096 x offsets 0-63", "0 faults",
         [gtest("fault_test", "*pages_around*:*hostile_frame*")]),
    11: ("declared-size bombs", "memory <= documented bound", [gtest("file_fault_test", "bombs.*costs_nothing")]),
    12: ("kill -9 at random moments of compress and decompress", ">= 1,000 kills: absent, old, or complete",
         ["python3 -B tests/faults/kill_test.py"]),
    13: ("disk full at every 4 KiB step", "clear error, old file intact, no temp left",
         ["python3 -B tests/faults/disk_full_test.py"]),
    14: ("failing n-th malloc / read / write / fsync / rename, all n", "no leak, no use after free, an error code",
         [f"{BUILD}/bin/memory_fault_test", gtest("file_fault_test", "*every_call_fails*"),
          f"{BUILD}/bin/transfer_failing_calls_test"]),
    15: ("short reads, EINTR, 1-byte feeds", "same as one shot", [gtest("file_fault_test", "*short_and_interrupted*")]),
    16: ("> 2^32 values in one tensor; 2^31 +- 1", "right",
         [gtest("file_fault_test", "*powers_of_two*"), gtest("fault_test", "*big_tensor*")]),
    17: ("malformed safetensors corpus", ">= 200 files, verdict equals the reference, or documented stricter",
         [f"{BUILD}/bin/safetensors_corpus_test"]),
    18: ("golden vectors decode for ever; a future version is a clean error", "100%", [f"{BUILD}/bin/golden_test"]),
    19: ("big-endian and other CPUs under emulation", "round trip and golden", ["scripts/cross_test.sh aarch64 s390x riscv64"]),
    20: ("ThreadSanitizer, 64 threads, shared and separate contexts", "0 reports",
         ["cmake --preset tsan >/dev/null && cmake --build --preset tsan --target threads_test transfer_many_test transfer_kill_test "
          "&& build/tsan/bin/threads_test && build/tsan/bin/transfer_many_test && build/tsan/bin/transfer_kill_test"]),
    21: ("compute-sanitizer over every kernel x shape grid", "0 hazards", []),
    22: ("timing jitter, 1e4 reruns bit-identical", "identical", []),
    23: ("CUDA graph capture, 1e5 replays", "constant pointers", []),
    24: ("GPU index != 0, foreign context, side stream, unaligned and empty tensors", "right", []),
    25: ("fused GEMM = the same GEMM on the decoded weights", "bitwise weights, bf16 rounding", []),
    26: ("sender or receiver killed, connections cut after every byte, a long row of transfers", ">= 1,000 kills: no hang, no leak",
         [f"{BUILD}/bin/transfer_kill_test", f"{BUILD}/bin/transfer_cut_test", gtest("transfer_many_test", "*leave_nothing*")]),
    27: ("bit flip, reorder, duplicate, replay, splice, stale epoch, wrong codebook or model on the wire", "0 of 1e6 accepted",
         [f"{BUILD}/bin/transfer_wire_test"]),
    28: ("hostile peer: slow-loris, garbage, impossible sizes, no credentials, floods", "bounded memory, rejected",
         [f"{BUILD}/bin/transfer_hostile_test"]),
    29: ("mutation test of the decoders", ">= 95% of injected faults caught",
         ["python3 -B tests/faults/mutation_test.py"]),
}


def run(row, is_long, figures):
    """Runs a row's commands; returns its record."""
    fuzz = os.environ.get("TERSOR_FUZZ_SECONDS", "600" if is_long else "5")
    commands = [c.replace("{fuzz}", fuzz) for c in ROWS[row][2]]
    figures.write_text("", encoding="utf-8")
    env = dict(os.environ, TERSOR_LONG="1" if is_long else "0", TERSOR_FIGURES=str(figures), PYTHONDONTWRITEBYTECODE="1",
               TERSOR_PROGRAM=os.environ.get("TERSOR_PROGRAM", str(ROOT / BUILD / "bin" / "tersor")))
    start = time.monotonic()
    failed = []
    for command in commands:
        print(f"row {row}: {command}", flush=True)
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            failed.append(command)
            print(done.stdout[-4000:] + done.stderr[-2000:], flush=True)
        elif "[  PASSED  ]" in done.stdout and row in (17, 18):
            count = done.stdout.split("[  PASSED  ] ")[1].split(" ")[0]
            append(figures, row, "tests passed", int(count), "tests")
        elif row == 19:
            append(figures, row, "emulated CPUs: aarch64, s390x, riscv64", 3, "CPUs")
    lines = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    shown = [c.replace(BUILD + "/", "build/release/") for c in commands]
    return {"commands": shown, "long": is_long, "date": datetime.date.today().isoformat(), "passed": not failed,
            "seconds": round(time.monotonic() - start, 1), "figures": [line for line in lines if line["row"] == row]}


def append(figures, row, what, count, unit):
    with figures.open("a", encoding="utf-8") as out:
        out.write(json.dumps({"row": row, "what": what, "count": count, "wrong": 0, "unit": unit}) + "\n")


def summary(record):
    """The figures of one row, those of the same unit summed."""
    if not record["figures"]:
        return "passed" if record["passed"] else "FAILED"
    units = {}
    for figure in record["figures"]:
        total = units.setdefault(figure["unit"], [0, 0])
        # A tensor's size is a maximum, not a sum.
        total[0] = max(total[0], figure["count"]) if figure["unit"].endswith("one tensor") else total[0] + figure["count"]
        total[1] += figure["wrong"]
    text = "; ".join(f"{count:,} {unit}, {wrong:,} wrong" for unit, (count, wrong) in units.items())
    extra = {f["what"] for f in record["figures"] if any(w in f["what"] for w in ("KiB", "kill", "mutants", "targets", "disk"))}
    return ("" if record["passed"] else "FAILED: ") + text + ("".join(f" ({e})" for e in sorted(extra)))


def gpu_cells(row):
    """Figure, run, date and command of a row that needs a GPU, from the reports of tests/gpu/run.sh."""
    figures, dates = [], set()
    for report in sorted(RESULTS.parent.glob("gpu-tests-*.json")):
        tests = json.loads(report.read_text(encoding="utf-8"))
        sections = [s for s in tests["sections"] if row in s["row"]]
        if sections:
            checks, failures = sum(s["checks"] for s in sections), sum(s["failures"] for s in sections)
            figures.append(f"{tests['device']}: {checks:,} checks, {failures:,} failed")
            dates.add(tests["date"][:10])
    for report in sorted(RESULTS.parent.glob("sanitizer-*.json")) if row == 21 else []:
        tools = json.loads(report.read_text(encoding="utf-8"))
        figures.append(f"{tools['device']}: " + ", ".join(f"{t['tool']} {t['verdict']}" for t in tools["tools"]) +
                       (f" ({tools['note']})" if "note" in tools else ""))
    return ["<br>".join(figures) or ELSEWHERE, "on a GPU", ", ".join(sorted(dates)) or "-", "`tests/gpu/run.sh build/release/bin/gpu_test`"]


def write_page(records):
    lines = ["# Reliability scoreboard", "",
             "Written by `scripts/scoreboard.sh` from the output of the runs, which `bench/results/scoreboard.json` keeps. \"short\" runs sample",
             "the grids (they are part of `scripts/test.sh`), \"long\" runs take all of them. A command with `TERSOR_LONG=1` is a long run.",
             "Rows that need a GPU come from the reports of `tests/gpu/run.sh` in `bench/results`.", "",
             "| # | row | target | figure reached | run | date | command |", "|---|---|---|---|---|---|---|"]
    for row, (what, target, commands) in ROWS.items():
        record = records.get(str(row))
        if row in GPU_ROWS:
            cells = gpu_cells(row)
        elif not commands:
            cells = [ELSEWHERE, "-", "-", "-"]
        elif record is None:
            cells = ["not run", "-", "-", "<br>".join(f"`{c}`" for c in commands)]
        else:
            kind = "long" if record["long"] else "short"
            cells = [summary(record), f"{kind}, {record['seconds']:g} s", record["date"],
                     "<br>".join(f"`{c}`" for c in record["commands"])]
        lines.append(f"| {row} | {what} | {target} | " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--short", action="store_true", help="samples of the grids (default)")
    kind.add_argument("--long", action="store_true", help="all of them: hours")
    parser.add_argument("rows", nargs="*", type=int, help="rows to run; all if none is named")
    options = parser.parse_args()
    if "TERSOR_BUILD" not in os.environ:
        subprocess.run(["cmake", "--preset", "release", "-DTERSOR_BUILD_TESTS=ON"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cmake", "--build", "--preset", "release"], cwd=ROOT, check=True)
    wrong = []
    with tempfile.TemporaryDirectory(prefix="tersor-scoreboard-") as scratch:
        for row in options.rows or [r for r in ROWS if ROWS[r][2]]:
            if row not in ROWS or not ROWS[row][2]:
                sys.exit(f"row {row} cannot be run here")
            record = run(row, options.long, pathlib.Path(scratch) / "figures")
            # Read again: another run may have written its rows meanwhile.
            records = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
            records[str(row)] = record
            print(f"row {row}: {summary(record)}", flush=True)
            if not record["passed"]:
                wrong.append(row)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
            write_page(records)
    return f"failed: rows {wrong}" if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
