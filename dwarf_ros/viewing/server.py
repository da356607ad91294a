"""A server for Rerun's page and data that listens on one address, with a page that contacts no other server.

Rerun's wheel contains the viewer, so this works without a network. Usage statistics are disabled.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import ipaddress
import os
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dwarf_ros.signals import raising_interrupts
from dwarf_ros.types import InputError

PORT = 9090
"""Port of the page; the data is served on the next port."""
LOOPBACK = "127.0.0.1"

_START_S = 20.0
_PAGE_FILES = ("index.html", "re_viewer.js", "re_viewer_bg.wasm", "favicon.ico")


def import_rerun() -> Any:
    """The module rerun.

    Raises:
        InputError: it is not installed.
    """
    try:
        import rerun
    except ImportError:
        raise InputError(
            "viewer: rerun-sdk is not installed, expected `pip install 'dwarf_ros[viz]'`"
        ) from None
    return rerun


@dataclass(frozen=True)
class Server:
    """Rerun's server, running.

    Attributes:
        address: of the page.
        data: address to which recordings are sent.
        process: the server's process.
    """

    address: str
    data: str
    process: subprocess.Popen[bytes]

    @contextlib.contextmanager
    def showing(self, name: str) -> Iterator[Any]:
        """A `rerun.RecordingStream` of that name, which this server shows."""
        recording = import_rerun().RecordingStream("dwarf_ros")
        recording.connect_grpc(self.data)
        recording.send_recording_name(name)
        try:
            yield recording
        finally:
            # While the server still runs.
            recording.disconnect()


@contextlib.contextmanager
def serving(bind: str = LOOPBACK, port: int = PORT, file: Path | None = None) -> Iterator[Server]:
    """Run Rerun's server of page and data; it ends with the block, in which SIGINT, SIGTERM and SIGHUP raise
    KeyboardInterrupt.

    Args:
        bind: IP address to listen on.
        port: of the page; the data is served on the next port.
        file: a recording to show.

    Raises:
        InputError: rerun-sdk is not installed, the address does not belong to this machine, a port is in use, or the server
            does not start.
    """
    program = _server_program()
    host = _host(bind)
    for number in (port, port + 1):
        _check_free(bind, number)
    data = f"rerun+http://{host}:{port + 1}/proxy"
    command = [str(program), "--serve-grpc", "--bind", bind, "--port", str(port + 1)]
    if not ipaddress.ip_address(bind).is_loopback:
        # The page is not served from localhost then, and needs permission.
        command += ["--cors-allow-origin", f"http://*:{port}"]
    if file is not None:
        command.append(str(file))
    with (
        raising_interrupts(),
        tempfile.TemporaryDirectory(prefix="dwarf_view_") as name,
    ):
        folder = Path(name)
        environment = _without_statistics(program, folder)
        _fetch_page(program, environment, folder)
        with (
            _running(command, environment, bind, (port + 1,), folder / "log") as process,
            _serving_page(folder / "page", bind, port),
        ):
            address = f"http://{host}:{port}/?url={quote(data, safe='')}"
            yield Server(address, data, process)


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str], bind: str, ports: tuple[int, ...], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server; the block starts when it listens on its ports."""
    with log.open("wb") as stream:
        # In its own session, so that Ctrl-C in a terminal does not end it before all data is sent.
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        _wait_until_serving(process, bind, ports, log)
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.wait()


def _fetch_page(program: Path, environment: dict[str, str], folder: Path) -> None:
    """Get the files of the page from Rerun's own server, which does not send a content security policy with them."""
    (folder / "page").mkdir()
    page, data = _free_port(), _free_port()
    command = [str(program), "--serve-web", "--bind", LOOPBACK]
    command += ["--web-viewer-port", str(page), "--port", str(data)]
    with _running(command, environment, LOOPBACK, (page,), folder / "page_log"):
        for name in _PAGE_FILES:
            url = f"http://{LOOPBACK}:{page}/{name}"
            with urllib.request.urlopen(url, timeout=_START_S) as response:
                (folder / "page" / name).write_bytes(response.read())


@contextlib.contextmanager
def _serving_page(folder: Path, bind: str, port: int) -> Iterator[None]:
    policy = (
        f"connect-src 'self' http://*:{port + 1}; style-src 'self' 'unsafe-inline'; font-src 'self'"
    )

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", policy)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Do not log requests."""

    handler = functools.partial(Handler, directory=str(folder))
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    server_class = type(
        "PageServer", (http.server.ThreadingHTTPServer,), {"address_family": family}
    )
    with server_class((bind, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _server_program() -> Path:
    # The SDK's own server always listens on all addresses.
    spec = importlib.util.find_spec("rerun_cli")
    locations = list(spec.submodule_search_locations or []) if spec is not None else []
    for folder in locations:
        if (program := Path(folder, "rerun")).is_file():
            return program
    import_rerun()
    raise InputError(
        "viewer: rerun-sdk has no server (rerun_cli/rerun), expected its wheel from PyPI"
    )


def _without_statistics(program: Path, folder: Path) -> dict[str, str]:
    """Environment with its own configuration, in which usage statistics are disabled."""
    environment = {
        **os.environ,
        "XDG_CONFIG_HOME": f"{folder}/config",
        "XDG_DATA_HOME": f"{folder}/data",
        "RUST_LOG": "error",
    }
    subprocess.run(
        [str(program), "analytics", "disable"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_START_S,
        check=False,
    )
    return environment


def _host(bind: str) -> str:
    """Host name or address under which a browser reaches the server."""
    try:
        address = ipaddress.ip_address(bind)
    except ValueError:
        raise InputError(f"bind: got {bind!r}, expected an IP address such as 0.0.0.0") from None
    if not address.is_unspecified:
        return f"[{bind}]" if address.version == 6 else bind
    # The address of the default route's interface; nothing is sent.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return socket.gethostname()
        return probe.getsockname()[0]


def _check_free(bind: str, port: int) -> None:
    if not 0 < port < 2**16:
        raise InputError(f"port: got {port}, expected 1 to 65534")
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            raise InputError(
                f"viewer: cannot listen on {bind} port {port} ({error.strerror}), expected an address of this machine "
                "with two free ports"
            ) from None


def _wait_until_serving(
    process: subprocess.Popen[bytes], bind: str, ports: tuple[int, ...], log: Path
) -> None:
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(bind, bind)
    end = time.monotonic() + _START_S
    for port in ports:
        while True:
            if process.poll() is not None or time.monotonic() > end:
                said = " ".join(log.read_text(errors="replace").split())[-200:]
                raise InputError(
                    f"viewer: Rerun's server does not start: {said or 'no reason given'}"
                )
            try:
                socket.create_connection((host, port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
