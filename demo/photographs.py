"""The demo's data: 1,200 photographic JPEGs in ten classes, and the same pictures decoded in one file.

The pictures are tiles cut from eleven real photographs that Debian ships as wallpapers (README.md names their
authors and licences). The package is downloaded once and unpacked beside the data, never installed. Each tile
depends on the seed and on its own number only, so every build gives the same bytes for a given Pillow.

`python demo/photographs.py [COUNT]` builds both data sets alone.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CACHE = Path(__file__).resolve().parent.parent / ".cache"
PACKAGE = "lomiri-wallpapers-16.04"
VERSION = 1  # Raise it when the recipe below changes, so that sets built before are built again.
COUNT, SEED, SIDE, PROCESSES = 1200, 0, 224, 2

CLASSES = {  # class: the photographs (by the start of their file names) that its tiles are cut from
    "brushes": ("Picture_1A",),
    "clock": ("greentock",),
    "dandelion": ("seeding",),
    "dogs": ("friends",),
    "dragonfly": ("Dragonfly",),
    "fig": ("Picture_0B",),
    "mountain": ("aitzgorri", "picosdeeuropa"),
    "stream": ("life",),
    "sunset": ("sunset",),
    "wine": ("Wine",),
}


class SourceMissing(Exception):
    """The source photographs cannot be had here; the message tells the user what to do."""


def photographs(count: int = COUNT, seed: int = SEED, cache: Path = CACHE) -> Path:
    """Makes `cache`/photographs/<class>/<number>.jpg unless it is there already, and returns its root."""
    root = cache / "photographs"
    manifest, wanted = root / "manifest.json", {"count": count, "seed": seed, "version": VERSION}
    if _complete(manifest, wanted) and sum(1 for _ in root.glob("*/*.jpg")) == count:
        print(f"photographs: {count} JPEGs are in {root}")
        return root
    source, started = _source_photographs(cache / "debs"), time.perf_counter()
    print(f"photographs: cutting {count} JPEGs into {root}")
    shutil.rmtree(root, ignore_errors=True)
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(_cut_class, number, count, seed, source, root) for number in range(len(CLASSES))]
        size = sum(job.result() for job in jobs)
    manifest.write_text(json.dumps(wanted))  # last: a build that was cut short has no manifest
    print(f"photographs: {size / count / 1e3:.0f} kB each, made in {time.perf_counter() - started:.0f} s")
    return root


def decoded(count: int = COUNT, seed: int = SEED, cache: Path = CACHE) -> tuple[Path, Path]:
    """Makes the decoded set unless it is there already: the path of the pixels, and that of the labels.

    The pixels are one raw uint8 array of shape [count, 224, 224, 3], for `numpy.memmap`.
    """
    stem = cache / f"photographs-{SIDE}"
    pixels, labels, manifest = (stem.with_name(stem.name + end) for end in (".u8", ".labels.npy", ".json"))
    wanted = {"count": count, "seed": seed, "version": VERSION, "side": SIDE}
    if _complete(manifest, wanted) and pixels.is_file() and labels.is_file():
        print(f"photographs: {count} decoded pictures are in {pixels}")
        return pixels, labels
    files, started = sorted(photographs(count, seed, cache).glob("*/*.jpg")), time.perf_counter()
    manifest.unlink(missing_ok=True)
    np.memmap(pixels, np.uint8, "w+", shape=(count, SIDE, SIDE, 3))  # makes the file; the processes fill it
    parts = np.array_split(np.arange(count), PROCESSES)
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(_decode, [files[i] for i in part], pixels, int(part[0])) for part in parts]
        for job in jobs:
            job.result()
    names = sorted(CLASSES)
    np.save(labels, np.array([names.index(file.parent.name) for file in files], np.int64))
    manifest.write_text(json.dumps(wanted))
    megabytes, seconds = pixels.stat().st_size / 1e6, time.perf_counter() - started
    print(f"photographs: decoded into {pixels} ({megabytes:.0f} MB) in {seconds:.0f} s")
    return pixels, labels


def _complete(manifest: Path, wanted: dict[str, int]) -> bool:
    try:
        return bool(json.loads(manifest.read_text()) == wanted)
    except (OSError, ValueError):
        return False


def _cut_class(number: int, count: int, seed: int, source: Path, root: Path) -> int:
    """Writes the tiles of one class, numbered `number`, `number` + 10, ..; returns their size in bytes."""
    name = sorted(CLASSES)[number]
    sources = [_open_rgb(next(source.glob(f"{start}_by_*.jpg"))) for start in CLASSES[name]]
    folder, size = root / name, 0
    folder.mkdir(parents=True)
    for tile in range(number, count, len(CLASSES)):
        file = folder / f"{tile:05d}.jpg"
        _cut(sources, random.Random(f"{seed}/{tile}"), file)
        size += file.stat().st_size
    return size


def _cut(sources: list[Image.Image], rng: random.Random, file: Path) -> None:
    """Saves one tile: a random place of a source at a random scale, stored as photographs on the web are."""
    source = rng.choice(sources)
    width, height = rng.randint(400, 600), rng.randint(300, 450)
    largest = min(source.width / width, source.height / height)
    scale = largest ** rng.uniform(0.5, 1)  # above 1, so a tile is shrunk from the source and stays sharp
    left = rng.uniform(0, source.width - width * scale)
    top = rng.uniform(0, source.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    tile = source.resize((width, height), Image.Resampling.BICUBIC, box)
    if rng.random() < 0.01:
        tile = tile.convert("L")
    # Pillow's subsampling=2 is 4:2:0.
    tile.save(file, quality=rng.randint(75, 95), subsampling=2, progressive=rng.random() < 0.10)


def _decode(files: list[Path], pixels: Path, first: int) -> None:
    """Writes the pictures to rows `first`.. of the decoded file: the centre square, resized."""
    shape = (len(files), SIDE, SIDE, 3)
    rows = np.memmap(pixels, np.uint8, "r+", offset=first * SIDE * SIDE * 3, shape=shape)
    for row, file in zip(rows, files, strict=True):
        picture = _open_rgb(file)
        shorter = min(picture.size)
        left, top = (picture.width - shorter) / 2, (picture.height - shorter) / 2
        box = (left, top, left + shorter, top + shorter)
        row[:] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box))
    rows.flush()


def _open_rgb(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGB")


def _source_photographs(debs: Path) -> Path:
    """The folder with the package's photographs, downloaded and unpacked the first time."""
    debs.mkdir(parents=True, exist_ok=True)
    try:
        deb = next(iter(debs.glob(f"{PACKAGE}_*.deb")), None) or _download(debs)
        _run(["dpkg-deb", "-x", str(deb), str(debs / PACKAGE)])
    except (OSError, subprocess.CalledProcessError) as error:
        said = ((getattr(error, "stderr", None) or "").strip() or str(error)).splitlines()
        raise SourceMissing(
            f"The demo cuts its pictures from the photographs in the Debian package {PACKAGE} (16 MB), and "
            f"could not get it ({said[-1]}). Run `apt-get update` as root and start the demo again; or, on "
            f"any Debian or Ubuntu machine with a network, run `apt-get download {PACKAGE}` and copy the "
            f".deb file into {debs}. The package is only unpacked there (`dpkg-deb -x`), not installed."
        ) from error
    return debs / PACKAGE / "usr/share/backgrounds"


def _download(debs: Path) -> Path:
    """Fetches the package with apt, whose lists only root may refresh. Raises what the last try raised."""
    print(f"photographs: downloading the Debian package {PACKAGE} (16 MB) into {debs}")
    apt = ["apt-get", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]
    with tempfile.TemporaryDirectory(dir=debs) as part:  # A download cut short is never taken for whole.
        try:
            _run([*apt, "download", PACKAGE], part)
        except subprocess.CalledProcessError:
            if os.geteuid() != 0:
                raise
            print("photographs: apt does not find it, refreshing its package lists")
            _run([*apt, "update"])
            _run([*apt, "download", PACKAGE], part)
        deb = next(Path(part).glob("*.deb"))
        return deb.rename(debs / deb.name)


def _run(command: list[str], folder: str | None = None) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    try:
        decoded(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
    except SourceMissing as missing:
        sys.exit(str(missing))
