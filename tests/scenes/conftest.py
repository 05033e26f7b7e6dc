import pytest

from dreamline.scenes.world import SHAPES, STYLES, World


@pytest.fixture(scope="session")
def demo() -> World:
    return World()


@pytest.fixture(scope="session")
def rich() -> World:
    """A world with everything: 64 px, 3x3 cells, all shapes, two sizes, jitter and outlines."""
    return World(
        size=64, grid=3, max_objects=5, shapes=SHAPES, sizes=("small", "large"), styles=STYLES, radius=7.2, jitter=1.0
    )


@pytest.fixture(params=["demo", "rich"], scope="session")
def world(request: pytest.FixtureRequest) -> World:
    return request.getfixturevalue(request.param)
