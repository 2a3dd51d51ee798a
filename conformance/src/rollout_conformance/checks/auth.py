"""The server's own key. Whether the server has one is known by whether the kit was given one."""

from rollout_conformance.catalogue import check
from rollout_conformance.kit import Kit, describe
from rollout_conformance.vocabulary import Failed, Skipped


def _key(kit: Kit) -> str:
    if not kit.options.api_key:
        raise Skipped("no key was given: the server takes inits without one")
    return kit.options.api_key


async def _require_taken(kit: Kit, header: str) -> None:
    rollout = kit.play()
    response = await kit.post(rollout.init, key="", headers={"Authorization": header.replace("<key>", _key(kit))})
    if response.status_code != 202:
        raise Failed(f"202 to an init with 'Authorization: {header}'", describe(response))
    kit.took(rollout, response)
    await rollout.result()


@check("auth.missing", "key-1", "An init without a key is 401.")
async def missing(kit: Kit) -> None:
    _key(kit)
    response = await kit.post(kit.play().init, key="")
    if response.status_code != 401:
        raise Failed("401 to an init without a key (or no --api-key, for a server that has none)", describe(response))


@check("auth.wrong", "key-1", "An init with another key is 401, also one that nearly fits.")
async def wrong(kit: Kit) -> None:
    key = _key(kit)
    for bad in (f"{key}x", key[:-1] or "x", key.swapcase() if key.swapcase() != key else f"y{key}", "wrong"):
        response = await kit.post(kit.play().init, key=bad)
        if response.status_code != 401:
            raise Failed("401 to an init with a wrong key", describe(response))


@check("auth.scheme", "key-5", "The scheme word Bearer is read in any case.")
async def scheme(kit: Kit) -> None:
    await _require_taken(kit, "bEARER <key>")


@check("auth.raw_key", "key-6", "A header that holds just the key is accepted.")
async def raw_key(kit: Kit) -> None:
    await _require_taken(kit, "<key>")


@check("auth.first", "key-2", "The key is looked at before the body: a stranger learns nothing from 422.")
async def first(kit: Kit) -> None:
    _key(kit)
    response = await kit.post(b'{"rollout_id": 7}', key="wrong")
    if response.status_code != 401:
        raise Failed("401 to a bad body with a wrong key", describe(response))


@check("auth.hostile", "key-1", "Odd Authorization headers are 401, never 5xx.")
async def hostile(kit: Kit) -> None:
    _key(kit)
    for value in (
        b"Bearer \xff\xfe",
        "Bearer schl\u00fcssel".encode(),
        b"Bearer",
        b"Basic YTpi",
        b"Bearer " + b"x" * 4096,
    ):
        response = await kit.post(kit.play().init, key="", headers={"Authorization": value})
        if not 400 <= response.status_code < 500:
            raise Failed("401 to an odd Authorization header", describe(response))


@check("auth.challenge", "key-3", "A 401 has WWW-Authenticate: Bearer.")
async def challenge(kit: Kit) -> None:
    _key(kit)
    response = await kit.post(kit.play().init, key="wrong")
    sent = response.headers.get("www-authenticate", "none")
    if response.status_code == 401 and sent.partition(" ")[0].lower() != "bearer":
        raise Failed("WWW-Authenticate: Bearer with a 401", sent)


@check("auth.everywhere", "key-1", "State and cancel ask for the key too.")
async def everywhere(kit: Kit) -> None:
    _key(kit)
    rollout = await kit.start()
    await rollout.result()
    stranger = kit.without_key()
    for what, answer in (
        ("state", await stranger.status(rollout.rollout_id)),
        ("cancel", await stranger.cancel(rollout.rollout_id)),
    ):
        if answer.status_code != 401:
            raise Failed(f"401 to a request for the {what} of a rollout, without a key", describe(answer))


@check("auth.secret", "key-10", "The server's key is in no answer.")
async def secret(kit: Kit) -> None:
    key = _key(kit)
    answers = [await kit.post(kit.play().init, key=bad) for bad in ("", "wrong", key[:-1] or "x")]
    answers += [await kit.post({}), await kit.get("/health"), await kit.status("kit-nobody")]
    for answer in answers:
        if key in answer.text or any(key in value for value in answer.headers.values()):
            raise Failed(f"an answer {answer.status_code} without the server's key", "the key in it")
