"""What the real backends answered: kept in recordings/, one exchange a line, and given again without them."""

import base64
import gzip
import hashlib
import json
import re
import time
import zlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from google.protobuf import json_format
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import get_encoding_from_headers

from tests.fixtures.embedded import Otlp
from tests.fixtures.real import Real, is_there
from tests.fixtures.services import Client

SECOND = 10**9
AGE = 120 * SECOND  # how long before the test its first span or line was
FOLDER = Path(__file__).parent / "recordings"
HEADERS = ("Content-Type", "Content-Encoding", "X-Loki-Response-Encoding-Flags")
LARGEST = 1_000_000  # characters of an answer that is kept

option = {"record": False}  # set in conftest.py


def just_now():
    return time.time_ns() // (10 * SECOND) * (10 * SECOND) - AGE


class Recording:
    """The answers of `jaeger` or `loki`, to a module's questions.

    Attributes:
        start: When the recorded spans and lines begin, in nanoseconds. All times of the tests are counted from there.
        ways: Which real backends are compared: what was `recorded`, and one that is `live`; or one to `record`.
    """

    def __init__(self, name, part=""):
        self.name = name
        self.file = FOLDER / (f"{name}-{part}.jsonl" if part else f"{name}.jsonl")
        self._answers = {}
        if option["record"] and is_there(name):
            self.ways = ["record"]
            self.start = just_now()
            return
        self.ways = ["recorded", "live"] if is_there(name) else ["recorded"]
        with self.file.open(encoding="utf-8") as lines:
            self.start = json.loads(next(lines))["start_ns"]
            for line in lines:
                exchange = json.loads(line)
                self._answers[_key(exchange)] = exchange["answer"]

    def player(self):
        """The real backend, as far as it was recorded."""
        real = Real(Otlp("http://recorded", "/otlp" if self.name == "loki" else ""), Client("http://recorded"))
        for client in (real.otlp, real.api):
            client.session.mount("http://", Player(self))
        return real

    def keep(self, request, response):
        body = response.content
        answer = {"status": response.status_code}
        if kind := response.headers.get("Content-Type"):
            answer["type"] = kind
        if len(body) <= LARGEST:
            self._answers[_key(_question(request))] = answer | _as_json(body)

    def answer(self, request):
        question = _question(request)
        answer = self._answers.get(_key(question))
        if answer is None:
            pytest.fail(f"not recorded: run with --record where there is a real {self.name}. Asked: {question}")
        response = requests.Response()
        response.status_code = answer["status"]
        if "type" in answer:
            response.headers["Content-Type"] = answer["type"]
            response.encoding = get_encoding_from_headers(response.headers)
        response._content = _as_bytes(answer)
        response.url, response.request = request.url, request
        return response

    def write(self):
        lines = [json.dumps({"start_ns": self.start})]
        lines += [_line({**json.loads(key), "answer": answer}) for key, answer in sorted(self._answers.items())]
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _key(exchange):
    return json.dumps({name: part for name, part in exchange.items() if name != "answer"}, ensure_ascii=False)


def _question(request):
    """What makes one request another; its body by a digest."""
    url = urlsplit(request.path_url)
    headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
    params, body = url.query, request.body or b""
    if headers.get("Content-Type") == "application/x-www-form-urlencoded":
        params, body = body, b""
    params = parse_qs(params, keep_blank_values=True)
    question = {
        "ask": f"{request.method} {url.path}",
        "params": {name: values[0] if len(values) == 1 else values for name, values in sorted(params.items())},
        "headers": headers,
        "body": hashlib.sha256(_unpacked(body)).hexdigest()[:16] if body else "",
    }
    return {name: part for name, part in question.items() if part}


def _unpacked(body):
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return body


def _as_json(body):
    """A body in a form that can be read in a file of JSON: parsed where it is JSON, since tests compare it so."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}
    try:
        value = json.loads(text)
    except ValueError:
        return {"text": text}
    if isinstance(value, dict) and isinstance(value.get("data"), dict) and "stats" in value["data"]:
        value["data"]["stats"] = {}  # how much work a query was to Loki: never the same, and never compared
    return {"json": value}


def _as_bytes(answer):
    if "base64" in answer:
        return base64.b64decode(answer["base64"])
    return (answer["text"] if "text" in answer else _line(answer["json"])).encode()


class Player(BaseAdapter):
    """Answers from a recording instead of the network."""

    def __init__(self, recording):
        super().__init__()
        self._recording = recording

    def send(self, request, **_):
        return self._recording.answer(request)

    def close(self):
        pass


class Recorder(HTTPAdapter):
    """Keeps what is answered; of the answers to the same question, the last."""

    def __init__(self, recording):
        super().__init__()
        self._recording = recording

    def send(self, request, **kwargs):
        response = super().send(request, **kwargs)
        self._recording.keep(request, response)
        return response


class Later(HTTPAdapter):
    """Sends everything with its times moved to the present: a real backend takes no spans and lines of long ago."""

    def __init__(self, recording):
        super().__init__()
        self._start = recording.start
        self._by = just_now() - recording.start

    def send(self, request, **kwargs):
        request.url = self.moved(request.url)
        if request.headers.get("Content-Type") == "application/json":
            request.body = self.moved(request.body.decode()).encode()
        elif isinstance(request.body, str):  # a form
            request.body = self.moved(request.body)
        return super().send(request, **kwargs)

    def message(self, message):
        """Move an export request's times."""
        return json_format.Parse(self.moved(json_format.MessageToJson(message)), type(message)())

    def moved(self, text):
        """Move all times in a text: numbers of s, ms, us or ns that are some weeks from the recording's at most."""
        return re.sub(r"(?<![0-9a-f])\d{10}(\d{3}|\d{6}|\d{9})?(?![0-9a-f])", self._move, text)

    def _move(self, match):
        unit = 10 ** (19 - len(match[0]))
        at = int(match[0]) * unit
        return str((at + self._by) // unit) if abs(at - self._start) < 40 * 86400 * SECOND else match[0]
