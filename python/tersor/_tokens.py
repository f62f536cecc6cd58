"""Token ids of a data set in rows of equal length: files, the hub, or random ids; never all in memory at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ._errors import error

# What people mean by a bare name.
KNOWN_DATASETS = {
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "c4": ("allenai/c4", "en"),
}
BYTE_VOCABULARY = 256
# Ids or characters that are looked at together.
_BLOCK = 1 << 20


def _bad(message: str, name: str = "invalid_argument", **place: object) -> Exception:
    return error(name, message, **place)


def _check_ids(ids: np.ndarray, vocab_size: int, source: str) -> np.ndarray:
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise _bad(f"{source}: token ids from {ids.min()} to {ids.max()}, but the model has {vocab_size} tokens")
    return ids


def _stored_ids(path: Path, vocab_size: int) -> Iterator[np.ndarray]:
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as e:
        raise _bad(f"not an array of token ids: {_one_line(e)}", "malformed", file=str(path)) from None
    if ids.dtype.kind not in "iu":
        raise _bad(f"token ids are integers, not {ids.dtype}", file=str(path))
    flat = ids.reshape(-1)
    for at in range(0, flat.size, _BLOCK):
        yield _check_ids(flat[at : at + _BLOCK], vocab_size, str(path))


def _random_ids(spec: str, vocab_size: int) -> Iterator[np.ndarray]:
    """`random:N` or `random:N:SEED`."""
    parts = spec.split(":")[1:]
    if len(parts) not in (1, 2) or not all(part.isdecimal() for part in parts) or int(parts[0]) == 0:
        raise _bad(f"'{spec}' is not random:N or random:N:SEED")
    seed = int(parts[1]) if len(parts) == 2 else 0
    generator, n_ids = np.random.default_rng(seed), int(parts[0])
    for at in range(0, n_ids, _BLOCK):
        yield generator.integers(0, vocab_size, min(_BLOCK, n_ids - at), dtype=np.int64)


def _field(row: object, field: str, where: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        raise _bad(f"{where} has no text in a field '{field}'; --text-field names another", "malformed")
    return row[field]


def _jsonl_texts(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise _bad(f"line {number} is not JSON", "malformed", file=str(path)) from None
            yield _field(row, field, f"{path}: line {number}")


def _parquet_texts(path: Path, field: str) -> Iterator[str]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise _bad("a .parquet data set needs pyarrow: pip install pyarrow", "unsupported") from None
    file = pyarrow.parquet.ParquetFile(path)
    if field not in file.schema_arrow.names:
        raise _bad(f"{path} has no column '{field}', only {', '.join(file.schema_arrow.names)}")
    for batch in file.iter_batches(columns=[field]):
        yield from (_field({field: text}, field, str(path)) for text in batch.column(0).to_pylist())


def _plain_texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        while block := file.read(_BLOCK):
            yield block + file.readline()


def _hub_texts(name: str, config: str | None, split: str, field: str) -> Iterator[str]:
    try:
        import datasets
    except ImportError:
        raise _bad(
            f"'{name}' is no local file, and a data set of the hub needs the package datasets: pip install datasets",
            "unsupported",
        ) from None
    repository, usual_config = KNOWN_DATASETS.get(name, (name, None))
    try:
        rows = datasets.load_dataset(repository, config or usual_config, split=split, streaming=True)
    except Exception as e:
        raise _bad(f"data set '{repository}', split '{split}': {_one_line(e)}", "not_found") from e
    yield from (_field(row, field, f"a row of '{repository}'") for row in rows)


def _one_line(e: BaseException) -> str:
    """The first line of an error, or its class where it says nothing."""
    text = str(e).strip()
    return text.splitlines()[0] if text else type(e).__name__


def _blocks(texts: Iterator[str], separator: str) -> Iterator[str]:
    """Joins documents to blocks of about a MiB, so that short ones are not tokenized one by one."""
    parts, size = [], 0
    for text in texts:
        parts.append(text)
        size += len(text)
        if size >= _BLOCK:
            yield separator.join(parts) + separator
            parts, size = [], 0
    if parts:
        yield separator.join(parts)


def _encode(text: str, tokenizer: object | None) -> np.ndarray:
    if tokenizer is None:
        return np.frombuffer(text.encode(), np.uint8)
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int64)


def token_pieces(
    dataset: str,
    *,
    vocab_size: int,
    tokenizer: object | None = None,
    config: str | None = None,
    split: str = "test",
    text_field: str = "text",
) -> Iterator[np.ndarray]:
    """Pieces of token ids (1-D integers) of `dataset`, in order.

    `dataset` is `random:N[:SEED]`, a local `.npy` of ids, `.txt`, `.jsonl` or `.parquet`, or a name on the hub.
    Without a `tokenizer` text becomes its UTF-8 bytes, for models of 256 tokens or more that were trained so.
    Raises a `tersor.Error` that says what does not fit.
    """
    if dataset.startswith("random:"):
        yield from _random_ids(dataset, vocab_size)
        return
    path = Path(dataset)
    suffix = path.suffix.lower()
    local = suffix in (".npy", ".txt", ".jsonl", ".parquet")
    if local and not path.is_file():
        raise _bad("there is no such file", "not_found", file=dataset)
    if suffix == ".npy":
        yield from _stored_ids(path, vocab_size)
        return
    if tokenizer is None and vocab_size < BYTE_VOCABULARY:
        raise _bad(f"the model has no tokenizer and {vocab_size} tokens, too few for bytes: give ids as .npy")
    readers = {".jsonl": _jsonl_texts, ".parquet": _parquet_texts}
    if suffix == ".txt":
        blocks = _plain_texts(path)
    elif local:
        blocks = _blocks(readers[suffix](path, text_field), "\n\n")
    else:
        blocks = _blocks(_hub_texts(dataset, config, split, text_field), "\n\n")
    try:
        for block in blocks:
            yield _check_ids(_encode(block, tokenizer), vocab_size, dataset)
    except UnicodeDecodeError:
        raise _bad("not UTF-8 text", "malformed", file=dataset) from None


def token_batches(pieces: Iterator[np.ndarray], tokens: int, seq_len: int, batch: int) -> Iterator[np.ndarray]:
    """int64 arrays `[rows, length]` of at most `tokens` ids in all: `batch` rows of `seq_len`, then what is left.

    The ids run on from row to row without padding; the last, shorter row is a batch of its own.
    """
    left, have = tokens, np.empty(0, np.int64)
    for piece in pieces:
        have = np.concatenate([have, piece[:left].astype(np.int64)])
        left -= min(left, piece.size)
        while have.size >= batch * seq_len:
            taken, have = np.split(have, [batch * seq_len])
            yield taken.reshape(batch, seq_len)
        if left == 0:
            break
    rows = have.size // seq_len
    if rows:
        yield have[: rows * seq_len].reshape(rows, seq_len)
    if have.size % seq_len:
        yield have[rows * seq_len :].reshape(1, -1)
