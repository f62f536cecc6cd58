"""The link over tersor.transfer, and two whole vLLM engines that hand caches to each other, on the CPU.

An engine runs in a process of its own (this file is also that process's program).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: scripts/test_vllm.sh")
pytest.importorskip("vllm.v1.kv_offload.tiering.base", reason="this vLLM has no secondary tiers (0.32 has)")

import torch

import tersor

LAYERS = ("model.layers.0.attn", "model.layers.1.attn")


@pytest.fixture
def link():
    from tersor.integrations import _link

    geometry = {"model": "org/model", "dtype": "BF16", "n_layers": 2, "block_size": 4}
    receiver = _link.open_receiver({"listen": "127.0.0.1:0", "keep": 0.3}, geometry, 0)
    sender = _link.open_sender({"codec": "rank"}, geometry)
    yield sender, receiver, f"127.0.0.1:{receiver.address[1]}", geometry
    sender.close()
    receiver.close()


def layers(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(9, 2, 4, 64, generator=generator).to(torch.bfloat16) for name in LAYERS}


def test_link_carries_layers_bit_for_bit(link) -> None:
    sender, receiver, to, _ = link
    for number in (1, 2**64 - 1):
        report = sender.send(to, number, layers(number % 7))
        assert report["sent_bytes"] < report["raw_bytes"]
        found = receiver.wait(number, 5.0)
        assert set(found) == set(LAYERS)
        assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in layers(number % 7).items())
    with pytest.raises(tersor.Error):
        sender.send(to, 1, layers())  # a number is used once


def test_link_keeps_nothing_that_nobody_takes(link) -> None:
    sender, receiver, to, _ = link
    with pytest.raises(tersor.Error):
        receiver.wait(1, 0.05)
    with pytest.raises(tersor.Error, match="nobody waits"):
        sender.send(to, 1, layers())
    sender.send(to, 2, layers())
    time.sleep(0.4)
    sender.send(to, 3, layers(3))
    assert torch.equal(receiver.wait(3, 5.0)[LAYERS[0]], layers(3)[LAYERS[0]])
    assert not receiver._came
    with pytest.raises(tersor.Error):
        receiver.wait(2, 0.05)


def test_link_refuses_other_models_and_bad_addresses(link, tmp_path: Path) -> None:
    from tersor.integrations import _link

    _, _, to, geometry = link
    other = _link.open_sender({}, {**geometry, "model": "org/other"})
    with pytest.raises(tersor.MismatchError, match="model"):
        other.send(to, 5, layers())
    other.close()
    (tmp_path / "key").write_bytes(os.urandom(32).hex().encode())
    keyed = _link.open_sender({"psk_file": tmp_path / "key"}, geometry)
    with pytest.raises(tersor.Error):
        keyed.send(to, 6, layers())
    keyed.close()
    with pytest.raises(tersor.InvalidArgumentError, match="key"):
        _link.open_receiver({"listen": "0.0.0.0:0"}, geometry, 0)
    for wrong in ("", "host", ":5", "host:x", "host:70000"):
        with pytest.raises(tersor.InvalidArgumentError):
            _link.split_address(wrong)
    assert _link.split_address("[::1]:5") == ("::1", 5)


# ---- two engines ----

TINYLM = Path(__file__).resolve().parents[1] / "data" / "tinylm-2m"
TERSOR = Path(importlib.util.find_spec("tersor").origin).parents[1]
PROMPTS = [b"The history of the city ", b"In 1998, ", b"A", b"the same day, " * 20]
FIRST_ID = 100


def break_link(link, faults: dict[str, str]) -> None:
    """Lets a receiver's requests fail: {number: "damage" or "shape"}."""
    wait = link.wait

    def failing(number: int, timeout: float):
        found = wait(number, timeout)
        fault = faults.get(str(number))
        if fault == "damage":
            raise tersor.DigestMismatchError("damaged by the test")
        return {name: found[name][:, :1] for name in found} if fault == "shape" else found

    link.wait = failing


