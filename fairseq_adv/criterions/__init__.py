"""Criterions of the plugin, one file for each method; importing this package registers all that lie here."""

from importlib import import_module
from pkgutil import iter_modules

for _method in iter_modules(__path__):
    if not _method.ispkg:  # frame and heads are what methods run in
        import_module(f"{__name__}.{_method.name}")
