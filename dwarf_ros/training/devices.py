"""Data-parallel training on all devices of one or several machines.

Each device computes its share of every batch, losses and gradients are summed over all devices, and every process updates its own
copy of the weights. All local devices are used, unless CUDA_VISIBLE_DEVICES excludes some. Several machines are configured as the
backend requires: by TF_CONFIG for TensorFlow (tf.distribute), by KERAS_DISTRIBUTION_JOB_ADDRESSES,
KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID for JAX.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from dwarf_ros.network.codec import by_name
from dwarf_ros.training.data import Batch
from dwarf_ros.types import InputError

Tensor = Any

Losses = Callable[[dict[str, Tensor], Tensor, list[Tensor]], Tensor]
"""Function of the network's outputs, the ground truth and the trainable weights: a vector whose first element is minimized; each
element is a mean over the samples or independent of them."""


class Learner(Protocol):
    """Trains a network on all devices."""

    def step(self, batch: Batch, learning_rate: float, stop: bool = False) -> Tensor:
        """Learn from this process's part of a batch.

        Args:
            batch: the part, samples / processes.
            learning_rate: of this step.
            stop: this process asks all processes to stop.

        Returns:
            The losses of the whole batch before the step, followed by the fraction of processes that asked to stop; `np.asarray`
            waits for them.
        """

    def sync(self) -> None:
        """Update the variables of the model and its optimizer to the last step."""


class Devices(Protocol):
    """All devices that train together.

    Attributes:
        replicas: devices of all processes together.
        process, processes: index of this process and their number; process 0 writes the files.
    """

    replicas: int
    process: int
    processes: int

    def learner(self, model: keras.Model, losses: Losses) -> Learner:
        """Learner that starts from the variables of a model whose optimizer is built."""

    def total(self, value: float) -> float:
        """Sum over the processes, which wait for each other."""


def find_devices() -> Devices:
    """The devices of the backend; with several machines, this must be the first call to the backend.

    Raises:
        InputError: the backend is not supported, or the configuration of the machines is invalid.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return TensorFlowDevices()
    if backend == "jax":
        return JaxDevices()
    raise InputError(f"KERAS_BACKEND: got {backend!r}, expected tensorflow or jax")


def check_share(batch_size: int, devices: Devices) -> None:
    """Raise InputError if a batch cannot be split evenly over the devices."""
    if batch_size % devices.replicas:
        raise InputError(
            f"batch_size: got {batch_size}, expected a multiple of the {devices.replicas} devices found "
            "(CUDA_VISIBLE_DEVICES can exclude some)"
        )


def inputs(images: Tensor) -> dict[str, Tensor]:
    """Images of a batch, uint8 batch x 4 x H x W x 3, as inputs of the network: float32 in [0, 1] by name."""
    return by_name(ops.cast(images, "float32") / 255.0)