def engine_main() -> None:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    # vLLM's AMX kernel runs into an illegal instruction if an engine's first step only decodes, as here.
    torch.cpu._is_amx_tile_supported = lambda: False
    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig

    from tersor.integrations import _link

    options = json.loads(sys.argv[1])
    open_receiver = _link.open_receiver

    def tell(config, geometry, add):
        link = open_receiver(config, geometry, add)
        if options.get("faults"):
            link_of = SimpleNamespace(address=link.address, wait=link.wait, close=link.close)
            break_link(link_of, options["faults"])
            link = link_of
        print(f"LISTENS {link.address[0]}:{link.address[1]}", flush=True)
        return link

    _link.open_receiver = tell
    transfer = None
    if options["role"] != "plain":
        transfer = KVTransferConfig(
            kv_connector="TersorConnector", kv_connector_module_path="tersor.integrations.vllm_connector",
            kv_role=options["role"], kv_connector_extra_config=options["extra"],
            kv_load_failure_policy=options.get("policy", "recompute"),
        )  # fmt: skip
    llm = LLM(
        str(TINYLM), skip_tokenizer_init=True, max_model_len=512, max_num_seqs=4, dtype="bfloat16", enforce_eager=True,
        enable_prefix_caching=False, kv_transfer_config=transfer,
        gpu_memory_utilization=0.3,
    )  # fmt: skip
    count = 1 if options["role"] == "kv_producer" else 24
    sampling = []
    for i in range(len(PROMPTS)):
        params = {"tersor_id": FIRST_ID + i, **({"tersor_to": options["to"]} if "to" in options else {})}
        extra = None if transfer is None else {"kv_transfer_params": params}
        sampling.append(
            SamplingParams(max_tokens=count, temperature=0, detokenize=False, ignore_eos=True, extra_args=extra)
        )
    outputs = llm.generate([{"prompt_token_ids": list(p)} for p in PROMPTS], sampling, use_tqdm=False)
    found = {
        "tokens": [list(o.outputs[0].token_ids) for o in outputs],
        "cached": [o.num_cached_tokens for o in outputs],
        "ended": [o.outputs[0].finish_reason for o in outputs],
    }
    print("FOUND " + json.dumps(found), flush=True)


class Engine:
    def __init__(self, role: str, **options) -> None:
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING",
            "PYTHONPATH": os.pathsep.join([str(TERSOR), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
        }  # fmt: skip
        arguments = [sys.executable, __file__, json.dumps({"role": role, **options})]
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def line(self, begin: str) -> str:
        for line in self._process.stdout:
            self._lines.append(line)
            if line.startswith(begin):
                return line.removeprefix(begin).strip()
        raise AssertionError(f"no {begin!r}, exit {self._process.wait()}: " + "".join(self._lines[-60:]))

    def found(self) -> dict:
        found = json.loads(self.line("FOUND "))
        assert self._process.wait(120) in (0, None)
        return found


def pair(**options) -> dict:
    """A decode engine, and a prefill engine that sends to it; what the decode engine found."""
    decode = Engine("kv_consumer", extra={"listen": "127.0.0.1:0", "timeout": 400}, **options)
    to = decode.line("LISTENS ")
    prefill = Engine("kv_producer", extra={}, to=to)
    prefill.found()
    return decode.found()


@pytest.fixture(scope="module")
def plain() -> dict:
    return Engine("plain").found()


def test_decode_engine_uses_the_cache_of_the_prefill_engine(plain) -> None:
    found = pair()
    assert found["tokens"] == plain["tokens"]
    assert found["cached"] == [len(PROMPTS[0]), len(PROMPTS[1]), 0, len(PROMPTS[3])]  # a last token is always computed


def test_faults_are_recomputed_and_never_used(plain) -> None:
    found = pair(faults={str(FIRST_ID + 1): "damage", str(FIRST_ID + 3): "shape"})
    assert found["tokens"] == plain["tokens"]
    assert found["cached"] == [len(PROMPTS[0]), 0, 0, 0]


def test_nobody_sends(plain) -> None:
    extra = {"listen": "127.0.0.1:0", "timeout": 1}
    assert Engine("kv_consumer", extra=extra).found()["tokens"] == plain["tokens"]
    failed = Engine("kv_consumer", extra=extra, policy="fail").found()
    assert failed["ended"] == ["error"] * len(PROMPTS)
    assert failed["tokens"] == [[]] * len(PROMPTS)


if __name__ == "__main__":
    engine_main()
