"""A scan on several processes: results in order, few rows in flight, a dead process's rows done again.

Each worker holds its own model and has one slice of rows at a time. What a worker answers counts only when
the whole answer has arrived, so rows are neither lost nor doubled when a process dies; rows that end one
process after another are given up with `WorkerLostError`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from airflow_approvals.core.errors import ApprovalsError, WorkerLostError
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.findings import BatchFindings

log = logging.getLogger(__name__)

TRIES = 3
AHEAD = 2  # finished slices per worker that may wait for an earlier one
PATIENCE = 5.0  # seconds for a worker to end by itself


@dataclass(frozen=True, kw_only=True)
class _Slice:
    number: int
    first_row: int
    rows: int
    table: bytes  # Arrow IPC
    tries: int = 0


@dataclass(kw_only=True)
class _Worker:
    process: Any
    connection: Connection
    work: _Slice | None = None


class BatchScanner(Protocol):
    """What each process builds for itself."""

    def scan_batch(self, batch: Any, *, first_row: int) -> BatchFindings: ...


Make = Callable[[ScanConfig], BatchScanner]


def scan_in_workers(make: Make, config: ScanConfig, batches: Iterator[Any]) -> Iterator[BatchFindings]:
    """Yield the findings of these batches, in order, found by `config.workers` processes."""
    share = replace(config, workers=1, exact_check=-(-config.exact_check // config.workers))
    pool = _Pool(make, share, config.workers)
    try:
        yield from pool.run(_slices(batches))
    finally:
        pool.close()


class _Pool:
    def __init__(self, make: Make, config: ScanConfig, size: int) -> None:
        # Spawned, not forked: the caller may hold threads, locks and half a model.
        self._context = multiprocessing.get_context("spawn")
        self._make = make
        self._config = config
        self._workers = [self._start() for _ in range(size)]
        self._done: dict[int, BatchFindings] = {}
        self._again: list[_Slice] = []

    def run(self, slices: Iterator[_Slice]) -> Iterator[BatchFindings]:
        """Hand slices out as workers become free, and yield results in order."""
        due = 0
        more = True
        while True:
            for worker in self._workers:
                # Rows that are done again go first: what waits in `_done` may wait for them.
                has_room = self._again or len(self._done) < AHEAD * len(self._workers)
                if worker.work is None and more and has_room:
                    more = self._hand_out(worker, slices)
            while due in self._done:
                yield self._done.pop(due)
                due += 1
            if not any(worker.work for worker in self._workers):
                if not more and not self._again:
                    return
                more = True
                continue
            self._wait()
            more = more or bool(self._again)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(0 if worker.work else PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _hand_out(self, worker: _Worker, slices: Iterator[_Slice]) -> bool:
        work = self._again.pop() if self._again else next(slices, None)
        if work is None:
            return False
        worker.work = work
        try:
            worker.connection.send((work.first_row, work.table))
        except OSError:
            self._bury(worker)
        return True

    def _wait(self) -> None:
        busy = [worker for worker in self._workers if worker.work]
        ready = wait([one for worker in busy for one in (worker.connection, worker.process.sentinel)])
        for worker in busy:
            if worker.connection in ready or worker.process.sentinel in ready:
                self._receive(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            answer = worker.connection.recv() if worker.connection.poll() else None
        except (EOFError, OSError):
            answer = None
        if isinstance(answer, ApprovalsError):
            raise answer
        if not isinstance(answer, BatchFindings) or worker.work is None:
            self._bury(worker)
            return
        self._done[worker.work.number] = answer
        worker.work = None

    def _bury(self, worker: _Worker) -> None:
        """Put a fresh process in a dead one's place, and its rows back into the queue."""
        work = worker.work
        worker.connection.close()
        worker.process.kill()
        worker.process.join()
        code = worker.process.exitcode
        if work is not None:
            if work.tries + 1 >= TRIES:
                raise WorkerLostError(
                    f"rows {work.first_row} to {work.first_row + work.rows - 1}: {TRIES} worker processes "
                    f"ended while scanning them (the last with exit code {code}); expected findings; "
                    "look for too little memory, and scan with fewer batch_rows or fewer workers"
                )
            log.warning("a scan worker ended with exit code %s; its %d rows are done again", code, work.rows)
            self._again.append(replace(work, tries=work.tries + 1))
        self._workers[self._workers.index(worker)] = self._start()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(self._make, self._config, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process=process, connection=ours)


def _slices(batches: Iterator[Any]) -> Iterator[_Slice]:
    import pyarrow as pa

    first_row = 0
    for number, batch in enumerate(batches):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield _Slice(
            number=number, first_row=first_row, rows=batch.num_rows, table=sink.getvalue().to_pybytes()
        )
        first_row += batch.num_rows


def _work(make: Make, config: ScanConfig, connection: Connection) -> None:
    """Scan what comes until nothing more does; runs in a process of its own."""
    # One thread for each worker: the matrices are small, and the cores are shared out already.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    import pyarrow as pa

    scanner = make(config)
    while True:
        try:
            first_row, table = connection.recv()
        except EOFError:
            return
        try:
            answer: object = scanner.scan_batch(
                pa.ipc.open_stream(table).read_next_batch(), first_row=first_row
            )
        except ApprovalsError as error:
            answer = error
        connection.send(answer)
