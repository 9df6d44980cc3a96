"""Worker processes of torch's `DataLoader` beside JAX, which must not be forked.

Seconds until two new workers have delivered a small epoch, on two cores, in a script that imports torch and JAX:

| forkserver that has imported                | first epoch | later ones | later ones, if the workers stay |
|---------------------------------------------|-------------|------------|---------------------------------|
| nothing                                     | 6.0         | 6.0        | 0.04                            |
| torch; the workers unpickle `PadSequences`  | 6.1         | 3.4        | 0.07                            |
| `snnax_interop`, as `worker_options` has it | 3.1         | 0.1        | 0.03                            |
"""

import multiprocessing
import multiprocessing.context
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader


def worker_options(
    num_workers: int, *, preload: Sequence[str] = ("snnax_interop",), timeout: int | float = 120
) -> dict[str, Any]:
    """The options of a `DataLoader` whose workers are safe beside JAX: `DataLoader(dataset, **worker_options(4))`.

    Workers are forked from a server process that has imported `preload` and has not started JAX. They stay for all
    epochs, and end with this process even if it is killed.

    **Arguments:**

    - `num_workers`: `0`: no worker, and no other option.
    - `preload`: what the server imports once, so that no worker has to; add the module that holds your dataset. The
        server is started with the first worker of the whole process and cannot learn more later.
    - `timeout`: how many seconds a batch may take before torch raises; the first batch includes the start.

    **Returns:** keyword arguments of `DataLoader`.

    **Raises:** `ValueError` for a negative `num_workers`.

    As with every start method but fork, the main script needs `if __name__ == "__main__":`, and what the workers get
    (dataset, `collate_fn`) has to be picklable: no lambdas, no classes inside of functions.

    **Example:**

    >>> from snnax_interop import worker_options
    >>> sorted(worker_options(2))
    ['multiprocessing_context', 'num_workers', 'persistent_workers', 'timeout']
    >>> worker_options(0)
    {'num_workers': 0}
    """
    if num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}; allowed: 0 (load in this process) or a number of processes")
    if num_workers == 0:
        return {"num_workers": 0}
    context = _context()
    context.set_forkserver_preload(list(preload))
    return {
        "num_workers": num_workers,
        "multiprocessing_context": context,
        "persistent_workers": True,
        "timeout": timeout,
    }


if "forkserver" in multiprocessing.get_all_start_methods():

    class _Worker(multiprocessing.context.ForkServerProcess):
        """Ends with the process that asked for it. Torch's workers look at their parent, and that is the server, which
        in turn stays as long as it has children: without this, both would outlive a process that is killed.
        """

        def run(self) -> None:
            threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
            super().run()

    class _Context(multiprocessing.context.ForkServerContext):
        Process = _Worker

    _context = _Context

else:  # Windows: its only method is as safe, and takes longer to start
    _context = multiprocessing.context.SpawnContext


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class WorkerBatches(Iterator[Any]):
    """The batches of worker processes, with an error that says so when one of them has died.

    Torch says so too, unless it meets the broken connection before it hears of the death.
    """

    def __init__(self, source: Iterator[Any]):
        self._source = source

    def __next__(self) -> Any:
        try:
            return next(self._source)
        except (ConnectionError, EOFError) as error:
            if str(error).startswith("Caught "):
                raise  # of the dataset, handed on by its worker
            raise RuntimeError(
                "a DataLoader worker exited unexpectedly before its batch was received: it was killed (out of memory?) "
                f"or crashed; found {type(error).__name__}; load with num_workers=0 to see an error of the dataset"
            ) from error


def warn_of_fork(loader: Any, *, stacklevel: int) -> None:
    """Warn when the workers of `loader` will be forks of this process, in which JAX runs."""
    if not isinstance(loader, DataLoader) or loader.num_workers == 0:
        return
    # Asking the multiprocessing module outright would fix the start method for good; the first of all is the default
    chosen = loader.multiprocessing_context or multiprocessing
    method = chosen.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if method == "fork":
        warnings.warn(
            "the DataLoader starts its workers by fork, but JAX runs threads, which fork does not copy: a worker that "
            "calls JAX hangs. Pass DataLoader(..., **snnax_interop.worker_options(num_workers)), whose workers come "
            "from a forkserver",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
