"""The seed step: makes the demo admin, once. `python -m user_service.seed`."""

import argparse

from servicekit import logs
from servicekit.config import ConfigError, load
from servicekit.database import Database
from servicekit.metrics import Metrics
from servicekit.tracing import Tracer
from user_service.domain import UsernameTaken
from user_service.passwords import Passwords
from user_service.settings import SeedSettings, UserSettings
from user_service.store import Users

_DEMO = ("admin", "password")  # the documented demo login: the one password that everybody may know


def main() -> None:
    """Make the demo admin unless it exists or `SEED_DEMO_ADMIN` is false."""
    parser = argparse.ArgumentParser(
        prog="python -m user_service.seed",
        description="Make the demo login admin / password, once. SEED_DEMO_ADMIN=false: make nothing.",
    )
    parser.parse_args()
    logs.configure("user-service")
    log = logs.get_logger()
    try:
        seed, settings = load(SeedSettings), load(UserSettings)
    except ConfigError as error:
        parser.error(str(error))
    if not seed.seed_demo_admin:
        log.info("seed.skipped")
        return
    username, password = _DEMO
    users = Users(Database(settings, "user-service-seed", Metrics(), Tracer()))
    try:
        user = users.add(username, Passwords().hash(password), role="admin")
    except UsernameTaken:
        log.info("seed.unneeded")
    else:
        log.info("seed.completed", user_id=user.id)


if __name__ == "__main__":
    main()
