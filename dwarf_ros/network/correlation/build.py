"""Builds the correlation library: python -m dwarf_ros.network.correlation.build [ARCHITECTURES ...].

One library for each framework that is installed, each with the CPU kernel and, where there is an nvcc, the CUDA kernel. They
lie in the user's cache folder, named after what they were built from, so that a new version of the sources or of a framework
is a new library and an old one is never loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dwarf_ros.types import InputError

FACES = {"tensorflow": "tensorflow_ops.cc", "jax": "jax_handlers.cc"}
"""Framework -> the source of its face of the library."""

DEFAULT_ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90")
"""Built for where no GPU is present: Turing to Hopper and, as sm_87, Jetson Orin."""

SOURCES = Path(__file__).parent
_PLAIN = ("correlation.h", "correlation.cc", "correlation.cu")


def cache_folder() -> Path:
    """Where libraries are kept: $XDG_CACHE_HOME or ~/.cache, then dwarf_ros/cuda."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dwarf_ros" / "cuda"


def installed_faces() -> list[str]:
    """The frameworks of FACES that are installed here."""
    return [name for name in FACES if importlib.util.find_spec(name) is not None]


def library_file(face: str, folder: Path | None = None) -> Path:
    """Where the library of that framework lies, once built, for these sources and the framework's installed version."""
    digest = hashlib.sha256()
    for name in (*_PLAIN, FACES[face], "build.py"):
        digest.update((SOURCES / name).read_bytes())
    version = importlib.metadata.version("jaxlib") if face == "jax" else _tensorflow_version()
    name = f"correlation-{face}-{version}-{platform.machine()}-{digest.hexdigest()[:12]}.so"
    return (folder or cache_folder()) / name


def build(
    faces: Sequence[str] | None = None,
    architectures: Sequence[str] = (),
    nvcc: str | None = "nvcc",
    folder: Path | None = None,
) -> list[Path]:
    """Builds the libraries, in place of earlier ones of the same name.

    Args:
        faces: frameworks; None: those that are installed.
        architectures: GPU architectures such as `sm_87`; empty: that of the present GPU, else DEFAULT_ARCHITECTURES, or those of
            them that the nvcc knows. Kernels for the newest are kept as PTX too, for GPUs that are newer still.
        nvcc: CUDA's compiler; where there is none by that name, or it is None, the libraries hold the CPU kernel alone.
        folder: where to put them; None: `cache_folder()`.

    Returns:
        The libraries' files.

    Raises:
        InputError: no framework, no g++, an architecture that the nvcc does not know, a compiler that fails, or a folder that
            cannot be made.
    """
    chosen = installed_faces() if faces is None else list(faces)
    if not chosen:
        raise InputError(f"correlation: none of {', '.join(FACES)} is installed to build for")
    if shutil.which("g++") is None:
        raise InputError("correlation: no g++ on the PATH to build with")
    compiler = shutil.which(nvcc) if nvcc else None
    if compiler is None and architectures:
        raise InputError(f"correlation: no {nvcc or 'nvcc'} to build for {' '.join(architectures)}")
    targets = _targets(compiler, architectures) if compiler else []
    folder = folder or cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"correlation: {folder} cannot be made: {error.strerror}") from None
    defines = []
    if targets:
        defines = ["-DDWARF_CUDA", f'-DDWARF_ARCHITECTURES="{" ".join(targets)}"']
    files = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        objects = [_compiled(Path(temporary), "correlation.cc", ["-O3", *defines])]
        if compiler:
            objects.append(_compiled_kernels(Path(temporary), compiler, targets))
        for face in chosen:
            compile_flags, link_flags = _face_flags(face)
            if targets:
                compile_flags = [*compile_flags, "-DGOOGLE_CUDA=1"]
            of_face = _compiled(
                Path(temporary), FACES[face], ["-O1", "-w", *defines, *compile_flags]
            )
            made = Path(temporary) / f"{face}.so"
            link = [str(file) for file in (*objects, of_face)] + link_flags
            if compiler:
                # nvcc knows where its runtime lies; a static one loads on machines without CUDA.
                _run([compiler, "-shared", "-cudart", "static", "-o", str(made), *link])
            else:
                _run(["g++", "-shared", "-o", str(made), *link])
            file = library_file(face, folder)
            made.replace(file)
            files.append(file)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; answers with its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dwarf_ros.network.correlation.build",
        description="Builds the CUDA correlation for the installed frameworks, the CPU kernel alone where there is no nvcc.",
    )
    parser.add_argument(
        "architectures",
        nargs="*",
        metavar="ARCHITECTURE",
        help="GPU architectures, such as sm_87 (default: the present GPU's, else "
        f"{' '.join(DEFAULT_ARCHITECTURES)})",
    )
    parser.add_argument("--nvcc", default="nvcc", help="CUDA's compiler (default: %(default)s)")
    parser.add_argument("--out", type=Path, help=f"folder to build to (default: {cache_folder()})")
    options = parser.parse_args(arguments)
    try:
        files = build(None, options.architectures, options.nvcc, options.out)
    except InputError as error:
        print(f"build: error: {error}", file=sys.stderr)
        return 2
    kernels = architectures_of(files[0])
    print(f"CUDA for {kernels}" if kernels else "no nvcc: the CPU kernel alone")
    for file in files:
        print(file)
    return 0


