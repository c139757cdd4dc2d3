"""Users log in as often as the gateway lets them, and share what they have beyond that."""

import threading
import time

from loadtest.tokens import Token, Tokens


def token(text="one", seconds=60.0):
    return Token(text, time.monotonic() + seconds)


def test_a_spike_of_users_logs_in_at_the_rate_and_shares_the_rest():
    tokens, logins, taken = Tokens(5), [], []

    def log_in():
        logins.append(time.monotonic())
        time.sleep(0.05)
        return token(str(len(logins)))

    threads = [threading.Thread(target=lambda: taken.append(tokens.take(log_in))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(taken) == 50
    assert all(taken)
    assert len(logins) == 1


def test_who_comes_later_logs_in_again():
    tokens, logins = Tokens(100), []
    for text in "abc":
        tokens.take(lambda text=text: logins.append(text) or token(text))
        time.sleep(0.02)
    assert logins == ["a", "b", "c"]


def test_a_token_that_is_old_is_not_shared():
    tokens = Tokens(1000)
    tokens.take(lambda: token("old", seconds=0.01))
    time.sleep(0.02)
    assert tokens.take(lambda: None) is None
    assert tokens.take(lambda: token("new")).text == "new"


def test_when_logins_fail_others_go_on_with_what_is_held():
    tokens = Tokens(1000)
    assert tokens.take(lambda: None) is None
    assert tokens.take(lambda: token("held")).text == "held"
    time.sleep(0.01)
    assert tokens.take(lambda: None).text == "held"
