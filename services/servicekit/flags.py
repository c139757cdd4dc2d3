"""Feature flags: OpenFeature's API over a file in flagd's format, which may change while the service runs.

The file is checked for changes when a flag is asked for, at most every quarter of a second. No thread watches it, so a
fork needs no care. An invalid file changes nothing: the flags stay as they were, and a log event and a counter report
it.

By flagd's rules, a flag whose state is not ENABLED has the caller's default. The enabled ones are kept in a set, so
asking for another one costs only a look into that set and is not an evaluation. An evaluation is recorded as an event
in the current span.
"""

import errno
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from openfeature import api
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagResolutionDetails
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.provider import AbstractProvider, Metadata
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from servicekit.config import Settings
from servicekit.telemetry import logs

LOOK_SECONDS = 0.25
"""The least time between two checks of the file."""

_Value = TypeVar("_Value", bool, int, float, str)


class FlagSettings(Settings):
    """Where a service's flags are."""

    flags_file: Path | None = Field(
        None,
        description="File of feature flags in flagd's format; a change takes effect within a second. Without a file,"
        " all flags are off. `make fault` writes the file.",
    )


class FileProvider(AbstractProvider):
    """OpenFeature's provider of the flags in a file.

    The names of its methods' parameters are OpenFeature's, which passes them by name.

    Args:
        path: The file. Replace it by renaming another one to its name, so that a reader sees a complete file.
        failures: Counts invalid contents.
        look_seconds: How many seconds old the known contents may be.
    """

    def __init__(self, path: Path, failures: Counter, look_seconds: float = LOOK_SECONDS) -> None:
        super().__init__()
        self._path = path
        self._failures = failures
        self._look_seconds = look_seconds
        self._look_at = 0.0
        self._looking = threading.Lock()
        self._seen: object = None
        self._failed = ""
        self._core = FlagdCore()
        self._enabled: frozenset[str] = frozenset()
        self._log = logs.get_logger()

    def enabled(self) -> frozenset[str]:
        """Return the flags that are enabled now; the others have the caller's default."""
        if time.monotonic() >= self._look_at and self._looking.acquire(blocking=False):
            try:
                if self._look():
                    self._look_at = time.monotonic() + self._look_seconds
            finally:
                self._looking.release()
        return self._enabled

    def _look(self) -> bool:
        """Read the file if it has changed; return False if it should be checked again at once."""
        try:
            now = self._path.stat()
            seen: object = (now.st_mtime_ns, now.st_ino, now.st_size)
            if seen == self._seen:
                return True
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._unreadable(error)
            # The next check may get a file descriptor, and the file may not change again until then.
            return getattr(error, "errno", None) not in {errno.EMFILE, errno.ENFILE}
        self._seen = seen
        try:
            enabled = frozenset(key for key, flag in json.loads(text)["flags"].items() if flag["state"] == "ENABLED")
            self._core.set_flags(text)
        except Exception as error:  # noqa: BLE001  # the file may contain anything; the service goes on
            self._unreadable(error)
            return True
        self._failed = ""
        if enabled != self._enabled:
            self._log.info("flags.changed", enabled=sorted(enabled))
        self._enabled = enabled
        return True

    def _unreadable(self, error: Exception) -> None:
        """Count and log invalid contents, once."""
        failed = f"{type(error).__qualname__} {self._seen}"
        if failed == self._failed:
            return
        self._failed = failed
        self._failures.inc()
        self._log.error("flags.unreadable", error_type=type(error).__qualname__)

    def get_metadata(self) -> Metadata:
        """See OpenFeature."""
        return Metadata(name="file")

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,  # noqa: FBT001
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """See OpenFeature."""
        self.enabled()
        return self._core.resolve_boolean_value(flag_key, default_value, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """See OpenFeature."""
        self.enabled()
        return self._core.resolve_string_value(flag_key, default_value, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """See OpenFeature."""
        self.enabled()
        return self._core.resolve_integer_value(flag_key, default_value, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """See OpenFeature."""
        self.enabled()
        return self._core.resolve_float_value(flag_key, default_value, evaluation_context)

    def resolve_object_details(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        """See OpenFeature."""
        self.enabled()
        return self._core.resolve_object_value(flag_key, default_value, evaluation_context)


class _InSpan(Hook):
    """Records each evaluation as an event of the current span, by OpenTelemetry's conventions (in development).

    It leaves out `feature_flag.context.id`, which is the user. OpenFeature's own hook for OpenTelemetry records it.
    """

    def finally_after(
        self,
        hook_context: HookContext,  # noqa: ARG002
        details: FlagEvaluationDetails[Any],
        hints: HookHints,  # noqa: ARG002
    ) -> None:
        """See OpenFeature."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        told = {"feature_flag.key": details.flag_key, "feature_flag.provider.name": "file"}
        if details.variant is not None:
            told["feature_flag.result.variant"] = details.variant
        if details.reason is not None:
            told["feature_flag.result.reason"] = str(details.reason).lower()
        if details.error_code is not None:
            told["error.type"] = details.error_code.value.lower()
        span.add_event("feature_flag.evaluation", told)


class Flags:
    """The flags of a service.

    Args:
        path: The file of flags; without one, each flag has the caller's default.
        registry: Where the counter of invalid files is registered.
        domain: OpenFeature's domain; `api.get_client(domain)` has the same flags.
        about: The evaluation context of all evaluations, in addition to what the caller gives.
    """

    def __init__(
        self, path: Path | None, registry: CollectorRegistry, domain: str, about: Mapping[str, str] | None = None
    ) -> None:
        failures = Counter(
            "feature_flag_file_failures_total",
            "Contents of the file of flags that would not do, so that the flags stayed as they were.",
            registry=registry,
        )
        self._about = dict(about or {})
        self._provider = None if path is None else FileProvider(path, failures)
        if self._provider is not None:
            api.set_provider_and_wait(self._provider, domain)
            client = api.get_client(domain)
            client.add_hooks([_InSpan()])
            self._ask: Mapping[type, Any] = {
                bool: client.get_boolean_value,
                int: client.get_integer_value,
                float: client.get_float_value,
                str: client.get_string_value,
            }

    def any_enabled(self) -> bool:
        """Whether any flag is enabled; if none is, all have the caller's default."""
        return self._provider is not None and bool(self._provider.enabled())

    def enabled(self, key: str) -> bool:
        """Whether a flag is enabled; if not, it has the caller's default."""
        return self._provider is not None and key in self._provider.enabled()

    def value(self, key: str, default: _Value, user: str | None = None, **about: Any) -> _Value:
        """Evaluate a flag.

        Args:
            key: Its name.
            default: The value if the flag is not enabled, or has no value of this type.
            user: The user: flagd's `targetingKey`. It does not appear in telemetry.
            about: Further fields of the evaluation context, for the flag's targeting.
        """
        if self._provider is None or key not in self._provider.enabled():
            return default
        context = EvaluationContext(user, {**self._about, **about})
        value: _Value = self._ask[type(default)](key, default, context)
        return value
