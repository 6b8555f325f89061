"""Many independent calls at a time, by threads, processes or a cluster: joblib, with the engine of one's choice."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from kagglehms.environment import available_cpus, safe_children
from kagglehms.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")

Backend = Literal["threading", "loky", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes:
        backend: `threading` (this process), `loky` (processes of this machine), or the workers of a `dask` or `ray`
            cluster, which must see the same files under the same paths.
        scheduler: address of a Dask scheduler (`tcp://host:8786`) or of a Ray cluster (`auto`, `host:6379`); None
            for workers on this machine, started for the purpose.
        jobs: calls at a time; as many as there are CPUs or workers when None.
    """

    backend: Backend = "threading"
    scheduler: str | None = None
    jobs: int | None = None


@contextmanager
def in_order(call: Callable[[T], R], items: Sequence[T], workers: Workers) -> Iterator[Iterable[R]]:
    """Apply `call` to `items` by `workers`; results come in the order of `items`, a few ahead of the one in use.

    Raises:
        UsageError: the engine is not installed, or its scheduler cannot be reached.
    """
    from joblib import Parallel, delayed, parallel_config

    # Named by a configuration, since joblib looks for engines from outside only there.
    with safe_children(), _engine(workers), parallel_config(backend=workers.backend):
        n_jobs = workers.jobs or (-1 if workers.backend in {"dask", "ray"} else available_cpus())
        # Ray's joblib backend hands results over all at once: give it a part of the work at a time.
        form = "list" if workers.backend == "ray" else "generator"
        # So far ahead that nobody runs out of work while results are being brought to the disk.
        parallel = Parallel(n_jobs, return_as=form, pre_dispatch="16 * n_jobs")
        calls = [delayed(call)(item) for item in items]
        results: Generator[R] = _in_parts(parallel, calls) if form == "list" else parallel(calls)
        try:
            yield results
        finally:
            with warnings.catch_warnings():
                # joblib warns of results that nobody fetched, which is just what an interruption leaves.
                warnings.filterwarnings("ignore", message=".*tasks", category=UserWarning)
                results.close()


def _in_parts(parallel: Any, calls: list[Any], size: int = 256) -> Generator[Any]:
    for start in range(0, len(calls), size):
        yield from parallel(calls[start : start + size])


@contextmanager
def _engine(workers: Workers) -> Iterator[None]:
    if workers.backend == "dask":
        with _dask(workers):
            yield
    elif workers.backend == "ray":
        with _ray(workers):
            yield
    elif workers.scheduler is not None:
        raise UsageError(
            f"--scheduler is for the backends dask and ray, and the backend is {workers.backend}"
        )
    else:
        yield


@contextmanager
def _dask(workers: Workers) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "the dask backend needs dask.distributed: pip install 'kagglehms[cluster]'"
        ) from error
    options: dict[str, Any] = (
        {"address": workers.scheduler} if workers.scheduler else {"n_workers": workers.jobs}
    )
    try:
        client = Client(**options)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {workers.scheduler} ({error}); start one by `dask scheduler`"
        ) from error
    with client:
        yield


@contextmanager
def _ray(workers: Workers) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise UsageError("the ray backend needs Ray: pip install ray") from error
    try:
        ray.init(
            address=workers.scheduler,
            num_cpus=None if workers.scheduler else workers.jobs,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Ray cluster answers at {workers.scheduler} ({error}); start one by `ray start --head`"
        ) from error
    register: Any = register_ray  # which is untyped, where it is installed
    register()
    try:
        yield
    finally:
        ray.shutdown()


def in_advance(futures: Iterable[Future[T]], ready: int) -> Generator[T]:
    """Yield results in order, with `ready` more asked of `futures` than are in use; cancel what nobody wants."""
    pending: deque[Future[T]] = deque()
    try:
        for future in futures:
            pending.append(future)
            if len(pending) > ready:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
