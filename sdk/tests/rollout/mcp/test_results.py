"""What a model reads of a tool's result."""

from types import SimpleNamespace
from typing import Any

import pytest
from fastmcp.tools import ToolResult
from mcp.types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, ResourceLink, TextContent
from support.mcp_agents import tool_result

from osmosis_ai.rollout.core.tools import ContentParts
from osmosis_ai.rollout.mcp.agent_loop import _extract_tool_value
from osmosis_ai.rollout.mcp.results import MAX_IMAGE_BYTES, tool_result_content, tool_result_text

IMAGE = ImageContent(type="image", data="AAECAw==", mimeType="image/png")


@pytest.mark.parametrize(
    ("structured", "value"),
    [
        ({"result": 7}, 7),
        ({"result": None}, None),
        ({"result": {"a": 1}}, {"a": 1}),
        ({"result": 7, "unit": "m"}, {"result": 7, "unit": "m"}),
        ({"sum": 7}, {"sum": 7}),
        ({}, {}),
        ([1, 2], [1, 2]),
    ],
)
def test_structured_content_is_the_value(structured: Any, value: Any) -> None:
    assert _extract_tool_value(tool_result(structured, "ignored")) == value


@pytest.mark.parametrize(("texts", "value"), [((), ""), (("",), ""), (("a",), "a"), (("a", "", "b"), "a\nb")])
def test_without_structured_content_the_texts_are_the_value(texts: tuple[str, ...], value: str) -> None:
    assert _extract_tool_value(tool_result(None, *texts)) == value


@pytest.mark.parametrize("content", [None, [], [SimpleNamespace(text=None)], [object()]])
def test_no_content_is_an_empty_text(content: Any) -> None:
    assert _extract_tool_value(SimpleNamespace(structured_content=None, content=content)) == ""


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (IMAGE, "[image: image/png, 4 bytes]"),
        (AudioContent(type="audio", data="AAEC", mimeType="audio/wav"), "[audio: audio/wav, 3 bytes]"),
        (SimpleNamespace(data="AAEC", mimeType="image/gif"), "[attachment: image/gif, 3 bytes]"),
        (SimpleNamespace(type="image"), "[image]"),
        (
            ResourceLink(type="resource_link", uri="file:///report.pdf", name="Report"),
            "[link: file:///report.pdf, Report]",
        ),
        (
            EmbeddedResource(
                type="resource",
                resource=BlobResourceContents(uri="file:///a.bin", mimeType="application/zip", blob="AAEC"),
            ),
            "[resource: file:///a.bin, application/zip, 3 bytes]",
        ),
        (SimpleNamespace(type="resource", resource=SimpleNamespace(text="the text")), "the text"),
    ],
)
def test_an_attachment_is_described_in_a_line(block: Any, line: str) -> None:
    result = SimpleNamespace(structured_content=None, content=[TextContent(type="text", text="See:"), block])
    assert tool_result_text(result) == f"See:\n{line}"


def test_an_attachment_beside_structured_content_is_described_below_it() -> None:
    result = ToolResult(content=[TextContent(type="text", text="drawn"), IMAGE], structured_content={"width": 2})
    assert tool_result_text(result) == '{"width": 2}\n[image: image/png, 4 bytes]'


def test_results_of_other_versions_are_read_as_well() -> None:
    assert tool_result_text([SimpleNamespace(type="text", text="a"), IMAGE]) == "a\n[image: image/png, 4 bytes]"
    assert tool_result_text("plain") == "plain"
    assert tool_result_text({"a": 1}) == '{"a": 1}'


PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAECAw=="}}


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_images_are_parts_among_texts_in_their_order() -> None:
    texts = [TextContent(type="text", text=text) for text in ("before", "and", "after")]
    audio = AudioContent(type="audio", data="AAEC", mimeType="audio/wav")
    result = SimpleNamespace(structured_content=None, content=[texts[0], texts[1], IMAGE, texts[2], IMAGE, audio])
    assert tool_result_content(result) == ContentParts(
        [text_part("before\nand"), PART, text_part("after"), PART, text_part("[audio: audio/wav, 3 bytes]")]
    )


def test_an_image_beside_structured_content_follows_it() -> None:
    result = ToolResult(content=[TextContent(type="text", text="drawn"), IMAGE], structured_content={"width": 2})
    assert tool_result_content(result) == ContentParts([text_part('{"width": 2}'), PART])


def test_a_result_without_an_image_is_a_text() -> None:
    assert tool_result_content(tool_result(None, "a", "b")) == "a\nb"
    assert tool_result_content("plain") == "plain"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        ("", "image/png"),
        ("not base64", "image/png"),
        ("AAEC", "text/html"),
        ("AAEC", "image/png;base64,AAEC"),
        ("A" * (MAX_IMAGE_BYTES * 4 // 3 + 8), "image/png"),
    ],
)
def test_what_is_no_image_that_a_model_could_see_is_described(data: str, media_type: str) -> None:
    image = ImageContent(type="image", data=data, mimeType=media_type)
    content = tool_result_content(SimpleNamespace(structured_content=None, content=[image]))
    assert isinstance(content, str)
    assert content.startswith("[image: ")
