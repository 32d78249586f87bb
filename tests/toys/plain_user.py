"""A folder of a user for whom permissions count: root writes everywhere."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

NOBODY = 65534


@contextmanager
def plain_users_folder() -> Iterator[Path]:
    """An empty folder of this user's; root acts as a user without rights meanwhile."""
    root = os.geteuid() == 0
    with TemporaryDirectory() as folder:
        if root:
            os.chown(folder, NOBODY, NOBODY)
            os.setresgid(NOBODY, NOBODY, 0)
            os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield Path(folder)
        finally:
            if root:
                os.setresuid(0, 0, 0)
                os.setresgid(0, 0, 0)
