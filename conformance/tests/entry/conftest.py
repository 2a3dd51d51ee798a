from collections.abc import Iterator

import pytest
from servers.broken.inits import RequiresAnUnknownParameter
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
    with serving_in_a_thread(RequiresAnUnknownParameter()) as url:
        yield url
