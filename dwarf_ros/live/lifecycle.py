"""The state of a running node, from its lifecycle service and its diagnostics."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from dwarf_ros.types import InputError

# A request sent before client and node have discovered each other gets no reply.
_REPEAT_S = 1.0


class NodeClient:
    """Asks a node of this package for its lifecycle state; a context manager with an rclpy context of its own.

    Args:
        name: the node's full name.

    Attributes:
        status: values of the node's last diagnostics by key; empty before the first.
    """

    def __init__(self, name: str = "/dwarf") -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import GetState
        from rclpy.executors import SingleThreadedExecutor

        self.status: dict[str, str] = {}
        self._name = name
        self._message = ""
        self._request = GetState.Request()
        self._reply: Any = None
        self._sent_s = 0.0
        self._context = rclpy.Context()
        rclpy.init(
            args=[],
            context=self._context,
            signal_handler_options=rclpy.SignalHandlerOptions.NO,
        )
        self._node = rclpy.create_node("dwarf_client", context=self._context)
        self._client = self._node.create_client(GetState, f"{name}/get_state")
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def state(self, timeout_s: float = 0.1) -> str:
        """Label of the node's lifecycle state, for example "active"; empty if it does not reply within timeout_s, s.

        A node that loads its estimator replies when it has finished.
        """
        end_s = time.monotonic() + timeout_s
        while (remaining_s := end_s - time.monotonic()) > 0:
            now_s = time.monotonic()
            if self._client.service_is_ready() and now_s - self._sent_s > _REPEAT_S:
                self._sent_s = now_s
                self._client.call_async(self._request).add_done_callback(self._on_reply)
            self._executor.spin_once(timeout_sec=min(remaining_s, 0.05))
            if self._reply is not None:
                label, self._reply, self._sent_s = self._reply.current_state.label, None, 0.0
                return label
        return ""

    def is_active(self) -> bool:
        """Whether a node with autostart is active and has reported its status; waits a moment for the reply.

        Raises:
            InputError: the node could not be configured or activated.
        """
        state = self.state()
        if state == "active":
            # A status from before the node was configured names no estimator.
            return bool(self.status.get("estimator"))
        for failure in ("not configured: ", "not activated: "):
            if state and self._message.startswith(failure):
                raise InputError(self._message.removeprefix(failure))
        return False

    def _on_reply(self, future: Any) -> None:
        self._reply = future.result()

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == f"{self._name}: scene flow":
                self._message = status.message
                self.status = {value.key: value.value for value in status.values}
