"""Cells on a Ray cluster: Ray finds a node with a free share of CPUs and GPUs for each, and notices nodes that die.

Each cell is an actor, which unlike a plain task can report where it runs and can be asked to save and stop. The nodes
mount the study's folder, its data and the current folder at the same paths. Ray is imported only here.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.cells import Cell
from retinanet.ablation.node import CellOnNode
from retinanet.ablation.placement import Ended
from retinanet.ablation.study import Study
from retinanet.ablation.study_folder import log_path, study_file
from retinanet.errors import ConfigError, ResourceError

INSTALL = "pip install 'retinanet[cluster]', in a checkout pip install -e '.[cluster]', on every node"
CONNECT_SECONDS = 10.0
_METHODS_AT_ONCE = 2
"""`wait` and, meanwhile, `send_signal`."""


class Cluster(NamedTuple):
    """A Ray cluster and the share of a node that each cell takes."""

    address: str
    """HOST:PORT, `auto` on a node of the cluster, or ray://HOST:10001 from elsewhere."""
    jobs: int | None
    """Most cells at a time; None: as many as fit."""
    cpus: float | None
    """None: the study's `threads`, or 1."""
    gpus: float | None
    """A fraction or 1; None: 1 if the cluster has GPUs and the study may use them."""


class RayProcess:
    """A cell that waits for a node, or runs on one: a `CellProcess`."""

    def __init__(self, ray: Any, actor: Any, variables: dict[str, str]) -> None:
        self._ray, self._actor = ray, actor
        self._begun = actor.begin.remote(variables)
        self._ended = actor.wait.remote(self._begun)
        self._location: str | None = None
        self._is_withdrawn = False

    def location(self) -> str | None:
        """The node and its GPU; None while the cell waits for one."""
        if self._location is None and self._is_ready(self._begun):
            try:
                self._location = self._ray.get(self._begun)
            except self._ray.exceptions.RayError:
                return None  # `poll` reports it
        return self._location

    def poll(self) -> Ended | None:
        """How the cell ended; None while it waits or runs."""
        if self._is_withdrawn:
            return Ended(None)
        if not self._is_ready(self._ended):
            return None
        errors = self._ray.exceptions
        try:
            ended = Ended(self._ray.get(self._ended))
        except errors.ActorUnavailableError:
            # The connection broke. Ray finds out whether the node is gone; until then the cell may be running.
            self._ended = self._actor.wait.remote(self._begun)
            return None
        except errors.RayTaskError as error:
            ended = Ended(1, str(error.cause))
        except errors.OutOfMemoryError:
            ended = Ended(1, "Ray ended it because its node ran out of memory; give each cell a larger share")
        except errors.RayActorError as error:
            # Its constructor fails only if a node cannot import this module.
            ended = Ended(1, _import_problem(error)) if error.actor_init_failed else Ended(None, _last_line(error))
        self._ray.kill(self._actor)
        return ended

    def send_signal(self, number: int) -> None:
        """Pass a signal on to the node, or withdraw the cell if it waits for one."""
        if self.location() is None:
            self._ray.kill(self._actor)
            self._is_withdrawn = True
        else:
            self._actor.send_signal.remote(number)

    def _is_ready(self, result: Any) -> bool:
        return bool(self._ray.wait([result], timeout=0)[0])


class RayNodes:
    """The nodes of a Ray cluster: a `Placement`."""

    def __init__(self, ray: Any, study: Study, cluster: Cluster) -> None:
        self._ray, self._study, self._jobs = ray, study, cluster.jobs
        has_gpus = study.base.device == "cuda" or ray.cluster_resources().get("GPU", 0) > 0
        self.cpus = cluster.cpus or float(study.base.threads or 1)
        self.gpus = cluster.gpus if cluster.gpus is not None else float(has_gpus and study.base.device != "cpu")

    def has_room(self, running: int) -> bool:
        """Whether another cell may be handed to Ray, which lets it wait until its share of a node is free."""
        return self._jobs is None or running < self._jobs

    def start(self, cell: Cell) -> RayProcess:
        """Hand a cell to Ray."""
        folder, variables = self._study.folder, {}
        if not self._study.base.threads:
            variables["OMP_NUM_THREADS"] = str(max(1, int(self.cpus)))
        if self.gpus == 0:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        share = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_concurrency": _METHODS_AT_ONCE}
        actor = self._ray.remote(CellOnNode).options(**share)
        paths = str(study_file(folder)), cell.name, str(log_path(folder, cell.name))
        return RayProcess(self._ray, actor.remote(str(Path.cwd()), *paths), variables)

    def describe(self) -> str:
        """How many cells fit on the nodes that are there, and a warning if none does."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        fitting = sum(
            min(int(node.get(kind, 0.0) / amount + 1e-6) for kind, amount in wanted.items() if amount) for node in nodes
        )
        share = f"{self.cpus:g} CPU{f' and {self.gpus:g} GPU' if self.gpus else ''}"
        if fitting == 0:
            return f"warning: no node of the cluster has {share} for a cell; cells wait until one joins"
        return f"Ray: {_count(len(nodes), 'node')}, room for {_count(fitting, 'cell')} of {share} each"


@contextmanager
def connected(study: Study, cluster: Cluster) -> Iterator[RayNodes]:
    """A connection to the cluster within this context.

    Raises ConfigError for a share that no node can give, ResourceError if Ray is not installed or does not answer.
    """
    _check_share(cluster)
    try:
        import ray
    except ImportError as error:
        raise ResourceError(f"--ray: Ray is not installed ({error}); {INSTALL}.") from error
    # Otherwise a node that dies prints pages of its own log among the study's lines.
    ray._private.worker._worker_logs_enabled = False
    try:
        _check_port(cluster.address)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"--ray {cluster.address}: no Ray cluster answers ({_last_line(error)}). Start one with `ray start --head` "
            "on one machine and `ray start --address=HOST:6379` on the others, and give --ray HOST:6379."
        ) from error
    try:
        nodes = RayNodes(ray, study, cluster)
        print(nodes.describe(), flush=True)
        yield nodes
    finally:
        ray.shutdown()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _check_share(cluster: Cluster) -> None:
    if cluster.jobs is not None and cluster.jobs < 1:
        raise ConfigError(f"--jobs {cluster.jobs}: give at least 1.")
    if cluster.cpus is not None and not cluster.cpus > 0:
        raise ConfigError(f"--cell-cpus {cluster.cpus:g}: give more than 0.")
    if cluster.gpus is not None and not 0 <= cluster.gpus <= 1:
        raise ConfigError(
            f"--cell-gpus {cluster.gpus:g}: a cell takes 0 to 1 GPU, such as 0.25 for four cells on each."
        )


def _check_port(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT, for which Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _import_problem(error: Exception) -> str:
    return f"a node cannot import retinanet ({_last_line(error)}); {INSTALL}"


def _last_line(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in reversed(str(error).splitlines()) if line.strip()), "")
