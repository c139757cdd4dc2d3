"""`python -m local` with tiny stand-ins for the parts: `python fake_stack.py up`. FAKES is their folder."""

import os
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from local.cli import main
from local.errors import LocalError
from local.parts import Part, Stack, Task, ending_with_parent
from local.probes import http_ready


def build(settings):
    folder = os.environ["FAKES"]

    def part(name, setting, *needs):
        port = getattr(settings, setting)
        return Part(
            name=name,
            ports={setting.upper(): port},
            command=lambda: ending_with_parent(
                "TERM", sys.executable, "-I", str(HERE / "fake_part.py"), name, str(port), folder
            ),
            ready=lambda: http_ready(f"http://127.0.0.1:{port}/"),
            environment={"GREETING": "it's 100% \"fine\"; isn't it"},
            needs=needs,
        )

    def note():
        with Path(folder, "order").open("a") as file:
            file.write("task\n")
        return "done"

    def no_program():
        raise LocalError("No such program here: install it.")

    def check():
        if "INVALID" in os.environ:
            raise LocalError("A setting will not do.")

    extra = replace(part("extra", "prometheus_port"), command=no_program, optional=True)
    return Stack(
        steps=(
            part("base", "order_db_port"),
            Task(name="task", run=note, needs=("base",)),
            part("one", "order_port", "task"),
            part("two", "user_port"),
            part("front", "gateway_port", "one", "two"),
            *([extra] if "EXTRA" in os.environ else ()),
            *([part("newer", "payment_port")] if "NEWER" in os.environ else ()),
        ),
        welcome="Welcome.",
        check=check,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], build))
