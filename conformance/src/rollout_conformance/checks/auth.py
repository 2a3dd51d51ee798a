"""The server's own key. Whether the server has one is known by whether the kit was given one."""

import base64

from rollout_conformance.asking import describe
from rollout_conformance.catalogue import check
from rollout_conformance.kit import Kit
from rollout_conformance.scripts import encoded
from rollout_conformance.text import LEAST_SECRET_CHARACTERS
from rollout_conformance.vocabulary import Failed, NotExercised, Skipped

LONG_BYTES = 2048
CHUNKED = "Transfer-Encoding: chunked"


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
    swapped = key.swapcase() if key.swapcase() != key else f"y{key}"
    for bad in (f"{key}x", f"x{key}", key[:-1] or "x", swapped, "wrong", f"{key} {key}", f"{key},x"):
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
    known = await kit.start()
    await known.result()
    another = {**known.init, "messages": [{"role": "user", "content": "another body under a used key"}]}
    for what, body, headers in (
        ("a bad body", b'{"rollout_id": 7}', {}),
        ("a body that is no JSON", b"{", {}),
        ("a body of text/plain", encoded(kit.play().init), {"Content-Type": "text/plain"}),
        ("another body under a used key", encoded(another), {}),
    ):
        response = await kit.post(body, key="wrong", headers=headers)
        if response.status_code != 401:
            raise Failed(f"401 to {what} with a wrong key", describe(response))
    for framing, begun in (("Content-Length: 1000", b""), (f"Content-Length: {2**30}", b""), (CHUNKED, b"400\r\n{")):
        if (told := await kit.with_key("wrong").post_head(framing, begun)) != 401:
            what = f"401 to the head of an init with '{framing}' and a wrong key, before all of its body"
            raise Failed(what, str(told) if told else "none")


@check("auth.hostile", "key-1", "Odd Authorization headers are 401, never 5xx.")
async def hostile(kit: Kit) -> None:
    key = _key(kit)
    for value in (
        b"Bearer \xff\xfe",
        "Bearer schl\u00fcssel".encode(),
        b"Bearer",
        b"Bearer null",
        b"Bearer undefined",
        b"Basic YTpi",
        b"Basic " + base64.b64encode(f"user:{key}".encode()),
        b"Token " + key.encode(),
        b"Bearer " + b"x" * 4096,
    ):
        response = await kit.post(kit.play().init, key="", headers={"Authorization": value})
        # What lies below may refuse bytes beyond ASCII, and a long line.
        is_other = value.isascii() and len(value) < LONG_BYTES
        if response.status_code != 401 and (is_other or not 400 <= response.status_code < 500):
            raise Failed(f"401 to an init with 'Authorization: {value[:20]!r}...'", describe(response))


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
    for how, stranger in (("without a key", kit.with_key(None)), ("with a wrong key", kit.with_key("wrong"))):
        for what, answer in (
            ("the state of a rollout", await stranger.status(rollout.rollout_id)),
            ("the cancel of a rollout", await stranger.cancel(rollout.rollout_id)),
            ("the state of an unknown rollout", await stranger.status("kit-nobody")),
        ):
            if answer.status_code != 401:
                raise Failed(f"401 to a request for {what}, {how}", describe(answer))
        # These need not be there.
        for path, body in (("/platform/health", None), ("/v1/rollout/cancel", {"ids": ["kit-nobody"]})):
            answer = await stranger.ask("GET" if body is None else "POST", path, body)
            if answer.status_code not in (401, 404, 405):
                raise Failed(f"401 to {path}, {how}, where it is there", describe(answer))


@check("auth.secret", "key-10 err-3", "The server's key is in no answer.")
async def secret(kit: Kit) -> None:
    if len(key := _key(kit)) < LEAST_SECRET_CHARACTERS:
        raise NotExercised(f"a key of {len(key)} characters may be in an answer by chance: give a longer one")
    answers = [await kit.post(kit.play().init, key=bad) for bad in ("", "wrong", key[:-1] or "x")]
    answers += [await kit.post({}), await kit.get("/health"), await kit.status("kit-nobody")]
    answers += [await kit.get("/ready"), await kit.get("/v1/no-such-thing"), await kit.cancel("kit-nobody")]
    for answer in answers:
        if key in answer.text or any(key in value for value in answer.headers.values()):
            raise Failed(f"an answer {answer.status_code} without the server's key", "the key in it")
