"""facedistill: distil a strong face-recognition teacher into a small student that lives in the teacher's space.

The public names are listed in `__init__.pyi` and imported when first used, so that the command line starts at once.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *__all__]
