"""Workers on a cluster: what size they have, what they share with whoever hired them, and who is given work."""

from dataclasses import replace

import pytest

from isthmus.core.cluster import Badge, Staff, losses
from isthmus.core.errors import ConfigError
from isthmus.core.ray_cluster import Cluster

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # Ray's own


class Adder:
    def add(self, number):
        return number + 1


class Stillborn:
    def __init__(self):
        raise RuntimeError("its module cannot be imported")


@pytest.mark.parametrize("size", [{"workers": 0}, {"cpus": 0}, {"gpus": -1}])
def test_a_worker_has_a_size(size):
    with pytest.raises(ConfigError, match="needs a processor"):
        Cluster(**size)


def test_a_worker_of_other_code_or_without_the_folder_is_refused(tmp_path):
    badge = Badge.mine(tmp_path)
    badge.check()
    with pytest.raises(ConfigError, match="install the same"):
        replace(badge, commit="another").check()
    badge.lay_down()
    with pytest.raises(ConfigError, match="all machines share"):
        badge.check()


def test_workers_that_fit_nowhere_are_refused(ray_nodes):
    with pytest.raises(ConfigError, match="fits into the cluster"):
        Staff(Cluster(ray_nodes.address, cpus=64), Adder)


def test_an_address_without_a_cluster_is_said(ray_nodes, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match="no Ray cluster at 192.0.2.1:1"):
        Cluster("192.0.2.1:1").connect()


def drawn(staff, wanted):
    """A worker, once one is free."""
    while not (worker := staff.free(wanted, 1.0)):
        pass
    return worker


def test_no_more_are_hired_than_find_work_or_room(ray_nodes):
    staff = Staff(Cluster(ray_nodes.address), Adder)
    assert staff.size == 2
    one = drawn(staff, wanted=1)
    assert staff.ray.get(one.add.remote(1)) == 2
    assert not staff._idle
    other = drawn(staff, wanted=5)
    assert other != one
    assert staff.free(wanted=5, seconds=1.0) is None
    staff.back(one)
    assert drawn(staff, wanted=5) == one
    staff.close()


def test_one_that_was_lost_while_idle_is_given_no_work(ray_nodes):
    staff = Staff(Cluster(ray_nodes.address, workers=1), Adder)
    lost = drawn(staff, wanted=1)
    staff.back(lost)
    staff.ray.kill(lost)
    with pytest.raises(losses()):
        staff.ray.get(lost.add.remote(1))
    another = drawn(staff, wanted=1)
    assert another != lost
    assert staff.ray.get(another.add.remote(1)) == 2
    staff.close()


def test_workers_that_never_begin_are_not_hired_for_ever(ray_nodes):
    staff = Staff(Cluster(ray_nodes.address, workers=1), Stillborn)
    with pytest.raises(ConfigError, match="cannot be imported"):
        drawn(staff, wanted=1)
    staff.close()
