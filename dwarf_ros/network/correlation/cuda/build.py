"""Build the correlation library: python -m dwarf_ros.network.correlation.cuda.build [ARCHITECTURES ...].

Each installed framework gets its own library with the CPU kernels and, if there is an nvcc, the CUDA kernels. The libraries
are stored in the user's cache folder under names that change with the sources and the framework's version, so that an
outdated library is never loaded.
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

BINDINGS = {"tensorflow": "tensorflow_binding.cc", "jax": "jax_binding.cc"}
"""Framework -> the source of its binding."""

DEFAULT_ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90")
"""Built if no GPU is present: Turing to Hopper, and Jetson Orin (sm_87)."""

SOURCES = Path(__file__).parent
_PLAIN = ("correlation.h", "correlation.cc", "correlation.cu")


def cache_folder() -> Path:
    """Where libraries are stored: dwarf_ros/cuda in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dwarf_ros" / "cuda"


def installed_frameworks() -> list[str]:
    """The frameworks of BINDINGS that are installed."""
    return [name for name in BINDINGS if importlib.util.find_spec(name) is not None]


def library_file(framework: str, folder: Path | None = None) -> Path:
    """File of a framework's library, built or not, for these sources and the framework's installed version."""
    digest = hashlib.sha256()
    for name in (*_PLAIN, BINDINGS[framework], "build.py"):
        digest.update((SOURCES / name).read_bytes())
    version = importlib.metadata.version("jaxlib") if framework == "jax" else _tensorflow_version()
    name = f"correlation-{framework}-{version}-{platform.machine()}-{digest.hexdigest()[:12]}.so"
    return (folder or cache_folder()) / name


def build(
    frameworks: Sequence[str] | None = None,
    architectures: Sequence[str] = (),
    nvcc: str | None = "nvcc",
    folder: Path | None = None,
) -> list[Path]:
    """Build the libraries and replace existing ones of the same name.

    Args:
        frameworks: keys of BINDINGS; None: those that are installed.
        architectures: GPU architectures such as `sm_87`; empty: that of the present GPU, else those of DEFAULT_ARCHITECTURES that
            nvcc supports. The newest one is also stored as PTX, for GPUs that are newer still.
        nvcc: CUDA's compiler; if it is None or not on the PATH, the libraries contain only the CPU kernels.
        folder: output folder; None: `cache_folder()`.

    Returns:
        The libraries' files.

    Raises:
        InputError: there is no framework or no g++, nvcc does not support an architecture, a compiler fails, or the folder cannot
            be created.
    """
    chosen = installed_frameworks() if frameworks is None else list(frameworks)
    if not chosen:
        raise InputError(f"correlation: none of {', '.join(BINDINGS)} is installed")
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
        raise InputError(f"correlation: {folder} cannot be created: {error.strerror}") from None
    defines = []
    if targets:
        defines = ["-DDWARF_CUDA", f'-DDWARF_ARCHITECTURES="{" ".join(targets)}"']
    files = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        objects = [_compiled(Path(temporary), "correlation.cc", ["-O3", *defines])]
        if compiler:
            objects.append(_compiled_kernels(Path(temporary), compiler, targets))
        for framework in chosen:
            compile_flags, link_flags = _framework_flags(framework)
            if targets:
                compile_flags = [*compile_flags, "-DGOOGLE_CUDA=1"]
            binding = _compiled(
                Path(temporary), BINDINGS[framework], ["-O1", "-w", *defines, *compile_flags]
            )
            linked = Path(temporary) / f"{framework}.so"
            link = [str(file) for file in (*objects, binding)] + link_flags
            if compiler:
                # nvcc finds its own runtime; linked statically, the library loads on machines without CUDA.
                _run([compiler, "-shared", "-cudart", "static", "-o", str(linked), *link])
            else:
                _run(["g++", "-shared", "-o", str(linked), *link])
            file = library_file(framework, folder)
            linked.replace(file)
            files.append(file)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dwarf_ros.network.correlation.cuda.build",
        description="Build the correlation kernels for the installed frameworks; without nvcc, only the CPU kernels.",
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
    print(f"CUDA for {kernels}" if kernels else "no nvcc: CPU kernels only")
    for file in files:
        print(file)
    return 0


def architectures_of(library: Path) -> str:
    """GPU architectures that a library supports, in one line; empty if it was built without nvcc.

    Read from the file, because loading it needs its framework.
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


def _framework_flags(framework: str) -> tuple[list[str], list[str]]:
    """Flags of g++ to compile and to link a framework's binding."""
    if framework == "tensorflow":
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
    """Architectures of the machine's GPUs; empty if there are none or the driver does not report them."""
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
        InputError: it fails; with the first line of its output that contains "error".
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"correlation: {command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
        line = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise InputError(f"correlation: {command[0]} failed: {line.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
