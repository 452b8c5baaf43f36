import made_sources
import pytest


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    return made_sources.make(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def clutter(tmp_path_factory, sources):
    from lidcam_training.data.clutter import make_clutter_fashion

    folder = tmp_path_factory.mktemp("data") / "clutter"
    make_clutter_fashion(
        folder, train=160, val=40, test=40, size=32, source=sources[0], backgrounds=sources[1]
    )
    return folder
