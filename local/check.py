"""Reads the settings of the given modules as their programs would, and ends with what is wrong with them."""

import sys
from importlib import import_module

from servicekit.config import ConfigError, ServerSettings, Settings, load

if __name__ == "__main__":
    found: dict[str, None] = {}  # each once: most settings are in several classes
    modules = [import_module(name) for name in sys.argv[1:]]
    for kind in (ServerSettings, *(value for module in modules for value in vars(module).values())):
        if isinstance(kind, type) and issubclass(kind, Settings):
            try:
                if path := getattr(load(kind), "catalogue_file", None):
                    from product_service.store import read_catalogue  # slow to import, and needed by few

                    read_catalogue(path)
            except ConfigError as error:
                found |= dict.fromkeys(str(error).split("; "))
            except (OSError, ValueError) as error:
                reason = str(error).partition(" [type=")[0]  # after that comes what is in the file
                found[f"CATALOGUE_FILE: {' '.join(reason.split())}"] = None
    sys.exit("; ".join(found) or 0)
