import pytest

from center.service_lock import alone, served
from protocol.errors import BadInputError


def test_one_serves_and_others_can_see_it(tmp_path) -> None:
    assert not served(tmp_path)
    with alone(tmp_path):
        assert served(tmp_path)
        with pytest.raises(BadInputError, match=r"serves in .* already"), alone(tmp_path):
            pass
    assert not served(tmp_path)
    with alone(tmp_path):
        pass
