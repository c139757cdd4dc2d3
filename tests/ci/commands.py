"""The commands of the workflows: what runs each of them here, or why nothing does.

CONTRIBUTING.md has the second table; a test compares the two.
"""

CI_RUN = ".ci/run"

HERE = {
    "make lint": CI_RUN,
    "make test": CI_RUN,
    "make lint test": CI_RUN,
    "make test-slow": CI_RUN,
    "make test-compose": CI_RUN,
    "make images": CI_RUN,
    "make test-kubernetes": CI_RUN,
    "make up": "tests/local",
    "make down": "tests/local",
    "make kills": "tests/e2e/test_kills.py, one round of it",
    "make fuzz": "tests/embedded and tests/e2e/test_openapi.py, with less input",
    "make bench-judge": "tests/bench/test_judge.py",
    "make nightly-page": "tests/bench/test_page.py",
    "make release-join": "tests/release/test_join.py, with a stub of docker",
    "make release-files": "tests/release/test_files.py, with a stub of docker",
    "release/propose.sh": "tests/ci/test_scripts.py, with a repository of its own and a stub of gh",
    "mkdir": "tests/ci/test_scripts.py",
    "cat": "tests/ci/test_scripts.py",
    "Pull the image, and log out": "tests/ci/test_scripts.py, with a stub of docker",
    "Refuse a version that is out": "tests/ci/test_scripts.py, with a stub of gh",
    "Sign, and verify as a user would": "tests/ci/test_scripts.py, with a stub of cosign",
    "Make the release's page": "tests/ci/test_scripts.py, with a stub of gh",
    "Open an issue, or add to the one that is open": "tests/ci/test_scripts.py, with a stub of gh",
}

NOT_HERE = {
    "sudo sysctl": "changes a setting of Ubuntu's kernel",
    "docker compose": "pulls all official images",
    "make backends": "takes programs out of official images; tests run it with a stub of docker",
    "make kind": "needs kind, and a metrics-server from the network; tests run it with stubs",
    "kind export": "needs kind",
    "make release-images": "pushes to a registry; what bake would build is compared with the other files",
    "make bench": "ten minutes on a machine that does nothing else; its parts have tests",
    "make bench-before": "as the bench",
    "make scenarios": "a quarter of an hour; `make test-slow` runs all scenarios too",
    "make lock": "asks for the newest versions, so it gives another result each day",
}
