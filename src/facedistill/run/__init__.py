"""The parts of every long job: a claimed folder, checkpoints, logs and the peak of memory.

The names are listed in `__init__.pyi` and imported when first used, because some of them need torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
