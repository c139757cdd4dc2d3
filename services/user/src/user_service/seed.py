"""The seed step: creates the demo admin, or closes that login. Run it by `python -m user_service.seed`."""

import argparse

from servicekit.config import ConfigError, load
from servicekit.database.pool import Database
from servicekit.telemetry import logs
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer
from shop import DATABASE
from user_service.domain import Login, UsernameTaken
from user_service.passwords import Passwords
from user_service.settings import SeedSettings, UserSettings
from user_service.store import Users

_DEMO = ("admin", "password")  # the documented demo login, with its publicly known password


def main() -> None:
    """Open the demo login, or close it if `SEED_DEMO_ADMIN` is false."""
    parser = argparse.ArgumentParser(
        prog="python -m user_service.seed",
        description="Make the demo login admin / password, or open it again. SEED_DEMO_ADMIN=false: close it.",
    )
    parser.parse_args()
    logs.configure("user-service")
    try:
        seed, settings = load(SeedSettings), load(UserSettings)
    except ConfigError as error:
        parser.error(str(error))
    users = Users(Database(settings, "user-service-seed", Metrics(), Tracer(), peer=DATABASE))
    if seed.seed_demo_admin:
        _open(users, Passwords())
    else:
        _close(users, Passwords())


def _open(users: Users, passwords: Passwords) -> None:
    username, password = _DEMO
    log = logs.get_logger()
    login = users.login(username)
    if login is not None and login.closed and _is_the_demo(login, passwords):
        users.close_login(login.user.id, closed=False)
        log.warning("seed.reopened", user_id=login.user.id)
        return
    if login is None:
        try:
            user = users.add(username, passwords.hash(password), role="admin")
        except UsernameTaken:
            pass  # another seed step has created it meanwhile
        else:
            log.info("seed.completed", user_id=user.id)
            return
    log.info("seed.unneeded")


def _close(users: Users, passwords: Passwords) -> None:
    login = users.login(_DEMO[0])
    if login is None or login.closed or not _is_the_demo(login, passwords):
        logs.get_logger().info("seed.skipped")
        return
    users.close_login(login.user.id, closed=True)
    # Issued tokens are not stored, so they stay valid until they expire.
    logs.get_logger().warning("seed.closed", user_id=login.user.id)


def _is_the_demo(login: Login, passwords: Passwords) -> bool:
    """Tell whether it is an admin's login with the known password. Otherwise it is the login of a real user."""
    return login.user.role == "admin" and passwords.matches(login.password_hash, _DEMO[1])


if __name__ == "__main__":
    main()
