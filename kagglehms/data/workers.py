"""Run many independent calls in parallel with joblib: in threads, processes, or on a cluster."""

from __future__ import annotations

import signal
import threading
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

_LOOPBACK = "127.0.0.1"
"""Where what this module starts listens: whoever reaches a Dask scheduler can have code executed."""

Backend = Literal["threading", "loky", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True)
class Workers:
    """The workers that run the calls.

    Attributes:
        backend: `threading` for threads of this process, `loky` for processes on this machine, or `dask` or `ray` for
            the workers of a cluster, which must see the same files under the same paths.
        scheduler: address of a Dask scheduler (`tcp://host:8786`) or Ray cluster (`auto`, `host:6379`); None to start
            workers on this machine.
        jobs: number of calls at a time; by default the number of CPUs or workers.
    """

    backend: Backend = "threading"
    scheduler: str | None = None
    jobs: int | None = None


@contextmanager
def in_order(call: Callable[[T], R], items: Sequence[T], workers: Workers) -> Iterator[Iterable[R]]:
    """Apply a function to items in parallel.

    Args:
        call: the function.
        items: its arguments.
        workers: the workers that run the calls.

    Yields:
        The results, in the order of `items`; some are computed ahead of the one in use.

    Raises:
        UsageError: the backend is not installed, or its scheduler cannot be reached.
    """
    from joblib import Parallel, delayed, parallel_config

    # joblib only looks for external backends if they are named by a configuration.
    with safe_children(), _engine(workers), parallel_config(backend=workers.backend), _quiet_abort():
        n_jobs = workers.jobs or (-1 if workers.backend in {"dask", "ray"} else available_cpus())
        # Ray's joblib backend returns all results at once, so it gets one part of the work at a time.
        form = "list" if workers.backend == "ray" else "generator"
        # Far enough ahead that workers are never idle while results are being written to disk.
        parallel = Parallel(n_jobs, return_as=form, pre_dispatch="16 * n_jobs")
        calls = [delayed(call)(item) for item in items]
        with _children_that_ignore_interrupts():
            results: Generator[R] = _in_parts(parallel, calls) if form == "list" else parallel(calls)
        try:
            yield results
        finally:
            with warnings.catch_warnings():
                # joblib warns of results that were not fetched, as after an interruption.
                warnings.filterwarnings("ignore", message=".*tasks", category=UserWarning)
                results.close()


@contextmanager
def _quiet_abort() -> Iterator[None]:
    """Keep loky's thread from printing that its work was taken away, as an interruption does."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not (failure.thread and failure.thread.name == "ExecutorManagerThread"):
            before(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _children_that_ignore_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C, which a terminal sends to all, does not interrupt: this one ends them in silence.

    For as long as starting them takes, a few hundredths of a second each, this process ignores it as well.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


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
    elif workers.backend == "loky":
        with _loky():
            yield
    else:
        yield


@contextmanager
def _loky() -> Iterator[None]:
    """End the processes afterwards: joblib keeps them for five minutes, and a child process waits for its children."""
    from joblib.externals.loky import get_reusable_executor

    try:
        yield
    finally:
        get_reusable_executor(reuse=True).shutdown(wait=True)


@contextmanager
def _dask(workers: Workers) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "the dask backend needs dask.distributed: pip install 'kagglehms[cluster]'"
        ) from error
    own = {"n_workers": workers.jobs, "host": _LOOPBACK, "dashboard_address": f"{_LOOPBACK}:8787"}
    options: dict[str, Any] = {"address": workers.scheduler} if workers.scheduler else own
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
        raise UsageError("the ray backend needs Ray: pip install 'kagglehms[ray]'") from error
    try:
        ray.init(
            address=workers.scheduler,
            num_cpus=None if workers.scheduler else workers.jobs,
            log_to_driver=False,
            **({} if workers.scheduler else {"dashboard_host": _LOOPBACK}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Ray cluster answers at {workers.scheduler} ({error}); start one by `ray start --head`"
        ) from error
    register: Any = register_ray  # untyped
    register()
    try:
        yield
    finally:
        ray.shutdown()


def in_advance(futures: Iterable[Future[T]], ready: int) -> Generator[T]:
    """Yield results in order; those that are not used are cancelled.

    Args:
        futures: the calls, submitted as the iterable is consumed.
        ready: number of calls that are submitted ahead of the result in use.
    """
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
