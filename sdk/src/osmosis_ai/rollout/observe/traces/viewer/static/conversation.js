// A rollout's conversation out of its events; tool calls stand with their results.
const Conversation = (() => {
  const { el, block } = Text;

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

  function messagesOf(events) {
    let messages = [], final = false, prompt = 0;
    for (const event of events) {
      if (event.event === "trace_start" && event.request?.messages) {
        messages = event.request.messages;
        prompt = messages.length;
      } else if ((event.event === "rollout_result" || event.event === "rollout_complete") && event.final_messages) {
        // A rollout that failed before its first turn has no messages in its result, but it was asked something.
        if ((event.event === "rollout_result" || !final) && event.final_messages.length) messages = event.final_messages;
        final = true;
      } else if (event.event === "rollout_result") {
        final = true;  // a report leaves out what is in the turns
      } else if (final) {
        continue;
      } else if (event.event === "chat_start" && event.at !== undefined && event.appended) {
        messages = [...messages.slice(0, event.at), ...event.appended];
      } else if (event.event === "chat_end" && event.reply) {
        messages = [...messages, event.reply];
      }
    }
    return { messages, prompt, final };
  }

  const IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+$/;

  // Images are shown from data URLs alone: nothing is fetched, so nobody learns that a trace was read.
  function part(one, asReply) {
    if (typeof one?.text === "string") return asReply ? Markdown.reply(one.text) : block(one.text);
    const url = one?.image_url?.url ?? one?.image_url;
    if (typeof url === "string") {
      if (IMAGE.test(url)) return el("img", { class: "picture", src: url, alt: "Image of the message", loading: "lazy" });
      return el("div", { class: "attached", dir: "auto", text: `image, not fetched: ${url.startsWith("data:") ? `${url.slice(0, 40)}… (${url.length.toLocaleString("en")} characters)` : url.slice(0, 500)}` });
    }
    const audio = one?.input_audio?.data;
    if (typeof audio === "string") return el("div", { class: "attached", text: `audio, ${one.input_audio.format ?? "unknown format"}, ${Math.round(audio.length * 0.75 / 1000).toLocaleString("en")} kB` });
    return block(Text.json(one), "code");
  }

  function contentOf(message, asReply = message.role === "assistant") {
    const content = message.content;
    if (content === null || content === undefined || content === "") return null;
    if (typeof content === "string") return asReply ? Markdown.reply(content) : block(content);
    if (Array.isArray(content)) return el("div", null, Text.first(content, "parts", (one) => part(one, asReply)));
    return block(Text.json(content), "code");
  }

  const textOf = (message) => typeof message?.content === "string" ? message.content : Array.isArray(message?.content) ? message.content.map((one) => one?.text ?? "").join("\n") : message?.content ? Text.json(message.content) : "";

  const inOrder = (_, value) => isObject(value) ? Object.fromEntries(Object.entries(value).sort()) : value;
  function argumentsOf(call, revive) {
    const given = call.function?.arguments;
    if (typeof given !== "string") return given === undefined || given === null ? "" : Text.json(given);
    try {
      const parsed = JSON.parse(given, revive);
      const short = JSON.stringify(parsed);
      return short.length <= 80 ? short.replace(/([,:])(?=\S)/g, "$1 ") : Text.json(parsed);
    } catch { return given; }
  }

  function callNode(call, result, told) {
    const content = result ? (typeof result.content === "string" ? result.content : Text.json(result.content)) : null;
    const failed = told ? told.outcome !== "ok" : /^error\b/i.test(content ?? "");
    const missing = !result;
    return el("div", { class: `call${failed || missing ? " failed" : ""}` },
      el("div", { class: "call-head" },
        el("span", { class: "tool-name", dir: "auto", text: call.function?.name ?? "unknown tool" }),
        failed ? el("span", { class: "chip bad", text: told?.outcome ?? "error" }) : null,
        told ? el("span", { class: "dim", text: Text.duration(told.latency_ms) }) : null,
        call.id ? el("span", { class: "dim call-id", dir: "auto", text: call.id }) : null,
        Text.copyButton("call", () => Text.json({ name: call.function?.name, arguments: call.function?.arguments, result: content }))),
      block(argumentsOf(call), "code arguments"),
      missing ? el("div", { class: "result none", text: "no result in the conversation" })
        : el("div", { class: "result" }, el("span", { class: "arrow", "aria-hidden": "true", text: "→" }), block(content, "code")));
  }

  const saidBy = (message) => JSON.stringify([message.content || "", message.tool_calls ?? []]);

  function render(events, longer) {
    const isRewritten = events.some((event) => event.event === "messages_rewritten" || event.extra_fields?.messages_rewritten);
    const { messages, prompt, final } = messagesOf(events);
    const ends = events.filter((event) => event.event === "chat_end");
    const replies = ends.filter((event) => event.error === undefined);
    const told = new Map(events.filter((event) => event.event === "tool_call").map((event) => [`${event.turn}/${event.tool_call_id}`, event]));
    const said = [];
    let turn = 0;
    for (let index = 0; index < messages.length; index += 1) {
      const message = messages[index];
      const role = message.role ?? "unknown";
      const isReply = role === "assistant" && index >= prompt;
      const end = isReply ? replies[turn] : null;
      if (isReply) turn += 1;
      const number = end?.turn ?? turn;
      const calls = message.tool_calls ?? [];
      const results = [];
      if (calls.length) {
        while (index + 1 < messages.length && messages[index + 1].role === "tool") results.push(messages[index += 1]);
      }
      const was = isRewritten && end?.reply && saidBy(end.reply) !== saidBy(message) ? end.reply : null;
      const usage = end?.usage;
      const paired = calls.map((call, position) => {
        let at = results.findIndex((result) => result.tool_call_id === call.id);
        if (at < 0 && results.length && results[0].tool_call_id === undefined) at = 0;
        return [call, at < 0 ? null : results.splice(at, 1)[0], told.get(`${end?.turn}/${call.id}`)];
      });
      said.push(() => el("article", { class: `message ${["system", "user", "assistant", "tool"].includes(role) ? role : "other"}${was ? " rewritten" : ""}`, id: isReply ? `turn-${number}` : null },
        el("header", null, el("b", { text: isReply ? `assistant · turn ${number}` : role }),
          message.name ? el("span", { class: "dim", text: message.name }) : null,
          end ? el("span", { class: "dim", text: [Text.duration(end.latency_ms), usage ? `${usage.prompt_tokens ?? "?"} + ${usage.completion_tokens ?? "?"} tokens` : null, end.finish_reason].filter(Boolean).join(" · ") }) : null,
          textOf(message) ? Text.copyButton("message", () => textOf(message)) : null),
        message.reasoning_content ? el("details", { class: "reasoning" }, el("summary", { text: "Reasoning" }), block(message.reasoning_content)) : null,
        contentOf(message) ?? (calls.length ? null : el("div", { class: "dim", text: "(empty)" })),
        was ? el("div", { class: "rewrite" }, el("b", { text: "Changed by the agent. The model had said:" }), contentOf(was, false) ?? block("(no text)")) : null,
        Text.first(paired, "calls", (one) => callNode(...one)),
        Text.first(results, "results", (result) => el("div", { class: "call failed" }, el("div", { class: "result none", text: `result for a call that was not made (${result.tool_call_id ?? "no id"})` }), contentOf(result)))));
    }
    const failure = (end) => el("article", { class: "message failure" }, el("header", null, el("b", { text: `model call ${end.turn ?? "?"} failed` }), el("span", { class: "dim", text: Text.duration(end.latency_ms) })), block(Text.saidBy(end.error)));
    const nodes = [...Text.first(said, "messages", (draw) => draw(), longer), ...Text.first(ends.filter((event) => event.error !== undefined), "failed calls", failure)];
    if (!final && messages.length) nodes.push(el("p", { class: "dim", text: "No result yet: this is what was said so far." }));
    if (!nodes.length) nodes.push(el("p", { class: "dim", text: "The trace holds no messages." }));
    return el("div", { class: "conversation" }, nodes);
  }

  // The turns of a rollout as they compare with another's: what was thought and said, and each call with what came of it.
  function turnsOf(events) {
    const { messages, prompt } = messagesOf(events), turns = [];
    for (let index = prompt; index < messages.length; index += 1) {
      const message = messages[index];
      if (message.role !== "assistant") continue;
      const calls = (message.tool_calls ?? []).map((call) => {
        const result = messages.slice(index + 1).find((one) => one.role === "tool" && one.tool_call_id === call.id);
        return { name: call.function?.name ?? "unknown tool", arguments: argumentsOf(call, inOrder), result: result ? textOf(result) : null };
      });
      const pieces = Markdown.parts(textOf(message)), joined = (isThought) => pieces.filter((one) => one.isThought === isThought).map((one) => one.text);
      turns.push({ thought: [message.reasoning_content, ...joined(true)].filter(Boolean).join("\n\n"), text: joined(false).join("\n\n"), calls });
    }
    return turns;
  }

  // What the init asked last: of this a row has the beginning.
  const askedOf = (events) => textOf(events.find((event) => event.event === "trace_start")?.request?.messages?.at(-1));

  return { render, turnsOf, askedOf, textOf };
})();
