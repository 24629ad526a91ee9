"""What reading a tomogram from servers costs beside reading it from disk: both passes of an inference, slab by slab.

python benchmarks/remote.py                                      on loopback, every twentieth request failing

Each line is a process of its own: seconds, the most memory it had, and requests that failed. S3 is moto's server, which
is slow by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from jaxcryo.stores.cache import Cache
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests"))
SLICES = 64


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(184, 630, 630), metavar=("Z", "Y", "X"))
    parser.add_argument("--one-in", type=int, default=20, help="requests of which one fails")
    parser.add_argument("--read", help="an address to read, in this process")
    parser.add_argument("--cache")
    args = parser.parse_args()
    if args.read is not None:
        _read(args.read, args.cache)
        return
    import servers

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        voxels = np.random.default_rng(0).normal(size=args.shape).astype(np.float32)
        write_ome_zarr(folder / "data" / "a.zarr", voxels, (10.0, 10.0, 10.0), levels=1)
        web = stack.enter_context(servers.web_server(folder / "data"))
        s3 = stack.enter_context(servers.s3_server())
        servers.put_folder(s3, "bucket", folder / "data")
        for name, place, served in (
            ("disk", str(folder / "data" / "a.zarr"), None),
            ("HTTP", f"{web.url}/a.zarr", web),
            ("HTTP, with a cache", f"{web.url}/a.zarr", web),
            ("S3", "s3://bucket/a.zarr", s3),
            ("S3, with a cache", "s3://bucket/a.zarr", s3),
        ):
            if served is not None:
                served.failed, served.fault = 0, servers.one_in(args.one_in)
                served.asked.clear()
            cache = ["--cache", str(folder / name)] if "cache" in name else []
            environment = os.environ | {"AWS_ENDPOINT_URL": s3.url, "AWS_SKIP_SIGNATURE": "true"}
            ran = subprocess.run(
                [sys.executable, __file__, "--read", place, *cache],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            failed = f"  {served.failed} of {served.asked.total()} requests failed" if served is not None else ""
            print(f"{name:20}{ran.stdout.strip()}{failed}", flush=True)


def _read(place: str, cache: str | None) -> None:
    began, before = time.monotonic(), _most_memory_mb()
    volume = open_volume(place, cache=None if cache is None else Cache(cache))
    depth, total = volume.grid.shape_zyx[0], 0.0
    for _ in range(2):
        for z in range(0, depth, SLICES):
            total += float(volume.read(z, min(z + SLICES, depth)).sum())
    more = _most_memory_mb() - before
    print(f"{time.monotonic() - began:6.1f} s  {more:6.0f} MB more than at rest  sum {total:.3f}")


def _most_memory_mb() -> float:
    """Of this process so far (Linux); `ru_maxrss` would begin with the parent's."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
