"""The pictures of the article's worked example, against the tests' own copy."""

import numpy as np

from experiments._lib import article
from tests.helpers.article import FEATURES, IMAGES


def test_pictures_are_the_articles():
    np.testing.assert_array_equal(list(article.IMAGES.values()), IMAGES)
    np.testing.assert_array_equal(list(article.FEATURES.values()), FEATURES)
