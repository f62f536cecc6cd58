"""The golden files are frozen: each has the SHA-256 of the manifest, none is missing or extra, and the generator still
writes every one of them."""

import argparse
import filecmp
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listed_files(manifest):
    """File name -> SHA-256 that the manifest gives."""
    files = {}
    for v in manifest["vectors"] + manifest["matrices"]:
        files[v["frame"]] = v["frame_sha256"]
        files[v["bin"]] = v["bin_sha256"]
    for v in manifest["must_fail"] + manifest["matrices_must_fail"]:
        files[v["frame"]] = v["frame_sha256"]
    for v in manifest["files"]:
        files[v["plain"]] = v["plain_sha256"]
    for v in manifest["files"] + manifest["files_must_fail"]:
        files[v["packed"]] = v["packed_sha256"]
    return files


def present_files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in (".tersor", ".bin", ".safetensors")}


def compare(vectors):
    files = listed_files(json.loads((vectors / "vectors.json").read_text()))
    faults = [f"not in the manifest: {n}" for n in sorted(present_files(vectors) - set(files))]
    for name, digest in sorted(files.items()):
        path = vectors / name
        if not path.is_file():
            faults.append(f"missing: {name}")
        elif sha256(path) != digest:
            faults.append(f"changed: {name}")
    if len(files) < 100:
        faults.append(f"only {len(files)} files in the manifest")
    return faults


def regenerate(vectors, program):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder], check=True)
        fresh = pathlib.Path(folder)
        names = sorted(present_files(fresh) | {"vectors.json"})
        return [f"the generator writes another {n}" for n in names
                if not (vectors / n).is_file() or not filecmp.cmp(vectors / n, fresh / n, shallow=False)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=pathlib.Path, required=True)
    parser.add_argument("--make-vectors", required=True)
    args = parser.parse_args()
    faults = compare(args.vectors) + regenerate(args.vectors, args.make_vectors)
    print("\n".join(faults) or "every golden file is as it was")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
