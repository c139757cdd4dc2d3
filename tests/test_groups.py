"""Tests of a group share a worker. When that fails it fails in silence: each worker starts a stack of its own."""

import pytest


@pytest.mark.xdist_group("told-together")
def test_a_worker_knows_the_group_of_a_test(request):
    distributed = hasattr(request.config, "workerinput") and request.config.option.loadgroup
    assert request.node.nodeid.endswith("@told-together") is distributed
