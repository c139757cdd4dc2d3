"""An example service with one route, and with traces, metrics and logs."""

import os

from flask import Flask
from prometheus_client import Counter

from servicekit.service import Service

app = Flask(__name__)
kit = Service("greeter")
kit.instrument(app)
greetings = Counter("greetings_total", "People greeted.", registry=kit.metrics.registry)


@app.get("/hello/<name>")
def hello(name: str) -> dict[str, str]:
    """Greet somebody."""
    with kit.tracer.span("choose words"):
        words = f"Hello, {name}!"
    greetings.inc()
    kit.log.info("greeting.sent", letters=len(words))
    return {"greeting": words}


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