def architectures_of(library: Path) -> str:
    """GPU architectures that a library holds kernels for, in one line; empty where it was built without nvcc.

    Read from the file, which needs its framework to be loaded.
    """
    found = re.search(rb"architectures:([ -~]*)\0", library.read_bytes())
    return found[1].decode() if found else ""


def _tensorflow_version() -> str:
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    import tensorflow

    return tensorflow.__version__


def _face_flags(face: str) -> tuple[list[str], list[str]]:
    """Flags of g++ to compile and to link a framework's face."""
    if face == "tensorflow":
        import tensorflow

        return tensorflow.sysconfig.get_compile_flags(), tensorflow.sysconfig.get_link_flags()
    import jax

    return [f"-I{jax.ffi.include_dir()}"], []


def _compiled(folder: Path, source: str, flags: Sequence[str]) -> Path:
    file = folder / f"{source}.o"
    _run(["g++", "-std=c++17", *flags, "-fPIC", "-c", str(SOURCES / source), "-o", str(file)])
    return file


def _compiled_kernels(folder: Path, nvcc: str, targets: Sequence[str]) -> Path:
    file = folder / "correlation.cu.o"
    codes = [f"-gencode=arch={name.replace('sm_', 'compute_')},code={name}" for name in targets]
    newest = targets[-1].replace("sm_", "compute_")
    codes.append(f"-gencode=arch={newest},code={newest}")
    command = [nvcc, "-std=c++17", "-O3", "-Xcompiler", "-fPIC", "--threads", "0", *codes]
    _run([*command, "-c", str(SOURCES / "correlation.cu"), "-o", str(file)])
    return file


def _targets(nvcc: str, architectures: Sequence[str]) -> list[str]:
    """Architectures to build for, the newest last."""
    listed = _run([nvcc, "--list-gpu-code"])
    known = re.findall(r"sm_\d+", listed)
    for name in architectures:
        if name not in known:
            raise InputError(
                f"correlation: architecture {name!r} is not one of {nvcc}'s: {' '.join(known)}"
            )
    wanted = list(architectures) or [name for name in _present_gpus() if name in known]
    wanted = wanted or [name for name in DEFAULT_ARCHITECTURES if name in known] or known[-1:]
    return sorted(set(wanted), key=known.index)


def _present_gpus() -> list[str]:
    """Architectures of the machine's GPUs; empty without any, or where the driver does not tell."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    found = re.findall(r"^(\d+)\.(\d)$", listed.stdout, re.MULTILINE)
    return [f"sm_{major}{minor}" for major, minor in found]


def _run(command: Sequence[str]) -> str:
    """Output of a compiler.

    Raises:
        InputError: it fails; with the first line in which it speaks of an error.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"correlation: {command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["nothing said"]
        line = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise InputError(f"correlation: {command[0]} failed: {line.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