class TensorFlowDevices:
    """Devices under tf.distribute."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.process, self.processes = _cluster()
        if self.processes > 1:
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        else:
            local = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            names = [device.name for device in local]
            # The default strategy adds nothing to a step.
            several = len(names) > 1
            self._strategy = (
                tf.distribute.MirroredStrategy(names) if several else tf.distribute.get_strategy()
            )
        self.replicas: int = self._strategy.num_replicas_in_sync

    def learner(self, model: keras.Model, losses: Losses) -> _TensorFlowLearner:
        """See `Devices`."""
        return _TensorFlowLearner(model, losses, self._strategy)

    def total(self, value: float) -> float:
        """See `Devices`."""
        if self.processes == 1:
            return value
        import tensorflow as tf

        # Each process has as many devices.
        local = self.replicas // self.processes
        share = tf.constant(value / local, tf.float64)
        summed = self._strategy.run(_sum, args=(share,))
        return float(self._strategy.experimental_local_results(summed)[0])


class _TensorFlowLearner:
    """The variables of the model belong to no strategy: replicas read them, and updates change a single copy."""

    def __init__(self, model: keras.Model, losses: Losses, strategy: Any) -> None:
        import tensorflow as tf

        self._model, self._strategy = model, strategy
        replicas = strategy.num_replicas_in_sync

        def gradients(images: Tensor, truth: Tensor, stop: Tensor) -> Any:
            variables = [variable.value for variable in model.trainable_variables]
            with tf.GradientTape() as tape:
                values = losses(model(inputs(images), training=True), truth, variables)
                share = values[0] / replicas
            # As on JAX, weights that no loss depends on have zero gradients instead of none.
            grads = tape.gradient(share, variables, unconnected_gradients="zero")
            report = tf.concat([values, stop[None]], 0) / replicas
            # Clipping needs the sum, so this cannot be left to the optimizer.
            return (report, grads) if replicas == 1 else _sum((report, grads))

        def step(images: Tensor, truth: Tensor, stop: Tensor) -> Tensor:
            report, grads = strategy.run(gradients, args=(images, truth, stop))
            if replicas > 1:
                report, grads = tf.nest.map_structure(self._first, (report, grads))
            model.optimizer.apply(grads, model.trainable_variables)
            return report

        # XLA takes long to compile and gains nothing here.
        self._step = tf.function(step, autograph=False, reduce_retracing=True)

    def step(self, batch: Batch, learning_rate: float, stop: bool = False) -> Tensor:
        """See `Learner`."""
        self._model.optimizer.learning_rate = learning_rate
        parts = [self._split(values) for values in (batch.images, batch.truth)]
        return self._step(*parts, np.float32(stop))

    def sync(self) -> None:
        """See `Learner`: the variables are always up to date."""

    def _first(self, values: Any) -> Tensor:
        return self._strategy.experimental_local_results(values)[0]

    def _split(self, values: np.ndarray) -> Any:
        import tensorflow as tf

        if self._strategy.num_replicas_in_sync == 1:
            return tf.convert_to_tensor(values)
        local = len(self._strategy.extended.worker_devices)
        parts = np.split(values, local)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(parts[context.replica_id_in_sync_group % local])
        )


def _sum(values: Any) -> Any:
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _cluster() -> tuple[int, int]:
    """Index of this process and the number of processes, from TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0, 1
    expected = 'such as {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        cluster_config = json.loads(text)
        cluster = cluster_config.get("cluster", {})
        if not cluster:
            return 0, 1
        # The chief, where one is named, comes before the workers.
        tasks = [
            (kind, index)
            for kind in ("chief", "worker")
            for index in range(len(cluster.get(kind, ())))
        ]
        place = tasks.index((cluster_config["task"]["type"], int(cluster_config["task"]["index"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"TF_CONFIG: got {text!r}, expected {expected}") from None
    return place, len(tasks)


class JaxDevices:
    """Devices of a JAX mesh."""

    def __init__(self) -> None:
        import jax

        if os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES"):
            keras.distribution.initialize()
        self._mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
        self.replicas = jax.device_count()
        self.process, self.processes = jax.process_index(), jax.process_count()

    def learner(self, model: keras.Model, losses: Losses) -> _JaxLearner:
        """See `Devices`."""
        return _JaxLearner(model, losses, self._mesh)

    def total(self, value: float) -> float:
        """See `Devices`."""
        if self.processes == 1:
            return value
        from jax.experimental.multihost_utils import process_allgather

        return float(np.sum(process_allgather(np.float32(value))))


class _JaxLearner:
    """Keeps the training state on the devices; `sync` copies it to the model's variables."""

    def __init__(self, model: keras.Model, losses: Losses, mesh: Any) -> None:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        self._model = model
        self._local = mesh.size // jax.process_count()
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._shared = NamedSharding(mesh, PartitionSpec("batch"))
        optimizer = model.optimizer
        self._variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
        self._state = [
            [self._put(np.array(variable.value), self._everywhere) for variable in variables]
            for variables in self._variables
        ]
        self._rate = [variable.name for variable in optimizer.variables].index("learning_rate")

        def gradients(
            trainable: Any, others: Any, images: Tensor, truth: Tensor, stop: Tensor
        ) -> Any:
            def forward(trainable: Any) -> Any:
                outputs, kept = model.stateless_call(
                    trainable, others, inputs(images), training=True
                )
                values = losses(outputs, truth, trainable)
                return values[0] / mesh.size, (values, kept)

            (_, (values, kept)), grads = jax.value_and_grad(forward, has_aux=True)(trainable)
            report = jax.numpy.concatenate([values, stop]) / mesh.size
            if mesh.size > 1:
                report, grads = jax.lax.psum((report, grads), "batch")
            return report, grads, kept

        if mesh.size > 1:
            gradients = _over_devices(gradients, mesh)

        def step(state: Any, rate: Tensor, images: Tensor, truth: Tensor, stop: Tensor) -> Any:
            trainable, others, settings = state
            report, grads, others = gradients(trainable, others, images, truth, stop)
            settings[self._rate] = rate
            trainable, settings = optimizer.stateless_apply(settings, grads, trainable)
            return report, [trainable, others, settings]

        self._step = jax.jit(step, donate_argnums=0)

    def step(self, batch: Batch, learning_rate: float, stop: bool = False) -> Tensor:
        """See `Learner`."""
        flags = np.full(self._local, stop, np.float32)
        parts = (self._put(values, self._shared) for values in (batch.images, batch.truth, flags))
        report, self._state = self._step(self._state, np.float32(learning_rate), *parts)
        return report

    def sync(self) -> None:
        """See `Learner`."""
        for variables, values in zip(self._variables, self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                # A copy, because the next step reuses the memory of this state.
                variable.assign(np.array(value))

    def _put(self, values: np.ndarray, sharding: Any) -> Tensor:
        import jax

        if self._local == 1 and jax.process_count() == 1:
            return jax.device_put(values)
        return jax.make_array_from_process_local_data(sharding, values)


def _over_devices(function: Callable[..., Any], mesh: Any) -> Callable[..., Any]:
    """Run a function of two replicated and three sharded arguments on each device with its shard."""
    import jax
    from jax.sharding import PartitionSpec

    everywhere, shared = PartitionSpec(), PartitionSpec("batch")
    options: dict[str, Any] = {
        "mesh": mesh,
        "in_specs": (everywhere, everywhere, shared, shared, shared),
        "out_specs": everywhere,
    }
    if hasattr(jax, "shard_map"):
        return jax.shard_map(function, check_vma=False, **options)
    from jax.experimental.shard_map import shard_map

    return shard_map(function, check_rep=False, **options)
