"""From a fitted estimator to a version that a server can serve.

It needs the packages of ``pip install 'bellwether[deploy]'``.
"""

from ._bundle import Bundle
from ._convert import convert

__all__ = ["Bundle", "convert"]
