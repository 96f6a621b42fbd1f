"""A crew on a Ray cluster: workers on many machines share each attack, and one that is lost costs a second of work.

Every worker gets a model once, and keeps the last few. What a worker of a lost machine had not reported is done again
by another, from what it had: an example's course depends on its own key, so the ledger in the end is the same.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from isthmus.attacks.engine.worker_task import Kit, Server, apply, packed_error, settings
from isthmus.attacks.engine.workers import Order, Part
from isthmus.core.cluster import LOSSES, Badge, Staff, losses
from isthmus.core.errors import ModelError
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.ray_cluster import Cluster

KEPT = 4
"""Models that a worker keeps: mean mode, stochastic mode, and substitutes of either."""


class RayAgency:
    """Workers on a cluster, hired when there is work, for as many models as ask. A context manager, which lets them go.

    Args:
        cluster: where, and of what size.

    Raises:
        ConfigError: Ray is not installed, no cluster is there, or no worker fits into it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.ray, self.cluster = cluster.connect(), cluster
        self.staff = Staff(cluster, Attacker, Badge.mine())
        self.jobs = self.staff.size
        self._numbers = itertools.count()
        self._kits: OrderedDict[tuple[int, int, bool], tuple[nn.Module, int, Any]] = OrderedDict()

    def __enter__(self) -> RayAgency:
        return self

    def __exit__(self, *error: object) -> None:
        self.staff.close()

    def crew(self, model: nn.Module, seed: int, bf16: bool) -> RayCrew:
        """See :class:`isthmus.attacks.engine.workers.Agency`. A model that was here before is known to the workers."""
        key = (id(model), seed, bf16)
        if key not in self._kits:
            kit = Kit(_on_cpu(model), seed, bf16, settings(self.cluster.cpus))
            # the model itself is kept, so that its id is nobody else's
            self._kits[key] = (model, next(self._numbers), self.ray.put(_packed(kit)))
            while len(self._kits) > KEPT:
                self._kits.popitem(last=False)
        self._kits.move_to_end(key)
        _, number, kit_at = self._kits[key]
        return RayCrew(self, number, kit_at, "cuda" if self.cluster.gpus else "cpu")


class RayCrew:
    """One model's share of an agency's workers. A :class:`isthmus.attacks.engine.workers.Crew`.

    Args:
        number: of the model, by which workers know it.
        kit: where in the cluster's store it lies.
        device: that workers compute on.
    """

    def __init__(self, agency: RayAgency, number: int, kit: Any, device: str) -> None:
        self._agency, self._number, self._kit, self._device = agency, number, kit, device
        self._orders: dict[int, Order] = {}
        self._waiting: deque[int] = deque()  # orders that nobody works on
        self._busy: dict[Any, tuple[int, Any]] = {}  # what comes of an order -> the order, and its worker
        self._lost: Counter[int] = Counter()
        self._losses: tuple[type[Exception], ...] = (*losses(), StopIteration)  # or its stream just ends

    def send(self, orders: Sequence[Order]) -> None:
        """See :class:`isthmus.attacks.engine.workers.Crew`."""
        self._orders, self._waiting, self._lost = dict(enumerate(orders)), deque(range(len(orders))), Counter()

    def gather(self, seconds: float) -> list[tuple[int, Part]]:
        """See :class:`isthmus.attacks.engine.workers.Crew`. Where a worker is lost, another goes on with its order.

        Raises:
            IsthmusError: a worker failed, or one order lost its workers several times.
        """
        staff, ray = self._agency.staff, self._agency.ray
        while self._waiting and (worker := staff.free(len(self._waiting), 0.0 if self._busy else seconds)):
            self._give(worker, self._waiting.popleft())
        found = []
        for ready in ray.wait(list(self._busy), timeout=seconds)[0] if self._busy else ():
            number, worker = self._busy[ready]
            try:
                said = pickle.loads(ray.get(next(ready)))
            except self._losses as error:
                del self._busy[ready]
                staff.lost(worker)
                self._again(number, error)
                continue
            if isinstance(said, Exception):
                raise said
            # what is known is known to the next worker, too
            self._orders[number].state.put(said.rows, said.state)
            if said.over:
                del self._busy[ready]
                staff.back(worker)
            found.append((number, said))
        return found

    def _give(self, worker: Any, number: int) -> None:
        parts = worker.parts.options(num_returns="streaming").remote(
            self._number, [self._kit], self._device, _packed(self._orders[number])
        )
        self._busy[parts] = (number, worker)

    def _again(self, number: int, error: Exception) -> None:
        self._lost[number] += 1
        if self._lost[number] == LOSSES:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(
                f"Workers on the cluster were lost {LOSSES} times at the same examples ({said}), perhaps for lack of "
                "memory; a smaller batch_size needs less."
            )
        self._waiting.append(number)

    def close(self) -> None:
        """See :class:`isthmus.attacks.engine.workers.Crew`."""
        for _, worker in self._busy.values():
            self._agency.staff.lost(worker)
        self._busy, self._orders, self._waiting = {}, {}, deque()


def _on_cpu(model: nn.Module) -> nn.Module:
    """The model, or a copy where it is on another device: a worker may have none."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return model if all(tensor.device.type == "cpu" for tensor in tensors) else copy.deepcopy(model).cpu()


def _packed(what: object) -> bytes:
    from ray import cloudpickle

    # by value where a class lives in the caller's script alone
    content: bytes = cloudpickle.dumps(what)  # type: ignore[no-untyped-call]
    return content


class Attacker:
    """What runs on a machine of the cluster."""

    def __init__(self, badge: Badge) -> None:
        self._badge: Badge | None = badge
        self._servers: OrderedDict[int, tuple[Server, Kit]] = OrderedDict()

    def parts(self, number: int, kit: list[Any], device: str, order: bytes) -> Iterator[bytes]:
        """Work on an order with a model; what came of it, bit by bit, each a pickled :class:`Part` or an error.

        Args:
            number: of the model.
            kit: where it lies, in a list, so that it is fetched where it is not known alone.
        """
        try:
            server, known = self._server(number, kit[0], torch.device(device))
            with preserve_state(known.model, device_of(known.model, torch.empty(0)), known.seed):
                for part in server.parts(pickle.loads(order)):
                    yield pickle.dumps(part, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            yield packed_error(error)

    def _server(self, number: int, kit: Any, device: torch.device) -> tuple[Server, Kit]:
        if self._badge is not None:
            self._badge.check()
            self._badge = None
        if number not in self._servers:
            import ray

            found: Kit = pickle.loads(ray.get(kit))
            apply(found.settings)
            found.model.to(device)
            self._servers[number] = (Server(found), found)
            while len(self._servers) > KEPT:
                self._servers.popitem(last=False)
        self._servers.move_to_end(number)
        return self._servers[number]
