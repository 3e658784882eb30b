"""Groups of neighbours up to a bound."""

from retinanet.detection.grouping import group_neighbours


def test_neighbours_share_a_group_up_to_the_bound() -> None:
    assert list(group_neighbours([40, 60, 1, 120, 0, 30], sum, 100)) == [[40, 60], [1], [120], [0, 30]]
    assert list(group_neighbours([1, 2, 3], sum, 0)) == [[1], [2], [3]]
    assert list(group_neighbours([], sum, 100)) == []
