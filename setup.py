"""Builds the package for colcon and for pip; its metadata is in setup.cfg.

CMake generates the messages of msg/ with rosidl wherever ROS 2 and a C++ compiler are found: in the prefixes of
AMENT_PREFIX_PATH, or in Python's own (ROS 2 from PyPI). Without them everything else is installed, with one warning.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

NAME = "dwarf_ros"
ROOT = Path(__file__).resolve().parent
# Below a prefix, such as lib/python3.12/site-packages.
SITE_PACKAGES = sysconfig.get_path("purelib", "posix_prefix", {"base": ""}).lstrip("/")


class MessagesNotBuilt(Exception):
    """Why the messages could not be generated, in one line."""


def ros_prefixes() -> list[Path]:
    """Prefixes that may hold ROS 2: those of a sourced installation, then Python's own.

    Not sys.prefix: colcon points that at the folder it installs to.
    """
    sourced = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [*sourced, Path(sys.executable).absolute().parents[1]]


def build_environment(prefixes: list[Path]) -> dict[str, str]:
    """Environment in which CMake and the Python programs it runs see ROS 2 as installed.

    pip and colcon change what Python sees by a sitecustomize.py on PYTHONPATH, and pip drops what else was there; the
    generators need neither.
    """
    environment = dict(os.environ)
    python_path = [
        entry
        for entry in environment.get("PYTHONPATH", "").split(os.pathsep)
        if entry and not Path(entry, "sitecustomize.py").exists()
    ]
    python_path += [str(prefix / SITE_PACKAGES) for prefix in prefixes]
    environment["PYTHONPATH"] = os.pathsep.join(python_path)
    joined = os.pathsep.join(map(str, prefixes))
    environment["AMENT_PREFIX_PATH"] = joined
    environment["CMAKE_PREFIX_PATH"] = os.pathsep.join(
        [joined, environment.get("CMAKE_PREFIX_PATH", "")]
    )
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).absolute().parent), environment.get("PATH", os.defpath)]
    )
    return environment


def build_messages(build_folder: Path) -> Path:
    """Generate and compile the messages below build_folder; returns the prefix that they were installed to."""
    prefixes = ros_prefixes()
    if not any((prefix / "share" / "rosidl_default_generators").is_dir() for prefix in prefixes):
        raise MessagesNotBuilt(
            f"no rosidl_default_generators in {', '.join(map(str, prefixes))}; "
            "source a ROS 2 installation or install its wheels"
        )
    environment = build_environment(prefixes)
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise MessagesNotBuilt("no cmake on the PATH")

    # CMake remembers where it found ROS: another environment gets a folder of its own.
    key = hashlib.sha256("\n".join([sys.executable, *map(str, prefixes)]).encode()).hexdigest()[:8]
    folder = build_folder.absolute() / f"messages-{key}"
    source, build, prefix = folder / "source", folder / "build", folder / "prefix"
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(prefix, ignore_errors=True)
    (source / "msg").mkdir(parents=True)
    shutil.copy2(ROOT / "package.xml", source)
    shutil.copy2(ROOT / "msg" / "CMakeLists.txt", source)
    for message in (ROOT / "msg").glob("*.msg"):
        shutil.copy2(message, source / "msg")

    configure = [
        *(cmake, "-S", str(source), "-B", str(build)),
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        "-DPYTHON_INSTALL_DIR=python",
        f"-DPython3_EXECUTABLE={sys.executable}",
    ]
    compile_ = [cmake, "--build", str(build), "--parallel", str(os.cpu_count() or 1)]
    install = [cmake, "--install", str(build), "--prefix", str(prefix)]
    log = folder / "build.log"
    with log.open("w", encoding="utf-8") as output:
        for command in (configure, compile_, install):
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode != 0:
                raise MessagesNotBuilt(f"{first_error(log)} (all of it: {log})")
    return prefix


def first_error(log: Path) -> str:
    """The first error in CMake's or the compiler's output, as one line."""
    lines = [
        line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    start = next((i for i, line in enumerate(lines) if "error" in line.lower()), 0)
    return " ".join(line for line in lines[start : start + 6] if line)


def add_messages(distribution: Distribution, build_folder: Path, library: Path | None) -> None:
    """Build the messages and add them to what is installed, or warn that they could not be.

    Args:
        distribution: gets libraries, headers, CMake configuration and ament index entry as data files.
        build_folder: where to build.
        library: folder of the built Python package, which gets the Python part; None where the package stays in the
            checkout (editable), which leaves the Python part to be installed as data files too.
    """
    try:
        prefix = build_messages(build_folder)
    except MessagesNotBuilt as reason:
        print(
            f"{NAME}: WARNING: built without its messages, so the node will run without its topic `estimate`: {reason}",
            file=sys.stderr,
        )
        return
    python_files = [
        file
        for file in (prefix / "python" / NAME).rglob("*")
        if file.suffix in (".py", ".so")
        and file.relative_to(prefix / "python" / NAME) != Path("__init__.py")
    ]
    if library is not None:
        for file in python_files:
            target = library / file.relative_to(prefix / "python")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        python_files = []
    installed = {file: SITE_PACKAGES / file.relative_to(prefix / "python") for file in python_files}
    for pattern in (
        "include/**/*",
        "lib/*",
        f"share/{NAME}/msg/*",
        f"share/{NAME}/cmake/*",
        f"share/ament_index/resource_index/rosidl_interfaces/{NAME}",
    ):
        installed |= {
            file: file.relative_to(prefix) for file in prefix.glob(pattern) if file.is_file()
        }
    distribution.data_files += [
        (str(target.parent), [str(file)]) for file, target in sorted(installed.items())
    ]


class BuildPyWithMessages(build_py):
    """Adds the messages to the build: `colcon build`, `pip install .` and `pip install -e .`."""

    def run(self) -> None:
        super().run()
        build_folder = Path(self.get_finalized_command("build").build_temp)
        library = None if self.editable_mode else Path(self.build_lib)
        add_messages(self.distribution, build_folder, library)
        if self.editable_mode:
            # Of setuptools' own accord an editable wheel leaves the data files out.
            self.run_command("install_data")


class DevelopWithMessages(develop):
    """Adds the messages to `colcon build --symlink-install`, which does not build, only links."""

    def run(self) -> None:
        super().run()
        if not self.uninstall:
            build_folder = Path(self.get_finalized_command("build").build_temp)
            add_messages(self.distribution, build_folder, library=None)


class PlatformDistribution(Distribution):
    """Compiled messages tie a wheel to one Python and one platform."""

    def has_ext_modules(self) -> bool:
        return True


def share_files() -> list[tuple[str, list[str]]]:
    """package.xml, launch/, config/ and model/ for share/dwarf_ros, and the marker of the ament index."""
    files = [
        file.relative_to(ROOT)
        for folder in ("launch", "config", "model")
        for file in sorted((ROOT / folder).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    ]
    return [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        *(
            (str(Path("share", NAME, file).parent), [str(file)])
            for file in (Path("package.xml"), *files)
        ),
    ]


setup(
    python_requires=">=3.11",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_dir={"": "."},
    ext_modules=[],
    data_files=share_files(),
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildPyWithMessages, "develop": DevelopWithMessages},
)
