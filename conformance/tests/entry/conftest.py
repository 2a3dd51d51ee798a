from collections.abc import Iterator

import pytest
from servers.mutants import MUTANTS
from servers.serving import serving_in_a_thread
from servers.small import SmallServer


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a correct server with the key ``secret``."""
    with serving_in_a_thread(SmallServer(api_key="secret")) as url:
        yield url


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    """The URL of one without a key, which fails ``init.tools`` alone."""
    with serving_in_a_thread(MUTANTS["requires-what-is-not-there"].server()) as url:
        yield url
