"""Run a function in several gloo processes of this machine."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_in_processes(function, folder, *arguments, processes=2):
    """Call ``function(rank, *arguments)`` in each process and return what each returned."""
    mp.spawn(_run, (function, str(folder), processes, arguments), nprocs=processes)
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def _run(rank, function, folder, processes, arguments):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes
    )
    torch.save(function(rank, *arguments), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
