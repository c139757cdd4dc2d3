"""A tiny stand-in for a part: answers 200 on its port. `python -I fake_part.py NAME PORT FOLDER`.

Files in FOLDER change it: `NAME.broken` (ends at once), `NAME.slow` (never ready), `NAME.lingering` (takes its time
to stop), `NAME.child` (as nginx: a child of it serves, and outlives it).
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

name, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])

sys.stdout.reconfigure(line_buffering=True)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if (folder / f"{name}.slow").exists() else 200)
        self.end_headers()

    def log_message(self, *_args):
        sys.stdout.write(f"{name} answered" + "\n")


def note(text):
    with (folder / "order").open("a") as file:
        file.write(f"{text} {name}\n")


def stop(*_args):
    note("stop")
    if (folder / f"{name}.lingering").exists():
        time.sleep(1.5)
    if child:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


if (folder / f"{name}.broken").exists():
    sys.stdout.write(f"{name}: it is broken, and this is why" + "\n")
    sys.exit(7)
child = 0
server = HTTPServer(("127.0.0.1", port), Handler)
note("start")
sys.stdout.write(f"{name} says hello with GREETING={os.environ.get('GREETING')}" + "\n")
if (folder / f"{name}.child").exists():
    child = os.fork()
if not child:
    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
signal.signal(signal.SIGTERM, stop)
signal.pause()
