"""The trainer's way to its rollout server: POSTs with the server's key, over connections that are kept."""

from osmosis_ai.rollout.wire.channel import Reply
from osmosis_ai.rollout.wire.channels import direct_channel


class ServerLine:
    """To the server at ``server_url``, in the running event loop; no proxy is asked.

    Args:
        max_idle: connections that stay open when nothing is sent.
    """

    def __init__(self, server_url: str, server_api_key: str | None, max_idle: int) -> None:
        self.server_url = server_url
        self._channel = direct_channel(server_url, max_idle)
        self._headers = {"Content-Type": "application/json"}
        if server_api_key:
            self._headers["Authorization"] = f"Bearer {server_api_key}"

    async def post(self, path: str, body: bytes, limit_seconds: float) -> Reply:
        """The reply to one attempt.

        Raises:
            httpx.RequestError: there is none.
        """
        return await self._channel.post(self.server_url + path, body, self._headers, limit_seconds)

    async def close(self) -> None:
        """Close what is idle."""
        await self._channel.aclose()
