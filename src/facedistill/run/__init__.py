"""What every long job needs: a folder of its own, checkpoints, a log, its peak of memory.

The names are listed in `__init__.pyi` and imported when first used, because some of them need torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
