import inspect

import pytest

from cnn_jax import matching
from cnn_jax._typing import Score
from tests.helpers.oracles import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_score_takes_what_the_protocol_says(name):
    score: Score = getattr(matching, name)
    bound = inspect.signature(score).bind("image", "feature", mask=None)
    assert list(bound.arguments) == ["image", "feature", "mask"]
