"""Run a function in several gloo processes of this machine."""

import multiprocessing

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# A server imports this once, and each process is a copy of it.
multiprocessing.set_forkserver_preload(["torch._dynamo", "robustfer.losses", "robustfer.state"])


def run_in_processes(function, folder, *arguments, processes=2):
    """Call ``function(rank, *arguments)`` in each process and return what each returned."""
    mp.start_processes(
        _run,
        (function, str(folder), processes, arguments),
        nprocs=processes,
        start_method="forkserver",
    )
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def _run(rank, function, folder, processes, arguments):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes
    )
    torch.save(function(rank, *arguments), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
