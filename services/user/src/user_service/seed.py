"""The seed step: makes the demo admin, once. `python -m user_service.seed`."""

import argparse

from servicekit import logs
from servicekit.config import load
from servicekit.database import Database
from servicekit.metrics import Metrics
from user_service.domain import UsernameTaken
from user_service.passwords import Passwords
from user_service.settings import SeedSettings, UserSettings
from user_service.store import Users

_DEMO = ("admin", "password")  # the documented demo login: the one password that everybody may know


def main() -> None:
    """Make the demo admin unless it exists or `SEED_DEMO_ADMIN` is false."""
    argparse.ArgumentParser(
        prog="python -m user_service.seed",
        description="Make the demo login admin / password, once. SEED_DEMO_ADMIN=false: make nothing.",
    ).parse_args()
    logs.configure("user-service")
    log = logs.get_logger()
    if not load(SeedSettings).seed_demo_admin:
        log.info("seed.skipped")
        return
    username, password = _DEMO
    users = Users(Database(load(UserSettings), "user-service-seed", Metrics()))
    try:
        user = users.add(username, Passwords().hash(password), role="admin")
    except UsernameTaken:
        log.info("seed.unneeded")
    else:
        log.info("seed.completed", user_id=user.id)


if __name__ == "__main__":
    main()
