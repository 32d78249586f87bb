"""Start several processes on the loopback, as torchrun would."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(code: str, world: int) -> None:
    """Run `code` in `world` processes with the environment that torchrun would give them; fail if one fails."""
    port = str(free_port())
    processes = []
    for rank in range(world):
        # fmt: off
        described = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                     "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        # fmt: on
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | described | {"PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [p.communicate(timeout=400)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
    for p, text in zip(processes, said):
        assert p.returncode == 0, text
